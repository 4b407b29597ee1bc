"""Runs suites: prints their tables, and saves their results as JSON and pictures."""

import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bert_jax.benchmarks.record import Results, check_output, describe_environment
from bert_jax.benchmarks.report import describe, draw, table
from bert_jax.benchmarks.suites.attention import attention_suite
from bert_jax.benchmarks.suites.compile import compile_suite
from bert_jax.benchmarks.suites.corpus import corpus_suite
from bert_jax.benchmarks.suites.finetune import finetune_suite
from bert_jax.benchmarks.suites.inference import inference_suite
from bert_jax.benchmarks.suites.input import input_suite
from bert_jax.benchmarks.suites.memory import memory_suite
from bert_jax.benchmarks.suites.parity import parity_suite
from bert_jax.benchmarks.suites.quickstart import quickstart_suite
from bert_jax.benchmarks.suites.train import train_suite
from bert_jax.errors import UserError

# Each takes `workdir` and `model` where it needs them, and its settings, which are flags of scripts/benchmark.py.
SUITES: dict[str, Callable[..., Results]] = {
    "input": input_suite,
    "parity": parity_suite,
    "finetune": finetune_suite,
    "train": train_suite,
    "inference": inference_suite,
    "attention": attention_suite,
    "corpus": corpus_suite,
    "compile": compile_suite,
    "memory": memory_suite,
    "quickstart": quickstart_suite,
}


def settings_of(suite: Callable[..., Any]) -> tuple[str, ...]:
    """Returns the names of a suite's settings, which are its keyword arguments and the script's flags."""
    parameters = inspect.signature(suite).parameters.values()
    return tuple(each.name for each in parameters if each.kind == inspect.Parameter.KEYWORD_ONLY)


def benchmark(suite: str, workdir: Path, model: str = "", **settings: Any) -> Results:
    """Runs a suite, prints its table, and writes WORKDIR/benchmark/SUITE.json and a picture, SUITE.svg.

    Args:
      suite: of `SUITES`.
      workdir: gets the result; for `input` and `train`, of a run.
      model: MODEL, for `parity`, `finetune` and `inference`.
      settings: of the suite, as its function takes them.

    Raises:
      UserError: no such suite, or what it needs is not there.
    """
    check_output(workdir / "benchmark", suite)
    results = run_suite(suite, workdir, model, **settings)
    print(table(results))
    print(keep(results, workdir))
    return results


def run_suite(suite: str, workdir: Path, model: str = "", **settings: Any) -> Results:
    """Runs a suite; the same as `benchmark`, but nothing is written."""
    if suite not in SUITES:
        raise UserError(f"suite {suite!r} is not known: choose one of {', '.join(SUITES)}")
    environment = describe_environment()
    jax.config.update("jax_enable_compilation_cache", False)  # how long it takes to compile is reported, too
    print(f"suite {suite} on {describe(environment).splitlines()[0]}", flush=True)
    inputs, parameters = {"workdir": workdir, "model": model}, inspect.signature(SUITES[suite]).parameters
    results = SUITES[suite](**{name: value for name, value in inputs.items() if name in parameters}, **settings)
    results.environment, results.commands = environment, [command_line(suite, workdir, model, settings)]
    return results


def keep(results: Results, workdir: Path) -> str:
    """Writes WORKDIR/benchmark/SUITE.json, and the picture; returns where they are, as lines for people."""
    path = workdir / "benchmark" / f"{results.suite}.json"
    results.save(path)
    return f"written to {path}\n{draw(path)}"


def command_line(suite: str, workdir: Path, model: str, settings: dict[str, Any]) -> str:
    """Returns the command that runs a suite with these settings."""
    flags = {"suite": suite, "workdir": workdir} | ({"model": model} if model else {}) | settings
    words = ["python", "scripts/benchmark.py"]
    for name, value in flags.items():
        if isinstance(value, dict):
            value = [f"{key}={each}" for key, each in value.items()]
        if isinstance(value, list):
            value = ",".join(value)
        if isinstance(value, bool):
            words += [f"--{name}"] if value else []
        elif value != "":
            words.append(f"--{name}={value}")
    return shlex.join(words)
