"""Rows in batches of few shapes: each is padded to one of six lengths, and rows of one such length come together.

A training batch is a pure function of (rows, batch size, seed, step). The rows are served without end, each once an
epoch; where an epoch does not end with a batch, that batch has the last rows of it and the first of the next.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.errors import UserError
from bert_jax.runtime.machine import cores
from bert_jax.tasks.answering import AnsweringRow
from bert_jax.tasks.features import NO_LABEL, ChoiceRow, Row, TaggingRow

SHAPES = 6  # more: less padding; fewer: less to compile
MULTIPLE = 8  # the lengths are multiples of it
TOKENS_A_CORE = 768  # of a forward pass on a CPU

Batch = dict[str, np.ndarray]


class EvaluationBatch(NamedTuple):
    """A batch, and which rows it holds."""

    rows: np.ndarray  # int32 [B], the row's number; -1 for an empty row
    arrays: Batch


class FinetuningBatches:
    """Random access to an endless stream of training batches: `batches[step]`.

    A batch is a dict of arrays: `input_ids`, `token_type_ids`, `position_ids` and `sequence_ids` (1 at tokens, 0 at
    padding), int32 [B, L] or, for choices, [B, C, L]; and the labels: `labels` int32 [B] (classes, choices), float32
    [B, C] (several classes), float32 [B] (numbers) or int32 [B, L] (tags); for questions `starts` and `ends` int32 [B].
    -1 is no label; of numbers, NaN is.

    Attributes:
      lengths: all values of L, at most `SHAPES`; they depend on the rows, not on the seed.
      padding_share: share of the positions that are padding, in the first epoch.
    """

    def __init__(self, rows: Sequence[Row], *, batch_size: int, max_length: int, seed: int) -> None:
        """Chooses the lengths.

        Args:
          rows: of one kind.
          batch_size: B.
          max_length: the longest that a row may be; no batch is padded to more.
          seed: any integer; all randomness follows from it.

        Raises:
          UserError: there is no row.
        """
        if not rows:
            raise UserError("there is nothing to train on: the training data gave no rows")
        self.rows, self.batch_size, self.seed = rows, batch_size, seed % 2**64
        lengths = row_lengths(rows)
        self.lengths = padded_lengths(lengths, max_length)
        self._padded = np.array(self.lengths)[np.searchsorted(self.lengths, lengths)]
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step >= 0, freshly allocated."""
        numbers = self.row_numbers(step)
        return lay_out([self.rows[number] for number in numbers], self.batch_size, int(self._padded[numbers].max()))

    def row_numbers(self, step: int) -> np.ndarray:
        """int64 [B]: the rows of a step."""
        first, parts = step * self.batch_size, []
        stop = first + self.batch_size
        while first < stop:
            epoch, place = divmod(first, len(self.rows))
            parts.append(self._order(epoch)[place : place + stop - first])
            first += len(parts[-1])
        return np.concatenate(parts)

    @property
    def padding_share(self) -> float:
        tokens = np.array([sum(len(ids) for ids, _ in row.inputs) for row in self.rows])
        sequences = len(self.rows[0].inputs)
        filled = padded = 0
        for step in range(-(-len(self.rows) // self.batch_size)):
            numbers = self.row_numbers(step)
            filled += tokens[numbers].sum()
            padded += self.batch_size * sequences * self._padded[numbers].max()
        return 1 - float(filled / padded)

    def _order(self, epoch: int) -> np.ndarray:
        """int64 [R]: the rows of an epoch in the order in which they are served."""
        if epoch not in self._orders:
            self._orders = {number: order for number, order in self._orders.items() if number == epoch - 1}
            self._orders[epoch] = self._make_order(epoch)
        return self._orders[epoch]

    def _make_order(self, epoch: int) -> np.ndarray:
        """The rows in random order, sorted into batches of rows of one padded length, these in random order.

        Sorted no finer, so that each epoch brings other rows together. The first rows fill the batch in which the epoch
        before ended, the last begin the one in which this epoch ends: these are of any length.
        """
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch))))
        order = np.argsort(rng.random(len(self.rows)))
        start = min(-epoch * len(self.rows) % self.batch_size, len(order))
        stop = start + (len(order) - start) // self.batch_size * self.batch_size
        body = order[start:stop]
        batches = body[np.argsort(self._padded[body], kind="stable")].reshape(-1, self.batch_size)
        order[start:stop] = batches[np.argsort(rng.random(len(batches)))].ravel()
        return order


def evaluation_batches(rows: Sequence[Row], batch_size: int, max_length: int, platform: str) -> list[EvaluationBatch]:
    """All rows, the longest first, in batches as `FinetuningBatches` has them.

    Batches are those of `by_length`; the last one is filled up with empty rows (`sequence_ids` 0, no labels).
    """
    batches = []
    for numbers, size, length in by_length(row_lengths(rows), batch_size, max_length, platform):
        arrays = lay_out([rows[number] for number in numbers], size, length)
        batches.append(EvaluationBatch(np.pad(numbers, (0, size - len(numbers)), constant_values=-1), arrays))
    return batches


def by_length(
    lengths: np.ndarray, batch_size: int, max_length: int, platform: str
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Numbers of rows, the longest first, in batches for a forward pass; of each its rows and its length.

    The shapes do not depend on the rows, so that many lists of rows compile a few times only: the length is a `bucket`,
    and the last batch is as large as the next power of two.

    Args:
      lengths: int [R], tokens of each row.
      batch_size: rows of a batch at most.
      max_length: tokens of a row at most.
      platform: that of the execution; a CPU takes no more rows at once than its caches hold.

    Yields:
      int32 [n], B and L of a batch of n <= B rows.
    """
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    while len(order):
        length = bucket(int(lengths[order[0]]), max_length)
        max_rows = min(batch_size, rows_in_cache(length)) if platform == "cpu" else batch_size
        yield order[:max_rows], min(max_rows, power_of_two(len(order))), length
        order = order[max_rows:]


def rows_in_cache(length: int) -> int:
    """How many rows a CPU takes at once: a power of two, of which the tokens and their attention stay in its caches.

    With MiniLM on two cores of an AMD EPYC, rows of 512, 192 and 64 tokens go 1.15, 1.12 and 1.01 times as fast as in
    batches of 32.
    """
    return max(1, power_of_two(TOKENS_A_CORE * cores() // length + 1) // 2)


def bucket(length: int, max_length: int) -> int:
    """The length to which evaluation pads: the next of 16, 24, 32, 40, 48, 56, 64, 80, 96, ..., or `max_length`."""
    step = max(8, power_of_two(length) // 8)
    return min(max_length, max(16, -(-length // step) * step))


def power_of_two(number: int) -> int:
    """The next, from `number` on."""
    return 1 << (number - 1).bit_length()


def in_row_order(batches: Sequence[EvaluationBatch], outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a model gave for each row, from what it gave for each batch, [B, ...]."""
    found = [
        (number, output)
        for batch, each in zip(batches, outputs, strict=True)
        for number, output in zip(batch.rows.tolist(), each, strict=True)
        if number >= 0
    ]
    return [output for _, output in sorted(found, key=lambda pair: pair[0])]


def row_lengths(rows: Sequence[Row]) -> np.ndarray:
    """int64 [R]: L of each row, of choices the longest."""
    return np.array([max(len(ids) for ids, _ in row.inputs) for row in rows], np.int64)


def padded_lengths(lengths: np.ndarray, max_length: int) -> list[int]:
    """At most `SHAPES` lengths, ascending, such that each row, padded to the next of them, is padded least in all.

    Found by dynamic programming over the different lengths, rounded up to multiples of `MULTIPLE`.

    Args:
      lengths: int [R], R > 0, none above `max_length`.
      max_length: the greatest length that may be chosen.
    """
    rounded = np.minimum(-(-lengths // MULTIPLE) * MULTIPLE, max_length)
    values, counts = np.unique(rounded, return_counts=True)
    size = len(values)
    rows = np.concatenate([[0], np.cumsum(counts)])  # those of the first i values
    possible = np.arange(size + 1)[:, None] <= np.arange(size)
    costs = np.concatenate([[0.0], np.full(size, np.inf)])  # positions for the first i values; no length chosen yet
    choices = []
    for _ in range(min(SHAPES, size)):
        # [i, j]: the first i values at the cost so far, the others up to j padded to value j
        table = np.where(possible, costs[:, None] + (rows[1:] - rows[:, None]) * values, np.inf)
        choices.append(table.argmin(axis=0))
        costs[1:] = table.min(axis=0)
    chosen, upto = [], size
    for choice in reversed(choices):
        if upto:
            chosen.append(int(values[upto - 1]))
            upto = choice[upto - 1]
    return chosen[::-1]


def lay_out(rows: Sequence[Row], batch_size: int, length: int) -> Batch:
    """The arrays of some rows of one kind, filled up with empty ones to `batch_size` rows of `length` tokens."""
    sequences = [each for row in rows for each in row.inputs]
    choices = len(rows[0].inputs)
    shape = (batch_size, choices, length) if isinstance(rows[0], ChoiceRow) else (batch_size, length)
    ids, types, positions, inside = np.zeros((4, batch_size * choices, length), np.int32)
    for number, (row_ids, row_types) in enumerate(sequences):
        size = len(row_ids)
        ids[number, :size], types[number, :size] = row_ids, row_types
        positions[number, :size], inside[number, :size] = np.arange(size), 1
    named = {"input_ids": ids, "token_type_ids": types, "position_ids": positions, "sequence_ids": inside}
    return {name: array.reshape(shape) for name, array in named.items()} | _labels(rows, batch_size, length)


def _labels(rows: Sequence[Row], batch_size: int, length: int) -> Batch:
    kind, label = type(rows[0]), rows[0].label
    if kind is AnsweringRow:
        positions = np.full((batch_size, 2), NO_LABEL, np.int32)
        positions[: len(rows)] = [row.label for row in rows]
        return {"starts": positions[:, 0].copy(), "ends": positions[:, 1].copy()}
    if kind is TaggingRow:
        labels = np.full((batch_size, length), NO_LABEL, np.int32)
        for number, row in enumerate(rows):
            labels[number, : len(row.label)] = row.label
        return {"labels": labels}
    if isinstance(label, float):
        labels = np.full(batch_size, np.nan, np.float32)
    elif isinstance(label, int):
        labels = np.full(batch_size, NO_LABEL, np.int32)
    else:
        labels = np.full((batch_size, len(label)), NO_LABEL, np.float32)
    labels[: len(rows)] = [row.label for row in rows]
    return {"labels": labels}
