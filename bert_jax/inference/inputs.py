"""What predict.py is asked: lines of text or of JSON, from a file or a stream, and the rows of tables."""

import contextlib
import itertools
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from bert_jax.errors import UserError
from bert_jax.inference.lines import Fields, Input, LineTask
from bert_jax.tasks.records import given_id
from bert_jax.tasks.table import TASKS
from bert_jax.text.headers import Wanted
from bert_jax.text.json_values import parse_json
from bert_jax.text.lines import opened, read_lines
from bert_jax.text.tables import Record, file_type, read_rows, sniffed_type

_TABLES = (".csv", ".tsv", ".json", ".parquet")


@contextlib.contextmanager
def opened_inputs(
    task: LineTask, path: str, json_lines: bool | None, columns: Mapping[str, str]
) -> Iterator[Iterator[Input]]:
    """Opens what is to be answered; what is wrong with the whole of it is told here, before a model is loaded.

    Args:
      task: what is asked.
      path: csv, tsv, json and parquet are tables, whose columns are found by their names, and so is a text whose
        first line names columns; anything else is lines of text or, in jsonl, of JSON. It may be packed, and
        lines may come from a pipe. Empty is standard input.
      json_lines: each line is an object; by default as the file's name says.
      columns: of the fields that stand under other names than their own in a table or in objects.

    Raises:
      UserError: the file cannot be read, or has no such columns.
    """
    streams = not path or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))
    extension = file_type(path)
    if not streams and not extension and (sniffed := sniffed_type(path)) != ".json":
        extension = sniffed
    table = extension in _TABLES
    if not streams and not json_lines and extension in ("", ".txt"):
        count, named = _begins(task, path, columns)
        table = named and count > 1
    if table and not json_lines and not _is_lines(task, path, extension, columns):
        yield _table_inputs(task, path, columns)
        return
    json_lines = extension == ".jsonl" if json_lines is None else json_lines
    if columns and not json_lines:
        raise UserError(f"lines have no columns: leave {' and '.join(f'--{field}' for field in columns)} out")
    if not path:
        if sys.stdin is None:
            raise UserError("standard input is closed: give --input")
        yield line_inputs(task, sys.stdin.buffer, json_lines, columns)
        return
    with open(path, "rb") if streams else opened(path) as lines:  # opened() refuses what may wait for ever
        yield line_inputs(task, lines, json_lines, columns)


# ---- lines ---------------------------------------------------------------------------------------


def line_inputs(task: LineTask, source: BinaryIO, json_lines: bool, columns: Mapping[str, str] = {}) -> Iterator[Input]:
    """Yields what each line asks, or what is wrong with it.

    Args:
      task: what is asked.
      source: UTF-8, of any length.
      json_lines: each line is an object; otherwise it is the fields of the task with tabs between.
      columns: names of fields in the objects, where these are not their own.
    """
    for number, line in enumerate(source, 1):
        place = f"line {number}"
        try:
            text = line.rstrip(b"\r\n").decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            yield Input(place, {}, UserError(f"not UTF-8 at byte {error.start + 1}"))
            continue
        if json_lines:
            yield _object(task, place, text, columns)
        else:
            fields = _separated(task, text)
            yield Input(place, {}, fields if isinstance(fields, UserError) else _checked(task, fields))


def _separated(task: LineTask, text: str) -> Fields | UserError:
    # Where there is one field only, a tab is a character like any other.
    values = text.split("\t") if len(task.fields) > 1 else [text]
    if not task.needed <= len(values) <= len(task.fields):
        return UserError(f"wanted {'<TAB>'.join(task.fields)}, found {len(values) - 1} tabs")
    return dict(zip(task.fields, values, strict=False))


def _object(task: LineTask, place: str, text: str, columns: Mapping[str, str]) -> Input:
    try:
        cells = parse_json(text, finite=True)
    except ValueError as error:
        return Input(place, {}, UserError(f"not JSON: {error}"))
    if not isinstance(cells, dict):
        return Input(place, {}, UserError(f"not a JSON object but a {type(cells).__name__}"))
    return Input(place, _id_of(cells), _checked(task, cells, columns))


def _id_of(cells: Fields) -> Fields:
    """Returns the id of a row under its name, as JSON can write it; nothing if it has none."""
    if (value := given_id(cells)) is None:
        return {}
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        value = str(value)  # a date of parquet
    return {"id": value}


def _checked(task: LineTask, cells: Fields, columns: Mapping[str, str] = {}) -> Fields | UserError:
    """Returns the fields of a task from what a row or an object holds, or what is wrong with one of them."""
    fields = {}
    for number, field in enumerate(task.fields):
        column = columns.get(field, field)
        value = cells.get(column)
        if value is None and number >= task.needed:
            continue
        if value is None:
            return UserError(f"no {column!r} in it: there is {', '.join(map(repr, cells)) or 'nothing'}")
        if task.takes_words and isinstance(value, list):
            if not value or not all(isinstance(word, str) and word.strip() for word in value):
                return UserError(f"{column!r} is not a list of words")
        elif not isinstance(value, str):
            return UserError(f"{column!r} is not a text but a {type(value).__name__}")
        elif not value.strip():
            return UserError(f"the {column} is empty")
        fields[field] = value
    return fields


# ---- tables --------------------------------------------------------------------------------------


def _begins(task: LineTask, path: str, columns: Mapping[str, str]) -> tuple[int, bool]:
    """Returns how many fields the first line of a file has, and whether it names columns."""
    line = next(read_lines(path, "replace"), "").rstrip("\r\n").casefold()
    first = line.split("," if re.fullmatch(r"\w+(,\w+)+", line) else "\t")  # a text may have a comma
    return len(first), not {name.casefold() for name in (*_header_names(task), *columns.values())}.isdisjoint(first)


def _is_lines(task: LineTask, path: str, extension: str, columns: Mapping[str, str]) -> bool:
    """Tells whether a tsv has the fields of a task in each line, and no line of names; says so."""
    if extension != ".tsv" or columns or task.needed < 2:
        return False
    count, named = _begins(task, path, columns)
    if count != len(task.fields) or named:
        return False
    warnings.warn(
        f"{path} does not name its columns {' and '.join(task.fields)}: its first line is read as a row. If it holds "
        f"names, choose them with {' and '.join(f'--{field}' for field in task.fields)}",
        stacklevel=2,
    )
    return True


def _table_inputs(task: LineTask, path: str, columns: Mapping[str, str]) -> Iterator[Input]:
    wanted = [columns.get(field, field) for field in task.fields[: task.needed]]
    known = _header_names(task) if not columns else ()
    records = read_rows(path, strict=False, wanted=Wanted(wanted, known=tuple(known)))
    first = next(records)
    names = {**_found_columns(task, first), **columns}
    for field in (*task.fields[: task.needed], *columns):
        if names.get(field, field) not in first.cells:
            first.cell(names.get(field, field), f"--{field}")  # names those that there are
    return (_row(task, record, names) for record in itertools.chain([first], records))


def _row(task: LineTask, record: Record, names: Mapping[str, str]) -> Input:
    place = f"{record.unit} {record.number}"
    if record.surplus:
        fault = f"{record.surplus} more fields than columns: is there a separator within a text?"
        return Input(place, _id_of(record.cells), UserError(fault))
    optional = {names.get(field, field) for field in task.fields[task.needed :]}
    cells = {name: value for name, value in record.cells.items() if name not in optional or value != ""}
    return Input(place, _id_of(cells), _checked(task, cells, names))


def _header_names(task: LineTask) -> set[str]:
    """Returns the names that say of a line that it names columns."""
    return {*task.fields, *itertools.chain.from_iterable(_published_columns(task))} - {""}


def _published_columns(task: LineTask) -> set[tuple[str, ...]]:
    """Returns the columns of texts that published tasks have, such as sentence1 and sentence2 of GLUE."""
    if task.fields[0] != "text":
        return set()
    rows = [each for each in TASKS.values() if each.kind.truncates and not each.custom]
    pairs = {columns[:2] for each in rows for columns in ((each.text, each.text_pair), each.tfds_columns)}
    return {tuple(filter(None, pair))[: len(task.fields)] for pair in pairs} - {()}


def _found_columns(task: LineTask, record: Record) -> dict[str, str]:
    """Returns the columns of the fields, if they have names of published tasks, and says so."""
    there = record.columns or record.cells
    if task.fields[0] in there:
        return {}
    found = [columns for columns in _published_columns(task) if set(columns) <= set(there)]
    longest = max(map(len, found), default=0)
    found = [columns for columns in found if len(columns) == longest]
    if len(found) != 1 or longest < task.needed:
        return {}
    names = dict(zip(task.fields, found[0], strict=False))
    shown = ", ".join(f"{field} is {column!r}" for field, column in names.items())
    warnings.warn(f"{record.source}: {shown}; choose other columns with --text", stacklevel=2)
    return names
