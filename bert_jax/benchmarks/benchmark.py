"""Measures speed: suites of named measurements, printed as a table and saved as JSON with all that they depend on."""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bert_jax.benchmarks.attention_speed import attention_suite
from bert_jax.benchmarks.compile_speed import compile_suite
from bert_jax.benchmarks.corpus_speed import corpus_suite
from bert_jax.benchmarks.finetuning_comparison import finetuning_suite
from bert_jax.benchmarks.inference_speed import inference_suite
from bert_jax.benchmarks.input_speed import input_suite
from bert_jax.benchmarks.memory import memory_suite
from bert_jax.benchmarks.packing_comparison import packing_suite
from bert_jax.benchmarks.picture import draw
from bert_jax.benchmarks.training_speed import training_suite
from bert_jax.errors import UserError
from bert_jax.experiments.parity import parity_suite
from bert_jax.runtime.files import write_whole

PACKAGES = ("bert_jax", "jax", "jaxlib", "flax", "grain", "numpy", "torch", "transformers")

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


def save(path: Path, result: dict) -> None:
    """Writes the setting and every figure as JSON."""
    try:
        write_whole(path, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error


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
