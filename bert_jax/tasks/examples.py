"""What fine-tuning learns from: one example of each kind of task, and the names of the labels."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence

from bert_jax.errors import UserError
from bert_jax.tasks.table import Task

_SHOWN = 10  # labels that an error names


@dataclasses.dataclass(frozen=True, slots=True)
class TextExample:
    """A text or a pair. The label is a name, a number in regression, or all names that hold; None if not known."""

    id: str
    text: str
    text_pair: str | None
    label: str | float | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class TaggingExample:
    """A sentence in words, and as many tags; None if not known."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class AnsweringExample:
    """A question on a context.

    Attributes:
      answers: each a text and the offset in characters where it stands in the context: ``context.startswith(*answer)``.
        Empty if the context holds none, and if they are not known.
      answerable: False if the context is known to hold no answer.
      title: of the article that the context is from; empty if not known.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    answerable: bool
    title: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A text and ways to go on, of which number `label` (from 0) is right; None if not known."""

    id: str
    text: str
    endings: tuple[str, ...]
    label: int | None


Example = TextExample | TaggingExample | AnsweringExample | ChoiceExample


def label_names(task: Task, train: Sequence[Example], file: str = "the training data") -> tuple[str, ...]:
    """The names of the labels in the order of their ids: the table's, or else all that training has.

    Found names are sorted, as numbers if all of them are. Regression, answering and choice have none.

    Args:
      task: the row of the table.
      train: its training examples.
      file: where they were read from, for the error.

    Raises:
      UserError: training has one label only (one target only, in regression).
    """
    if task.kind in ("answering", "choice"):
        return ()
    # Of several labels, the same ones everywhere teach nothing; a single one, here and not there, does.
    whole = task.kind in ("several", "regression")
    found = {example.label for example in train} if whole else set(_labels(train))
    if len(found) < 2:
        what = f"has the label {found.pop()!r}" if found else "has no label"
        column = (
            f"is {task.label!r} the right column (data.label)?" if task.label else "choose a column with data.label"
        )
        raise UserError(f"{file}: every example {what}, so there is nothing to learn: {column}")
    if task.kind == "regression":
        return ()
    return task.labels or tuple(_sorted(set(_labels(train))))


def check_labels(
    names: Sequence[str], examples: Sequence[Example], split: str, file: str, knower: str = "training"
) -> None:
    """Makes sure that every label has a name.

    Args:
      names: of `label_names`; empty for tasks without.
      examples: of a split.
      split: its name, for the error.
      file: where they were read from, for the error.
      knower: who has the names, for the error.

    Raises:
      UserError: labels that it never saw; names them, how often they stand there, and the first example.
    """
    if not names:
        return
    known = set(names)
    unseen = collections.Counter(label for label in _labels(examples) if label not in known)
    if unseen:
        first = next(example.id for example in examples if not known.issuperset(_labels([example])))
        counts = _list(f"{label!r} ({count} times)" for label, count in unseen.most_common())
        raise UserError(
            f"{file}: {split} has labels that {knower} never saw: {counts}, first in example {first}; {knower} has "
            f"{_list(map(repr, names))}: add examples of them to training, or take them out of {split}"
        )


def _labels(examples: Iterable[Example]) -> Iterable[str]:
    """Every name in the labels of the examples, as often as it stands there."""
    for example in examples:
        if isinstance(example, TaggingExample):
            yield from example.tags or ()
        elif isinstance(example, TextExample) and isinstance(example.label, tuple):
            yield from example.label
        elif isinstance(example, TextExample) and isinstance(example.label, str):
            yield example.label


def _sorted(names: set[str]) -> list[str]:
    """By their numbers, if all are numbers."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    if not all(map(math.isfinite, numbers.values())):  # nan is a name, and has no place among numbers
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))


def _list(items: Iterable[str]) -> str:
    shown = list(items)
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)
