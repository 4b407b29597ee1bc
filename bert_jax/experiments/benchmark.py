"""Measures speed: suites of named measurements, printed as a table and saved as JSON with all that they depend on."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bert_jax.errors import UserError
from bert_jax.experiments.attention_speed import attention_suite
from bert_jax.experiments.compile_speed import compile_suite
from bert_jax.experiments.corpus_speed import corpus_suite
from bert_jax.experiments.finetuning_comparison import finetuning_suite
from bert_jax.experiments.inference_speed import inference_suite
from bert_jax.experiments.memory import memory_suite
from bert_jax.experiments.packing_comparison import packing_suite
from bert_jax.experiments.parity import parity_suite
from bert_jax.experiments.picture import draw
from bert_jax.experiments.training_speed import training_suite
from bert_jax.experiments.turns import one_core
from bert_jax.pretraining.batches import PretrainingBatches, iterate
from bert_jax.pretraining.run import corpus_folder, read_run
from bert_jax.text.corpus import Corpus
from bert_jax.training.workdir import write_whole

PACKAGES = ("bert_jax", "jax", "jaxlib", "flax", "grain", "numpy", "torch", "transformers")
LOADER_RATE = 1_500_000  # positions a second on one core, packed pairs
REPEATS = 5
INPUT_MARGIN = 20  # the loader on one core against what training takes; below, it may be what training waits for


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One quantity, measured several times.

    Attributes:
      name: what was measured.
      unit: of the values.
      values: one a repeat, or one a log line.
      at_least: what the median is held against; None: nothing.
    """

    name: str
    unit: str
    values: list[float]
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Largest less smallest value, as a share of the median."""
        return (max(self.values) - min(self.values)) / max(self.median, 1e-12)


Suite = Callable[..., tuple[str, dict]]  # of a workdir, a MODEL and its settings; a table for people, figures for JSON


def benchmark(suite: str, workdir: Path, model: str = "", **settings: Any) -> dict:
    """Runs a suite, prints its table, and writes WORKDIR/benchmark/SUITE.json and a picture, SUITE.svg.

    Args:
      suite: of `SUITES`.
      workdir: of a run, for `input` and `packing`; gets the result.
      model: MODEL, for `parity`, `finetune` and `inference`.
      settings: of the suite, as its function takes them.

    Returns:
      The figures of the suite.

    Raises:
      UserError: no such suite, or what it needs is not there.
    """
    if suite not in SUITES:
        raise UserError(f"suite {suite!r} is not known: choose one of {', '.join(SUITES)}")
    setting = describe_setting()
    jax.config.update("jax_enable_compilation_cache", False)  # how long it takes to compile is told, too
    print(f"suite {suite} on {setting['processor']}, {setting['device']}, {setting['threads']} threads")
    lines, figures = SUITES[suite](workdir, model, **settings)
    print(lines)
    path = workdir / "benchmark" / f"{suite}.json"
    save(path, {"suite": suite, **setting, **figures})
    print(f"written to {path}")
    print(draw(path))
    return figures


def describe_setting() -> dict:
    """What a speed depends on besides the code: date, machine, device, threads, and versions."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "processor": _processor(),
        "threads": len(os.sched_getaffinity(0)),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),  # beside those that `turns.started` gives each side
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def table(measurements: list[Measurement]) -> str:
    """The measurements as lines of text."""
    lines = [f"{'':<44}{'median':>14}  {'unit':<14}{'spread':>7}{'values':>8}"]
    for each in measurements:
        shown = f"{each.median:,.0f}" if each.median >= 1_000 else f"{each.median:.3g}"
        line = f"{each.name:<44}{shown:>14}  {each.unit:<14}{each.spread:>7.1%}{len(each.values):>8}"
        if each.at_least is not None:
            line += f"  {'reaches' if each.median >= each.at_least else 'MISSES'} {each.at_least:g}"
        lines.append(line)
    return "\n".join(lines)


def save(path: Path, result: dict) -> None:
    """Writes the setting and every figure as JSON."""
    try:
        write_whole(path, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error


# --- suite input


def input_suite(workdir: Path, _model: str) -> tuple[str, dict]:
    """The loader of the run in WORKDIR: its table, and every value measured."""
    found = measure_input(workdir)
    rows = [{**dataclasses.asdict(each), "median": each.median, "spread": each.spread} for each in found]
    return table(found), {"measurements": rows}


def measure_input(workdir: Path) -> list[Measurement]:
    """Positions a second that the loader makes on one core from the run's corpus, and how often training's need.

    A position is one of the B x L of a batch, padding included: the unit of `tokens_per_second` in metrics.jsonl.
    """
    config = read_run(workdir)
    corpus = Corpus.open(corpus_folder(config, workdir))
    data = config.data
    settings = {
        "nsp, packed": dataclasses.replace(data, objective="nsp", packing=True),
        "nsp, one sequence a row": dataclasses.replace(data, objective="nsp", packing=False),
        "none, packed": dataclasses.replace(data, objective="none", packing=True),
    }
    if data not in settings.values():
        settings["as in this run"] = data
    found = []
    with one_core():
        for name, setting in settings.items():
            start_up, rates = [], []
            for i in range(REPEATS + 1):  # the first warms up
                begin = time.perf_counter()
                batches = PretrainingBatches(
                    corpus, setting, cls_id=0, sep_id=0, batch_size=config.batch_size, seed=config.seed
                )
                start_up.append(time.perf_counter() - begin)
                rates.append(positions_per_second(batches, 10_000 * i))
            target = LOADER_RATE if name == "nsp, packed" else None
            found.append(Measurement(f"loader on one core: {name}", "positions/s", rates[1:], target))
            if setting == data:
                trained, waited = training_speeds(workdir)
                ratios = [rate / statistics.median(trained) for rate in rates[1:]]
                found += [
                    Measurement("start-up of the loader", "s", start_up[1:]),
                    Measurement("training in this folder", "positions/s", trained),
                    Measurement("loader / training", "times", ratios, INPUT_MARGIN),
                    *([Measurement("time that training waited for it", "of 1", waited)] if waited else []),
                ]
    return found


def positions_per_second(batches: PretrainingBatches, start_step: int, seconds: float = 1.0) -> float:
    """The rate at which `iterate` yields when nobody else computes."""
    stream = iterate(batches, start_step)
    for batch in itertools.islice(stream, 8):  # past what was read ahead
        positions = batch["input_ids"].size
    begin = time.perf_counter()
    count, now = 0, begin
    while now - begin < seconds:
        next(stream)
        count, now = count + 1, time.perf_counter()
    stream.close()
    return count * positions / (now - begin)


def training_speeds(workdir: Path) -> tuple[list[float], list[float]]:
    """`tokens_per_second` and `input_wait` of each training line of WORKDIR/metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    if not speeds:
        raise UserError(f"{path} has no tokens_per_second yet: train for at least log_every steps")
    return speeds, [line["input_wait"] for line in lines if "input_wait" in line]


def _commit() -> str:
    """Of this checkout, "-dirty" if files differ from it; nothing if it is none."""
    git = functools.partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no git, no checkout, or another project's
        git(["git", "ls-files", "--error-unmatch", Path(__file__).name])
        return git(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).stdout.strip()
    return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


SUITES: dict[str, Suite] = {
    "input": input_suite,
    "parity": parity_suite,
    "finetune": finetuning_suite,
    "train": training_suite,
    "inference": inference_suite,
    "attention": attention_suite,
    "packing": packing_suite,
    "corpus": corpus_suite,
    "compile": compile_suite,
    "memory": memory_suite,
}
