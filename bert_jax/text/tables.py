"""Labelled files as rows: csv, tsv, jsonl and CoNLL columns, each row with the place where it stands.

Unlike `text.sources`, which streams, this holds one file at a time in memory: labelled data is small.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bert_jax.errors import UserError

TABLES = (".csv", ".tsv", ".txt", ".jsonl")


class Record(NamedTuple):
    """A record of a file or of TFDS.

    Attributes:
      source: the file, or ``tfds:NAME:SPLIT``.
      number: of the line from 1, or of the record from 0 in TFDS.
      cells: value by column.
      columns: all that a table has, also those that this row is too short for; empty in jsonl and TFDS.
    """

    source: str
    number: int
    cells: dict[str, Any]
    columns: Sequence[str] = ()

    @property
    def place(self) -> str:
        return f"{self.source} {'record' if self.source.startswith('tfds:') else 'line'} {self.number}"

    def cell(self, column: str, key: str = "") -> Any:
        """The value in a column; `key` is what the config calls it, if it can be set.

        Raises:
          UserError: there is no such column (names those there are), or the row ends before it.
        """
        if column in self.cells:
            return self.cells[column]
        if column in self.columns:
            number = self.columns.index(column) + 1
            raise UserError(f"{self.place} has {len(self.cells)} fields, but column {column!r} is number {number}")
        place = self.source if self.columns else self.place
        names = ", ".join(map(repr, self.columns or self.cells))
        what_to_do = f"choose one of {names} with data.{key}" if key else f"there are {names}"
        raise UserError(f"{place} has no column {column!r}: {what_to_do}")


def read_text(path: str) -> str:
    """The whole file, without a byte order mark.

    Raises:
      UserError: it is not there, not UTF-8 (with the line), or empty.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        place = f"line {line}, byte offset {error.start} is 0x{byte:02x}"
        raise UserError(f"{path} is not UTF-8: {place}; convert the file") from error
    if not text.strip("\ufeff \t\r\n"):
        raise UserError(f"{path} is empty")
    return text.removeprefix("\ufeff")


def read_rows(path: str, header: Sequence[str] = (), strict: bool = True) -> Iterator[Record]:
    """The rows of a table.

    A csv file has quotes as Excel writes them. A tsv (or txt) file has none, as in GLUE, where a quote is a character
    like any other. A jsonl file has an object a line.

    Args:
      path: the file.
      header: the columns, if the first line does not name any of them.
      strict: a row with more fields than columns is an error: a tab or a comma within a text has shifted its label.

    Raises:
      UserError: of no known type, not to be read, without rows, or broken (file and line are named).
    """
    extension = os.path.splitext(path)[1].lower()
    if extension not in TABLES:
        raise UserError(f"{path} is of no known type: it must end in one of {', '.join(TABLES)}")
    text = read_text(path)
    if extension == ".jsonl":
        rows = _objects(path, text)
    else:
        rows = _table(path, _csv(path, text) if extension == ".csv" else _tsv(text), header, strict)
    number = 0
    for row in rows:
        number += 1
        yield row
    if not number:
        raise UserError(f"{path} has no rows")


def read_objects(path: str) -> Iterator[Record]:
    """The rows of a file with a JSON object a line, whatever its extension. Errors as `read_rows`."""
    return _objects(path, read_text(path))


def _table(path: str, lines: Iterator[tuple[int, list[str]]], header: Sequence[str], strict: bool) -> Iterator[Record]:
    columns: Sequence[str] = ()
    for number, fields in lines:
        if not columns:
            named = not header or not set(header).isdisjoint(fields)
            columns = fields if named else header
            if named:
                continue
        if strict and len(fields) > len(columns):
            raise UserError(
                f"{path} line {number} has {len(fields)} fields, but there are {len(columns)} columns: is there a "
                "separator within a text? (csv files quote such a text, tsv files cannot hold it)"
            )
        yield Record(path, number, dict(zip(columns, fields, strict=False)), columns)


def _csv(path: str, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1  # where the row begins that is read next
    try:
        for fields in rows:
            if fields:
                yield line, fields
            line = rows.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {line}: {error} (a quote that is never closed, or not doubled?)") from error


def _tsv(text: str) -> Iterator[tuple[int, list[str]]]:
    # Only \n ends a line: GLUE's texts hold other characters that Python and the csv module take for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split("\t")


def _objects(path: str, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number} is not a JSON object: {error}") from error
        if not isinstance(cells, dict):
            raise UserError(f"{path} line {number} is not a JSON object but a {type(cells).__name__}")
        yield Record(path, number, cells)


class Sentence(NamedTuple):
    """The lines of a sentence: the number of the first, and the columns of each."""

    line: int
    lines: list[list[str]]


def read_sentences(path: str) -> list[Sentence]:
    """The sentences of a file in CoNLL columns: a word a line, a blank line between sentences.

    Columns are separated by tabs, or by spaces if the first line has no tab. Lines that begin with -DOCSTART- part
    documents, as in CoNLL-2003, and are left out.

    Raises:
      UserError: not to be read, without words, or a line with another number of columns than the first has.
    """
    if path.lower().endswith((".csv", ".json", ".jsonl")):
        raise UserError(f"{path} is not in CoNLL columns: a word and its tag a line, a blank line between sentences")
    sentences: list[Sentence] = []
    columns, tabs, open_sentence = 0, False, False
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            open_sentence = False
            continue
        tabs = "\t" in line if not columns else tabs
        # Not split(): a word may hold a space of another kind, such as U+00A0.
        fields = line.rstrip("\r").split("\t") if tabs else re.split(" +", line.strip(" \r"))
        columns = columns or len(fields)
        if len(fields) != columns or not all(fields):
            found = "an empty column" if len(fields) == columns else f"{len(fields)} columns"
            raise UserError(
                f"{path} line {number} has {found}, but the file began with {columns}: {line.strip()[:80]!r}"
            )
        if not open_sentence:
            sentences.append(Sentence(number, []))
            open_sentence = True
        sentences[-1].lines.append(fields)
    if not sentences:
        raise UserError(f"{path} has no words")
    return sentences
