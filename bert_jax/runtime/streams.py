"""Standard output and error of scripts: what goes wrong with them never ends a run."""

import contextlib
import errno
import io
import os
import select
import sys
from typing import IO, TextIO, cast

from bert_jax.errors import UserError


class LastingStream(io.RawIOBase):
    """Writes to a file descriptor as long as that goes, and to nowhere once its reader is gone or its disk is full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._gone = descriptor, False

    def write(self, data: "bytes | memoryview") -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Writes some of the data, and returns how many bytes; all of them where nothing can be written."""
        while not self._gone:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody who shares it has made it so
                select.select([], [self._descriptor], [])
            except OSError:
                self._gone = True
        return len(data)

    def writable(self) -> bool:
        """Says that this can be written to."""
        return True

    def fileno(self) -> int:
        """Returns the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Says whether a person looks at it."""
        return os.isatty(self._descriptor)


def open_closed() -> None:
    """Opens standard input, output and error to nowhere where they are closed: else the next file is taken for them."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)


def outlast_readers() -> None:
    """Puts lasting streams in the place of standard output and error; one that is closed goes nowhere."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        raw = LastingStream(descriptor)
        unbuffered = stream is not None and stream.write_through
        lasting = io.TextIOWrapper(
            cast(io.BufferedWriter, raw) if unbuffered else io.BufferedWriter(cast(io.RawIOBase, raw)),
            encoding=stream.encoding if stream else "utf-8",
            errors=stream.errors if stream else "replace",
            line_buffering=stream is not None and (stream.line_buffering or raw.isatty()),
            write_through=unbuffered,
        )
        setattr(sys, name, lasting)


def answers() -> TextIO:
    """Returns standard output for answers, in UTF-8: writing to it raises OSError when nobody reads them.

    Raises:
      UserError: the process was started without one.
    """
    if sys.__stdout__ is None:
        raise UserError("standard output is closed, and the answers would go nowhere: give --output")
    if not _is_lasting(sys.stdout):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        return sys.stdout
    sys.stdout.flush()
    return open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False)


def check_reader(stream: IO[str]) -> None:
    """Raises BrokenPipeError if a stream is of `answers`, and nobody reads it any more: they need not be computed."""
    if getattr(stream, "name", None) == 1 and reader_is_gone():
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def reader_is_gone() -> bool:
    """Says whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _is_lasting(stream: TextIO) -> bool:
    buffer = getattr(stream, "buffer", None)
    return isinstance(getattr(buffer, "raw", buffer), LastingStream)
