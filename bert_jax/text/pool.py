"""Encodes batches of documents in several processes, in order and in bounded memory."""

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Generator, Iterator
from typing import Any

from bert_jax.runtime import signals
from bert_jax.errors import UserError
from bert_jax.text.encoding import DocumentEncoder, EncodedDocuments

BATCH = 1 << 18  # characters handed to a process at once
_IN_FLIGHT = 1 << 24  # characters handed out and not yet written


def encoded_batches(
    documents: Iterator[str], encoder_arguments: tuple, processes: int
) -> Generator[EncodedDocuments, None, None]:
    """Encodes documents in batches, in order, a bounded number of them at a time.

    Args:
      documents: the raw documents.
      encoder_arguments: the arguments of each process's `DocumentEncoder`.
      processes: the number of processes; with 1, or with little text, this process does the work itself.

    Raises:
      UserError: a process died.
    """
    batches = _batches(documents)
    first_two = list(itertools.islice(batches, 2))
    batches = itertools.chain(first_two, batches)
    if processes == 1 or len(first_two) < 2:  # too little text to start processes for
        yield from map(DocumentEncoder(*encoder_arguments), batches)
        return
    # In a thread, because Python handles signals in the main one: none comes between a process and its record.
    with concurrent.futures.ThreadPoolExecutor(1) as starter:
        executor = starter.submit(_started_executor, processes, encoder_arguments).result()
    pending: collections.deque[tuple[concurrent.futures.Future, int]] = collections.deque()  # with their characters
    in_flight = 0
    try:
        for batch in batches:
            size = sum(map(len, batch))
            while pending and (len(pending) > 2 * processes or in_flight + size > _IN_FLIGHT):
                future, characters = pending.popleft()
                in_flight -= characters
                yield future.result()
            pending.append((executor.submit(_encode, batch), size))
            in_flight += size
        while pending:
            yield pending.popleft()[0].result()
    except concurrent.futures.BrokenExecutor as error:
        time.sleep(0.2)  # a signal to the whole group ends them, and comes here, too
        signals.check()
        raise UserError("a worker process died, perhaps for want of memory: pass a smaller --processes") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _started_executor(processes: int, encoder_arguments: tuple) -> concurrent.futures.ProcessPoolExecutor:
    # All processes inherit this: a signal to the group is answered by this one, and they end with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    sys.warnoptions.append(
        "ignore::UserWarning:multiprocessing.resource_tracker"
    )  # that it has cleaned up after a stop
    multiprocessing.resource_tracker.ensure_running()  # unblocks SIGINT once it is started, and ignores it itself
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    # Spawned, not forked: the caller may have started JAX, whose threads do not survive a fork.
    executor = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=encoder_arguments
    )
    with _no_main_module():
        for _ in range(processes):
            executor.submit(int)  # a task starts a process as long as none is idle
    return executor


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keeps a spawned process from importing the caller's script, and with it JAX: it needs `bert_jax.text` only."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# ---- in a worker process -------------------------------------------------------------------------

_encoder: DocumentEncoder


def _start_worker(*encoder_arguments: Any) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each process keeps one core busy
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _encoder = DocumentEncoder(*encoder_arguments)


def _die_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended: the pool's own queue would keep it waiting."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(batch: list[str]) -> EncodedDocuments:
    return _encoder(batch)
