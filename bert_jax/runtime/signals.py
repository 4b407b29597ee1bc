"""Answers SIGTERM, SIGINT and SIGHUP from the first line of a script to its last.

A signal only sets a flag: Python may run a handler in the midst of JAX's own code, where an exception is lost or ends
in a segmentation fault. The flag is read where work can stop in order, by `check`, or by a block of `held`. Where
neither comes in time, such as within a long call of a library, a thread ends the process: nothing there is worth more
than its temporary files, which are removed.
"""

import contextlib
import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

from bert_jax.errors import Interrupted
from bert_jax.runtime.files import remove_unfinished

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PATIENCE = 1.5  # seconds for the main thread to come to a `check`
ORDERLY = 20.0  # seconds for it to end from there
SAME = 1.0  # seconds in which a signal is no second one: timeout(1) sends it to the process and to its group


class _Asked:
    """Holds what is known of the signal that this process has got."""

    number = 0  # 0: none
    holders = 0  # blocks of `held` that are open
    answered = False  # the main thread is on its way out
    watched = False  # the handlers are those of `watch`
    advice = ""  # what to do once the process has stopped


_asked = _Asked()


def watch() -> None:
    """Answers signals until `unwatch`; what the caller ignores, as nohup has SIGHUP ignored, stays ignored."""
    if multiprocessing.parent_process() is not None or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _heard():
        signal.signal(number, _noted)
    _asked.watched = True
    threading.Thread(target=_answer, args=(reader,), name="signals", daemon=True).start()


def advise(advice: str) -> None:
    """Sets what the line on a signal ends with, such as "; run the same command to go on"."""
    _asked.advice = advice


def unwatch() -> None:
    """Lets a signal end the process at once, as the system does, when all is done but Python's own end."""
    for number in NUMBERS:
        if signal.getsignal(number) is _noted:
            signal.signal(number, signal.SIG_DFL)


def received() -> int:
    """Returns the number of the signal that has come, 0 for none."""
    return _asked.number


def check() -> None:
    """Stops here if a signal has come, unless a block of `held` has what is to be saved first.

    Raises:
      Interrupted: one has come.
    """
    if _asked.number and not _asked.holders:
        _asked.answered = True
        raise Interrupted(None, _asked.number)


@contextlib.contextmanager
def held() -> Iterator[Callable[[], int]]:
    """Gives the function that tells the number of the signal that has come, 0 for none; the block decides when to end.

    Outside of a script, where Python's own handlers are in place, this block has its own; a second signal is Python's,
    and so is one that the block has not answered with `Interrupted`.
    """
    if _asked.watched or threading.current_thread() is not threading.main_thread():
        _asked.holders += 1
        try:
            yield received
        except Interrupted:
            _asked.answered = True
            raise
        finally:
            _asked.holders -= 1
        return
    before = {number: signal.getsignal(number) for number in _heard()}
    came: list[tuple[int, float]] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, _frame: object) -> None:
        if came and time.monotonic() - came[0][1] > SAME:
            restore()
            signal.raise_signal(number)
        came.append((number, time.monotonic()))

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: came[0][0] if came else 0
    except BaseException:
        restore()
        raise
    restore()
    if came:
        signal.raise_signal(came[0][0])


def end(number: int) -> None:
    """Ends the process now, without Python's own end, as a signal does; temporary files are removed."""
    remove_unfinished()
    line = f"{Interrupted(None, number)}{_asked.advice}\n"
    if select.select([], [2], [], 0)[1]:  # nobody may be reading
        with contextlib.suppress(OSError):
            os.write(2, line.encode())
    os._exit(128 + number)


def _heard() -> list[int]:
    return [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]


def _noted(_number: int, _frame: object) -> None:
    """Does nothing: the number has gone to the thread that answers."""


def _answer(reader: int) -> None:
    """Waits for a signal, and sees to it that the process ends."""
    while not _asked.number:
        _asked.number = next((number for number in os.read(reader, 1) if number in NUMBERS), 0)
    began = time.monotonic()
    while True:
        again = select.select([reader], [], [], 0.05)[0] and os.read(reader, 1)[0] in NUMBERS
        passed = time.monotonic() - began
        limit = ORDERLY if _asked.answered else PATIENCE
        if (again and passed > SAME) or (passed > limit and not _asked.holders):
            end(_asked.number)
