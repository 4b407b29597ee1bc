"""Tells whether the first line of a table names its columns or is a row, and guesses the names where it is one."""

import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

SAMPLE = 20  # rows that are looked at
# What a reader asks for if the user names no column. A name that the user gave is not to be guessed at.
_OWN_NAMES = {"text", "text_pair", "label", "question", "context"}
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*")


class Wanted(NamedTuple):
    """Names the columns that a reader looks for.

    Attributes:
      texts: of texts.
      label: of a label; empty if there is none.
      known: other names, of which one tells too that a line names columns.
    """

    texts: Sequence[str] = ()
    label: str = ""
    known: Sequence[str] = ()


def guessed_header(path: str, rows: Sequence[Sequence[str]], wanted: Wanted) -> list[str]:
    """Returns names for the columns of a file that begins without names, and says so; none if it begins with them.

    A column gets a wanted name where there is one way to give them out, and else its number from 1.

    Args:
      path: the file.
      rows: its first rows, the one in question in front.
      wanted: the columns that its reader looks for.
    """
    names = {*wanted.texts, wanted.label} - {""}
    telling = {name for name in (*names, *wanted.known) if not name.isdecimal()}  # a number may be a label
    if not rows or not telling.isdisjoint(rows[0]) or not _is_row(rows[0], rows[1:]):
        return []
    header = [str(number) for number in range(1, len(rows[0]) + 1)]
    for place, name in _places(rows, wanted).items() if names <= _OWN_NAMES else ():
        header[place] = name
    taken = ", ".join(f"column {place} is {name!r}" for place, name in enumerate(header, 1) if name != str(place))
    shown = ", ".join(f"{cell[:40]!r}" for cell in rows[0])
    warnings.warn(
        f"{path} does not name its columns: its first line looks like a row ({shown}). It is read as one, and "
        f"{taken or 'the columns are called by their numbers'}: if that is wrong, write a line with their names first",
        stacklevel=2,
    )
    return header


def _is_row(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Tells whether a line has a number, a sentence, or a value that stands below it again: names have none of them."""
    if list(first) in ([str(number + start) for number in range(len(first))] for start in (0, 1)):
        return False  # names that a program gives
    return any(
        _NUMBER.fullmatch(cell.strip())
        or len(cell) > 60
        or re.search(r"\s\S.*[.!]\W*$", cell)
        or (cell.strip() and any(cell == row[place] for row in others if place < len(row)))
        for place, cell in enumerate(first)
    )


def _places(rows: Sequence[Sequence[str]], wanted: Wanted) -> dict[int, str]:
    """Returns the wanted names by the places of columns; none if there are several ways to give them out."""
    count = len(rows[0])
    lengths = [sum(len(row[place]) for row in rows if place < len(row)) for place in range(count)]
    if len(wanted.texts) == 1 and not wanted.label:
        return {max(range(count), key=lengths.__getitem__): wanted.texts[0]}
    if count == len(wanted.texts):
        return dict(enumerate(wanted.texts))
    if wanted.label and count == len(wanted.texts) + 1:
        label = min(range(count), key=lambda place: (lengths[place], -place))
        texts = [place for place in range(count) if place != label]
        return {label: wanted.label, **dict(zip(texts, wanted.texts, strict=True))}
    return {}
