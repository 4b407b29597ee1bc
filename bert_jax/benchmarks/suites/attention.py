"""How fast attention alone is: the project's kernels that this device runs beside `scaled_dot_product_attention`.

Rows of one sequence each, full and padded, and packed rows of several with padding at their ends; the same number of
positions in all. Forward alone, and forward plus backward. Each side's outputs and gradients are held against plain
attention in float32 before anything is timed.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from bert_jax.benchmarks.harness import (
    BFLOAT16_TOLERANCE,
    SideError,
    SideProcess,
    chosen_dtype,
    measure,
    on_gpu,
    peak_flops,
    share_of_largest,
    started,
)
from bert_jax.benchmarks.jax_side import JaxAttention, preferred_kernel, reference_attention
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import verdict
from bert_jax.benchmarks.torch_side import BACKENDS, TorchAttention
from bert_jax.errors import UserError
from bert_jax.experiments.parity import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE

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
    """What is timed.

    Attributes:
      model: key of `HEADS`.
      filling: of `FILLINGS`.
      sequence_ids: int32 [B, L].
      gradient: forward plus backward, not forward alone.
    """

    model: str
    filling: str
    sequence_ids: np.ndarray
    gradient: bool

    @property
    def name(self) -> str:
        """Returns what the results call it."""
        rows, length = self.sequence_ids.shape
        work = "forward and backward" if self.gradient else "forward"
        return f"{self.model}, {rows} x {length}, {self.filling}, {work}"

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
    dtype = chosen_dtype()
    lengths, positions = lengths_and_positions()
    metadata = {"dtype": dtype, "dropout": 0.0, "positions": positions, "peak_flops": peak_flops(dtype)}
    compared = "tokens_per_second" if rounds else ""
    results = Results("attention", "Attention alone" if rounds else "Kernels of attention", compared, metadata)
    for model in HEADS:
        for length in lengths:
            rows = {filling: draw(positions // length, length) for filling, draw in FILLINGS.items()}
            cases = [Case(model, filling, ids, gradient) for gradient in (False, True) for filling, ids in rows.items()]
            compare_attention(results, cases, rounds)
    results.measurements.sort(key=lambda measurement: measurement.case.endswith("backward"))  # forward first
    return results


def compare_attention(results: Results, cases: list[Case], rounds: int) -> None:
    """Measures cases of one shape; the first of the project's kernels is what the model takes of itself."""
    dtype = results.metadata["dtype"]
    wanted = {case.name: reference_attention(case) for case in cases}
    with contextlib.ExitStack() as stack:
        processes: dict[str, SideProcess] = {}
        for name, (make, its_cases) in side_makers(results, cases, dtype, compare=rounds > 0).items():
            make_side = functools.partial(make, dtype, its_cases, calls_per_round())
            try:  # what is not timed needs no process of its own
                processes[name] = stack.enter_context(started(make_side)) if rounds else make_side()
            except SideError as error:
                for case in its_cases:
                    results.leave_out(case.name, name, error)
        for case in cases:
            sides = {name: side for name, side in processes.items() if is_right(results, case, name, side, wanted)}
            if not rounds:
                continue
            if len({name.partition(" ")[0] for name in sides}) < 2:
                raise UserError(f"{case.name}: there are no two sides to compare: {results.left_out}")
            tokens, ideal = float((case.sequence_ids > 0).sum()), float(case.flops / results.metadata["peak_flops"])
            measure(
                results,
                case.name,
                sides,
                rounds,
                case.name,
                steps=calls_per_round(),
                amounts=dict.fromkeys(sides, tokens),
                ideal=dict.fromkeys(sides, ideal),
            )
            print(verdict(results, case.name), flush=True)


def side_makers(
    results: Results, cases: list[Case], dtype: str, *, compare: bool
) -> dict[str, tuple[Callable, list[Case]]]:
    """Returns by name what makes each side, and its cases: the kernels that the model prefers first."""
    preferred: dict[str, list[Case]] = {}
    for case in cases:
        heads, head = HEADS[case.model]
        kernel, why = preferred_kernel(heads, head, case.sequence_ids.shape[1], case.max_sequences, dtype)
        if kernel == "plain":
            results.leave_out(case.name, "bert_jax, other kernels", why)
        else:
            preferred.setdefault(kernel, []).append(case)
    makes = {f"bert_jax {kernel}": (functools.partial(JaxAttention, kernel), its) for kernel, its in preferred.items()}
    makes["bert_jax plain"] = functools.partial(JaxAttention, "plain"), cases
    backends = BACKENDS["gpu" if on_gpu() else "cpu"] if compare else ()
    return makes | {f"PyTorch {backend}": (functools.partial(TorchAttention, backend), cases) for backend in backends}


def is_right(results: Results, case: Case, name: str, side: SideProcess, wanted: dict[str, list[np.ndarray]]) -> bool:
    """Returns whether a side can do a case and gives what plain attention does; records how far off it is."""
    metadata = side.metadata
    if case.name not in metadata["results"]:
        if case.name in metadata["left_out"]:
            results.leave_out(case.name, name, metadata["left_out"][case.name])
        return False
    shares = differences(case, metadata["results"][case.name], wanted[case.name])
    gradients = list(shares.values())[1:]
    gradient = float(np.max(gradients)) if gradients else None
    results.add(case.name, name, output_difference=shares[QUANTITIES[0]], gradient_difference=gradient)
    results.add(case.name, name, **metadata["programs"].get(case.name, {}))
    if wrong := beyond_tolerance(shares, results.metadata["dtype"]):
        results.leave_out(case.name, name, wrong)
        print(f"{name} does not attend as plain attention does at {case.name}: {wrong}", flush=True)
    return not wrong


def differences(case: Case, outputs: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    """Returns how far the output and the gradients are from the reference, as shares of its largest value.

    The output where there is no padding; gradients everywhere, for those at padding reach the projections too.
    """
    inside = case.sequence_ids[case.checked] > 0
    shares = {}
    for quantity, value, reference in zip(QUANTITIES, outputs, wanted, strict=False):
        forward = quantity == QUANTITIES[0]
        shares[quantity] = share_of_largest(*((a[inside] if forward else a) for a in (value, reference)))
    return shares


def beyond_tolerance(shares: dict[str, float], dtype: str) -> str:
    """Returns the first of the differences that is larger than the type allows; nothing if all are within."""
    for quantity, share in shares.items():
        tolerance = OUTPUT_TOLERANCE if quantity == QUANTITIES[0] else GRADIENT_TOLERANCE
        if not share <= (tolerance if dtype == "float32" else BFLOAT16_TOLERANCE):
            return f"{quantity} differs by {share:.2g} of the largest"
    return ""
