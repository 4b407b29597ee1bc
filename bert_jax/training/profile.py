"""Traces some steps of a run for XProf or Perfetto, and tables the costliest operations."""

import collections
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax

SKIPPED, TRACED = 10, 5  # steps before the trace, and in it
COSTLIEST = 10
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = .*metadata=\{[^}]*op_name=\"(?P<path>[^\"]*)\"", re.M)
_MODULE = re.compile(r"^HloModule (?P<name>[\w.\-]+)")
_TRANSFORMATIONS = ("jit(", "jvp(", "transpose(", "vmap(", "while", "body", "closed_call", "checkpoint", "remat")
_DEPTH = 5  # of names: bert/encoder/layer_#/attention/query
_CONTAINERS = re.compile(r"(while|call|conditional|async-start)([.\d]*)$")  # their time is that of what they hold


class Cost(NamedTuple):
    """Holds the time that one operation of the compiled step takes."""

    name: str  # in the compiled program
    source: str  # where in the model it comes from; for a fused operation, where its last part does
    milliseconds: float  # in a step
    calls: float  # in a step


class Profiler:
    """Traces `TRACED` steps of a run, once the first `SKIPPED` are done."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        """Takes the folder of the trace; if it is not wanted, every method does nothing."""
        self._folder, self._wanted, self._tracing = folder, wanted, False

    def after(self, steps: int, state: object, programs: Iterable[jax.stages.Compiled]) -> str:
        """Starts or ends the trace if it is time; called after each step.

        Args:
          steps: the number of steps that this process has run so far.
          state: the result of the newest step, which is waited for at both ends of the trace.
          programs: the compiled steps.

        Returns:
          A table for people once the trace is whole, otherwise an empty text.
        """
        if self._wanted and steps == SKIPPED:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        if not self._tracing or steps < SKIPPED + TRACED:
            return ""
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        self._wanted = self._tracing = False
        measured = costs(self._folder, [program.as_text() or "" for program in programs], TRACED)
        return f"{cost_table(measured)}\ntrace of {TRACED} steps, for XProf or Perfetto: {self._folder}"

    def close(self) -> None:
        """Gives up a trace that is not whole, and says so."""
        if self._tracing:
            jax.profiler.stop_trace()
        if self._wanted:
            print(f"no profile: the run ended before its step {SKIPPED + TRACED}")


def costs(folder: Path, programs: list[str], steps: int) -> list[Cost]:
    """Returns the time that each operation of the programs took in the newest trace of a folder, the costliest first.

    Args:
      folder: the folder given to `jax.profiler.start_trace`.
      programs: the texts of the compiled programs.
      steps: the number of traced steps.
    """
    modules = {name for text in programs for name in _MODULE.findall(text)}
    sources = {match["name"]: match["path"] for text in programs for match in _INSTRUCTION.finditer(text)}
    newest = max(folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    nanoseconds: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                name = stats.get("hlo_op", "")
                if name and stats.get("hlo_module") in modules and not _CONTAINERS.fullmatch(name):
                    nanoseconds[name] += event.duration_ns
                    calls[name] += 1
    return [
        Cost(name, sources.get(name, ""), total / 1e6 / steps, calls[name] / steps)
        for name, total in nanoseconds.most_common()
    ]


def by_module(operations: list[Cost]) -> dict[str, float]:
    """Returns the milliseconds of each module of the model in a step, forward and backward and all layers together."""
    milliseconds: dict[str, float] = collections.defaultdict(float)
    for operation in operations:
        parts = operation.source.split("/")[:-1]  # the last is the operation
        modules = [part for part in parts if not part.startswith(_TRANSFORMATIONS) and "->" not in part]
        name = re.sub(r"_\d+(?=/|$)", "_#", "/".join(modules[:_DEPTH]))
        milliseconds[name or "outside the model"] += operation.milliseconds
    return milliseconds


def cost_table(operations: list[Cost]) -> str:
    """Returns lines with the costliest operations, and with the modules that take a hundredth of the time or more."""
    total = sum(operation.milliseconds for operation in operations)
    lines = [f"The costliest of {len(operations):,} operations; all take {total:,.1f} ms a step"]
    for operation in operations[:COSTLIEST]:
        source = "/".join(
            part for part in operation.source.split("/") if not part.startswith(("jit(", "jvp(", "while", "body"))
        )
        share = operation.milliseconds / total
        lines.append(f"{operation.milliseconds:>9.2f} ms {share:>6.1%}  {operation.name:<32} {source}")
    lines.append("By module; a fused operation counts where its last part does")
    lines += [
        f"{time:>9.2f} ms {time / total:>6.1%}  {name}"
        for name, time in sorted(by_module(operations).items(), key=lambda item: -item[1])
        if time > total / 100
    ]
    return "\n".join(lines)
