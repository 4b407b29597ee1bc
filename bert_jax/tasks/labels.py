"""The names of labels: which there are, in which order, and whether the model knows them all."""

import collections
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from bert_jax.errors import UserError

_SHOWN = 10  # labels that an error names


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
        counts = _listed(f"{label!r} ({count} times)" for label, count in unseen.most_common())
        raise UserError(
            f"{source}: {split} has labels that {owner} never saw: {counts}, first in example {first}; {owner} has "
            f"{_listed(map(repr, names))}: add examples of them to training, or take them out of {split}"
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
    nameless = all(label == f"LABEL_{number}" for number, label in enumerate(labels))
    if nameless and len(task_labels) == len(labels):
        print(f"the model does not name its classes: they are taken as {', '.join(task_labels)}")
        return task_labels
    by_case = {label.casefold(): label for label in task_labels}  # ENTAILMENT is entailment
    names = tuple(by_case.get(label.casefold(), label) for label in labels)
    if task_labels and set(names) != set(task_labels):
        raise UserError(
            f"the head of the model has the labels {', '.join(labels)}, and task {task} has {', '.join(task_labels)}"
        )
    return names


def _listed(items: Iterable[str]) -> str:
    shown = list(items)
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)
