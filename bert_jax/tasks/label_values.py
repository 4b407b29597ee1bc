"""Reads names of classes from the values of cells, the same way from every kind of table.

A name is what is written, as `labels.normalized` has it: 1, 1.0 and "1.0" are the class ``1``. None, NaN, ``<NA>`` and
an empty cell are no label. Infinity and what is no text and no number are refused.

Several labels are a list (in JSON, or in a cell as JSON or Python write it), names with ``;`` or ``|`` between them, an
object or several columns of zeros and ones, or vectors of zeros and ones, whose classes are named by their places. What
can be read in two ways is refused.
"""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.kinds.base import Task
from bert_jax.tasks.labels import normalized
from bert_jax.text.tables import Record

NO_LABEL = ("", "nan", "-nan", "<na>")
_INFINITE = ("inf", "infinity")
_SEPARATORS = (";", "|")
_CALL = re.compile(r"[\w.]+\(([\[({].*)?\)", re.DOTALL)  # as Python prints a set() or an array([...])
_LIST = re.compile(rf"[\[({{].*[\])}}]|{_CALL.pattern}|\[['\"].*", re.DOTALL)  # or the beginning of one that is cut
_NO_COMMA = re.compile(r"""['"\w]\s+['"\w]""")  # NumPy prints arrays so, and Python would read 'a' 'b' as 'ab'
_ZERO_OR_ONE = {"0": False, "1": True, "false": False, "true": True}
_REMEDY = 'write names with ";" between them, or a JSON list of names'


class Vector(tuple[bool, ...]):
    """Tells of each class whether it holds; its name is its place.

    Attributes:
      certain: it is no list of names, which has no true and false, and no name twice.
    """

    certain = False

    def names(self) -> tuple[str, ...]:
        """Returns the places of the classes that hold, as names."""
        return tuple(str(place) for place, holds in enumerate(self) if holds)


class Alone(tuple[str, ...]):
    """Holds what stands in a cell without a separator or brackets, which is one name, or none that could be read."""


def class_name(value: Any, record: Record, column: str) -> str:
    """Returns the name of the class that a value means; empty if it means none.

    Args:
      value: of a cell, or of a list in one.
      record: in which it stands, for the error.
      column: in which it stands, for the error.

    Raises:
      UserError: the value is infinite, or neither a text nor a number.
    """
    if value is None:
        return ""
    if not isinstance(value, str | int | float | Decimal):
        raise UserError(f"{record.place}: {column!r} is not one label but a {type(value).__name__}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = normalized(str(value))
    if name.lower() in NO_LABEL:
        return ""
    if name.lower().lstrip("+-") in _INFINITE:
        raise UserError(f"{record.place}: {column!r} is {name}, which is no label: mend it, or take the row out")
    return name


def one_class_name(value: Any, record: Record, column: str) -> str:
    """Returns `class_name` of a cell that holds one label.

    Raises:
      UserError: also if it holds a list, in JSON's or Python's way.
    """
    name = class_name(value, record, column)
    bracketed = name[:1] in ("[", "(", "{") and (isinstance(_read_list(name), list | tuple | set | dict) or _bits(name))
    if bracketed or _CALL.fullmatch(name):
        raise UserError(f"{record.place}: {column!r} is {name[:60]}, not one label but a list")
    return name


def in_words_of(task: Task, record: Record, name: str) -> str:
    """Returns the name as a task has it, where its names are fixed; their numbers and other cases will do.

    Raises:
      UserError: the task has no such class.
    """
    if not task.labels or name in task.labels:
        return name
    if name.isdecimal() and int(name) < len(task.labels):
        return task.labels[int(name)]
    by_case = {label.casefold(): label for label in task.labels}
    if name.casefold() in by_case:
        return by_case[name.casefold()]
    numbers = f"0 to {len(task.labels) - 1}"
    raise UserError(f"{record.place}: {task.label!r} is {name!r}, not one of {', '.join(task.labels)} or {numbers}")


def class_names(value: Any, record: Record, column: str) -> tuple[str, ...] | Vector | None:
    """Returns the names of all classes that a value means, a vector of zeros and ones as it is; None if it has none.

    Raises:
      UserError: the value is no set of labels, or can be read in two ways; names file, line and what to write.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value = _parts(value.strip(), record, column)
    if isinstance(value, dict):
        return _holding({name: value[name] for name in value}, record)
    if not isinstance(value, list | tuple | set | frozenset):
        raise UserError(f"{record.place}: {column!r} is not a list of labels but a {type(value).__name__}: {_REMEDY}")
    if any(isinstance(part, float) and not part.is_integer() for part in value):
        raise UserError(f"{record.place}: {column!r} is {str(value)[:60]}, and labels are no fractions: {_REMEDY}")
    names = tuple(class_name(part, record, column) for part in value)
    if len(names) > 1 and _ZERO_OR_ONE.keys() >= set(names):
        vector = Vector(_ZERO_OR_ONE[name] for name in names)
        vector.certain = len(set(vector)) < len(vector) or not {"true", "false"}.isdisjoint(names)
        if vector.certain or not isinstance(value, _Names):  # in "0;1" names are parted
            return vector
    if "" in names and _ZERO_OR_ONE.keys() >= set(names) - {""} and not isinstance(value, _Names) and any(names):
        raise UserError(f"{record.place}: {column!r} is {str(value)[:60]}, a vector with a gap: {_REMEDY}")
    given = dict.fromkeys(name for name in names if name)
    return Alone(given) if isinstance(value, _Names) and len(value) == 1 else tuple(given)


def one_hot_names(columns: Sequence[str], record: Record) -> tuple[str, ...]:
    """Returns the names of those columns that hold a one.

    Raises:
      UserError: a column is not there, or holds something else than a zero or a one.
    """
    return _holding({column: record.cell(column, "label") for column in columns}, record)


def without_vectors(labels: Sequence[Any], source: str) -> list[Any]:
    """Returns labels of which all are names, or None: vectors become the names of their places.

    Whether [0, 1] is a vector or a list of the classes 0 and 1 is seen from all: a class stands in a list once.

    Args:
      labels: as `class_names` returns them, of all files of a run.
      source: where they were read from, for the error.

    Raises:
      UserError: it cannot be seen; or vectors differ in length, or stand beside names.
    """
    given = [label for label in labels if label is not None]
    vectors = [label for label in given if isinstance(label, Vector)]
    if not vectors:
        if {("0",), ("1",)} <= set(given) <= {("0",), ("1",), ()}:
            raise UserError(
                f"{source}: every label is 0 or 1: name two or more columns of zeros and ones, as in data.label=a,b, "
                "or take custom:classification"
            )
        return list(labels)
    if not any(vector.certain for vector in vectors):
        if len(vectors) == len(given):
            raise UserError(f"{source}: labels such as [0, 1] are a vector of two classes, or two names: {_REMEDY}")
        return [("0", "1") if isinstance(label, Vector) else label for label in labels]
    lengths = {len(vector) for vector in vectors}
    if len(vectors) < len(given) or len(lengths) > 1:
        others = f"vectors of {sorted(lengths)} classes" if len(lengths) > 1 else "lists of names"
        raise UserError(f"{source}: some labels are vectors of zeros and ones beside {others}: {_REMEDY}")
    return [label.names() if isinstance(label, Vector) else None for label in labels]


class _Names(list[str]):
    """Holds names that were parted by a separator: zeros and ones among them are no vector."""


def _read_list(text: str) -> Any:
    """Returns what a text means as JSON or as a literal of Python; None if it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _bits(text: str) -> list[str]:
    """Returns the zeros and ones of a vector, as NumPy and pandas print it too; none if it is no vector."""
    parts = text.removeprefix("[").removesuffix("]").replace(",", " ").split()
    return parts if len(parts) > 1 and all(normalized(part).lower() in _ZERO_OR_ONE for part in parts) else []


def _parts(text: str, record: Record, column: str) -> Any:
    """Returns what a cell holds: a list, an object, or names."""
    if bits := _bits(text):
        return bits
    if _LIST.fullmatch(text):
        if not _NO_COMMA.search(text) and (found := _read_list(text)) is not None:
            return found
        raise UserError(f"{record.place}: {column!r} looks like a list and cannot be read, {text[:60]!r}: {_REMEDY}")
    found = [separator for separator in _SEPARATORS if separator in text]
    if len(found) > 1 or ("," in text and not found):
        raise UserError(f"{record.place}: {column!r} is {text[:60]!r}, one label or several? {_REMEDY}")
    return _Names(text.split(found[0]) if found else [text])


def _holding(cells: Mapping[str, Any], record: Record) -> tuple[str, ...]:
    holding = []
    for column, value in cells.items():
        name = class_name(value, record, column).lower()
        if name not in _ZERO_OR_ONE:
            raise UserError(f"{record.place}: {column!r} is {value!r}, and 1 (the label holds) or 0 is wanted")
        if _ZERO_OR_ONE[name]:
            holding.append(column)
    return tuple(holding)
