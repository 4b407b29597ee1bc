"""Sides of a comparison: each in a process of its own, all in the same rounds, so that noise hits them alike.

In one process the threads of one library slow down the other's: two cores of an AMD EPYC took 714 ms for a step of JAX
beside PyTorch's idle threads, and 433 ms without them.
"""

import contextlib
import functools
import math
import multiprocessing
import os
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.benchmarks.record import Results
from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.experiments.parity import OUTPUT_TOLERANCE
from bert_jax.model.layers import precision

# What `keep_memory` in bert_jax/runtime/machine.py does, but from the first allocation on. Threads that libraries had
# started before it had arenas of their own, and one step in ten took twice as long.
_KEEP_MEMORY = "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000"
BFLOAT16_TOLERANCE = 0.05  # of the largest value, for outputs and gradients: bfloat16 has 8 bits
# The sides share the memory of a GPU: with each other, and with this process, which uses the device before they start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Side(Protocol):
    """What is compared. One that uses a device's own memory says how much: `device_peak_bytes() -> int | None`.

    Attributes:
      metadata: what it reports before its first round; can be pickled. Its `figures` are recorded by `compare`.
    """

    metadata: dict[str, Any]

    def run(self, *which: Any, **settings: Any) -> Any:
        """Does a fixed piece of work, finished when it returns; `which`, for a side that has several."""


class SideError(UserError):
    """A side could not start, or failed in a round; the message says why."""


Make = Callable[[], Side]


# ---- processes -----------------------------------------------------------------------------------


class SideProcess:
    """A side at work in another process, with its `metadata`."""

    def __init__(self, make: Make) -> None:
        """Starts it and waits until it is ready; `make` can be pickled.

        Raises:
          UserError: `make` raised it.
          SideError: `make` raised something else.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=_work, args=(other_end, make))  # no daemon: those may start no process
        self._process.start()
        other_end.close()
        try:
            self.metadata: dict[str, Any] = self._answer()
        except BaseException:  # Ctrl-C too: nobody else knows of the process yet
            self._process.terminate()
            raise

    def run(self, *which: Any) -> float:
        """Returns the seconds that one piece of work took."""
        return self._answer(_seconds, *which)

    def peak_bytes(self) -> int | None:
        """Returns the most memory that it has had of its device, else of the system; None where it cannot be known."""
        return self._answer(_peak_bytes)

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()

    def _answer(self, *request: Any) -> Any:
        if request:
            self._connection.send(request)
        try:
            answer = self._connection.recv()
        except EOFError as error:
            self._process.join()
            raise SideError(f"its process ended with status {self._process.exitcode}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _work(connection: Connection, make: Make) -> None:
    """Answers what the parent of a side's process asks, until it hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends this
    side = _attempt(make)
    connection.send(side if isinstance(side, UserError) else side.metadata)
    with contextlib.suppress(EOFError):
        while not isinstance(side, UserError):
            request, *which = connection.recv()
            connection.send(_attempt(request, side, *which))


def _attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a call gives; or its error, as one that can be pickled: those of libraries need not be."""
    try:
        return work(*arguments)
    except UserError as error:
        return error
    except Exception as error:
        return SideError(f"{type(error).__name__}: {error}")


def _seconds(side: Side, *which: Any) -> float:
    begin = time.perf_counter()
    side.run(*which)
    return time.perf_counter() - begin


def _peak_bytes(side: Side) -> int | None:
    if of_device := getattr(side, "device_peak_bytes", lambda: None)():
        return of_device
    # Not getrusage: its maximum begins with the memory of the process that started this one.
    with contextlib.suppress(OSError):
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return 1024 * int(match[1]) if match else None
    return None


@contextlib.contextmanager
def started(make: Make, *, keep_memory: bool = True) -> Iterator[SideProcess]:
    """Provides the process of a side for as long as it is needed; `keep_memory`: as the scripts do."""
    before = dict(os.environ)
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a side reports how long it compiled
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    if keep_memory:
        tunables = filter(None, (os.environ.get("GLIBC_TUNABLES"), _KEEP_MEMORY))
        os.environ.update(GLIBC_TUNABLES=":".join(tunables), TOKENIZERS_PARALLELISM="false")
    try:
        side = SideProcess(make)
    finally:
        os.environ.clear()
        os.environ.update(before)
    with contextlib.closing(side):
        yield side


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Lets this thread and those that it starts run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- rounds --------------------------------------------------------------------------------------

_deadline = math.inf


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Lets comparisons start no further side after so long, and no further round once each side has one."""
    global _deadline
    before, _deadline = _deadline, time.monotonic() + seconds
    try:
        yield
    finally:
        _deadline = before


def time_is_up() -> bool:
    """Returns whether the time of `time_limit` is over."""
    return time.monotonic() > _deadline


def compare(
    results: Results,
    case: str,
    makes: Mapping[str, Make],
    rounds: int,
    check: Callable[[str, dict[str, Any]], None] = lambda name, metadata: None,
    amount: str = "",
    own_arenas: Sequence[str] = (),
    **figures: Any,
) -> dict[str, dict[str, Any]]:
    """Starts the sides that can be, measures them, and records the figures of each; the reasons of others, too.

    Args:
      results: gets everything.
      case: what is done.
      makes: what makes each side by its name, the project's own first, which must start.
      rounds: how many count.
      check: raises UserError where a side, by its name and metadata, does not do what the first does; SideError leaves
        it out.
      amount: key of the metadata under which each side says how much it gets done in a step, in place of `amounts`.
      own_arenas: sides that run without the memory that scripts keep.
      **figures: of `measure`.

    Returns:
      The metadata of the sides that have not failed.
    """
    sides: dict[str, SideProcess] = {}
    with contextlib.ExitStack() as stack:
        for name, make in makes.items():
            if len(sides) > 1 and time_is_up():
                results.leave_out(case, name, "no time was left")
                continue
            try:
                side = stack.enter_context(started(make, keep_memory=name not in own_arenas))
                check(name, side.metadata)
            except SideError as error:  # a kernel that is not installed here, for example
                if not sides:
                    raise
                results.leave_out(case, name, error)
                continue
            sides[name] = side
        if amount:
            figures["amounts"] = {name: side.metadata[amount] for name, side in sides.items()}
        names = measure(results, case, sides, rounds, **figures)
    for name in names:
        results.add(case, name, **sides[name].metadata.get("figures", {}))
    return {name: sides[name].metadata for name in names}


def check_rounds(rounds: int) -> None:
    """Raises UserError if there is no round."""
    if rounds < 1:
        raise UserError("speed wants --rounds=1 at least")


def in_rounds(
    sides: Mapping[str, SideProcess],
    rounds: int,
    *which: Any,
    leave_out: Callable[[str, SideError], None] | None = None,
) -> dict[str, list[float]]:
    """Runs each side in each round, one after the other; the first round warms up.

    Args:
      sides: by name, the project's own first.
      rounds: how many count.
      which: of a side's pieces of work, if it has several.
      leave_out: is told of sides after the first that failed, and why: they are ended, for they may hold memory that
        others want. Without it, a SideError is raised.

    Returns:
      The seconds of each side in each round that counts.
    """
    check_rounds(rounds)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        if number > 1 and time_is_up():
            break
        for name in list(times):
            try:
                seconds = sides[name].run(*which)
            except SideError as error:
                if leave_out is None or name == next(iter(sides)):
                    raise
                leave_out(name, error)
                sides[name].close()
                del times[name]
                continue
            times[name] += [seconds] if number else []
    return times


# ---- figures -------------------------------------------------------------------------------------


def measure(
    results: Results,
    case: str,
    sides: Mapping[str, SideProcess],
    rounds: int,
    *which: Any,
    amounts: Mapping[str, float] | None = None,
    **speed: Any,
) -> list[str]:
    """Runs sides in rounds (`which` of their pieces of work) and records memory, speed as `record_speed`, and `ratio`.

    That says how many times as fast the first side is as the fastest of those that are not the project's own, by round
    and by the medians. Returns the names of the sides that have not failed.
    """
    times = in_rounds(sides, rounds, *which, leave_out=functools.partial(results.leave_out, case))
    record_speed(results, case, times, amounts=amounts, **speed)
    amounts = amounts or dict.fromkeys(times, 1.0)
    rates = {name: amounts[name] / results.value(case, name, "seconds") for name in times}
    first, others = next(iter(times)), [name for name in times if not name.startswith("bert_jax")]
    if others:
        best = max(others, key=rates.__getitem__)
        more = amounts[first] / amounts[best]
        ratios = [more * other / own for own, other in zip(times[first], times[best], strict=True)]
        results.add_rounds(case, first, "ratio", ratios, rates[first] / rates[best])
    for name in times:
        results.add(case, name, peak_bytes=sides[name].peak_bytes())
    return list(times)


def record_speed(
    results: Results,
    case: str,
    times: Mapping[str, list[float]],
    *,
    steps: int = 1,
    amounts: Mapping[str, float] | None = None,
    rate: str = "tokens_per_second",
    ideal: Mapping[str, float] | None = None,
) -> None:
    """Records seconds and what follows from them.

    Args:
      results: gets the figures.
      case: what is done.
      times: seconds of each side in each round.
      steps: in a round; seconds are recorded of one.
      amounts: what each side gets done in a step, such as real tokens; None: all the same.
      rate: metric of amounts a second.
      ideal: seconds that the products of a step would take at the rate of a large one, of each side.
    """
    for name, seconds in times.items():
        results.add_rounds(case, name, "seconds", [each / steps for each in seconds])
        median = results.value(case, name, "seconds")
        results.add(case, name, spread=(max(seconds) - min(seconds)) / statistics.median(seconds))
        if amounts:
            results.add(case, name, **{rate: amounts[name] / median})
        if ideal:
            results.add(case, name, utilization=ideal[name] / median)


def check_same_loss(name: str, loss: float, its_loss: float, dtype: str) -> None:
    """Raises UserError unless a side gives the first batch the same loss: else it would not be comparable."""
    tolerance = OUTPUT_TOLERANCE if dtype == "float32" else 1e-2  # bfloat16 has 8 bits
    if not abs(loss - its_loss) <= tolerance * abs(its_loss):
        raise UserError(f"{name} does not start as bert_jax does: the first loss is {loss:.7g} and {its_loss:.7g}")


def share_of_largest(value: np.ndarray, reference: np.ndarray) -> float:
    """Returns the largest difference as a share of the reference's largest value."""
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def chosen_dtype(dtype: str = "auto") -> str:
    """Returns in which type all sides compute: float32 or bfloat16."""
    return {"auto": "float32" if jax.default_backend() == "cpu" else "bfloat16"}.get(dtype, dtype)


def on_gpu() -> bool:
    """Returns whether the sides run on a GPU."""
    return jax.default_backend() == "gpu"


def step_flops(config: ModelConfig, lengths: Sequence[int] | np.ndarray, predicted: float) -> float:
    """Returns the floating-point operations of one training step: forward, and twice that backward.

    Of the matrix products alone (Chowdhery et al. 2022, appendix B), and of real tokens alone: what a side computes on
    padding, or between sequences that share a row, is its own loss.

    Args:
      config: of the model.
      lengths: tokens of each sequence.
      predicted: positions that the vocabulary's logits are wanted of.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    lengths = np.asarray(lengths, float)
    dense = 4 * width**2 + 2 * width * config.intermediate_size
    attention = 2 * lengths * width
    head = width**2 + width * config.vocab_size
    return 3 * 2 * (layers * float((lengths * (dense + attention)).sum()) + predicted * head)


def peak_flops(dtype: str, seconds: float = 1.0) -> float:
    """Returns the operations a second of a large matrix product on this machine's device: the best of several."""
    # A product that gives bfloat16 is no faster than one of float32 for XLA on a CPU; on a GPU it is, and calls queue.
    size, output, calls = (2048, "float32", 1) if jax.default_backend() == "cpu" else (8192, dtype, 16)
    left, right = (jax.random.normal(jax.random.key(i), (size, size), jnp.dtype(dtype)) for i in (0, 1))
    settings = dict(precision=precision(left.dtype), preferred_element_type=jnp.dtype(output))
    product = jax.jit(functools.partial(jnp.dot, **settings))
    product(left, right).block_until_ready()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        products = [product(left, right) for _ in range(calls)]
        products[-1].block_until_ready()
        best = min(best, (time.perf_counter() - begin) / calls)
    return 2 * size**3 / best
