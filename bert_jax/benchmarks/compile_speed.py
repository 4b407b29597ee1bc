"""How long it takes until the first step is done: compiled anew, and by a second process that finds it compiled.

Ours with its layers unrolled and scanned, beside PyTorch as it is and under torch.compile, each in a process of its own
with an empty cache, and then in another with what the first left; and the command of the quickstart as a user types it.
"""

import dataclasses
import functools
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_jax.benchmarks.our_step import Step, StepSetting, start_in
from bert_jax.benchmarks.their_step import Theirs, Way
from bert_jax.benchmarks.training_speed import chosen_dtype, full_batches, sized_rows
from bert_jax.benchmarks.turns import SideError, started
from bert_jax.config import ModelConfig
from bert_jax.errors import UserError

ROOT = Path(__file__).parents[2]
WAYS = (Way("sdpa"), Way("sdpa", compiled="default"))


def compile_suite(
    _workdir: Path, _model: str, *, sizes: list[str], length: int, source: str, rounds: int
) -> tuple[str, dict]:
    """The first step of each size, and the quickstart's.

    Args:
      sizes: SIZE or SIZE:ROWS.
      length: L.
      source: SOURCE that the quickstart reads.
      rounds: starts of each way; of the quickstart too.

    Raises:
      UserError: PyTorch is missing, or the quickstart fails.
    """
    if rounds < 1:
        raise UserError("starts want --rounds=1 at least")
    dtype = chosen_dtype()
    figures: dict[str, Any] = {"dtype": dtype, "dropout": 0.0, "length": length, "first_step": {}}
    for size, rows in sized_rows(sizes, length).items():
        print(f"{size}: {rows} rows of {length}", flush=True)
        setting = StepSetting(size, rows, length, dtype, ModelConfig.vocab_size)
        figures["first_step"][size] = first_steps(setting, rounds)
    print("the quickstart", flush=True)
    starts = [quickstart_starts(source) for _ in range(rounds)]
    figures["quickstart_of_rounds"] = {which: [start[which] for start in starts] for which in ("first", "second")}
    figures["quickstart"] = {name: statistics.median(each) for name, each in figures["quickstart_of_rounds"].items()}
    return compile_table(figures), figures


def first_steps(setting: StepSetting, rounds: int) -> dict[str, Any]:
    """Seconds of the parts of the first step of a first and a second process, in each way, the ways in turns; medians.

    Raises:
      UserError: PyTorch is missing.
    """
    batches = full_batches(setting.vocab_size, setting.rows, setting.length)[:1]
    found: dict[str, Any] = {"rows": setting.rows, "seconds_of_rounds": {}, "left_out": {}}
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "model"
        masked = start_in(start, setting, batches)["masked"]
        scanned = dataclasses.replace(setting, scan_layers=True)
        makes: dict[str, Callable] = {
            "bert_jax": functools.partial(Step, setting, batches, start),
            "bert_jax, scan_layers": functools.partial(Step, scanned, batches, start),
        }
        makes |= {way.name: functools.partial(Theirs, way, setting.dtype, start, masked) for way in WAYS}
        of_rounds = found["seconds_of_rounds"] = {name: [] for name in makes}
        for number, name in itertools.product(range(rounds), makes):
            if name in found["left_out"]:
                continue
            programs = Path(folder) / f"{number}-{list(makes).index(name)}"  # a C++ compiler wants no spaces in it
            try:
                of_rounds[name].append({which: first_step(makes[name], programs) for which in ("first", "second")})
            except SideError as error:  # torch.compile without a C++ compiler
                found["left_out"][name] = str(error).splitlines()[0]
                del of_rounds[name]
    found["seconds"] = {
        name: {which: median_parts([each[which] for each in starts]) for which in ("first", "second")}
        for name, starts in of_rounds.items()
    }
    return found


def median_parts(starts: list[dict[str, float]]) -> dict[str, float]:
    """Of each part the median of several starts."""
    return {part: statistics.median([start[part] for start in starts]) for part in starts[0]}


def first_step(make: Callable, programs: Path) -> dict[str, float]:
    """Seconds of the parts of the first step in a new process that keeps what it compiles in `programs`."""
    with started(functools.partial(make, programs=programs)) as side:
        return side.facts["first_step"]


def quickstart_starts(source: str) -> dict[str, float]:
    """Seconds from the quickstart's command to its first step: of a first start, and of one that goes on.

    The first makes the vocabulary and the corpus of `source`; the second has these and the compiled programs.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # as in bert_jax/runtime/command.py
        }
        command = [
            *(sys.executable, str(ROOT / "scripts/pretrain.py"), f"--config={ROOT}/configs/pretrain/quickstart.py"),
            *(f"--workdir={folder}/run", f"--config.data.source={source}"),
            *("--config.total_minutes=0", "--config.log_every=1"),
        ]
        return {
            name: seconds_to_first_step([*command, f"--config.total_steps={steps}"], environment)
            for name, steps in (("first", 1), ("second", 2))
        }


def seconds_to_first_step(command: list[str], environment: dict[str, str]) -> float:
    """Until the command prints a line on a step; waits until it has ended.

    Raises:
      UserError: it fails.
    """
    begin, seconds, lines = time.perf_counter(), None, []
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(command, env=os.environ | environment, **pipes) as process:
        for line in process.stdout:
            lines.append(line.strip())
            if seconds is None and line.startswith("step "):
                seconds = time.perf_counter() - begin
    if process.returncode or seconds is None:
        raise UserError(f"{' '.join(command)} ended with status {process.returncode}: {' '.join(lines[-1:])}")
    return seconds


def compile_table(figures: dict[str, Any]) -> str:
    """Each way at each size as a line of text."""
    lines = [f"{'seconds to the first step':<52}{'first':>8}{'second process':>16}"]
    for size, each in figures["first_step"].items():
        lines.append(f"{size}, {each['rows']} rows of {figures['length']}")
        for name, seconds in each["seconds"].items():
            first, second = (sum(seconds[which].values()) for which in ("first", "second"))
            parts = ", ".join(f"{part} {value:.1f}" for part, value in seconds["first"].items())
            again = ", ".join(f"{part} {value:.1f}" for part, value in seconds["second"].items())
            lines.append(f"  {name:<50}{first:>8.1f}{second:>16.1f}  ({parts}; then {again})")
        lines += [f"  {name}: left out: {why}" for name, why in each["left_out"].items()]
    seconds, of_rounds = figures["quickstart"], figures["quickstart_of_rounds"]
    spread = "; then ".join(f"{min(each):.1f} to {max(each):.1f}" for each in of_rounds.values())
    name = "the quickstart, from the command of pretrain.py on"
    lines.append(f"{name:<52}{seconds['first']:>8.1f}{seconds['second']:>16.1f}  ({spread})")
    return "\n".join(lines)
