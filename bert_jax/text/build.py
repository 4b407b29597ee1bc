"""Builds a corpus: one process reads and writes, all cores clean, split and encode, and the order stays."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import queue
import shutil
import signal
import sys
import time
import types
from collections.abc import Iterable, Iterator

import numpy as np
import tqdm

from bert_jax.errors import UserError
from bert_jax.runtime.machine import cores
from bert_jax.text import corpus, sources
from bert_jax.text.cleaning import Cleaning, SeenDocuments
from bert_jax.text.encoding import Encoded, Encoder
from bert_jax.text.report import Report, advance, progress_bar
from bert_jax.text.tokenizer import Tokenizer

_BATCH = 1 << 18  # characters handed to a process at once
_IN_FLIGHT = 1 << 24  # characters handed out and not yet written
_PARTIAL = "partial"  # folder in which the files grow


def build_corpus(
    source: str | Iterable[str],
    tokenizer: Tokenizer,
    directory: str,
    *,
    column: str = "text",
    cleaning: Cleaning = Cleaning(),
    errors: str = "strict",
    document_per_file: bool = False,
    data_dir: str | None = None,
    language: str = "en",
    longest: int = 128,
    validation_share: float = 0.01,
    processes: int | None = None,
    verbose: bool = True,
) -> Report:
    """Writes a corpus (see `bert_jax.text.corpus`) and its report.json.

    The same documents give the same bytes, whatever the number of processes. The files grow in DIR/partial and move
    into place at the end, header last: an interrupted build leaves no corpus (or the one that was there), and the next
    build starts afresh.

    Args:
      source: SOURCE as in `sources.read_documents` (as are column, errors, document_per_file, data_dir), or documents.
      cleaning: what is done to each document, and which are dropped.
      language: ISO 639 code for the sentence splitter.
      longest: a longer sentence, in tokens, is cut, so that nothing is truncated later.
      validation_share: of the documents; drawn by a hash of their text, so equal texts are on one side. At least one if
        the share is above 0 and there are two.
      processes: None is one a core.
      verbose: shows a progress bar and prints the report.

    Raises:
      UserError: a bad source, no documents, or files that cannot be written.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"validation_share={validation_share} is not between 0 and 1")
    if longest < 1:
        raise UserError(f"longest={longest} is not at least 1")
    directory = os.fspath(directory)
    report = Report()
    if isinstance(source, str):
        documents = sources.read_raw(
            source,
            column=column,
            errors=errors,
            document_per_file=document_per_file,
            data_dir=data_dir,
            report=report,
        )
    else:
        documents = sources.bounded(source, report)
    options = _Options(source if isinstance(source, str) else "", cleaning, language, longest, validation_share)
    _build(documents, tokenizer, directory, options, processes or cores(), verbose, report)
    if verbose:
        print(f"Corpus in {directory}\n{report.table()}", flush=True)
    return report


@dataclasses.dataclass(frozen=True)
class _Options:
    """What decides the bytes of a corpus, with its documents and its tokenizer; the header keeps it."""

    source: str
    cleaning: Cleaning
    language: str
    longest: int
    validation_share: float


def _build(
    documents: Iterator[str],
    tokenizer: Tokenizer,
    directory: str,
    options: _Options,
    processes: int,
    verbose: bool,
    report: Report,
) -> None:
    """Encodes, writes and publishes; fills the report."""
    start = time.perf_counter()
    dtype = corpus.token_type(tokenizer.vocab_size)
    encoder = (tokenizer.backend.to_str(), options.cleaning, options.language, options.longest, dtype)
    with _partial_folder(directory) as partial, contextlib.ExitStack() as stack:
        writers = {
            split: stack.enter_context(corpus.SplitWriter(os.path.join(partial, split), dtype, tokenizer.vocab_size))
            for split in corpus.SPLITS
        }
        batches = stack.enter_context(contextlib.closing(_encoded(documents, encoder, processes)))
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
            **dataclasses.asdict(options),
        }
        _publish(partial, directory, header, report)


def _no_documents(source: str, report: Report) -> str:
    name = f"source {source!r}" if source else "the source"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.dropped.items()))
    return f"{name} gave no documents: " + (f"all were dropped ({dropped})" if dropped else "it is empty")


# ----------------------------------------------------------------------------------------------- encoding on all cores


def _encoded(documents: Iterator[str], arguments: tuple, processes: int) -> Iterator[Encoded]:
    """Encodes batches of documents in order, a bounded number of them at a time; `arguments` are `Encoder`'s."""
    batches = _batches(documents)
    ahead = list(itertools.islice(batches, 2))
    batches = itertools.chain(ahead, batches)
    if processes == 1 or len(ahead) < 2:  # too little text to start processes for
        yield from map(Encoder(*arguments), batches)
        return
    workers = [_Worker(arguments) for _ in range(processes)]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def encode(batch: list[str]) -> Encoded:
        worker = idle.get()
        try:
            return worker.encode(batch)
        finally:
            idle.put(worker)

    threads = concurrent.futures.ThreadPoolExecutor(processes)  # each waits for a worker
    pending: collections.deque = collections.deque()  # (future, characters)
    in_flight = 0
    try:
        for batch in batches:
            size = sum(map(len, batch))
            while pending and (len(pending) > 2 * processes or in_flight + size > _IN_FLIGHT):
                future, done = pending.popleft()
                in_flight -= done
                yield future.result()
            pending.append((threads.submit(encode, batch), size))
            in_flight += size
        while pending:
            yield pending.popleft()[0].result()
    except (EOFError, ConnectionError) as error:
        raise UserError("a worker process died, perhaps for want of memory: pass a smaller --processes") from error
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()
        threads.shutdown(wait=True)


class _Worker:
    """A process that encodes one batch at a time.

    It has a pipe of its own, which ends when either side dies, in the middle of a message too: nobody waits for ever.
    """

    def __init__(self, arguments: tuple) -> None:
        # Spawned, not forked: the caller may have started JAX, whose threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, arguments), daemon=True)
        with _no_main_module():
            self._process.start()
        theirs.close()

    def encode(self, batch: list[str]) -> Encoded:
        """Raises EOFError or ConnectionError if the process is dead."""
        self._pipe.send(batch)
        return self._pipe.recv()

    def end(self) -> None:
        """Stops the process, whatever it does."""
        self._process.terminate()
        self._process.join()


def _work(pipe: multiprocessing.connection.Connection, arguments: tuple) -> None:
    """What a worker process does until its pipe ends."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each process keeps one core busy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    encoder = Encoder(*arguments)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(encoder(pipe.recv()))


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keeps a spawned process from importing the caller's script, and with it JAX: it needs `bert_jax.text` only."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# ------------------------------------------------------------------------------------------------------------- writing


def _write(
    batches: Iterator[Encoded],
    writers: dict[str, corpus.SplitWriter],
    options: _Options,
    report: Report,
    bar: tqdm.tqdm,
) -> None:
    """Gives each document to its split, and counts it."""
    seen = SeenDocuments() if options.cleaning.drop_duplicates else None
    limit = round(options.validation_share * (1 << 32))
    for batch in batches:
        report.dropped += batch.dropped
        report.cut += batch.cut
        sentence_ends = np.concatenate([[0], np.cumsum(batch.sentence_counts)])
        token_ends = np.concatenate([[0], np.cumsum(batch.sentence_lengths)])
        lengths = []
        for number, code in enumerate(batch.hashes):
            if seen and seen.add(code):
                report.dropped["duplicate"] += 1
                continue
            first, last = sentence_ends[number : number + 2]
            sentences = batch.sentence_lengths[first:last]
            split = "validation" if code >> 32 < limit else "train"
            writers[split].add(batch.tokens[token_ends[first] : token_ends[last]], sentences)
            report.documents += 1
            report.characters += batch.characters[number]
            report.text_bytes += batch.text_bytes[number]
            lengths.append(sentences)
        if lengths:
            report.add_lengths(np.concatenate(lengths), np.array([part.sum() for part in lengths]))
        advance(bar, report)


def _fill_empty_split(writers: dict[str, corpus.SplitWriter], validation_share: float) -> None:
    """A few documents may all fall on one side: then the last of them changes sides."""
    train, validation = writers["train"], writers["validation"]
    if not train.documents and validation.documents:
        train.add(*validation.pop())
    elif not validation.documents and train.documents > 1 and validation_share > 0:
        validation.add(*train.pop())


@contextlib.contextmanager
def _partial_folder(directory: str) -> Iterator[str]:
    """An empty folder for the growing files, removed whatever happens; what the disk refuses is told as a UserError."""
    partial = os.path.join(directory, _PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(partial)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        hint = (
            "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "choose another folder"
        )
        raise UserError(f"cannot write the corpus to {directory}: {error.strerror or error}; {hint}") from error


def _publish(partial: str, directory: str, header: dict, report: Report) -> None:
    """Moves the finished files into place; the header, which makes them a corpus, goes last."""
    path = os.path.join(directory, corpus.HEADER)
    _write_json(os.path.join(partial, "report.json"), report.to_dict())
    _write_json(os.path.join(partial, corpus.HEADER), header)
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
    for split in corpus.SPLITS:
        shutil.rmtree(os.path.join(directory, split), ignore_errors=True)
        os.replace(os.path.join(partial, split), os.path.join(directory, split))
    os.replace(os.path.join(partial, "report.json"), os.path.join(directory, "report.json"))
    os.replace(os.path.join(partial, corpus.HEADER), path)


def _write_json(path: str, value: dict) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
