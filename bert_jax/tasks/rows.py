"""Inputs of a model: rows of token ids, the windows of long texts, and rows side by side in an array."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.text.tokenizer import Encoded, Tokenizer

NO_LABEL = -1  # what is not scored; of a number to be predicted, NaN
WHOLE = sys.maxsize  # a max_length that cuts nothing
AT_ONCE = 1_024  # examples that are tokenized together; what the tokenizer gives takes about 170 bytes a token
_NAMES_SHOWN = 10

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Row:
    """Holds one input of a model, of L tokens.

    Attributes:
      example: number of the example that it is made of.
      ids: int32 [L], [CLS] A [SEP] or [CLS] A [SEP] B [SEP]; in multiple choice a list of C such arrays.
      token_type_ids: int32 [L], or a list.
      label: what the kind of task says.
    """

    example: int
    ids: Any
    token_type_ids: Any
    label: Any

    @property
    def inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids and token_type_ids of each sequence that the model reads for the row."""
        return [(self.ids, self.token_type_ids)]


def lay_out(rows: Sequence[Row], batch_size: int, length: int) -> Batch:
    """Lays the sequences of some rows out as arrays.

    Args:
      rows: R rows of C sequences each; C is 1 but in multiple choice.
      batch_size: B; the rows behind the R are empty.
      length: L, at least as long as each sequence.

    Returns:
      `input_ids`, `token_type_ids`, `position_ids` and `sequence_ids` (1 at tokens, 0 at padding), int32 [B * C, L].
    """
    sequences = [sequence for row in rows for sequence in row.inputs]
    ids, types, positions, inside = np.zeros((4, batch_size * len(rows[0].inputs), length), np.int32)
    for number, (row_ids, row_types) in enumerate(sequences):
        size = len(row_ids)
        ids[number, :size], types[number, :size] = row_ids, row_types
        positions[number, :size], inside[number, :size] = np.arange(size), 1
    return {"input_ids": ids, "token_type_ids": types, "position_ids": positions, "sequence_ids": inside}


def padded_labels(rows: Sequence[Row], shape: tuple[int, ...], dtype: type, padding: float = NO_LABEL) -> np.ndarray:
    """Returns the labels of R rows as an array of `shape` [B, ...] whose other rows hold `padding`."""
    labels = np.full(shape, padding, dtype)
    labels[: len(rows)] = [row.label for row in rows]
    return labels


def mean_over_rows(rows: Sequence[Row], values: np.ndarray, examples: int) -> np.ndarray:
    """Averages probabilities or numbers [R, ...] of R rows over the rows of each example -> float64 [examples, ...]."""
    owners = np.array([row.example for row in rows], np.int64)
    sums = np.zeros((examples, *values.shape[1:]))
    np.add.at(sums, owners, values)
    counts = np.bincount(owners, minlength=examples)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def encode_in_parts(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int) -> Iterator[Encoded]:
    """Yields the encoding of each text or pair, of which `AT_ONCE` are held at a time."""
    for start in range(0, len(texts), AT_ONCE):
        yield from tokenizer.encode_inputs(texts[start : start + AT_ONCE], max_length)


def as_ids(numbers: Sequence[int]) -> np.ndarray:
    """Returns int32 [L], which takes a ninth of the memory of a list."""
    return np.array(numbers, np.int32)


def label_number(name: str, numbers: dict[str, int], place: str) -> int:
    """Returns the number of a label.

    Raises:
      UserError: it is not among the names.
    """
    if name not in numbers:
        more = ", ..." if len(numbers) > _NAMES_SHOWN else ""
        known = ", ".join(list(numbers)[:_NAMES_SHOWN]) + more
        raise UserError(f"{place}: the label {name!r} is not among the {len(numbers)} names of the labels ({known})")
    return numbers[name]


# ---- lengths and windows -------------------------------------------------------------------------


def check_count(value: Any, name: str, least: int) -> None:
    """Raises UserError if a value is no whole number, or below `least`; `name` is what it is called."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise UserError(f"{name}={value!r}: a whole number of at least {least} is wanted")


def check_max_length(max_length: int, model: ModelConfig) -> None:
    """Raises UserError if `max_length` is no number of tokens, or the model has no positions for rows of so many."""
    check_count(max_length, "max_length", 0)
    if max_length > model.max_position_embeddings:
        raise UserError(
            f"max_length={max_length} is longer than the position table of the model: at most "
            f"max_position_embeddings={model.max_position_embeddings}"
        )


def check_room(max_length: int, least: int, what: str) -> None:
    """Raises UserError if rows of `max_length` tokens are shorter than the `least` that `what` needs."""
    if max_length < least:
        raise UserError(f"max_length={max_length} is too small: {what} needs at least {least}")


def checked_stride(stride: int, window: int, max_length: int) -> int:
    """Returns the stride of windows of so many tokens; 0 stands for half a window, and 128 at the most.

    Raises:
      UserError: the windows would not overlap.
    """
    stride = stride or max(1, min(128, window // 2))
    if not 0 < stride < window:
        raise UserError(
            f"stride={stride} must be at least 1 and smaller than the window: with max_length={max_length} a window "
            f"has {window} tokens, and the next begins stride tokens further"
        )
    return stride


def windows(length: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Returns [start, stop) of the windows over `length` tokens, each `stride` further than the one before.

    This is what ``run_squad.py`` of google-research/bert makes with doc_stride. No tokens have one window, empty.
    """
    starts = range(0, max(length - size, 0) + stride, stride)
    return [(start, min(start + size, length)) for start in starts]
