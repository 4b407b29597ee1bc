"""Sides of a comparison that take turns, so that noise hits all alike, each in a process of its own.

In one process the threads of one library slow down the other's: two cores of an AMD EPYC took 714 ms for a step of ours
beside PyTorch's idle threads, and 433 ms without them.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from bert_jax.errors import UserError

# What `keep_memory` in bert_jax/runtime/machine.py does, but from the first allocation on. Threads that libraries had
# started
# before it had arenas of their own, and one step in ten took twice as long.
_KEEP_MEMORY = "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000"
# The sides share the memory of a GPU: with each other, and with this process, which uses the device before they start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Side(Protocol):
    """What is compared. One that uses a device's own memory says how much: `device_peak_bytes() -> int | None`.

    Attributes:
      facts: what it has to say before its first turn; can be pickled.
    """

    facts: dict[str, Any]

    def turn(self, *which: Any) -> None:
        """A fixed piece of work, finished when it returns; `which`, for a side that has several."""


class SideError(UserError):
    """A side could not start, or failed in its turn; the message says why."""


class SideProcess:
    """A side at work in another process."""

    def __init__(self, make: Callable[[], Side]) -> None:
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
            self.facts: dict[str, Any] = self._answer()
        except BaseException:  # Ctrl-C too: nobody else knows of the process yet
            self._process.terminate()
            raise

    def turn(self, *which: Any) -> float:
        """Seconds of one turn."""
        self._connection.send(("turn", *which))
        return self._answer()

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def peak_bytes(self) -> int | None:
        """The most memory that it has had of its device, else of the system; None where nobody tells."""
        self._connection.send(("peak_bytes",))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError as error:
            self._process.join()
            raise SideError(f"its process ended with status {self._process.exitcode}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _work(connection: Connection, make: Callable[[], Side]) -> None:
    """What the process of a side does until nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends this
    try:
        side = make()
    except UserError as error:
        connection.send(error)
        return
    except Exception as error:  # whatever a library raises: it need not be picklable
        connection.send(SideError(f"{type(error).__name__}: {error}"))
        return
    connection.send(side.facts)
    with contextlib.suppress(EOFError):
        while True:
            request, *which = connection.recv()
            connection.send(_seconds(side, which) if request == "turn" else _peak_bytes(side))


def _seconds(side: Side, which: list[Any]) -> float | SideError:
    begin = time.perf_counter()
    try:
        side.turn(*which)
    except Exception as error:  # as above
        return SideError(f"{type(error).__name__}: {error}")
    return time.perf_counter() - begin


def _peak_bytes(side: Side) -> int | None:
    if of_device := getattr(side, "device_peak_bytes", lambda: None)():
        return of_device
    # Not getrusage: its maximum begins with the memory of the process that started this one.
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return 1024 * int(found[1]) if found else None
    return None


@contextlib.contextmanager
def started(make: Callable[[], Side], *, keep_memory: bool = True) -> Iterator[SideProcess]:
    """The process of a side, for as long as it is needed; `keep_memory`: as the scripts do."""
    before = dict(os.environ)
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a side tells how long it compiled
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    if keep_memory:
        tunables = filter(None, (os.environ.get("GLIBC_TUNABLES"), _KEEP_MEMORY))
        os.environ.update(GLIBC_TUNABLES=":".join(tunables), TOKENIZERS_PARALLELISM="false")
    try:
        side = SideProcess(make)
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        yield side
    finally:
        side.close()


def in_turns(
    sides: dict[str, SideProcess], rounds: int, *which: Any, left_out: dict[str, str] | None = None
) -> dict[str, list[float]]:
    """Seconds of each side's turns, one after the other in each round; the first round warms up.

    Args:
      sides: by name, ours first.
      rounds: turns of each, the first not counted.
      which: of a side's pieces of work, if it has several.
      left_out: gets those of theirs that failed, and why: they are ended, for they may hold memory that others want.

    Raises:
      UserError: no round is asked for.
      SideError: a side failed, and it is the first or `left_out` is None.
    """
    if rounds < 1:
        raise UserError("speed wants --rounds=1 at least")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(times):
            try:
                seconds = sides[name].turn(*which)
            except SideError as error:
                if left_out is None or name == next(iter(sides)):
                    raise
                left_out[name] = str(error).splitlines()[0]
                sides[name].close()
                del times[name]
                continue
            times[name] += [seconds] if number else []
    return times


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This thread and those that it starts run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
