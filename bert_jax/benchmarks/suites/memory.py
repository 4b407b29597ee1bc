"""What a pre-training step needs of memory, in each setting that trades it for time, beside PyTorch; and its update.

Rows without padding, no dropout, the same weights and masked positions. In each round each side is alone on the machine
in a new process, for several large models do not fit side by side. On a CPU the peak is that of the whole process,
libraries and compiler too, and PyTorch's side has JAX in its process as well; on a GPU, of its memory.
"""

import dataclasses
import functools
import itertools
from typing import Any

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import (
    OPTIMIZER,
    Batch,
    JaxPretraining,
    JaxUpdate,
    StepSetting,
    describe_attention,
    start_of,
)
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites.train import STEPS, full_batches, step_settings
from bert_jax.benchmarks.torch_side import StepVariant, TorchPretraining
from bert_jax.config import OptimizerConfig

SCAN, REMAT = ("scan_layers", True), ("remat", True)
CHANGES: dict[str, dict[str, Any]] = {
    "bert_jax": {},
    "bert_jax, scan_layers": {"layers": (SCAN,)},
    "bert_jax, remat": {"layers": (REMAT,)},
    "bert_jax, scan_layers and remat": {"layers": (SCAN, REMAT)},
    "bert_jax, the same, remat_saves=products": {"layers": (SCAN, REMAT, ("remat_saves", "products"))},
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
    harness.check_rounds(rounds)
    metadata = {"dtype": harness.chosen_dtype(dtype), "dropout": 0.0, "length": length}
    results = Results("memory", "Memory of a process that trains", "peak_bytes", metadata)
    for setting in step_settings(sizes, length, metadata["dtype"]):
        batches = full_batches(setting.vocab_size, setting.rows, length)
        needs(results, setting, batches, rounds)
        for name in OPTIMIZERS:
            update_share(results, dataclasses.replace(setting, optimizer=OptimizerConfig(name=name)), batches, rounds)
    return results


def needs(results: Results, setting: StepSetting, batches: list[Batch], rounds: int) -> None:
    """Measures bytes and seconds of a step of each side, warmed up; all start with the same loss, else UserError."""
    case, makes = setting.case, {}
    times: dict[str, list[float]] = {}
    peaks: dict[str, list[int | None]] = {}
    with start_of(setting, batches) as (start, beginning):
        for name, changes in CHANGES.items():
            if setting.rows % changes.get("accumulate", 1):
                results.leave_out(case, name, f"{setting.rows} rows do not divide by it")
            else:
                makes[name] = functools.partial(JaxPretraining, dataclasses.replace(setting, **changes), batches, start)
        for variant in VARIANTS:
            masked = beginning["masked"]
            makes[variant.name] = functools.partial(TorchPretraining, variant, setting.dtype, start, masked)
        for number, (name, make) in itertools.product(range(rounds), list(makes.items())):
            if name not in makes:
                continue
            try:
                with harness.started(make) as side:
                    harness.check_same_loss(name, beginning["first_loss"], side.metadata["first_loss"], setting.dtype)
                    times.setdefault(name, []).extend(harness.in_rounds({name: side}, 1)[name])
                    peaks.setdefault(name, []).append(side.peak_bytes())
                    if number == 0:
                        results.add(case, name, **side.metadata.get("bytes", {}))
            except harness.SideError as error:  # not enough memory, for example
                results.leave_out(case, name, error)
                del makes[name]
    for name in makes:
        if None not in peaks[name]:
            results.add_rounds(case, name, "peak_bytes", [peak or 0 for peak in peaks[name]])
    tokens = dict.fromkeys(makes, setting.rows * setting.length)
    harness.record_speed(results, case, {name: times[name] for name in makes}, steps=STEPS, amounts=tokens)
    results.notes[case] = describe_attention(setting.model(), setting.dtype, setting.length, 1)


def update_share(results: Results, setting: StepSetting, batches: list[Batch], rounds: int) -> None:
    """Measures a step, and its update alone, in the same rounds; and the share that the update has in the step."""
    case = f"{setting.case}, the update of {setting.optimizer.name}"
    with (
        start_of(setting, batches) as (start, _),
        harness.started(functools.partial(JaxPretraining, setting, batches, start)) as step,
        harness.started(functools.partial(JaxUpdate, setting, len(batches))) as update,
    ):
        times = harness.in_rounds({"step": step, "update": update}, rounds)
    for name, seconds in times.items():
        results.add_rounds(case, "bert_jax", f"{name}_seconds", [each / len(batches) for each in seconds])
    shares = [update / step for step, update in zip(times["step"], times["update"], strict=True)]
    results.add_rounds(case, "bert_jax", "update_share", shares)
