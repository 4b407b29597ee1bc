"""How full packers lay the text of a corpus into rows, and how fast: best fit, as the loader packs, and others.

A packer gets all sequences of an epoch at once. The loader packs block by block, for the sake of batches that are a
function of (seed, step), with a fixed number of rows a block: what that costs stands beside them.
"""

import functools
import heapq
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize

from bert_jax.config import DataConfig
from bert_jax.pretraining import packing
from bert_jax.pretraining.batches import PretrainingBatches
from bert_jax.pretraining.pairs import draw_sequences
from bert_jax.pretraining.run import corpus_folder, read_run
from bert_jax.text.corpus import Corpus

LENGTHS = (128, 512)
MEASURED_SECONDS = 1.0  # a packer runs again and again for so long, and once at least
DEPTH = 3  # sequences in a row of the least-squares packer: at 512 tokens 22,102 strategies; with four, millions
SHORT, SHORT_WEIGHT = 8, 0.09  # of its residuals: where a sequence of at most 8 tokens is missing, little is padded

Packer = Callable[[np.ndarray, int, int], np.ndarray]  # of lengths int [n], L and K; the row of each, int64 [n]
Pack = tuple[tuple[int, ...], int]  # the lengths of the sequences in a row, and how many such rows


# --- packers


def one_a_row(lengths: np.ndarray, _capacity: int, _most: int) -> np.ndarray:
    """Padding."""
    return np.arange(len(lengths))


def first_fit(lengths: np.ndarray, capacity: int, most: int) -> np.ndarray:
    """First fit, longest first: each sequence goes to the first row with room for it."""
    rows, filled = np.empty(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # heaps of rows
    first = np.full(capacity + 1, len(lengths))  # of each heap; n where it is empty
    count = 0
    order = np.argsort(-lengths, kind="stable")
    for each, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        room = length + int(first[length:].argmin())
        if first[room] < count:
            row = heapq.heappop(by_room[room])
            first[room] = by_room[room][0] if by_room[room] else len(lengths)
        else:
            room, row, count = capacity, count, count + 1
        rows[each] = row
        filled[row] += 1
        if filled[row] < most:
            heapq.heappush(by_room[room - length], row)
            first[room - length] = by_room[room - length][0]
    return rows


def best_fit(lengths: np.ndarray, capacity: int, most: int) -> np.ndarray:
    """The loader's packer."""
    return packing.best_fit(lengths, capacity, most)[0]


def shortest_pack_first(lengths: np.ndarray, capacity: int, most: int) -> np.ndarray:
    """SPFHP: worst fit on the histogram of lengths (Krell et al. 2021)."""
    counts = np.bincount(lengths, minlength=capacity + 1)
    return _rows(lengths, _shortest_packs_first(counts, most))


def least_squares(lengths: np.ndarray, capacity: int, most: int) -> np.ndarray:
    """NNLSHP: non-negative least squares on the histogram of lengths (Krell et al. 2021).

    How often each strategy (lengths that fill a row to the last token) is used, so that the sequences are as many as
    there are: solved in real numbers, then rounded. Sequences that are missing are padded, and those that are left
    over are packed by `shortest_pack_first`.
    """
    counts = np.bincount(lengths, minlength=capacity + 1)
    strategies = list(_strategies(capacity, min(most, DEPTH), capacity))
    matrix = np.stack([np.bincount(strategy, minlength=capacity + 1) for strategy in strategies], axis=1)
    weights = np.where(np.arange(capacity + 1) <= SHORT, SHORT_WEIGHT, 1.0)
    solution, _ = scipy.optimize.nnls(weights[:, None] * matrix, weights * counts)
    numbers = np.rint(solution)
    left = np.maximum(counts - (matrix @ numbers).astype(np.int64), 0)
    used = np.flatnonzero(numbers)
    return _rows(lengths, [(strategies[i], int(numbers[i])) for i in used] + _shortest_packs_first(left, most))


PACKERS: dict[str, Packer] = {
    "one a row": one_a_row,
    "first fit, longest first": first_fit,
    "bert_jax: best fit, longest first": best_fit,
    "histogram, shortest pack first": shortest_pack_first,
    f"histogram, least squares, {DEPTH} a row": least_squares,
}


def _shortest_packs_first(counts: np.ndarray, most: int) -> list[Pack]:
    """Packs of sequences of which there are `counts` [L + 1] of each length, the longest first.

    All of a length go to the rows with the most room that have room for it, at once; what finds none gets rows of its
    own.
    """
    capacity = len(counts) - 1
    full: list[Pack] = []  # or as many sequences as may be
    by_room: list[list[Pack]] = [[] for _ in range(capacity + 1)]

    def keep(pack: tuple[int, ...], number: int) -> None:
        (by_room[capacity - sum(pack)] if len(pack) < most else full).append((pack, number))

    for length in range(capacity, 0, -1):
        left = int(counts[length])
        for room in range(capacity - 1, length - 1, -1):
            while left and by_room[room]:
                pack, number = by_room[room].pop()
                taken = min(left, number)
                left -= taken
                keep((*pack, length), taken)
                if taken < number:
                    keep(pack, number - taken)
        if left:
            keep((length,), left)
    return [*full, *(each for packs in by_room for each in packs)]


def _strategies(total: int, most: int, longest: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as a sum of at most `most` lengths, none above `longest`; the longest first."""
    if total <= longest:
        yield (total,)
    if most > 1:
        for first in range(min(longest, total - 1), 0, -1):
            for rest in _strategies(total - first, most - 1, first):
                yield (first, *rest)


def _rows(lengths: np.ndarray, packs: list[Pack]) -> np.ndarray:
    """The row of each sequence: places and sequences of a length meet in their order; empty places stay empty."""
    numbers = np.array([number for _, number in packs], np.int64)
    sizes = np.array([len(pack) for pack, _ in packs], np.int64)
    places = np.concatenate([np.zeros(0, np.int64), *(np.tile(pack, number) for pack, number in packs)])
    row = np.repeat(np.arange(numbers.sum()), np.repeat(sizes, numbers))
    by_length = np.argsort(places, kind="stable")
    places, row = places[by_length], row[by_length]
    rank = np.arange(len(places)) - np.searchsorted(places, places)
    there = np.bincount(lengths, minlength=int(places.max(initial=0)) + 1)
    found = np.empty(len(lengths), np.int64)
    found[np.argsort(lengths, kind="stable")] = row[rank < there[places]]
    return np.unique(found, return_inverse=True)[1]  # without the rows in which nothing lies


# --- suite packing


def packing_suite(workdir: Path, _model: str) -> tuple[str, dict]:
    """Each packer on the corpus of the run in WORKDIR: sentence pairs of an epoch, and whole documents.

    Raises:
      UserError: WORKDIR has no run, or an empty corpus.
    """
    corpus = Corpus.open(corpus_folder(read_run(workdir), workdir))
    comparisons = []
    for length in LENGTHS:
        config = DataConfig(length=length)
        loader = loader_figures(corpus, config)
        pairs = draw_sequences(corpus, [(0, corpus.num_tokens)], config, np.random.default_rng(0)).lengths
        comparisons.append({**packer_figures("sentence pairs", pairs, length), "loader": loader})
        comparisons.append(packer_figures("documents, cut at a row's end", document_lengths(corpus, length), length))
    return "\n".join(map(packing_table, comparisons)), {"comparisons": comparisons}


def document_lengths(corpus: Any, length: int) -> np.ndarray:
    """int64 [D]: tokens of [CLS] document [SEP], at most `length`."""
    return np.minimum(np.diff(corpus.sentences[corpus.documents]) + 2, length)


def packer_figures(name: str, lengths: np.ndarray, length: int) -> dict[str, Any]:
    """What each packer makes of sequences of these lengths in rows of `length` tokens."""
    tokens, most, packers = int(lengths.sum()), packing.sequences_per_row(length, packing=True), {}
    for packer, pack in PACKERS.items():
        found, seconds = timed(functools.partial(pack, lengths, length, most))
        rows = int(found.max()) + 1
        packers[packer] = {
            "rows": rows,
            "filled": tokens / (rows * length),
            "sequences_a_row": len(lengths) / rows,
            "seconds": seconds,
            "sequences_per_second": len(lengths) / seconds,
        }
    return {
        "text": name,
        "length": length,
        "sequences": len(lengths),
        "mean_tokens": tokens / len(lengths),
        "most_a_row": most,
        "least_rows": math.ceil(tokens / length),
        "packers": packers,
    }


def loader_figures(corpus: Any, config: DataConfig) -> dict[str, Any]:
    """What `PretrainingBatches` says when it starts, and how long it takes to start: it keeps no other index."""
    # No token is looked at: any ids and batch size will do.
    batches, seconds = timed(
        functools.partial(PretrainingBatches, corpus, config, cls_id=0, sep_id=0, batch_size=1, seed=0)
    )
    return {
        "rows": batches.rows_per_epoch,
        "rows_a_block": batches.rows_per_block,
        "filled": batches.fill_share,
        "dropped": batches.dropped_share,
        "seconds": seconds,
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the median of its seconds."""
    times: list[float] = []
    end = time.perf_counter() + MEASURED_SECONDS
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - begin)
    return found, statistics.median(times)


def packing_table(found: dict[str, Any]) -> str:
    """One comparison as lines of text."""
    lines = [
        f"{found['text']}, rows of {found['length']}: {found['sequences']:,} sequences of {found['mean_tokens']:.0f} "
        f"tokens on average; at most {found['most_a_row']} a row, and {found['least_rows']:,} rows at least",
        f"{'':<42}{'rows':>9}{'filled':>9}{'a row':>8}{'seconds':>9}{'sequences/s':>15}",
    ]
    for name, each in found["packers"].items():
        line = f"  {name:<40}{each['rows']:>9,}{each['filled']:>9.2%}{each['sequences_a_row']:>8.2f}"
        lines.append(f"{line}{each['seconds']:>9.3f}{each['sequences_per_second']:>15,.0f}")
    if loader := found.get("loader"):
        name = f"the loader, blocks of {loader['rows_a_block']} rows"
        lines.append(
            f"  {name:<40}{loader['rows']:>9,}{loader['filled']:>9.2%}; starts in {loader['seconds']:.2f} s; "
            f"{loader['dropped']:.1%} of the text sits out an epoch"
        )
    return "\n".join(lines)
