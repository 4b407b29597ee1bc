"""How fast attention alone is: the project's kernels that this device runs beside `scaled_dot_product_attention`.

Rows of one sequence each, full and padded, and packed rows of several with padding at their ends; the same number of
positions in all. Forward alone, and forward plus backward. Each side's outputs and gradients are held against plain
attention in float32 before anything is timed.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import JaxAttention, reference_attention
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import verdict
from bert_jax.benchmarks.torch_side import BACKENDS, TorchAttention
from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.experiments.parity import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from bert_jax.model.kernels.choose import choose_kernel
from bert_jax.runtime.execution import Execution

HEADS = {"BERT-base": (12, 64), "MiniLM": (12, 32)}  # N and H
QUANTITIES = ("the output", "the gradient of the query", "the gradient of the key", "the gradient of the value")
CHECKED = 8  # rows of a batch that are compared, at equal distances


def lengths_and_positions() -> tuple[tuple[int, ...], int]:
    """Returns L of the rows, and B x L of a batch: enough to keep this device busy."""
    return ((128, 512), 4_096) if jax.default_backend() == "cpu" else ((128, 512, 2_048), 131_072)


def calls_per_round() -> int:
    """Returns so many that a round is no shorter than some milliseconds."""
    return 8 if jax.default_backend() == "cpu" else 64


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed: with the `HEADS` of a model, on rows of one of the `FILLINGS`, int32 [B, L]."""

    model: str
    filling: str
    sequence_ids: np.ndarray
    gradient: bool  # forward plus backward, not forward alone

    @property
    def name(self) -> str:
        """Returns what the results call it."""
        rows, length = self.sequence_ids.shape
        work = "forward and backward" if self.gradient else "forward"
        return f"{self.model}, {rows} x {length}, {self.filling}, {work}"

    @property
    def tokens(self) -> int:
        """Returns the positions that are no padding."""
        return int((self.sequence_ids > 0).sum())

    @property
    def max_sequences(self) -> int:
        """Returns K, sequences of a row at most."""
        return int(self.sequence_ids.max())

    @property
    def checked(self) -> slice:
        """Returns the rows that are compared."""
        return slice(None, None, -(-len(self.sequence_ids) // CHECKED))

    @property
    def flops(self) -> float:
        """Returns the operations of attention within sequences: of two products forward, and four backward."""
        heads, head = HEADS[self.model]
        ids = self.sequence_ids
        lengths = np.stack([(ids == number).sum(axis=1) for number in range(1, self.max_sequences + 1)])
        return (3 if self.gradient else 1) * 4.0 * heads * head * float((lengths.astype(np.int64) ** 2).sum())

    def arrays(self) -> list[np.ndarray]:
        """Returns query, key, value and the gradient of the output, 0 at padding: float32 [B, L, N, H] each."""
        *inputs, gradient = random_arrays((4, *self.sequence_ids.shape, *HEADS[self.model]))
        return [*inputs, gradient * (self.sequence_ids > 0)[..., None, None]]


@functools.lru_cache(maxsize=1)  # the cases of a shape share it
def random_arrays(shape: tuple[int, ...]) -> np.ndarray:
    """Returns normal numbers, float32, and always the same."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def full_rows(rows: int, length: int) -> np.ndarray:
    """Returns int32 [B, L] of sequence numbers, as batches have them: one sequence fills each row."""
    return np.ones((rows, length), np.int32)


def padded_rows(rows: int, length: int) -> np.ndarray:
    """Returns rows with one sequence of a quarter of the row to all of it; the longest just fits. 0 is padding."""
    lengths = np.random.default_rng(0).integers(length // 4, length, rows, endpoint=True)
    lengths[0] = length
    return (np.arange(length) < lengths[:, None]).astype(np.int32)


def packed_rows(rows: int, length: int) -> np.ndarray:
    """Returns rows with as many sequences of an eighth to a half of the row as fit. 0 is padding."""
    rng, ids = np.random.default_rng(0), np.zeros((rows, length), np.int32)
    for row in ids:
        ends = np.cumsum(rng.integers(length // 8, length // 2, 8, endpoint=True))
        for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends[ends <= length], strict=False), start=1):
            row[begin:end] = number
    return ids


FILLINGS = {"full": full_rows, "padded": padded_rows, "packed": packed_rows}


def attention_suite(*, rounds: int) -> Results:
    """Measures all sides at each length, with the heads of each model.

    Without rounds the kernels are held against plain attention, and nothing is timed.

    Raises:
      UserError: PyTorch is missing, or no two sides are left to compare.
    """
    dtype = harness.chosen_dtype()
    lengths, positions = lengths_and_positions()
    metadata = {"dtype": dtype, "dropout": 0.0, "positions": positions, "peak_flops": harness.peak_flops(dtype)}
    compared = "tokens_per_second" if rounds else ""
    results = Results("attention", "Attention alone" if rounds else "Kernels of attention", compared, metadata)
    for model, length in itertools.product(HEADS, lengths):
        rows = {filling: draw(positions // length, length) for filling, draw in FILLINGS.items()}
        cases = [Case(model, filling, ids, gradient) for gradient in (False, True) for filling, ids in rows.items()]
        compare_attention(results, cases, rounds)
    results.measurements.sort(key=lambda measurement: measurement.case.endswith("backward"))  # forward first
    return results


def compare_attention(results: Results, cases: list[Case], rounds: int) -> None:
    """Measures cases of one shape; the first of the project's kernels is what the model takes of itself."""
    wanted = {case.name: reference_attention(case) for case in cases}
    with contextlib.ExitStack() as stack:
        sides: dict[str, Any] = {}
        for name, (make, its_cases) in side_makers(results, cases, compare=rounds > 0).items():
            make_side = functools.partial(make, results.metadata["dtype"], its_cases, calls_per_round())
            try:  # what is not timed needs no process of its own
                sides[name] = stack.enter_context(harness.started(make_side)) if rounds else make_side()
            except harness.SideError as error:
                for case in its_cases:
                    results.leave_out(case.name, name, error)
        for case in cases:
            right = {name: side for name, side in sides.items() if is_right(results, case, name, side.metadata, wanted)}
            if not rounds:
                continue
            if len({name.partition(" ")[0] for name in right}) < 2:
                raise UserError(f"{case.name}: there are no two sides to compare: {results.left_out}")
            figures: dict[str, Any] = dict(steps=calls_per_round(), amounts=dict.fromkeys(right, case.tokens))
            figures["ideal"] = dict.fromkeys(right, case.flops / results.metadata["peak_flops"])
            harness.measure(results, case.name, right, rounds, case.name, **figures)
            print(verdict(results, case.name), flush=True)


def side_makers(results: Results, cases: list[Case], *, compare: bool) -> dict[str, tuple[Callable, list[Case]]]:
    """Returns by name what makes each side, and its cases: the kernels that the model prefers first."""
    preferred: dict[str, list[Case]] = {}
    for case in cases:
        kernel, why = preferred_kernel(case, results.metadata["dtype"])
        if kernel == "plain":
            results.leave_out(case.name, "bert_jax, other kernels", why)
        else:
            preferred.setdefault(kernel, []).append(case)
    makes = {f"bert_jax {kernel}": (functools.partial(JaxAttention, kernel), its) for kernel, its in preferred.items()}
    makes["bert_jax plain"] = functools.partial(JaxAttention, "plain"), cases
    backends = BACKENDS["gpu" if harness.on_gpu() else "cpu"] if compare else ()
    return makes | {f"PyTorch {backend}": (functools.partial(TorchAttention, backend), cases) for backend in backends}


def preferred_kernel(case: Case, dtype: str) -> tuple[str, str]:
    """Returns the kernel that a model takes of itself, and why."""
    heads, head = HEADS[case.model]
    config, length = ModelConfig(hidden_size=heads * head, num_attention_heads=heads), case.sequence_ids.shape[1]
    kernel, why = choose_kernel(config, Execution.here(dtype), length, case.max_sequences, dropout=False)
    return kernel.name, why


def is_right(results: Results, case: Case, name: str, metadata: dict, wanted: dict[str, list[np.ndarray]]) -> bool:
    """Returns whether a side can do a case and gives what plain attention does; records how far off it is."""
    if case.name not in metadata["results"]:
        if case.name in metadata["left_out"]:
            results.leave_out(case.name, name, metadata["left_out"][case.name])
        return False
    output, *gradients = differences(case, metadata["results"][case.name], wanted[case.name])
    gradient = float(np.max(gradients)) if gradients else None
    results.add(case.name, name, output_difference=output, gradient_difference=gradient)
    results.add(case.name, name, **metadata["programs"].get(case.name, {}))
    if wrong := beyond_tolerance([output, *gradients], results.metadata["dtype"]):
        results.leave_out(case.name, name, wrong)
        print(f"{name} does not attend as plain attention does at {case.name}: {wrong}", flush=True)
    return not wrong


def differences(case: Case, outputs: list[np.ndarray], wanted: list[np.ndarray]) -> list[float]:
    """Returns how far each of the `QUANTITIES` is from the reference, as a share of its largest value.

    The output where there is no padding; gradients everywhere, for those at padding reach the projections too.
    """
    inside = case.sequence_ids[case.checked] > 0
    pairs = list(zip(outputs, wanted, strict=True))
    return [
        harness.share_of_largest(*(array[inside] for array in pairs[0])),
        *(harness.share_of_largest(*pair) for pair in pairs[1:]),
    ]


def beyond_tolerance(shares: list[float], dtype: str) -> str:
    """Returns the first of the differences that is larger than the type allows; nothing if all are within."""
    exact = (OUTPUT_TOLERANCE, *[GRADIENT_TOLERANCE] * 3)
    for quantity, share, tolerance in zip(QUANTITIES, shares, exact, strict=False):
        if not share <= (tolerance if dtype == "float32" else harness.BFLOAT16_TOLERANCE):
            return f"{quantity} differs by {share:.2g} of the largest"
    return ""
