"""What a pre-training step needs of memory, in each setting that trades it for time, beside PyTorch; and its update.

Rows without padding, no dropout, the same weights and masked positions. The sides take turns, each alone on the machine
in a new process, for several large models do not fit side by side. On a CPU the peak is that of the whole process,
libraries and compiler too; on a GPU, of its memory.
"""

import collections
import dataclasses
import functools
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_jax.benchmarks.our_step import OPTIMIZER, Batch, Step, StepSetting, Update, start_in
from bert_jax.benchmarks.their_step import Theirs, Way
from bert_jax.benchmarks.training_speed import STEPS, check_same_loss, chosen_dtype, full_batches, sized_rows
from bert_jax.benchmarks.turns import SideError, in_turns, started
from bert_jax.config import ModelConfig, OptimizerConfig
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.runtime.execution import Execution

CHANGES: dict[str, dict[str, Any]] = {
    "bert_jax": {},
    "bert_jax, scan_layers": {"scan_layers": True},
    "bert_jax, remat": {"remat": True},
    "bert_jax, scan_layers and remat": {"scan_layers": True, "remat": True},
    "bert_jax, the same, remat_saves=products": {"scan_layers": True, "remat": True, "remat_saves": "products"},
    "bert_jax, accumulate=4": {"accumulate": 4},
    "bert_jax, optimizer.mu_dtype=bfloat16": {"optimizer": dataclasses.replace(OPTIMIZER, mu_dtype="bfloat16")},
}
WAYS = (Way("eager"), Way("sdpa"), Way("sdpa", checkpointed=True))
OPTIMIZERS = ("adamw", "lamb")


def memory_suite(
    _workdir: Path, _model: str, *, sizes: list[str], length: int, dtype: str, rounds: int
) -> tuple[str, dict]:
    """The needs of a step, and the share of its update, at each of the sizes.

    Args:
      sizes: SIZE or SIZE:ROWS.
      length: L.
      dtype: float32 or bfloat16, of the products of both; auto: bfloat16 on a GPU, else float32.
      rounds: turns of each side, every one in a new process.

    Raises:
      UserError: PyTorch is missing, or the sides do not start with the same loss.
    """
    dtype = chosen_dtype(dtype)
    figures: dict[str, Any] = {"dtype": dtype, "dropout": 0.0, "length": length, "needs": {}, "update": {}}
    for size, rows in sized_rows(sizes, length).items():
        print(f"{size}: {rows} rows of {length}", flush=True)
        setting = StepSetting(size, rows, length, dtype, ModelConfig.vocab_size)
        batches = full_batches(setting.vocab_size, rows, length)
        figures["needs"][size] = needs(setting, batches, rounds)
        figures["update"][size] = {
            name: update_share(dataclasses.replace(setting, optimizer=OptimizerConfig(name=name)), batches, rounds)
            for name in OPTIMIZERS
        }
    return memory_table(figures), figures


def needs(setting: StepSetting, batches: list[Batch], rounds: int) -> dict[str, Any]:
    """Bytes and seconds of a step of each side."""
    left_out: dict[str, str] = {}
    found: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "model"
        beginning = start_in(start, setting, batches)
        makes: dict[str, Callable] = {}
        for name, changes in CHANGES.items():
            if setting.rows % changes.get("accumulate", 1):
                left_out[name] = f"{setting.rows} rows do not divide by it"
            else:
                makes[name] = functools.partial(Step, dataclasses.replace(setting, **changes), batches, start)
        makes |= {way.name: functools.partial(Theirs, way, setting.dtype, start, beginning["masked"]) for way in WAYS}
        for _ in range(rounds):
            for name in [name for name in makes if name not in left_out]:
                try:
                    found[name].append(one_turn(name, makes[name], beginning["first_loss"], setting.dtype))
                except SideError as error:  # not enough memory, for example
                    left_out[name] = str(error).splitlines()[0]
    sides = {name: summary(turns, setting) for name, turns in found.items() if name not in left_out}
    kernel = describe_kernel(setting.model(), Execution.here(setting.dtype), setting.length, 1)
    return {"rows": setting.rows, "attention": kernel, "sides": sides, "left_out": left_out}


def one_turn(name: str, make: Callable, first_loss: float, dtype: str) -> dict[str, Any]:
    """What a side needs in a process of its own, warmed up.

    Raises:
      UserError: it does not start with the loss of ours.
      SideError: it fails.
    """
    with started(make) as side:
        check_same_loss(name, first_loss, side.facts["first_loss"], dtype)
        (seconds,) = in_turns({name: side}, 1)[name]
        return {"bytes": side.facts.get("bytes"), "peak_bytes": side.peak_bytes(), "seconds_a_step": seconds / STEPS}


def summary(turns: list[dict[str, Any]], setting: StepSetting) -> dict[str, Any]:
    """Of the turns of a side: bytes of the first, the median of the peaks and of the seconds."""
    seconds, peaks = ([turn[name] for turn in turns] for name in ("seconds_a_step", "peak_bytes"))
    return {
        "bytes": turns[0]["bytes"],  # of ours
        "peak_bytes": None if None in peaks else statistics.median(peaks),
        "peak_bytes_of_turns": peaks,
        "seconds_a_step": statistics.median(seconds),
        "seconds_of_turns": seconds,
        "spread": (max(seconds) - min(seconds)) / statistics.median(seconds),
        "tokens_per_second": setting.rows * setting.length / statistics.median(seconds),
    }


def update_share(setting: StepSetting, batches: list[Batch], rounds: int) -> dict[str, Any]:
    """Seconds of a step, and of its update alone, in turns; and the share that the update has in the step."""
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "model"
        start_in(start, setting, batches)
        with (
            started(functools.partial(Step, setting, batches, start)) as step,
            started(functools.partial(Update, setting, len(batches))) as update,
        ):
            times = in_turns({"step": step, "update": update}, rounds)
    seconds = {name: statistics.median(each) / len(batches) for name, each in times.items()}
    shares = [update / step for step, update in zip(times["step"], times["update"], strict=True)]
    return {**seconds, "share": seconds["update"] / seconds["step"], "share_by_round": shares}


def memory_table(figures: dict[str, Any]) -> str:
    """Each side at each size as a line of text."""
    columns = ("parameters", "optimizer_state", "temporaries")
    heads = f"{'parameters':>11}{'optimizer':>11}{'temporaries':>12}{'peak':>8}{'ms a step':>11}{'spread':>8}"
    heads += f"{'tokens/s':>10}"
    lines = [f"{'megabytes':<56}{heads}"]
    for size, each in figures["needs"].items():
        lines.append(f"{size}, {each['rows']} rows of {figures['length']}, {figures['dtype']}; {each['attention']}")
        for name, found in each["sides"].items():
            held = [f"{found['bytes'][column] / 1e6:,.1f}" if found["bytes"] else "" for column in columns]
            line = (
                f"  {name:<54}{held[0]:>11}{held[1]:>11}{held[2]:>12}{(found['peak_bytes'] or math.nan) / 1e6:>8,.0f}"
            )
            line += f"{1e3 * found['seconds_a_step']:>11.1f}{found['spread']:>8.0%}{found['tokens_per_second']:>10,.0f}"
            lines.append(line)
        lines += [f"  {name}: left out: {why}" for name, why in each["left_out"].items()]
    lines.append("theirs has JAX in its process too")
    lines += ["", f"{'milliseconds':<56}{'step':>11}{'update':>11}{'share':>12}"]
    for size, each in figures["update"].items():
        for name, found in each.items():
            label = f"{size}, {name}"
            lines.append(
                f"{label:<56}{1e3 * found['step']:>11.1f}{1e3 * found['update']:>11.2f}{found['share']:>12.1%}"
                f"  ({min(found['share_by_round']):.1%} to {max(found['share_by_round']):.1%})"
            )
    return "\n".join(lines)
