"""How long it takes until the first step is done: compiled anew, and by a second process that finds it compiled.

A step with its layers unrolled and scanned, beside PyTorch as it is and under torch.compile, each in a process of its
own with an empty cache, and then in another with what the first left; and the quickstart's command as a user types it.
"""

import dataclasses
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import JaxPretraining, StepSetting, start_of
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites.train import full_batches, step_settings
from bert_jax.benchmarks.torch_side import StepVariant, TorchPretraining
from bert_jax.errors import UserError

ROOT = Path(__file__).parents[3]
VARIANTS = (StepVariant("sdpa"), StepVariant("sdpa", compiled="default"))
PROCESSES = ("first", "second")


def compile_suite(*, sizes: list[str], length: int, source: str, rounds: int) -> Results:
    """Measures the first step of each size, and the quickstart's.

    Raises:
      UserError: PyTorch is missing, or the quickstart fails.
    """
    harness.check_rounds(rounds)
    metadata = {"dtype": harness.chosen_dtype(), "dropout": 0.0, "length": length}
    results = Results("compile", "Until the first training step is done", "seconds", metadata)
    for setting in step_settings(sizes, length, harness.chosen_dtype()):
        first_steps(results, setting, rounds)
    print("the quickstart", flush=True)
    starts = [quickstart_starts(source) for _ in range(rounds)]
    for which in PROCESSES:
        case = f"the quickstart, {which} process"
        results.add_rounds(case, "bert_jax", "seconds", [start[which] for start in starts])
    return results


def first_steps(results: Results, setting: StepSetting, rounds: int) -> None:
    """Measures the parts of the first step of a first and a second process of each side, all in each round."""
    batches = full_batches(setting.vocab_size, setting.rows, setting.length)[:1]
    with start_of(setting, batches) as (start, beginning):
        scanned = dataclasses.replace(setting, layers=(("scan_layers", True),))
        makes: dict[str, Callable] = {
            "bert_jax": functools.partial(JaxPretraining, setting, batches, start),
            "bert_jax, scan_layers": functools.partial(JaxPretraining, scanned, batches, start),
        }
        for variant in VARIANTS:
            masked = beginning["masked"]
            makes[variant.name] = functools.partial(TorchPretraining, variant, setting.dtype, start, masked)
        starts: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in makes}
        for number, (side, name) in itertools.product(range(rounds), enumerate(makes)):
            programs = start.parent / f"{number}-{side}"  # a C++ compiler wants no spaces in it
            if name in starts:
                try:
                    starts[name].append({which: first_step(makes[name], programs) for which in PROCESSES})
                except harness.SideError as error:  # torch.compile without a C++ compiler
                    results.leave_out(setting.case, name, error)
                    del starts[name]
    for which, (name, of_rounds) in itertools.product(PROCESSES, starts.items()):
        case = f"{setting.case}, {which} process"
        for part in of_rounds[0][which]:
            metric = "seconds" if part == "first_seconds" else part
            results.add_rounds(case, name, metric, [start[which][part] for start in of_rounds])


def first_step(make: Callable, programs: Path) -> dict[str, float]:
    """Returns the seconds of the parts of the first step in a new process that keeps what it compiles in `programs`."""
    with harness.started(functools.partial(make, programs=programs)) as side:
        return side.metadata["figures"]


def quickstart_starts(source: str) -> dict[str, float]:
    """Returns the seconds from the quickstart's command to its first step: of a first start, and of one that goes on.

    The first makes the vocabulary and the corpus of `source`; the second has these and the compiled programs.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # as in bert_jax/runtime/command.py
        }
        command = quickstart_command(Path(folder) / "run", source, "--config.log_every=1")
        return {
            which: seconds_to_first_step([*command, f"--config.total_steps={steps}"], environment)
            for which, steps in zip(PROCESSES, (1, 2), strict=True)
        }


def quickstart_command(workdir: Path, source: str, *flags: str) -> list[str]:
    """Returns the command of the quickstart, as long as a number of steps says and not minutes."""
    return [
        sys.executable,
        str(ROOT / "scripts/pretrain.py"),
        f"--config={ROOT}/configs/pretrain/quickstart.py",
        f"--workdir={workdir}",
        f"--config.data.source={source}",
        "--config.total_minutes=0",
        *flags,
    ]


def seconds_to_first_step(command: list[str], environment: dict[str, str]) -> float:
    """Returns the seconds until the command prints a line on a step; waits until it has ended, which must be well."""
    begin, seconds, lines = time.perf_counter(), None, []
    with subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line.strip())
            if seconds is None and line.startswith("step "):
                seconds = time.perf_counter() - begin
    if process.returncode or seconds is None:
        raise UserError(f"{' '.join(command)} ended with status {process.returncode}: {' '.join(lines[-1:])}")
    return seconds
