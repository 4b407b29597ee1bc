"""Serves pre-training batches: a batch is a pure function of (corpus, config, seed, step).

The way from a step to its rows, with nothing kept but a few recent blocks:

  step -> global rows -> epoch, block, row in the block
  block -> its `spans` of text, by permutations that cost no memory -> sequences -> shuffled, packed -> R rows

A span is about 16 L tokens of the corpus and owns the sequences that start in it. The grid of spans is shifted at
random each epoch, so no sentence always lies at a seam. R is fixed (shapes and epochs have to be): the mean number of
rows that a block fills. A block that fills more loses rows at random, one that fills fewer gets empty rows.
"""

import dataclasses
import math
import mmap
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from bert_jax.config import DataConfig
from bert_jax.errors import UserError
from bert_jax.pretraining import packing
from bert_jax.pretraining.packing import Places
from bert_jax.pretraining.pairs import NO_LABEL, Sequences, draw_sequences
from bert_jax.pretraining.permutation import permuted
from bert_jax.text.corpus import CorpusArrays

SPAN_LENGTHS = 16  # tokens of a span, in L
BLOCK_SPANS = 64  # more: fuller rows and better mixed batches; fewer: less work that two workers both do
MEASURED_BLOCKS = 16
CACHED_BLOCKS = 4
_EPOCH, _BLOCK, _MEASURE = range(3)  # streams of random numbers

Batch = dict[str, np.ndarray]


class PretrainingBatches:
    """Gives random access to an endless stream of batches: `batches[step]`.

    A batch is a dict of int32 arrays: `input_ids`, `token_type_ids`, `position_ids` (from 0 in every sequence) and
    `sequence_ids` (0 is padding, 1 to K the sequence within the row) [B, L], `next_sentence_labels` [B, K] (0 B follows
    A, 1 random or swapped, -1 no sequence or no objective).

    Start-up reads a constant number of blocks. Memory does not grow with the corpus.

    Attributes:
      sequences_per_row: the number K of sequences for which a row has room.
      rows_per_block: the number R of rows of a block.
      dropped_share: the share of the text that is left out of an epoch because its block filled more than R rows.
      fill_share: the share of the positions of an epoch that are not padding.
    """

    def __init__(
        self,
        corpus: CorpusArrays,
        config: DataConfig,
        *,
        cls_id: int,
        sep_id: int,
        batch_size: int,
        seed: int,
        rows: slice = slice(None),
    ) -> None:
        """Measures R.

        Args:
          corpus: the text, as a rule a `text.corpus.Corpus` on disk.
          config: the config, of which `length`, `packing`, `objective` and `short_rate` are read.
          cls_id: the id of [CLS].
          sep_id: the id of [SEP].
          batch_size: the number B of rows of a global batch.
          seed: any integer; all randomness follows from it.
          rows: the rows of each batch that this process loads, a stretch without gaps; the others cost nothing unless
            they share a block.

        Raises:
          UserError: the corpus is empty.
        """
        if not corpus.num_tokens:
            raise UserError("the corpus has no text: build it from a source that has some")
        self.corpus, self.config, self.batch_size, self.seed = corpus, config, batch_size, seed % 2**64
        self._cls_id, self._sep_id = cls_id, sep_id
        self._rows = range(batch_size)[rows]
        if self._rows.step != 1:
            raise ValueError(f"rows must be a stretch without gaps, got {rows}")
        self.sequences_per_row = packing.sequences_per_row(config.length, config.packing)
        size = corpus.num_tokens / (SPAN_LENGTHS * config.length)
        self.num_blocks = max(1, round(size / BLOCK_SPANS))
        self.spans_per_block = min(BLOCK_SPANS, max(1, round(size)))
        self._cache: dict[tuple[int, int], Batch] = {}
        self._lock = threading.Lock()
        self._measure()

    @property
    def rows_per_epoch(self) -> int:
        """Counts the rows in which the whole corpus is seen once."""
        return self.num_blocks * self.rows_per_block

    def __getitem__(self, step: int) -> Batch:
        """Returns the batch of a step >= 0, freshly allocated."""
        first = step * self.batch_size + self._rows.start
        stop = first + len(self._rows)
        parts = []
        while first < stop:
            epoch, row = divmod(first, self.rows_per_epoch)
            index, row = divmod(row, self.rows_per_block)
            take = min(stop - first, self.rows_per_block - row)
            block = self._block(epoch, index)
            parts.append({name: array[row : row + take] for name, array in block.items()})
            first += take
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _block(self, epoch: int, index: int) -> Batch:
        """Returns the R rows of a block, from the cache or newly made."""
        with self._lock:
            block = self._cache.pop((epoch, index), None)
            if block is None:
                block = self._make_block(epoch, index)
            self._cache[epoch, index] = block  # the newest is last
            while len(self._cache) > CACHED_BLOCKS:
                del self._cache[next(iter(self._cache))]
            return block

    def _make_block(self, epoch: int, index: int) -> Batch:
        rng = self._rng(_BLOCK, epoch, index)
        sequences = draw_sequences(self.corpus, self._ranges(_EPOCH, epoch, index), self.config, rng)
        places = self._place(sequences, rng)
        rows = max(int(places.row.max(initial=-1)) + 1, self.rows_per_block)
        places = places._replace(row=_shuffled(rows, rng)[places.row])  # rows beyond R, empty or not, are cut off below
        shape = (rows, self.config.length, self.sequences_per_row)
        block = packing.write_rows(np.asarray(self.corpus.tokens), sequences, places, shape, self._cls_id, self._sep_id)
        return {name: array[: self.rows_per_block] for name, array in block.items()}

    def _place(self, sequences: Sequences, rng: np.random.Generator) -> Places:
        """Gives each sequence its place; sequences of equal length meet at random."""
        order = _shuffled(len(sequences.label), rng)
        placed = packing.best_fit(sequences.lengths[order], self.config.length, self.sequences_per_row)
        back = np.argsort(order)
        return Places(placed.row[back], placed.slot[back], placed.position[back])

    def _ranges(self, stream: int, epoch: int, index: int) -> list[tuple[int, int]]:
        """Returns the token ranges of a block's spans. The spans of all blocks of an epoch are the whole corpus, once.

        The corpus falls into as many parts as a block has spans, and each part gives each block one span: blocks are
        alike, and fill alike, even where a corpus has one kind of text after the other.
        """
        tokens, spans = self.corpus.num_tokens, self.num_blocks * self.spans_per_block
        shift, *keys = (
            np.random.SeedSequence((self.seed, stream, epoch))
            .generate_state(1 + self.spans_per_block, np.uint64)
            .tolist()
        )
        ranges = []
        for part, key in enumerate(keys):
            span = part * self.num_blocks + permuted(index, self.num_blocks, key)
            begin, end = (tokens * (span + k) // spans + shift % tokens for k in (0, 1))
            if begin < tokens < end:  # the span that the shift laid over the end of the corpus
                ranges += [(begin, tokens), (0, end - tokens)]
            else:
                ranges.append((begin % tokens, (end - 1) % tokens + 1))
        return ranges

    def _measure(self) -> None:
        """Sets R and the shares from some blocks of their own random numbers."""
        rows, used = [], []
        for i in range(MEASURED_BLOCKS):
            rng = self._rng(_MEASURE, i)
            index = int(rng.random() * self.num_blocks)
            sequences = draw_sequences(self.corpus, self._ranges(_MEASURE, i, index), self.config, rng)
            rows.append(int(self._place(sequences, rng).row.max(initial=-1)) + 1)
            used.append(int(sequences.lengths.sum()))
        self.rows_per_block = max(1, math.ceil(np.mean(rows)))
        kept = np.minimum(1, self.rows_per_block / np.maximum(rows, 1))
        self.dropped_share = 1 - float(np.dot(kept, used)) / max(1, sum(used))
        self.fill_share = float(np.dot(kept, used)) / (len(rows) * self.rows_per_block * self.config.length)

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, *stream))))

    def __getstate__(self) -> dict[str, Any]:
        """Returns all but the cache and its lock, and the corpus by the names of its files, for worker processes."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("_cache", "_lock")}
        fields = {field.name: getattr(self.corpus, field.name) for field in dataclasses.fields(self.corpus)}
        mapped = {name: _MappedFile.of(value) for name, value in fields.items() if _is_mapped_file(value)}
        return {**state, "corpus": dataclasses.replace(self.corpus, **mapped)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cache={}, _lock=threading.Lock())
        fields = {field.name: getattr(self.corpus, field.name) for field in dataclasses.fields(self.corpus)}
        opened = {name: value.open() for name, value in fields.items() if isinstance(value, _MappedFile)}
        self.corpus = dataclasses.replace(self.corpus, **opened)


class _MappedFile(NamedTuple):
    """Names a memory-mapped array for another process; pickled as it is, it would be copied whole."""

    path: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.memmap) -> "_MappedFile":
        return cls(str(array.filename), array.dtype, array.offset, array.shape)

    def open(self) -> np.memmap:
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def _is_mapped_file(value: Any) -> bool:
    """Returns True for a memory-mapped array, not for a part of one."""
    return isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap)


def _shuffled(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a permutation of 0 to n - 1."""
    return np.argsort(rng.random(n))


def iterate(batches: PretrainingBatches, start_step: int, *, workers: int = 0, prefetch: int = 4) -> Iterator[Batch]:
    """Yields batches[start_step], batches[start_step + 1], ... without end, read ahead by Grain.

    Args:
      batches: the batches by step.
      start_step: the first step; that is all a resumed run needs to know.
      workers: the number of processes that make batches. With 0 one thread of this process does, which is enough unless
        the devices take more than one core can make (`scripts/benchmark.py --suite=input` measures that).
      prefetch: the number of batches that each worker makes ahead.
    """
    dataset = grain.MapDataset.range(start_step, sys.maxsize).map(batches.__getitem__)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch))
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own; in a notebook or a test nobody parsed them
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=prefetch))
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()


def validation_batches(
    corpus: CorpusArrays, config: DataConfig, *, cls_id: int, sep_id: int, batch_size: int, max_rows: int, seed: int
) -> list[Batch]:
    """Returns a fixed list of batches: the first epoch's rows, at most `max_rows`.

    The last batch is filled up with empty rows (`sequence_ids` 0, labels -1), so that all have the same shape. The
    other arguments are those of `PretrainingBatches`.
    """
    stream = PretrainingBatches(corpus, config, cls_id=cls_id, sep_id=sep_id, batch_size=batch_size, seed=seed)
    rows = min(max_rows, stream.rows_per_epoch)
    batches = [stream[step] for step in range(-(-rows // batch_size))]
    if rows % batch_size:
        for name, array in batches[-1].items():
            array[rows % batch_size :] = NO_LABEL if name == "next_sentence_labels" else 0
    return batches
