"""What a pre-training step needs of memory, in each setting that trades it for time, beside PyTorch; and its update.

Rows without padding, no dropout, the same weights and masked positions. In each round each side is alone on the machine
in a new process, for several large models do not fit side by side. On a CPU the peak is that of the whole process,
libraries and compiler too, and PyTorch's side has JAX in its process as well; on a GPU, of its memory.
"""

import collections
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_jax.benchmarks.harness import SideError, check_same_loss, chosen_dtype, in_rounds, record_speed, started
from bert_jax.benchmarks.jax_side import (
    OPTIMIZER,
    Batch,
    JaxPretraining,
    JaxUpdate,
    StepSetting,
    describe_attention,
    start_in,
)
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites.train import STEPS, full_batches, sized_rows
from bert_jax.benchmarks.torch_side import StepVariant, TorchPretraining
from bert_jax.config import ModelConfig, OptimizerConfig

CHANGES: dict[str, dict[str, Any]] = {
    "bert_jax": {},
    "bert_jax, scan_layers": {"scan_layers": True},
    "bert_jax, remat": {"remat": True},
    "bert_jax, scan_layers and remat": {"scan_layers": True, "remat": True},
    "bert_jax, the same, remat_saves=products": {"scan_layers": True, "remat": True, "remat_saves": "products"},
    "bert_jax, accumulate=4": {"accumulate": 4},
    "bert_jax, optimizer.mu_dtype=bfloat16": {"optimizer": dataclasses.replace(OPTIMIZER, mu_dtype="bfloat16")},
}
VARIANTS = (StepVariant("eager"), StepVariant("sdpa"), StepVariant("sdpa", checkpointed=True))
OPTIMIZERS = ("adamw", "lamb")


def memory_suite(*, sizes: list[str], length: int, dtype: str, rounds: int) -> Results:
    """Measures the needs of a step, and the share of its update, at each of the sizes.

    Raises:
      UserError: PyTorch is missing, or the sides do not start with the same loss.
    """
    dtype = chosen_dtype(dtype)
    metadata = {"dtype": dtype, "dropout": 0.0, "length": length}
    results = Results("memory", "Memory of a process that trains", "peak_bytes", metadata)
    for size, rows in sized_rows(sizes, length).items():
        print(f"{size}: {rows} rows of {length}", flush=True)
        setting = StepSetting(size, rows, length, dtype, ModelConfig.vocab_size)
        batches = full_batches(setting.vocab_size, rows, length)
        needs(results, setting, batches, rounds)
        for name in OPTIMIZERS:
            update_share(results, dataclasses.replace(setting, optimizer=OptimizerConfig(name=name)), batches, rounds)
    return results


def needs(results: Results, setting: StepSetting, batches: list[Batch], rounds: int) -> None:
    """Measures bytes and seconds of a step of each side.

    Raises:
      UserError: a side does not start with the loss of the others.
    """
    case = f"{setting.size}, {setting.rows} rows of {setting.length}"
    runs: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "model"
        beginning = start_in(start, setting, batches)
        makes: dict[str, Callable] = {}
        for name, changes in CHANGES.items():
            if setting.rows % changes.get("accumulate", 1):
                results.leave_out(case, name, f"{setting.rows} rows do not divide by it")
            else:
                makes[name] = functools.partial(JaxPretraining, dataclasses.replace(setting, **changes), batches, start)
        for variant in VARIANTS:
            make = functools.partial(TorchPretraining, variant, setting.dtype, start, beginning["masked"])
            makes[variant.name] = make
        for _ in range(rounds):
            for name, make in list(makes.items()):
                try:
                    runs[name].append(one_run(name, make, beginning["first_loss"], setting.dtype))
                except SideError as error:  # not enough memory, for example
                    results.leave_out(case, name, error)
                    del makes[name]
    for name in makes:
        results.add(case, name, **runs[name][0]["bytes"])
        peaks = [run["peak_bytes"] for run in runs[name]]
        if None not in peaks:
            results.add_rounds(case, name, "peak_bytes", peaks)
    tokens = dict.fromkeys(makes, setting.rows * setting.length)
    record_speed(results, case, {name: [run["seconds"] for run in runs[name]] for name in makes}, STEPS, tokens)
    results.notes[case] = describe_attention(setting.model(), setting.dtype, setting.length, 1)


def one_run(name: str, make: Callable, first_loss: float, dtype: str) -> dict[str, Any]:
    """Returns what a side needs in a process of its own, warmed up.

    Raises:
      UserError: it does not start with the first loss.
      SideError: it fails.
    """
    with started(make) as side:
        check_same_loss(name, first_loss, side.metadata["first_loss"], dtype)
        (seconds,) = in_rounds({name: side}, 1)[name]
        return {"bytes": side.metadata.get("bytes", {}), "peak_bytes": side.peak_bytes(), "seconds": seconds}


def update_share(results: Results, setting: StepSetting, batches: list[Batch], rounds: int) -> None:
    """Measures a step, and its update alone, in the same rounds; and the share that the update has in the step."""
    case = f"{setting.size}, {setting.rows} rows of {setting.length}, the update of {setting.optimizer.name}"
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "model"
        start_in(start, setting, batches)
        with (
            started(functools.partial(JaxPretraining, setting, batches, start)) as step,
            started(functools.partial(JaxUpdate, setting, len(batches))) as update,
        ):
            times = in_rounds({"step": step, "update": update}, rounds)
    for name, seconds in times.items():
        results.add_rounds(case, "bert_jax", f"{name}_seconds", [each / len(batches) for each in seconds])
    shares = [update / step for step, update in zip(times["step"], times["update"], strict=True)]
    results.add_rounds(case, "bert_jax", "update_share", shares)
