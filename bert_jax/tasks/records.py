"""From records of a table to examples: their ids, texts and labels, and what is wrong with them."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.kinds.base import Task, must_have_labels
from bert_jax.tasks.labels import normalized
from bert_jax.text.cleaning import without_surrogates
from bert_jax.text.tables import Record

_ID_COLUMNS = ("id", "idx", "index")  # GLUE has idx in TFDS and index in its files


def identified(task: Task, records: Iterator[Record], split: str = "") -> Iterator[tuple[str, Record]]:
    """Yields each record with its id. Torn records of a flawed data set are left out, with a warning.

    The id is the first that there is of the columns ``id``, ``idx`` and ``index`` (of GLUE, as far as they are the
    server's), or else the number of the record in its file from 0, which is what the server wants.

    Raises:
      UserError: an id stands twice, in training one of the column ``id``; names file and line.
    """
    seen: set[str] = set()
    torn: list[Record] = []
    for number, record in enumerate(records):
        if task.flawed and len(record.cells) < len(record.columns):
            torn.append(record)
            continue
        name = _id_of(task, record, number, split)
        # Nothing is written of the examples of training: only an id that says so has to be one.
        if name in seen and (split != "train" or given_id(record.cells, ("id",)) is not None):
            raise UserError(
                f"{record.place}: id {name!r} stands in an earlier row too: change it, or rename the column"
            )
        seen.add(name)
        yield name, record
    if torn:
        left_out = f"{torn[0].source}: {len(torn)} torn rows are left out, the first is line {torn[0].number}"
        warnings.warn(f"{left_out}; {task.name} is published with such rows", stacklevel=2)


def _id_of(task: Task, record: Record, number: int, split: str) -> str:
    columns = _ID_COLUMNS
    if not task.custom:  # in QQP and MNLI only files without labels have there what the server wants
        others = () if split == "train" else ("index",) if must_have_labels(split) else _ID_COLUMNS
        columns = (*task.kind.id_columns, *others)
    given = given_id(record.cells, columns)
    return str(number if given is None else given)


def given_id(cells: Mapping[str, Any], columns: Sequence[str] = _ID_COLUMNS) -> Any:
    """Returns the first id in a row's columns, None if there is none."""
    return next((cells[column] for column in columns if cells.get(column) not in (None, "")), None)


def text_of(task: Task, record: Record, column: str, key: str) -> str:
    """Returns the text in a column; `key` is what the config calls the column, if it can be set.

    Raises:
      UserError: there is no such column, or no text in it.
    """
    value = record.cell(column, key)
    value = "" if value is None else value
    if not isinstance(value, str):
        raise UserError(f"{record.place}: {column!r} is not a text but a {type(value).__name__}")
    if not value.strip() and not task.flawed:
        raise UserError(f"{record.place}: {column!r} is empty: fill it in, or take the row out")
    return without_surrogates(value)


def is_given(value: Any) -> bool:
    """Tells whether a cell holds a value: None and NaN are none, nor is how pandas writes them."""
    if isinstance(value, str):
        return normalized(value).lower() not in ("nan", "-nan", "<na>")
    return value is not None and value == value


def label_of(task: Task, record: Record, split: str, *, empty_is_label: bool = False) -> Any:
    """Returns what stands in the label's column; None if a test split has no such column, or nothing in it.

    Args:
      task: the row of the table.
      record: of its data.
      split: only one that begins with test may be without labels.
      empty_is_label: an empty cell is a label too: no class applies.

    Raises:
      UserError: there is no such column, or no label in it.
    """
    if not must_have_labels(split) and task.label not in (record.columns or record.cells):
        return None
    value = record.cell(task.label, "label")
    if empty_is_label and is_given(value):
        return value
    # GLUE in TFDS, and copies made from it, have -1 where a label is secret.
    secret = not task.custom and not must_have_labels(split) and value in (-1, "-1")
    if not is_given(value) or (isinstance(value, str) and not normalized(value)) or secret:
        if must_have_labels(split):
            raise UserError(f"{record.place}: {task.label!r} has no label: fill it in, or take the row out")
        return None
    return value
