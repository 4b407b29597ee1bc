"""Where the time of a step goes: a trace of some steps for XProf or Perfetto, and its costliest operations."""

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
    """Of one operation of the compiled step."""

    name: str  # in the compiled program
    source: str  # where in the model it comes from; of a fused operation, where its last part does
    milliseconds: float  # a step
    calls: float  # a step


class Profiler:
    """Traces `TRACED` steps of a run, once the first `SKIPPED` are done; unless it is wanted, it does nothing."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        self._folder, self._wanted, self._tracing = folder, wanted, False

    def after(self, steps: int, state: object, programs: Iterable[jax.stages.Compiled]) -> str:
        """To be called after each step.

        Args:
          steps: of this process so far.
          state: what the newest step gives; is waited for.
          programs: that the steps have run.

        Returns:
          When the trace is whole, a table for people; otherwise nothing.
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
        found = costs(self._folder, [program.as_text() for program in programs], TRACED)
        return f"{cost_table(found)}\ntrace of {TRACED} steps, for XProf or Perfetto: {self._folder}"

    def close(self) -> None:
        """Of a run that ended before its trace was whole, there is none."""
        if self._tracing:
            jax.profiler.stop_trace()
        if self._wanted:
            print(f"no profile: the run ended before its step {SKIPPED + TRACED}")


def costs(folder: Path, programs: list[str], steps: int) -> list[Cost]:
    """What each operation of the programs took in the newest trace in `folder`, the costliest first.

    Args:
      folder: given to `jax.profiler.start_trace`.
      programs: their texts, as compiled.
      steps: in the trace.
    """
    modules = {_MODULE.match(text)["name"] for text in programs}
    sources = {found["name"]: found["path"] for text in programs for found in _INSTRUCTION.finditer(text)}
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


def by_module(found: list[Cost]) -> collections.Counter[str]:
    """Milliseconds a step of each module of the model, forward and backward and all its layers together."""
    milliseconds: collections.Counter[str] = collections.Counter()
    for each in found:
        parts = each.source.split("/")[:-1]  # the last is the operation
        modules = [part for part in parts if not part.startswith(_TRANSFORMATIONS) and "->" not in part]
        name = re.sub(r"_\d+(?=/|$)", "_#", "/".join(modules[:_DEPTH]))
        milliseconds[name or "outside the model"] += each.milliseconds
    return milliseconds


def cost_table(found: list[Cost]) -> str:
    """The costliest operations as lines of text, and the modules of the model that take a hundredth of the time."""
    total = sum(each.milliseconds for each in found)
    lines = [f"The costliest of {len(found):,} operations; all take {total:,.1f} ms a step"]
    for each in found[:COSTLIEST]:
        source = "/".join(
            part for part in each.source.split("/") if not part.startswith(("jit(", "jvp(", "while", "body"))
        )
        lines.append(f"{each.milliseconds:>9.2f} ms {each.milliseconds / total:>6.1%}  {each.name:<32} {source}")
    lines.append("By module; a fused operation counts where its last part does")
    lines += [
        f"{time:>9.2f} ms {time / total:>6.1%}  {name}"
        for name, time in by_module(found).most_common()
        if time > total / 100
    ]
    return "\n".join(lines)
