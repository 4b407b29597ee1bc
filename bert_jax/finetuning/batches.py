"""Rows in batches of few shapes: each is padded to one of six lengths, and rows of one such length come together.

A training batch is a pure function of (rows, batch size, seed, step). The rows are served without end, each once an
epoch; where an epoch does not end with a batch, that batch has the last rows of it and the first of the next.
"""

from collections.abc import Sequence

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.batches import row_lengths
from bert_jax.tasks.kinds.base import Kind
from bert_jax.tasks.rows import Batch, Row

SHAPES = 6  # more: less padding; fewer: less to compile
MULTIPLE = 8  # the lengths are multiples of it


class FinetuningBatches:
    """Gives random access to an endless stream of training batches: `batches[step]`.

    A batch is a dict of arrays: `input_ids`, `token_type_ids`, `position_ids` and `sequence_ids` (1 at tokens, 0 at
    padding), int32 [B, L] or, for choices, [B, C, L]; and the labels as `Kind.labels` lays them out.

    Attributes:
      lengths: all values of L, at most `SHAPES`; they depend on the rows, not on the seed.
    """

    def __init__(self, kind: Kind, rows: Sequence[Row], *, batch_size: int, max_length: int, seed: int) -> None:
        """Chooses the lengths.

        Args:
          kind: of task.
          rows: of this kind.
          batch_size: B.
          max_length: the longest that a row may be; no batch is padded to more.
          seed: any integer; all randomness follows from it.

        Raises:
          UserError: there is no row.
        """
        if not rows:
            raise UserError("there is nothing to train on: the training data gave no rows")
        self.kind, self.rows, self.batch_size, self.seed = kind, rows, batch_size, seed % 2**64
        lengths = row_lengths(rows)
        self.lengths = padded_lengths(lengths, max_length)
        self._padded = np.array(self.lengths)[np.searchsorted(self.lengths, lengths)]
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """Returns the batch of a step >= 0, freshly allocated."""
        numbers = self.row_numbers(step)
        length = int(self._padded[numbers].max())
        return self.kind.batch([self.rows[number] for number in numbers], self.batch_size, length)

    def row_numbers(self, step: int) -> np.ndarray:
        """Returns int64 [B], the rows of a step."""
        first, parts = step * self.batch_size, []
        stop = first + self.batch_size
        while first < stop:
            epoch, place = divmod(first, len(self.rows))
            parts.append(self._order(epoch)[place : place + stop - first])
            first += len(parts[-1])
        return np.concatenate(parts)

    @property
    def padding_share(self) -> float:
        """Returns the share of the positions that are padding, in the first epoch."""
        tokens = np.array([sum(len(ids) for ids, _ in row.inputs) for row in self.rows])
        sequences = len(self.rows[0].inputs)
        filled = padded = 0
        for step in range(-(-len(self.rows) // self.batch_size)):
            numbers = self.row_numbers(step)
            filled += tokens[numbers].sum()
            padded += self.batch_size * sequences * self._padded[numbers].max()
        return 1 - float(filled / padded)

    def _order(self, epoch: int) -> np.ndarray:
        """Returns int64 [R], the rows of an epoch in the order in which they are served."""
        if epoch not in self._orders:
            self._orders = {number: order for number, order in self._orders.items() if number == epoch - 1}
            self._orders[epoch] = self._make_order(epoch)
        return self._orders[epoch]

    def _make_order(self, epoch: int) -> np.ndarray:
        """Draws a random order, sorted into batches of rows of one padded length, these in random order.

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


def padded_lengths(lengths: np.ndarray, max_length: int) -> list[int]:
    """Chooses at most `SHAPES` lengths, ascending, that pad least in all if each row is padded to the next of them.

    They are found by dynamic programming over the different lengths, rounded up to multiples of `MULTIPLE`.

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
