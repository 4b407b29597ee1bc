"""Runs what this device can in the time given, the most telling first, and ends in one page of results.

On a GPU the first steps are the proof of it: kernels against plain attention, parity, speed, and the quickstart's loss.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import command_line, keep, run_suite
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import page, table
from bert_jax.errors import UserError
from bert_jax.runtime.files import claim, write_whole

# Of others, on one GPU each; what they count is what suite train counts.
TO_BEAT = (
    "275,900 tokens a second: a 133M encoder in training on one H100",
    "327,680 tokens a second: the same on one H200",
    "1,017 sequences of 512 a second: BERT-large in training on an H200 (MLPerf, FP8, one of eight GPUs)",
)


class Step(NamedTuple):
    """A call of a suite, which is skipped where less time than its minutes is left or what it needs is not there."""

    suite: str
    minutes: float
    settings: dict[str, Any]
    needs: str = ""  # "model", or "run" for a WORKDIR that has trained


def plan(backend: str, source: str) -> list[Step]:
    """Returns all that a device may be asked, the most telling first."""

    def train(size: str, length: int, minutes: float) -> Step:
        return Step("train", minutes, dict(sizes=[size], length=length, dtype="auto", rounds=3, profile=False))

    if backend == "cpu":
        speed, sizes, rounds = [train("tiny", 128, 2.0)], ["tiny"], 2
        later = [train("mini", 128, 2.0), train("mini", 512, 2.0), train("base", 128, 4.0)]
    else:
        speed = [train("base", 128, 1.5), train("large", 512, 1.5), train("base", 512, 1.5)]
        later, sizes, rounds = [train("base", 1024, 1.5)], ["tiny", "base"], 3
    inference = dict(source=source, texts=256, batch_size=32, dtype="auto", rounds=rounds)
    compiled = dict(sizes=sizes[:1], length=128, source=source, rounds=1)
    return [
        Step("attention", 2.0, dict(rounds=0)),
        Step("parity", 0.5, {}),
        *speed,
        Step("quickstart", 1.5, dict(source=source)),
        *later,
        Step("inference", 4.0, inference, needs="model"),
        Step("attention", 3.0, dict(rounds=rounds)),
        Step("input", 1.5, dict(rounds=rounds), needs="run"),
        Step("corpus", 2.0, dict(source=source, rounds=rounds)),
        Step("compile", 3.0, compiled),
        Step("memory", 4.0, dict(sizes=sizes, length=128, dtype="auto", rounds=1)),
        Step("finetune", 5.0, dict(tasks=["mrpc"], seeds=0, rounds=rounds, directories={}), needs="model"),
    ]


def everything(workdir: Path, model: str, *, minutes: int, source: str) -> Path:
    """Runs the plan of this device as far as the time goes; each result is written as it is made.

    Args:
      workdir: gets benchmark/SUITE.json with its picture, and benchmark/results.md, whose path is returned.
      model: MODEL, for the suites that need one; may be empty.
      minutes: that all may take.
      source: SOURCE of texts.

    Raises:
      UserError: WORKDIR cannot be written.
    """
    end, path = time.monotonic() + 60 * minutes, workdir / "benchmark" / "results.md"
    claim(path.parent, "benchmark", [path.name], known=path.exists() and path.read_text().startswith("# Results\n"))
    parts: dict[str, Results] = {}
    skipped: list[tuple[str, str]] = []
    for step in plan(jax.default_backend(), source):
        command, left = command_line(step.suite, workdir, model, step.settings), end - time.monotonic()
        if not (reason := cannot_run(step, workdir, model, left)):
            try:
                with harness.time_limit(min(left, 60 * step.minutes)):
                    results = run_suite(step.suite, workdir, model, **step.settings)
                print(table(results), flush=True)
                keep_part(parts, results, workdir)
            except Exception as error:  # whatever a library raises: the other suites are to run
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if reason:
            print(f"skipped: {command}: {reason}", flush=True)
            skipped.append((f"`{command}`", (reason.splitlines() or [""])[0]))
        write_whole(path, page(list(parts.values()), skipped, TO_BEAT if jax.default_backend() == "gpu" else ()))
    print(f"written to {path}")
    return path


def cannot_run(step: Step, workdir: Path, model: str, seconds: float) -> str:
    """Returns why a step cannot run here in the seconds that are left; nothing if it can."""
    if step.needs == "model" and not model:
        return "it needs a model: set --model=MODEL"
    if step.needs == "run" and not (workdir / "metrics.jsonl").exists():
        return f"{workdir} is not the folder of a run that has trained"
    if seconds < 60 * step.minutes:
        return f"it may take {step.minutes:g} minutes, and {max(0.0, seconds) / 60:.1f} are left"
    return ""


def keep_part(parts: dict[str, Results], results: Results, workdir: Path) -> None:
    """Adds results to those of earlier steps of the same suite, and writes them; timed ones replace a mere check."""
    earlier = parts.get(results.suite)
    if earlier is None or earlier.compared != results.compared:
        parts[results.suite] = results
    else:
        earlier.extend(results)
    print(keep(parts[results.suite], workdir), flush=True)
