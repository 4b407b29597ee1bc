"""How fast attention alone is: our kernels that this device runs beside PyTorch's `scaled_dot_product_attention`.

Rows of one sequence each, full and padded, and packed rows of several; the same number of positions in all. Forward
alone, and forward plus backward. Each side's outputs and gradients are held against plain attention in float32 before
anything is timed. Each side in a process of its own, in turns.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.benchmarks.training_speed import chosen_dtype, comparison, peak_flops
from bert_jax.benchmarks.turns import SideError, SideProcess, in_turns, started
from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.experiments.parity import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from bert_jax.model.kernels.choose import KERNELS, choose_kernel
from bert_jax.model.kernels.kernel import Kernel
from bert_jax.model.kernels.plain import scaled_dot_product_attention
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

HEADS = {"BERT-base": (12, 64), "MiniLM": (12, 32)}  # N and H
KINDS = ("full", "padded", "packed")
CHECKED = 8  # rows of a batch that are compared, at equal distances
BACKENDS = {"cpu": ("flash", "math"), "gpu": ("flash", "efficient", "cudnn")}  # of PyTorch's function


def lengths_and_positions() -> tuple[tuple[int, ...], int]:
    """L of the rows, and B x L of a batch: enough to keep this device busy."""
    return ((128, 512), 4_096) if jax.default_backend() == "cpu" else ((128, 512, 2_048), 131_072)


def calls_a_turn() -> int:
    """So many that a turn is no shorter than some milliseconds."""
    return 8 if jax.default_backend() == "cpu" else 64


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
      model: key of `HEADS`.
      kind: of `KINDS`.
      sequence_ids: int32 [B, L].
      gradient: forward plus backward, not forward alone.
    """

    model: str
    kind: str
    sequence_ids: np.ndarray
    gradient: bool

    @property
    def name(self) -> str:
        rows, length = self.sequence_ids.shape
        work = "forward and backward" if self.gradient else "forward"
        return f"{self.model}, {rows} x {length}, {self.kind}, {work}"

    @property
    def max_sequences(self) -> int:
        """K, sequences of a row at most."""
        return int(self.sequence_ids.max())

    @property
    def flops(self) -> float:
        """Operations of the products that attention within sequences takes: two forward, and four backward."""
        heads, head = HEADS[self.model]
        lengths = np.stack([(self.sequence_ids == number).sum(axis=1) for number in range(1, self.max_sequences + 1)])
        return (3 if self.gradient else 1) * 4.0 * heads * head * float((lengths.astype(np.int64) ** 2).sum())

    def arrays(self) -> list[np.ndarray]:
        """Query, key, value and what the output's gradient is, 0 at padding: float32 [B, L, N, H] each."""
        *inputs, gradient = random_arrays((4, *self.sequence_ids.shape, *HEADS[self.model]))
        return [*inputs, gradient * (self.sequence_ids > 0)[..., None, None]]


@functools.lru_cache(maxsize=1)  # the cases of a shape share it
def random_arrays(shape: tuple[int, ...]) -> np.ndarray:
    """Normal, float32, and always the same."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def drawn_rows(kind: str, rows: int, length: int) -> np.ndarray:
    """int32 [B, L] of sequence numbers, as batches have them: 0 is padding.

    `padded`: a quarter of the row to all of it, the longest just fits; `packed`: an eighth to a half, as many as fit.
    """
    rng, ids = np.random.default_rng(0), np.zeros((rows, length), np.int32)
    if kind == "full":
        return ids + 1
    if kind == "padded":
        lengths = rng.integers(length // 4, length, rows, endpoint=True)
        lengths[0] = length
        return (np.arange(length) < lengths[:, None]).astype(np.int32)
    for row in ids:
        ends = np.cumsum(rng.integers(length // 8, length // 2, 8, endpoint=True))
        for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends[ends <= length], strict=False), start=1):
            row[begin:end] = number
    return ids


# --- the sides


class Ours:
    """A kernel of the project."""

    def __init__(self, kernel: str, dtype: str, cases: list[Case]) -> None:
        self.kernel, self.dtype, self.programs = kernel, jnp.dtype(dtype), {}
        self.calls, self.facts = prepared(self.call, lambda array: np.asarray(array, np.float32), cases)
        self.facts["programs"] = self.programs

    def turn(self, name: str) -> None:
        for _ in range(calls_a_turn()):
            found = self.calls[name]()
        jax.block_until_ready(found)

    def call(self, case: Case) -> Callable[[], list[jax.Array]]:
        """Gives the output; and with a gradient those of query, key and value."""
        kernel = KERNELS[self.kernel]
        rows = jax.jit(kernel.prepare, static_argnums=(1, 2))(case.sequence_ids, case.max_sequences, AttentionPattern())
        attend = functools.partial(_attend, kernel, Execution.here(self.dtype.name))
        if self.kernel == "plain" and case.gradient:  # as the encoder has it
            attend = plain_attention
        arrays = [jnp.asarray(array, self.dtype) for array in case.arrays()]
        begin = time.perf_counter()
        run = compiled(attend, case.gradient).lower(*arrays, rows).compile()
        temporaries = run.memory_analysis().temp_size_in_bytes
        self.programs[case.name] = {"seconds": time.perf_counter() - begin, "temporary_bytes": temporaries}
        # On a CPU, calls that wait for nobody would run side by side.
        wait = jax.block_until_ready if jax.default_backend() == "cpu" else lambda found: found
        return lambda: wait(run(*arrays, rows))

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has had of its device, where JAX tells: not on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _attend(kernel: Kernel, execution: Execution, *arguments: Any) -> jax.Array:
    return kernel.attend(*arguments, execution)


def plain_attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """`scaled_dot_product_attention` without the probabilities."""
    return scaled_dot_product_attention(query, key, value, mask)[0]


def compiled(attend: Callable[..., jax.Array], gradient: bool) -> Callable[..., list[jax.Array]]:
    """Of query, key, value, the output's gradient and the rows: the output, and the gradients of the first three."""

    @jax.jit
    def run(query: jax.Array, key: jax.Array, value: jax.Array, weights: jax.Array, rows: Any) -> list[jax.Array]:
        if not gradient:
            return [attend(query, key, value, rows)]
        output, pull = jax.vjp(lambda *inputs: attend(*inputs, rows), query, key, value)
        return [output, *pull(weights)]

    return run


class Theirs:
    """PyTorch's function by one of its backends; without padding it has no mask, which lets it take its fast way."""

    def __init__(self, backend: str, dtype: str, cases: list[Case]) -> None:
        try:
            import torch
            from torch.nn.attention import SDPBackend, sdpa_kernel
        except ImportError as error:
            raise UserError(f"{error.name} is needed to compare with: pip install torch") from error
        self.device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, dtype)
        torch.set_float32_matmul_precision("highest")
        name = {"math": "MATH"}.get(backend, f"{backend.upper()}_ATTENTION")
        self.chosen = functools.partial(sdpa_kernel, getattr(SDPBackend, name))
        with self.chosen(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of why a backend cannot do a case; the error says it too
            fetch = lambda tensor: tensor.detach().float().cpu().numpy()  # noqa: E731
            self.calls, self.facts = prepared(self.call, fetch, cases)

    def turn(self, name: str) -> None:
        import torch

        with self.chosen():
            for _ in range(calls_a_turn()):
                self.calls[name]()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has had of a GPU."""
        import torch

        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def call(self, case: Case) -> Callable[[], list[Any]]:
        """Gives the output; and with a gradient those of query, key and value."""
        import torch

        attend = torch.nn.functional.scaled_dot_product_attention
        *inputs, gradient = (torch.from_numpy(array).to(self.device, self.dtype) for array in case.arrays())
        for each in inputs:
            each.requires_grad_(case.gradient)
        ids = torch.from_numpy(case.sequence_ids).to(self.device)
        masks = {"padded": (ids > 0)[:, None, None], "packed": (ids[:, :, None] == ids[:, None, :])[:, None]}
        mask = masks.get(case.kind)

        def run() -> list[Any]:
            heads_first = (each.transpose(1, 2) for each in inputs)
            output = attend(*heads_first, attn_mask=mask).transpose(1, 2).contiguous()
            return [output, *(torch.autograd.grad(output, inputs, gradient) if case.gradient else ())]

        return run


def prepared(
    call: Callable[[Case], Callable[[], list]], fetch: Callable[[Any], np.ndarray], cases: list[Case]
) -> tuple[dict[str, Callable[[], list]], dict[str, Any]]:
    """The calls of a side by the names of the cases; and what they gave, or why a case cannot be."""
    calls, facts = {}, {"results": {}, "left_out": {}}
    for case in cases:
        try:
            calls[case.name] = call(case)
            facts["results"][case.name] = [fetch(each[checked_rows(case)]) for each in calls[case.name]()]
        except RuntimeError as error:  # a backend that cannot do it, or not enough memory
            facts["left_out"][case.name] = str(error).splitlines()[0]
    return calls, facts


def checked_rows(case: Case) -> slice:
    """Of a batch."""
    return slice(None, None, -(-len(case.sequence_ids) // CHECKED))


# --- the check


def reference(case: Case) -> list[np.ndarray]:
    """What plain attention gives in float32, on the CPU whatever the device: output, and gradients if wanted."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        arrays = [jnp.asarray(array[checked_rows(case)]) for array in case.arrays()]
        mask = AttentionPattern().mask(jnp.asarray(case.sequence_ids[checked_rows(case)]))
        return [np.asarray(each) for each in compiled(plain_attention, case.gradient)(*arrays, mask)]


def difference(case: Case, found: list[np.ndarray], want: list[np.ndarray], dtype: str) -> str:
    """What a side gives that the reference does not; nothing if they agree.

    The output where there is no padding; gradients everywhere, for those at padding reach the projections too.
    """
    inside = case.sequence_ids[checked_rows(case)] > 0
    quantities = ("the output", "the gradient of the query", "the gradient of the key", "the gradient of the value")
    for quantity, one, other in zip(quantities, found, want, strict=False):
        forward = quantity == quantities[0]
        one, other = (each[inside] if forward else each for each in (one, other))
        tolerance = OUTPUT_TOLERANCE if forward else GRADIENT_TOLERANCE
        share = float(np.abs(one - other).max() / np.abs(other).max())
        if not share <= (tolerance if dtype == "float32" else 0.05):  # bfloat16 has 8 bits
            return f"{quantity} differs by {share:.2g} of the largest"
    return ""


# --- suite attention


def attention_suite(_workdir: Any, _model: str, *, rounds: int) -> tuple[str, dict]:
    """All sides at each length, of the heads of each model.

    Args:
      rounds: turns of each side.

    Raises:
      UserError: PyTorch is missing, or no two sides are left to compare.
    """
    dtype = chosen_dtype()
    lengths, positions = lengths_and_positions()
    peak = peak_flops(dtype)
    figures: dict[str, Any] = {"dtype": dtype, "dropout": 0.0, "positions": positions, "peak_flops": peak, "cases": {}}
    for model in HEADS:
        for length in lengths:
            rows = {kind: drawn_rows(kind, positions // length, length) for kind in KINDS}
            cases = [Case(model, kind, ids, gradient) for gradient in (False, True) for kind, ids in rows.items()]
            figures["cases"] |= compared(cases, dtype, peak, rounds)
            for case in cases:
                found = figures["cases"][case.name]
                print(f"{case.name}: {found['ratio']:.2f} times as fast as {found['fastest_of_theirs']}", flush=True)
    return attention_table(figures), figures


def compared(cases: list[Case], dtype: str, peak: float, rounds: int) -> dict[str, dict[str, Any]]:
    """The figures of cases of one shape; the first of ours is what the model takes of itself."""
    wanted, left_out = sides_of(cases, dtype)
    want = {case.name: reference(case) for case in cases}
    sides: dict[str, dict[str, SideProcess]] = {case.name: {} for case in cases}
    figures = {}
    with contextlib.ExitStack() as stack:
        for name, (make, its_cases) in wanted.items():
            try:
                side = stack.enter_context(started(functools.partial(make, dtype, its_cases)))
            except SideError as error:
                for case in its_cases:
                    left_out[case.name][name] = str(error).splitlines()[0]
                continue
            results = side.facts.pop("results")
            for case in its_cases:
                if case.name not in results:
                    left_out[case.name][name] = side.facts["left_out"][case.name]
                elif why := difference(case, results[case.name], want[case.name], dtype):
                    left_out[case.name][name] = why
                    print(f"{name} does not attend as plain attention does at {case.name}: {why}", flush=True)
                else:
                    sides[case.name][name] = side
        for case in cases:
            if len({name.partition(" ")[0] for name in sides[case.name]}) < 2:
                raise UserError(f"{case.name}: there are no two sides to compare: {left_out[case.name]}")
            times = in_turns(sides[case.name], rounds, case.name)
            tokens, ideal = float((case.sequence_ids > 0).sum()), case.flops / peak
            found = comparison(times, calls_a_turn(), dict.fromkeys(times, tokens), dict.fromkeys(times, ideal))
            of_sides = {name: side.facts.get("programs") for name, side in sides[case.name].items()}
            programs = {name: each[case.name] for name, each in of_sides.items() if each}
            figures[case.name] = {**found, "programs": programs, "left_out": left_out[case.name]}
        for case in cases:  # a side's process has them all
            peaks = {name: side.peak_bytes() for name, side in sides[case.name].items()}
            figures[case.name]["peak_bytes_of_shape"] = peaks
    return figures


def sides_of(cases: list[Case], dtype: str) -> tuple[dict[str, tuple[Callable, list[Case]]], dict[str, dict[str, str]]]:
    """What makes each side, and its cases, the kernels that the model prefers first; and why it does not, by case."""
    preferred, left_out = {}, {case.name: {} for case in cases}
    for case in cases:
        heads, head = HEADS[case.model]
        config = ModelConfig(hidden_size=heads * head, num_attention_heads=heads)
        length = case.sequence_ids.shape[1]
        kernel, why = choose_kernel(config, Execution.here(dtype), length, case.max_sequences, dropout=False)
        if kernel.name == "plain":
            left_out[case.name]["bert_jax, other kernels"] = why
        else:
            preferred.setdefault(kernel.name, []).append(case)
    ours = {f"bert_jax {kernel}": (functools.partial(Ours, kernel), its) for kernel, its in preferred.items()}
    ours["bert_jax plain"] = functools.partial(Ours, "plain"), cases
    backends = BACKENDS["gpu" if jax.default_backend() == "gpu" else "cpu"]
    theirs = {f"PyTorch {backend}": (functools.partial(Theirs, backend), cases) for backend in backends}
    return ours | theirs, left_out


def attention_table(figures: dict[str, Any]) -> str:
    """Each side of each case as a line of text."""
    lines = [
        f"{figures['positions']:,} positions, {figures['dtype']}",
        f"{'':<30}{'ms':>10}{'tokens/s':>14}{'of peak':>9}{'spread':>8}{'peak GB':>9}{'compile, s':>12}{'its MB':>8}"
        "  times as fast",
    ]
    for name, found in figures["cases"].items():
        lines.append(name)
        rates = found["tokens_per_second"]
        ours = next(iter(rates))
        for side, rate in rates.items():
            line = f"  {side:<28}{1e3 * found['seconds_a_step'][side]:>10.3f}{rate:>14,.0f}"
            line += f"{found['utilisation'][side]:>9.1%}{found['spread'][side]:>8.0%}"
            line += f"{(found['peak_bytes_of_shape'][side] or math.nan) / 1e9:>9.2f}"
            program = found["programs"].get(side)
            line += f"{program['seconds']:>12.2f}{program['temporary_bytes'] / 1e6:>8.0f}" if program else f"{'':>20}"
            line += "" if side == ours else f"  {rates[ours] / rate:.2f}"
            if side == found["fastest_of_theirs"]:
                line += f" ({min(found['ratio_by_round']):.2f} to {max(found['ratio_by_round']):.2f})"
            lines.append(line)
    left_out = collections.Counter(each for found in figures["cases"].values() for each in found["left_out"].items())
    lines += [f"{side}: left out of {number} cases: {why}" for (side, why), number in left_out.items()]
    lines.append(
        "peak GB: of the side's process, in all cases of a model and length; its MB: the program's temporaries"
    )
    return "\n".join(lines)
