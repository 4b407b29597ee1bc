"""Builds a corpus: one process reads and writes, all cores clean, split and encode, and the order stays."""

import contextlib
import dataclasses
import errno
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tqdm

from bert_jax.runtime import signals
from bert_jax.errors import UserError
from bert_jax.runtime.files import claim, refuse_foreign, temporary_folder, write_whole
from bert_jax.runtime.locks import locked
from bert_jax.runtime.machine import cores
from bert_jax.text import corpus
from bert_jax.text.cleaning import Cleaning, Deduplicator
from bert_jax.text.encoding import EncodedDocuments
from bert_jax.text.pool import encoded_batches
from bert_jax.text.report import Report, advance, progress_bar
from bert_jax.text.sources import TextSource, bounded, read_raw
from bert_jax.text.tokenizer import Tokenizer

_REPORT = "report.json"
NAMES = (corpus.HEADER, _REPORT, *corpus.SPLITS)  # that a build writes in its folder


def build_corpus(
    source: str | TextSource | Iterable[str],
    tokenizer: Tokenizer,
    directory: str | os.PathLike[str],
    *,
    cleaning: Cleaning = Cleaning(),
    language: str = "en",
    longest: int = 128,
    validation_share: float = 0.01,
    processes: int | None = None,
    verbose: bool = True,
) -> Report:
    """Writes a corpus (see `bert_jax.text.corpus`) and its report.json.

    The same documents give the same bytes, whatever the number of processes. The files grow in a temporary folder
    within DIR and move into place at the end, header last: an interrupted build leaves no corpus (or the one that was
    there), and the next build starts afresh. Nothing in DIR is replaced but a corpus.

    Args:
      source: a `TextSource`, the string that names one, or documents.
      tokenizer: the tokenizer that makes the token ids.
      directory: the folder DIR.
      cleaning: the cleaning of documents, where no `TextSource` says it.
      language: the ISO 639 code for the sentence splitter.
      longest: the largest number of tokens of a sentence; a longer one is cut, so that nothing is truncated later.
      validation_share: the share of the documents that is held out. They are drawn by a hash of their text, so equal
        texts are on one side; at least one is held out if the share is above 0 and there are two.
      processes: the number of processes; None is one for each core.
      verbose: whether to show a progress bar and print the report.

    Returns:
      The report.

    Raises:
      UserError: a bad source, no documents, DIR holds other files by the names of a corpus, or cannot be written.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"validation_share={validation_share} is not between 0 and 1")
    if longest < 1:
        raise UserError(f"longest={longest} is not at least 1")
    directory = Path(directory)
    refuse_foreign(directory, "corpus", NAMES, known=corpus.is_corpus(directory))
    report = Report()
    if isinstance(source, str):
        source = TextSource(source, cleaning=cleaning)
    if isinstance(source, TextSource):
        documents, name, cleaning = read_raw(source, report), source.source, source.cleaning
    else:
        documents, name = bounded(source, report), ""
    options = _Options(name, cleaning, language, longest, validation_share)
    _build(documents, tokenizer, directory, options, processes or cores(), verbose, report)
    if verbose:
        print(f"Corpus in {directory}\n{report.table()}", flush=True)
    return report


@dataclasses.dataclass(frozen=True)
class _Options:
    """Holds the options that, with documents and tokenizer, decide the bytes of a corpus; the header keeps them."""

    source: str
    cleaning: Cleaning
    language: str
    longest: int
    validation_share: float


def _build(
    documents: Iterator[str],
    tokenizer: Tokenizer,
    directory: Path,
    options: _Options,
    processes: int,
    verbose: bool,
    report: Report,
) -> None:
    """Encodes the documents, writes and publishes the corpus, and fills the report."""
    start = time.perf_counter()
    dtype = corpus.token_type(tokenizer.vocab_size)
    encoder = (tokenizer.backend.to_str(), options.cleaning, options.language, options.longest, dtype)
    with _partial_folder(directory) as partial, contextlib.ExitStack() as stack:
        writers = {
            split: stack.enter_context(corpus.SplitWriter(partial / split, dtype, tokenizer.vocab_size))
            for split in corpus.SPLITS
        }
        batches = stack.enter_context(contextlib.closing(encoded_batches(documents, encoder, processes)))
        bar = stack.enter_context(progress_bar("corpus", verbose))
        _write(batches, writers, options, report, bar)
        if not report.documents:
            raise UserError(_no_documents(options.source, report))
        _fill_empty_split(writers, options.validation_share)
        report.splits = {split: writer.finish() for split, writer in writers.items()}
        report.unknown_tokens = sum(int(writer.token_counts[tokenizer.unk_id]) for writer in writers.values())
        report.seconds = time.perf_counter() - start
        header = {
            "version": corpus.VERSION,
            "tokenizer_hash": tokenizer.hash,
            "vocab_size": tokenizer.vocab_size,
            "dtype": np.dtype(dtype).name,
            "splits": report.splits,
            "checksums": {path: code for writer in writers.values() for path, code in writer.checksums().items()},
            **dataclasses.asdict(options),
        }
        _publish(partial, directory, header, report)


def _no_documents(source: str, report: Report) -> str:
    name = f"source {source!r}" if source else "the source"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.dropped.items()))
    return f"{name} gave no documents: " + (f"all were dropped ({dropped})" if dropped else "it is empty")


def _write(
    batches: Iterator[EncodedDocuments],
    writers: dict[str, corpus.SplitWriter],
    options: _Options,
    report: Report,
    bar: tqdm.tqdm,
) -> None:
    """Writes each document to its split, and counts it."""
    deduplicator = Deduplicator(options.cleaning.drop_duplicates, report)
    limit = round(options.validation_share * (1 << 32))
    for batch in batches:
        signals.check()
        report.dropped += batch.dropped
        report.cut += batch.cut
        sentence_ends = np.concatenate([[0], np.cumsum(batch.sentence_counts)])
        token_ends = np.concatenate([[0], np.cumsum(batch.sentence_lengths)])
        lengths = []
        for number, code in enumerate(batch.hashes):
            if not deduplicator.keeps(code, batch.characters[number], batch.text_bytes[number]):
                continue
            first, last = sentence_ends[number : number + 2]
            sentences = batch.sentence_lengths[first:last]
            split = "validation" if code >> 32 < limit else "train"
            writers[split].add(batch.tokens[token_ends[first] : token_ends[last]], sentences)
            lengths.append(sentences)
        if lengths:
            report.add_lengths(np.concatenate(lengths), np.array([part.sum() for part in lengths]))
        advance(bar, report)


def _fill_empty_split(writers: dict[str, corpus.SplitWriter], validation_share: float) -> None:
    """Moves the last document to the other side where a few documents all fell on one."""
    train, validation = writers["train"], writers["validation"]
    if not train.documents and validation.documents:
        train.add(*validation.pop())
    elif not validation.documents and train.documents > 1 and validation_share > 0:
        validation.add(*train.pop())


@contextlib.contextmanager
def _partial_folder(directory: Path) -> Iterator[Path]:
    """Makes an empty folder for the growing files and removes it whatever happens.

    Raises:
      UserError: the disk refuses.
    """
    try:
        with locked(directory, "--output"), temporary_folder(directory / "corpus") as partial:
            yield partial
    except OSError as error:
        hint = (
            "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "choose another folder"
        )
        raise UserError(f"cannot write the corpus to {directory}: {error.strerror or error}; {hint}") from error


def _publish(partial: Path, directory: Path, header: dict, report: Report) -> None:
    """Moves the finished files into place, each over its like; the header, which makes them a corpus, goes last."""
    claim(directory, "corpus", NAMES, known=corpus.is_corpus(directory))
    (directory / corpus.HEADER).unlink(missing_ok=True)
    for split in corpus.SPLITS:
        (directory / split).mkdir(exist_ok=True)
        for file in sorted((partial / split).iterdir()):
            os.replace(file, directory / split / file.name)
    write_whole(directory / _REPORT, _as_json(report.to_dict()))
    write_whole(directory / corpus.HEADER, _as_json(header))


def _as_json(value: dict) -> str:
    return json.dumps(value, indent=2) + "\n"
