"""Reads csv, tsv, jsonl, json and parquet files as a stream of records, for all that reads tables.

A file reads the same whatever it is read for:

- **Every format**: UTF-8, without its byte order mark. Two columns of one name are refused by name. An error names the
  file and the first line of the record (in parquet the row, in json the object). Memory is bounded: no line is longer
  than 64 MiB. A packed file (.gz, .bz2, .xz) reads as what is in it; one without an extension as what it begins with.
- **csv**: quotes as Excel writes them, strictly: a quote that is never closed, or stands within a quoted text without
  being doubled, is an error that names the line where its row began, and not a text of a thousand rows; so is a quoted
  text of many lines that look like rows, which a second such quote would have closed. LF or CR LF
  ends a line; or a lone CR, in a file whose first line ends so (old Macintosh programs). In other files a lone CR
  outside quotes is an error: it would part a text in two.
- **tsv** (and a txt that is a table): no quotes, as in GLUE, where a quote is a character like any other. LF or CR LF
  ends a line; a lone CR is a character.
- **jsonl**: a JSON object a line, read as `bert_jax.text.json_values` says.
- **json**: an array of such objects, or one a line.
- **parquet**: read by row group; an absent value is None.

In csv and tsv the first line names the columns and blank lines are left out. Where the first line holds none of the
names that its reader looks for and looks like a row, it is one: see `bert_jax.text.headers`.
"""

import contextlib
import csv
import io
import itertools
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from bert_jax.errors import UserError, did_you_mean
from bert_jax.text import lines as text_lines
from bert_jax.text.headers import SAMPLE, Wanted, guessed_header
from bert_jax.text.json_values import NamedTwiceError, parse_json, read_array
from bert_jax.text.lines import PACKED_EXTENSIONS, NotUTF8Error, opened, read_lines, read_text

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
_LIKE_JSONL = (".ndjson", ".jsonlines")
_PARQUET_BATCH = 256  # rows
_MOST_LINES = 10  # of a quoted text that may all look like rows by chance
_LIKE = "like rows of their own (a quote that is never closed, or not doubled?)"


class Record(NamedTuple):
    """Holds a row of a file, or a record of TFDS.

    Attributes:
      source: the file, or ``tfds:NAME:SPLIT``.
      number: the number of its first line from 1, of its row from 1 in parquet, of the record from 0 in TFDS.
      cells: the values by column.
      columns: all columns of the table, also those that this row is too short for; empty in JSON and TFDS.
      unit: what `number` counts.
      surplus: how many fields the row has beyond its columns, which are not in `cells`.
    """

    source: str
    number: int
    cells: dict[str, Any]
    columns: Sequence[str] = ()
    unit: str = "line"
    surplus: int = 0

    @property
    def place(self) -> str:
        """Names where the record stands, for messages."""
        return f"{self.source} {self.unit} {self.number}"

    def cell(self, column: str, key: str = "") -> Any:
        """Returns the value in a column.

        Args:
          column: the name of the column.
          key: the setting of the column, for the message: a key of `data` in the config, or a flag with its dashes.

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
        separator = _other_separator(self.columns)
        fault = f"{place} has no column {column!r}{separator}"
        if not key:
            raise UserError(f"{fault}: there are {names}")
        setting = key if key.startswith("--") else f"data.{key}"
        meant = "" if separator else did_you_mean(column, self.columns or self.cells, "{!r}")
        raise UserError(f"{fault}{f'{meant} Choose' if meant else ': choose'} one of {names} with {setting}")


def _other_separator(columns: Sequence[str]) -> str:
    """Says that the only column of a table is likely to be several."""
    found = re.search("[;\t|,]", columns[0]) if len(columns) == 1 else None
    return f" (is {found[0]!r} what parts its columns? csv files have commas, tsv and txt files tabs)" if found else ""


def read_rows(
    path: str, header: Sequence[str] = (), strict: bool = True, wanted: Wanted = Wanted()
) -> Iterator[Record]:
    """Yields the records of a table that has some; arguments and errors as of `read_records`.

    Raises:
      UserError: also if the file has no records.
    """
    return _at_least_one(path, read_records(path, header, strict, wanted=wanted))


def read_objects(path: str) -> Iterator[Record]:
    """Yields the records of a file with a JSON object a line, whatever its extension; errors as of `read_rows`."""
    return _at_least_one(path, _objects(path, read_lines(path)))


def read_records(
    path: str,
    header: Sequence[str] = (),
    strict: bool = True,
    *,
    wanted: Wanted = Wanted(),
    column: str = "",
    errors: str = "strict",
    on_read: Callable[[int], object] = lambda size: None,
) -> Iterator[Record]:
    """Yields the records of a table, which may be none.

    Args:
      path: the file.
      header: the columns, if the first line does not name any of them.
      strict: whether a row with more fields than columns is an error: a tab or comma in a text has shifted its label.
      wanted: the columns that the caller looks for; a first line of csv or tsv with none of them may be a row.
      column: the only column that the caller needs; others may be left out where that saves work.
      errors: the treatment of bytes that are not UTF-8: ``strict`` stops, ``replace`` puts U+FFFD in their place.
      on_read: a function that is called with the number of bytes of the file that were read since the last call.

    Raises:
      NotUTF8Error: names the file, the line and the byte offset.
      UserError: the file is of no known type, cannot be read, or is broken (names the file and the line).
    """
    extension = file_type(path) or sniffed_type(path) or _separated_by(path)
    if extension not in TABLES:
        raise UserError(f"{path} is of no known type: it must end in one of {', '.join(TABLES)}")
    if extension == ".parquet":
        return _parquet(path, column, errors, on_read)
    if extension == ".json" and sniffed_type(path) != ".jsonl":
        return _array(path, errors, on_read)
    lines = read_lines(path, errors, on_read)
    if extension in (".jsonl", ".json"):
        return _objects(path, lines)
    return _table(path, _csv(path, lines) if extension == ".csv" else _tsv(lines), header, strict, wanted)


def file_type(path: str) -> str:
    """Returns the extension of a file without the one that says how it is packed; empty if there is none.

    Other names of .jsonl are .jsonl.
    """
    name = os.path.basename(path).lower()
    stem, extension = os.path.splitext(name)
    extension = os.path.splitext(stem)[1] if extension in PACKED_EXTENSIONS else extension
    return ".jsonl" if extension in _LIKE_JSONL else extension


def sniffed_type(path: str) -> str:
    """Tells by its first bytes whether a file is .parquet, .jsonl or .json (an array of objects); empty if none."""
    with opened(path) as file:
        start = file.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip()
    marks = {rb"PAR1": ".parquet", rb'\{\s*"': ".jsonl", rb"\[\s*\{": ".json"}
    return next((extension for mark, extension in marks.items() if re.match(mark, start)), "")


def _separated_by(path: str) -> str:
    """Tells the type of a table without an extension by its first line."""
    return ".tsv" if "\t" in next(read_lines(path), "") else ".csv"


def _at_least_one(path: str, records: Iterator[Record]) -> Iterator[Record]:
    none = True
    for record in records:
        none = False
        yield record
    if none:
        if (file_type(path) or sniffed_type(path)) != ".parquet":
            read_text(path)  # tells an empty file from one without rows
        raise UserError(f"{path} has no rows")


# ---- csv and tsv ---------------------------------------------------------------------------------


def _table(
    path: str, rows: Iterator[tuple[int, list[str]]], header: Sequence[str], strict: bool, wanted: Wanted
) -> Iterator[Record]:
    """Names the fields of numbered rows."""
    columns: Sequence[str] = ()
    if wanted.texts and not header:
        sample, rows = _sampled(rows)
        columns = guessed_header(path, [fields for _, fields in sample], wanted)
    for number, fields in rows:
        if not columns:
            named = not header or not set(header).isdisjoint(fields)
            columns = fields if named else header
            _check_names(f"{path} line {number}", columns)
            if named:
                continue
        if strict and len(fields) > len(columns):
            raise UserError(
                f"{path} line {number} has {len(fields)} fields, but there are {len(columns)} columns: is there a "
                "separator within a text? (csv files quote such a text, tsv files cannot hold it)"
                + _other_separator(columns)
            )
        surplus = max(0, len(fields) - len(columns))
        yield Record(path, number, dict(zip(columns, fields, strict=False)), columns, surplus=surplus)


def _sampled(rows: Iterator[tuple[int, list[str]]]) -> tuple[list, Iterator[tuple[int, list[str]]]]:
    """Returns the first rows, and all: an error among the first comes behind the rows before it."""
    sample, fault = [], []
    try:
        for row in itertools.islice(rows, SAMPLE):
            sample.append(row)  # noqa: PERF402 (what was read before an error counts)
    except UserError as error:
        fault.append(error)

    def all_rows() -> Iterator[tuple[int, list[str]]]:
        yield from sample
        for error in fault:
            raise error
        yield from rows

    return sample, all_rows()


def _check_names(place: str, names: Sequence[str]) -> None:
    """Refuses two columns of one name; a spreadsheet's empty columns, which have no name, do not count."""
    for name, count in Counter(name for name in names if name).items():
        if count > 1:
            raise UserError(f"{place} has {count} columns named {name!r}: give each a name of its own")
        if "\r" in name:
            raise UserError(f"{place} has a carriage return within a column's name: save the file with Unix line ends")


def _csv(path: str, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(text_lines.LINE_LIMIT)
    rows = csv.reader(_csv_lines(lines), strict=True)
    line = 1  # where the row begins that is read next
    width = 0
    try:
        for fields in rows:
            width = width or len(fields)
            if rows.line_num - line > _MOST_LINES and _holds_rows(fields, width):
                last = rows.line_num
                raise UserError(
                    f"{path} line {line}: a quoted text goes on to line {last}, and what is in it looks {_LIKE}"
                )
            if fields:
                yield line, fields
            line = rows.line_num + 1
    except csv.Error as error:
        message = f"{error} (a quote that is never closed, or not doubled?)"
        if "new-line character" in str(error):
            message = "a carriage return outside quotes, which ends no line in this file: quote the text that holds it"
        raise UserError(f"{path} line {line}: {message}") from error


def _holds_rows(fields: Sequence[str], width: int) -> bool:
    """Tells whether most lines of a quoted text have as many separators as a row: a quote has swallowed them."""
    inner = [line for cell in fields for line in cell.split("\n")[1:-1]]
    return width > 1 and sum(line.count(",") == width - 1 for line in inner) > 0.8 * len(inner)


def _csv_lines(lines: Iterable[str]) -> Iterator[str]:
    """Splits lines at each lone carriage return, if the first line ends with one."""
    macintosh = None
    for line in lines:
        if macintosh is None:
            end = re.search("\r\n?|\n", line)
            macintosh = end is not None and end[0] == "\r"
        if macintosh:
            yield from filter(None, re.split("(?<=\r)(?!\n)", line))
        else:
            yield line


def _tsv(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\n").removesuffix("\r")
        if line:
            yield number, line.split("\t")


# ---- JSON ----------------------------------------------------------------------------------------


def _objects(path: str, lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            cells = parse_json(line)
        except NamedTwiceError as error:
            _check_names(place, error.args)
            raise
        except ValueError as error:
            raise UserError(f"{place} is not a JSON object: {error}") from error
        if not isinstance(cells, dict):
            raise UserError(f"{place} is not a JSON object but a {type(cells).__name__}")
        yield Record(path, number, cells)


def _array(path: str, errors: str, on_read: Callable[[int], object]) -> Iterator[Record]:
    for number, cells in read_array(path, errors, on_read):
        yield Record(path, number, cells, unit="object")


# ---- parquet -------------------------------------------------------------------------------------


def _parquet(path: str, column: str, errors: str, on_read: Callable[[int], object]) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _seekable(path) as opened_file, pyarrow.parquet.ParquetFile(opened_file) as file:
            names = file.schema_arrow.names
            _check_names(path, names)
            chosen = [column] if column in names else names
            size, number = os.path.getsize(path), 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=chosen):
                columns = [_parquet_values(path, values, number, errors) for values in batch.columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield Record(path, number, dict(zip(chosen, cells, strict=True)), names, unit="row")
                on_read(size * batch.num_rows // file.metadata.num_rows)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a parquet file, or a damaged one: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or ' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _seekable(path: str) -> Iterator[BinaryIO]:
    """Opens a file to be read from anywhere: if it is packed, what is in it, in a temporary file."""
    with opened(path) as file:
        if isinstance(file, io.BufferedReader):
            with open(path, "rb") as plain:
                yield plain
        else:
            with tempfile.TemporaryFile() as whole:
                shutil.copyfileobj(file, whole)
                yield whole  # pyright: ignore[reportReturnType]


def _parquet_values(path: str, column: Any, before: int, errors: str) -> list[Any]:
    """Returns a column of a batch as Python values; `before` is the number of rows before the batch."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        pass  # below, value by value, to name the row or to replace the bytes
    values = []
    for number, value in enumerate(column, before + 1):
        try:
            values.append(value.as_py())
        except UnicodeDecodeError as error:
            if errors == "strict":
                raise NotUTF8Error(f"{path} is not UTF-8: row {number}; convert the file") from error
            values.append(value.as_buffer().to_pybytes().decode("utf-8", "replace"))
    return values
