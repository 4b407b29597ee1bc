"""The names of labels: which there are, in which order, and whether the model knows them all."""

import collections
import functools
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from bert_jax.errors import UserError

_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?")
_SHOWN = 10  # labels that an error names
_FEW = 10  # classes that are not too many for any number of examples
_NO_VALUE = (
    "none",
    "null",
    "nil",
    "na",
    "n/a",
    "#na",
    "#n/a",
    "\\n",
    "nat",
    "undefined",
)  # what other programs write for no value, and what may be a class


@functools.lru_cache(maxsize=1 << 12)  # a class or tag stands in many rows
def normalized(text: str) -> str:
    """Returns the one name of a class, however it is written.

    It is in Unicode's composed form, with one space for white space of any kind, and nothing invisible around it. A
    number has no plus sign and no zeros behind its point, and true and false are in small letters.
    """
    edge = {char for char in text if char.isspace() or unicodedata.category(char) == "Cf"}
    name = " ".join(unicodedata.normalize("NFC", text.strip("".join(edge)) if edge else text).split())
    if number := _NUMBER.fullmatch(name):
        sign, whole, part = number[1].strip("+"), number[2], (number[3] or "").rstrip("0")
        name = f"{sign}{whole}.{part}" if part else whole if whole.strip("0") == "" else f"{sign}{whole}"
    return name.lower() if name.lower() in ("true", "false") else name


def check_variety(values: Collection[Any], column: str, source: str) -> None:
    """Raises UserError if all labels are the same, so that there is nothing to learn.

    Args:
      values: the different labels of the training examples.
      column: where they stand; empty if it was chosen by what it holds.
      source: where they were read from, for the error.
    """
    if len(values) < 2:
        what = f"has the label {next(iter(values))!r}" if values else "has no label"
        advice = f"is {column!r} the right column (data.label)?" if column else "choose a column with data.label"
        raise UserError(f"{source}: every example {what}, so there is nothing to learn: {advice}")


def check_names(names: Collection[str], examples: int, column: str, source: str) -> None:
    """Says what is odd about the names of the classes of texts, as far as it can be meant.

    Args:
      names: the different labels of the training examples.
      examples: the number of those that have one.
      column: where they stand.
      source: where they were read from.

    Raises:
      UserError: there are so many that the column holds no classes: texts, ids or measured numbers.
    """
    where = f"{source}: column {column!r} has {len(names):,} different labels in {examples:,} examples"
    if len(names) > max(_FEW, examples / 2):
        numbers = "regression learns numbers; " if all(map(_is_number, names)) else ""
        raise UserError(f"{where}, such as {min(names)!r}: {numbers}choose the column of the classes with data.label")
    if len(names) > max(5 * _FEW, examples / 10) or (
        len(names) > _FEW and all(map(_is_number, names)) and any("." in name for name in names)
    ):
        warnings.warn(f"{where}: is it the right column (data.label)?", stacklevel=2)
    spellings = collections.Counter(map(_plain, names))
    if alike := sorted(name for name in names if spellings[_plain(name)] > 1):
        warnings.warn(
            f"{source}: these labels differ in case or spelling only, and are classes apart: {listed(alike)}",
            stacklevel=2,
        )
    if words := sorted(name for name in names if name.casefold() in _NO_VALUE):
        warnings.warn(
            f"{source}: {listed(map(repr, words))} is taken for a class: leave the cell empty where there is no label",
            stacklevel=2,
        )


def _plain(name: str) -> str:
    """Returns a name without case, width, quotes and what cannot be seen; of a number its value."""
    plain = unicodedata.normalize("NFKC", name).casefold().replace("_", " ")
    plain = "".join(char for char in plain if char not in "'\"" and unicodedata.category(char) not in ("Cf", "Cc"))
    name = plain or name  # a tag of a quote
    name = {"true": "1", "false": "0"}.get(name, name)
    return str(float(name)) if _is_number(name) else name


def check_alone(names: Collection[str], source: str) -> None:
    """Says that no text has two labels, where it might: other marks than ours may part them.

    Args:
      names: the different cells of the training examples.
      source: where they were read from.

    Raises:
      UserError: some are put together of others, or all of zeros and ones.
    """
    parts = {name: list(filter(None, re.split(r"[\W_]+", name))) for name in names}
    times = collections.Counter(part for each in parts.values() for part in set(each))
    together = [name for name in names if len(parts[name]) > 1 and all(times[part] > 1 for part in parts[name])]
    bits = [name for name in names if re.fullmatch(r"[01](\W*[01])+", name)]
    if len(bits) < len(names) or not any(name.startswith("0") for name in bits):  # 10 and 11 may be numbers of classes
        bits = []
    remedy = 'write names with ";" between them, or a JSON list of names'
    if together or bits:
        what = "a vector of zeros and ones" if bits else "several labels"
        raise UserError(
            f"{source}: {min(bits or together)!r} seems to be {what}, and no example has two: {remedy}, also of one; "
            "custom:classification learns one label of each text"
        )
    warnings.warn(
        f"{source}: no example has two labels: if some should, {remedy}; custom:classification learns one label of "
        "each text",
        stacklevel=2,
    )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def check_labels(
    names_in: Callable[[Any], Iterable[str]],
    names: Sequence[str],
    examples: Sequence[Any],
    split: str,
    source: str,
    owner: str = "training",
) -> None:
    """Makes sure that every label has a name.

    Args:
      names_in: the method of the kind of task.
      names: of `Kind.label_names`; empty for kinds without.
      examples: of a split.
      split: its name, for the error.
      source: where they were read from, for the error.
      owner: whose names they are, for the error.

    Raises:
      UserError: labels that it never saw; names them, how often they stand there, and the first example.
    """
    if not names:
        return
    known = set(names)
    unseen = collections.Counter(label for example in examples for label in names_in(example) if label not in known)
    if unseen:
        first = next(example.id for example in examples if not known.issuperset(names_in(example)))
        counts = listed(f"{label!r} ({count} times)" for label, count in unseen.most_common())
        raise UserError(
            f"{source}: {split} has labels that {owner} never saw: {counts}, first in example {first}; {owner} has "
            f"{listed(map(repr, names))}: add examples of them to training, or take them out of {split}"
        )


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Sorts names: by their numbers if all are numbers, else by their characters."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return tuple(sorted(names))
    if not all(map(math.isfinite, numbers.values())):  # nan is a name, and has no place among numbers
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (numbers[name], name)))


def in_words_of(task_labels: tuple[str, ...], labels: tuple[str, ...], task: str) -> tuple[str, ...]:
    """Returns the labels of a model's head in the words of a task, in the model's order.

    Args:
      task_labels: of the task; empty if it takes any.
      labels: of the model.
      task: its name, for the error.

    Raises:
      UserError: the head has other classes.
    """
    if are_nameless(labels) and len(task_labels) == len(labels):
        print(f"the model does not name its classes: they are taken as {', '.join(task_labels)}")
        return task_labels
    by_case = {label.casefold(): label for label in task_labels}  # ENTAILMENT is entailment
    normal = [normalized(label) for label in labels]
    own = labels if len(set(normal)) < len(labels) else normal  # a former version had 1.0 for 1
    names = tuple(by_case.get(label.casefold(), label) for label in own)
    if task_labels and set(names) != set(task_labels):
        raise UserError(
            f"the head of the model has the labels {', '.join(labels)}, and task {task} has {', '.join(task_labels)}"
        )
    return names


def rows_of_head(names: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """Returns for each name the row of a head whose classes are `labels`; None if the head is for other names.

    Names are equal if they differ in case or in how a number is written only, where that leaves no doubt.
    """
    for key in (str, normalized, lambda name: normalized(name).casefold()):
        rows = {key(label): row for row, label in enumerate(labels)}
        if len(rows) == len(labels) == len(names) and rows.keys() == {key(name) for name in names}:
            return [rows[key(name)] for name in names]
    return None


def are_nameless(labels: Sequence[str]) -> bool:
    """Tells whether the classes of a head have the names that transformers gives to those without."""
    return all(label == f"LABEL_{number}" for number, label in enumerate(labels))


def listed(items: Iterable[str]) -> str:
    """Returns the first few items in a row, and the number of the others."""
    shown = list(items)
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)
