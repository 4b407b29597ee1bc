"""Reads UTF-8 files as a stream of lines, the first thing that every reader of text does.

Only a line feed ends a line, whatever else Python takes for a line end; a byte order mark is dropped. Bytes that are
not UTF-8 are an error that names the line and the byte, or become U+FFFD where the caller asks for `errors="replace"`.
A file that gzip, bzip2 or xz has packed, by its first bytes and whatever its name, is unpacked as it is read. Only
files are read: a pipe, a device or a socket may keep its reader waiting for ever.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from bert_jax.errors import UserError

LINE_LIMIT = 64 << 20  # bytes of a line that is read whole
# What packed files begin with, and no text.
_PACKED = {rb"\x1f\x8b": gzip.open, rb"BZh[1-9]1AY&SY": bz2.open, rb"\xfd7zXZ\0": lzma.open}
PACKED_EXTENSIONS = (".gz", ".bz2", ".xz")


class NotUTF8Error(UserError):
    """Says that a text is not UTF-8, and where."""


class _Counted(io.RawIOBase):
    """Calls a function with the number of bytes at each read of a file."""

    def __init__(self, file: io.FileIO, on_read: Callable[[int], object]) -> None:
        self._file, self._on_read = file, on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._on_read(count)
        return count


_OF_WRITING = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def opened(path: str, on_read: Callable[[int], object] = lambda size: None) -> Iterator[BinaryIO]:
    """Opens a file to be read from its beginning to its end, unpacked.

    Args:
      path: the file.
      on_read: a function that is called with the number of bytes of the file, packed as they are, after each read.

    Raises:
      UserError: what is there is no file, cannot be read, or is torn.
    """
    try:
        check_file(path)
        with open(path, "rb", buffering=0) as file:
            buffered = io.BufferedReader(_Counted(file, on_read), 1 << 16)
            start = buffered.peek(16)
            unpacked = next((kind for mark, kind in _PACKED.items() if re.match(mark, start)), None)
            yield unpacked(buffered) if unpacked else buffered  # pyright: ignore[reportReturnType]
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is packed and damaged ({error}): copy or pack it again") from error
    except OSError as error:
        if error.filename not in (None, path) or error.errno in _OF_WRITING:  # what the block does besides
            raise
        raise UserError(f"cannot read {path}: {error.strerror or ' '.join(str(error).split())}") from error


def check_file(path: str) -> None:
    """Raises UserError for what is no file, and OSError if nothing is there."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"cannot read {path}: it is a folder, and a file is wanted")
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot read {path}: it is a pipe, a device or a socket: write what comes from it to a file")


def read_lines(
    path: str, errors: str = "strict", on_read: Callable[[int], object] = lambda size: None
) -> Iterator[str]:
    """Yields the lines of a file, with their ends.

    Args:
      path: the file.
      errors: the treatment of bytes that are not UTF-8: ``strict`` stops, ``replace`` puts U+FFFD in their place.
      on_read: a function that is called with the number of bytes after each read.

    Raises:
      NotUTF8Error: names the line and the byte offset.
      UserError: the file cannot be read, or a line has more than `LINE_LIMIT` bytes.
    """
    for number, line in enumerate(read_line_parts(path, LINE_LIMIT, errors, on_read), 1):
        if len(line) >= LINE_LIMIT // 4 and not line.endswith("\n") and len(line.encode()) >= LINE_LIMIT - 4:
            raise UserError(f"{path} line {number} is longer than {LINE_LIMIT >> 20} MiB: split it into rows")
        yield line


def read_line_parts(
    path: str, limit: int, errors: str = "strict", on_read: Callable[[int], object] = lambda size: None
) -> Iterator[str]:
    """Yields the lines of a file as `read_lines` does, but a line of more than `limit` bytes in parts."""
    with opened(path, on_read) as file:
        number, offset, rest = 0, 0, b""
        while data := file.readline(limit):
            data, rest = rest + data, b""
            if not data.endswith(b"\n") and len(data) >= limit:
                data, rest = _whole_characters(data)
            try:
                line = data.decode("utf-8", errors)
            except UnicodeDecodeError as error:
                place = f"line {number + 1}, byte offset {offset + error.start} is 0x{data[error.start]:02x}"
                raise NotUTF8Error(f"{path} is not UTF-8: {place}; convert the file") from error
            if offset == 0:
                line = line.removeprefix("\ufeff")
            offset += len(data)
            number += line.endswith("\n")
            yield line
        if rest:
            yield rest.decode("utf-8", "replace")


def read_text(path: str) -> str:
    """Returns the whole file, without a byte order mark.

    Raises:
      UserError: the file is not there, not UTF-8 (with line and byte offset), or empty.
    """
    text = "".join(read_line_parts(path, LINE_LIMIT))
    if not text.strip("\ufeff \t\r\n"):
        raise UserError(f"{path} is empty")
    return text


def _whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """Splits before a UTF-8 character that the end of `data` cuts in two."""
    for back in range(1, 4):
        if data[-back] & 0xC0 == 0xC0:
            return data[:-back], data[-back:]
        if data[-back] & 0x80 == 0:
            break
    return data, b""
