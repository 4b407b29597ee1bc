"""Reads JSON that anybody may have written: one value, or a file that is an array of objects as a stream.

What kills a program that takes JSON as it comes is refused or mended here, for every reader of it: values nested
deeper than `DEEPEST`, which no recursive function walks; a name that stands twice in an object, of whose values one
would be lost; and halves of surrogate pairs, such as a cut emoji, which no UTF-8 holds: each becomes U+FFFD.
"""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from bert_jax.errors import UserError
from bert_jax.text import lines
from bert_jax.text.lines import NotUTF8Error, opened

DEEPEST = 100  # levels of lists and objects
_CHUNK = 1 << 16  # bytes
# Each escape is taken as a whole, so that what follows an escaped backslash is none; the group is half of a pair.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_SPACE = re.compile(r"[ \t\r\n]*")


class NamedTwiceError(ValueError):
    """Holds the names of a JSON object that has one of them twice."""

    def __str__(self) -> str:
        """Names those."""
        return "an object has two values of one name: " + ", ".join(
            sorted({repr(name) for name in self.args if self.args.count(name) > 1})
        )


def parse_json(text: str, *, finite: bool = False) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: the whole of it.
      finite: NaN, Infinity and numbers beyond floats, which Python reads and cannot write as JSON, are errors too.

    Raises:
      NamedTwiceError: an object has two values of one name.
      ValueError: it is not JSON, or nested too deep.
    """
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], text)
    try:
        value = (_FINITE if finite else _ANY).decode(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(value)
    return value


_TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise NamedTwiceError(*(name for name, _ in pairs))
    return values


def _not_finite(constant: str) -> float:
    raise ValueError(f"{constant} is none of its numbers")


def _finite(digits: str) -> float:
    return number if math.isfinite(number := float(digits)) else _not_finite(digits)


_ANY = json.JSONDecoder(object_pairs_hook=_object)
_FINITE = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite)


# ---- a file that is an array ---------------------------------------------------------------------


def read_array(
    path: str, errors: str = "strict", on_read: Callable[[int], object] = lambda size: None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a file that holds an array of them, each with its number from 1, as it reads.

    Args:
      path: the file.
      errors: the treatment of bytes that are not UTF-8: ``strict`` stops, ``replace`` puts U+FFFD in their place.
      on_read: a function that is called with the number of bytes after each read.

    Raises:
      NotUTF8Error: names the byte offset.
      UserError: the file cannot be read, or is no such array (names the number of the object).
    """
    with opened(path, on_read) as file:
        stretch, number = _Stretch(path, file, errors), 0
        if stretch.next_mark() != "[":
            raise UserError(f"{path} is not a JSON array of objects")
        mark = "," if stretch.next_mark(look=True) != "]" else stretch.next_mark()
        while mark == ",":
            number += 1
            yield number, stretch.next_object(f"{path} object {number}")
            mark = stretch.next_mark()
        if mark != "]" or (mark := stretch.next_mark()):
            raise UserError(f"{path} is not a JSON array of objects: {mark or 'its end'!r} follows object {number}")


class _Stretch:
    """Holds the part of a JSON text that is not yet parsed, and reads on where more is needed."""

    def __init__(self, path: str, file: BinaryIO, errors: str) -> None:
        self._path, self._file, self._offset = path, file, 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors)
        self._text, self._at = "", 0

    def next_mark(self, look: bool = False) -> str:
        """Returns the next character that is no space, empty at the end, and goes behind it unless it only looks."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._at < len(self._text):
                self._at += not look
                return self._text[self._at - (not look)]
            if not self._read():
                return ""

    def next_object(self, place: str) -> dict[str, Any]:
        """Returns the object that comes next."""
        if (mark := self.next_mark(look=True)) != "{":
            raise UserError(f"{place} is not a JSON object: it begins with {mark or 'the end of the file'!r}")
        while True:
            try:
                end = _ANY.raw_decode(self._text, self._at)[1]
                break
            except NamedTwiceError as error:
                raise UserError(f"{place}: {error}") from error
            except RecursionError as error:
                raise UserError(f"{place} is not JSON: {_TOO_DEEP}") from error
            except ValueError as error:
                # It may be cut; what is not will fail again, at little cost: each time twice as much is read.
                if len(self._text) - self._at > lines.LINE_LIMIT:
                    raise UserError(f"{place} is longer than {lines.LINE_LIMIT >> 20} MiB") from error
                if not self._read():
                    raise UserError(f"{place} is not JSON: {error}") from error
        start, self._at = self._at, end
        try:
            return parse_json(self._text[start:end])
        except ValueError as error:
            raise UserError(f"{place} is not JSON: {error}") from error

    def _read(self) -> bool:
        self._text, self._at = self._text[self._at :], 0
        data = self._file.read(max(_CHUNK, len(self._text)))
        try:
            self._text += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = self._offset + len(data) - len(error.object) + error.start
            fault = f"byte offset {place} is 0x{error.object[error.start]:02x}"
            raise NotUTF8Error(f"{self._path} is not UTF-8: {fault}; convert the file") from error
        self._offset += len(data)
        return bool(data)
