"""Fine-tuning here and in a plain PyTorch loop with `transformers`: how good, and how fast.

The last weights are scored: nothing is chosen by a score on either side.
"""

import contextlib
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.benchmarks.finetuning_sides import ATTENTIONS, RECIPES, Comparison, Ours, Theirs, check_same_loss
from bert_jax.benchmarks.turns import in_turns, started
from bert_jax.errors import UserError
from bert_jax.finetuning.batches import Batch
from bert_jax.interop.layout import Pretrained
from bert_jax.runtime.files import write_whole

OURS, THEIRS = "bert_jax", "PyTorch"
CHUNK = 8  # steps that a side has before the other has its turn

# --- speed


def measure_speed(task: Comparison, rounds: int) -> dict:
    """Seconds a step of each side, in turns of `CHUNK` steps on the same batches, each side in a process of its own."""
    stream, start = task.batches(0), task.start(0)
    batches = [stream[step] for step in range(min(CHUNK, task.steps))]
    make = {OURS: functools.partial(Ours, task, start, 0)}
    make |= {f"{THEIRS} {each}": functools.partial(Theirs, task, start, 0, each) for each in ATTENTIONS}
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(started(functools.partial(Turns, side, batches))) for name, side in make.items()
        }
        for name, side in sides.items():
            check_same_loss(sides[OURS].facts["loss"], side.facts["loss"])
            print(f"{task.name} {name}: ready", flush=True)
        times = in_turns(sides, rounds)
    seconds = {name: statistics.median(each) / len(batches) for name, each in times.items()}
    fastest = min((name for name in sides if name != OURS), key=seconds.get)
    return {
        "seconds_a_step": seconds,
        "fastest_of_theirs": fastest,
        "ratio": seconds[fastest] / seconds[OURS],
        "ratio_by_round": [theirs / ours for theirs, ours in zip(times[fastest], times[OURS], strict=True)],
        "lengths": [batch["input_ids"].shape[1] for batch in batches],
        "compile_seconds": sides[OURS].facts["compile_seconds"],
    }


class Turns:
    """A side that takes a step on each of some batches when it has its turn."""

    def __init__(self, make: Callable[[], Ours | Theirs], batches: list[Batch]) -> None:
        self.side, self.batches = make(), batches
        self.facts = {"loss": self.side.loss(batches[0])}
        for batch in batches:
            self.side.compile(batch)
        self.facts["compile_seconds"] = self.side.compile_seconds

    def turn(self) -> None:
        for batch in self.batches:
            self.side.step(batch)


# --- quality


def compare_runs(task: Comparison, seeds: int, attention: str, folder: Path) -> list[dict]:
    """A whole run of each side with each seed, in turn; one that is in `folder` already is not repeated."""
    runs = []
    for seed in range(seeds):
        paths = {name: folder / f"{task.name}-{name}-{seed}.json" for name in (OURS, THEIRS)}
        setting = json.loads(json.dumps({"steps": task.steps, **dataclasses.asdict(task.config), "seed": seed}))
        found = {name: _finished(path, setting) for name, path in paths.items()}
        if None in found.values():
            start, batch = task.start(seed), task.batches(seed)[0]
            check_same_loss(Ours(task, start, seed).loss(batch), Theirs(task, start, seed, attention).loss(batch))
        for name, path in paths.items():
            if found[name] is None:
                found[name] = _run(task, name, start, seed, attention)
                write_whole(path, json.dumps({"run": found[name], "setting": setting}, indent=2) + "\n")
            runs.append(found[name])
    return runs


def _run(task: Comparison, name: str, start: Pretrained, seed: int, attention: str) -> dict:
    """One run of one side from the start to its scores."""
    begin, times, batches = time.perf_counter(), [], task.batches(seed)
    side = Ours(task, start, seed) if name == OURS else Theirs(task, start, seed, attention)
    for step in range(task.steps):
        batch = batches[step]
        side.compile(batch)
        now = time.perf_counter()
        loss = side.step(batch)
        times.append(time.perf_counter() - now)
        if (step + 1) % task.config.log_every == 0 or step + 1 == task.steps:
            print(f"{task.name} {name} seed {seed}: step {step + 1:,} of {task.steps:,}, loss {loss:.4f}", flush=True)
    seconds = time.perf_counter() - begin
    scores = task.scores(side.logits)
    shown = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items())
    print(f"{task.name} {name} seed {seed}: {shown} after {seconds:,.0f} s", flush=True)
    return {
        "side": name,
        "seed": seed,
        "scores": scores,
        "seconds_a_step": statistics.median(times),
        "compile_seconds": side.compile_seconds,
        "seconds": seconds,
    }


def _finished(path: Path, setting: dict) -> dict | None:
    """The run that is saved there, if there is one."""
    if not path.exists():
        return None
    saved = json.loads(path.read_text())
    if saved["setting"] != setting:
        raise UserError(f"{path} is a run of another setting: remove it, or give another --workdir")
    print(f"{path} is finished and not repeated", flush=True)
    return saved["run"]


def summary(runs: list[dict]) -> dict:
    """Mean and standard deviation over the seeds, and how far apart the sides are in those deviations."""
    sides = {name: [run for run in runs if run["side"] == name] for name in (OURS, THEIRS)}
    found: dict[str, dict] = {}
    for metric in runs[0]["scores"] if runs else ():
        values = {name: np.array([run["scores"][metric] for run in side]) for name, side in sides.items()}
        deviations = {name: float(each.std(ddof=1)) if len(each) > 1 else None for name, each in values.items()}
        means = {name: float(each.mean()) for name, each in values.items()}
        pooled = None if None in deviations.values() else float(np.sqrt(np.mean(np.square(list(deviations.values())))))
        difference = means[OURS] - means[THEIRS]
        found[metric] = {
            "mean": means,
            "deviation": deviations,
            "difference": difference,
            "difference_in_deviations": difference / pooled if pooled else None,
        }
    return found


# --- suite finetune


def finetuning_suite(
    workdir: Path, model: str, *, tasks: list[str], seeds: int, rounds: int, directories: dict[str, str]
) -> tuple[str, dict]:
    """Both sides on each task.

    Args:
      workdir: gets each finished run in benchmark/finetune.
      model: MODEL to start from.
      tasks: of `RECIPES`.
      seeds: runs of each side; 0: speed alone.
      rounds: of the measurement of speed; 0: quality alone, theirs with the first of `ATTENTIONS`.
      directories: of a task, the folder with its official files; TFDS where there is none.

    Raises:
      UserError: as `Comparison`; PyTorch is missing; or the sides do not start alike.
    """
    if not model:
        raise UserError("suite finetune needs a model to start from: set --model=MODEL")
    for name, directory in directories.items():
        if name not in RECIPES or not directory:
            raise UserError(f"directories: {name!r} wants to be TASK=FOLDER, TASK one of {', '.join(RECIPES)}")
    figures: dict[str, Any] = {"model": model, "tasks": {}}
    for name in tasks:
        task = Comparison(name, model, directories.get(name, ""))
        speed = measure_speed(task, rounds) if rounds else None
        attention = speed["fastest_of_theirs"].split()[1] if speed else ATTENTIONS[0]
        runs = compare_runs(task, seeds, attention, workdir / "benchmark" / "finetune")
        figures["tasks"][name] = {"steps": task.steps, "speed": speed, "scores": summary(runs), "runs": runs}
    return comparison_table(figures["tasks"]), figures


def comparison_table(tasks: dict[str, dict]) -> str:
    """Scores, then seconds, as lines of text."""
    lines = [f"{'':<34}{OURS:>18}{THEIRS:>18}  {'':<10}"]
    for name, found in tasks.items():
        for metric, each in found["scores"].items():
            cells = [
                f"{each['mean'][side]:.4f}" + ("" if (sd := each["deviation"][side]) is None else f" ± {sd:.4f}")
                for side in (OURS, THEIRS)
            ]
            apart = each["difference_in_deviations"]
            verdict = f"{each['difference']:+.4f}" + ("" if apart is None else f", {apart:+.1f} deviations")
            lines.append(f"{f'{name} {metric}':<34}{cells[0]:>18}{cells[1]:>18}  {verdict}")
        for key, what in (("seconds", "whole run"), ("compile_seconds", "of it compiling")):
            if found["runs"]:
                cells = [
                    statistics.median(run[key] for run in found["runs"] if run["side"] == side)
                    for side in (OURS, THEIRS)
                ]
                lines.append(f"{f'{name} {what}, s':<34}{cells[0]:>18,.1f}{cells[1]:>18,.1f}")
        if speed := found["speed"]:
            ours, theirs = (speed["seconds_a_step"][side] for side in (OURS, speed["fastest_of_theirs"]))
            spread = f"{min(speed['ratio_by_round']):.2f} to {max(speed['ratio_by_round']):.2f}"
            verdict = f"{speed['ratio']:.2f} times as fast ({spread}), theirs {speed['fastest_of_theirs'].split()[1]}"
            lines.append(f"{f'{name} step, in turns, ms':<34}{1e3 * ours:>18.1f}{1e3 * theirs:>18.1f}  {verdict}")
    return "\n".join(lines)
