"""From examples to rows of token ids, and from what a model says of rows back (Devlin et al. 2018, section 4).

An example gives one row or, where it is longer than `max_length` allows, several. Questions are in `answering`.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.tasks.examples import ChoiceExample, TaggingExample, TextExample
from bert_jax.text.tokenizer import Encoded, Tokenizer

NO_LABEL = -1  # what is not scored; of a number to be predicted, NaN
TRUNCATIONS = ("head", "tail", "both", "windows")
WHOLE = sys.maxsize  # a max_length that cuts nothing
_AT_ONCE = 1_024  # examples; what the tokenizer gives takes about 170 bytes a token
_NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One input of a model, of L tokens.

    Attributes:
      example: number of the example that it is made of.
      ids: int32 [L], [CLS] A [SEP] or [CLS] A [SEP] B [SEP].
      token_type_ids: int32 [L].
      label: the number of a class (-1: none); or a number (float; NaN: none); or float32 [C], 1 for each class that
        applies and 0 for the others (-1: none).
    """

    example: int
    ids: np.ndarray
    token_type_ids: np.ndarray
    label: int | float | np.ndarray

    @property
    def inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """ids and token_type_ids of each sequence that the model reads for the row."""
        return [(self.ids, self.token_type_ids)]


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ChoiceRow(Row):
    """C inputs, one for each ending: `ids` and `token_type_ids` are lists of C arrays, int32 [L] each."""

    ids: list[np.ndarray]
    token_type_ids: list[np.ndarray]
    label: int

    @property
    def inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """ids and token_type_ids of each ending."""
        return list(zip(self.ids, self.token_type_ids, strict=True))


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TaggingRow(Row):
    """Words of a sentence, each with its tag on its first token.

    Attributes:
      label: int32 [L], the tag's number at the first token of a word; -1 elsewhere.
      words: int32 [L], the word's number in the example at its first token; -1 elsewhere.
    """

    label: np.ndarray
    words: np.ndarray


def check_max_length(max_length: int, model: ModelConfig) -> None:
    """Raises UserError if the model has no positions for rows of `max_length` tokens."""
    if max_length > model.max_position_embeddings:
        raise UserError(
            f"max_length={max_length} is longer than the position table of the model: at most "
            f"max_position_embeddings={model.max_position_embeddings}"
        )


def check_room(max_length: int, least: int, kind: str) -> None:
    """Raises UserError if rows of `max_length` tokens are shorter than the `least` that `kind` needs."""
    if max_length < least:
        raise UserError(f"max_length={max_length} is too small: {kind} needs at least {least}")


def checked_stride(stride: int, window: int, max_length: int) -> int:
    """The stride of windows of so many tokens; 0 stands for half a window, and 128 at the most.

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
    """[start, stop) of the windows over `length` tokens: each `stride` further than the one before, up to the end.

    This is what ``run_squad.py`` of google-research/bert makes with doc_stride. No tokens have one window, empty.
    """
    starts = range(0, max(length - size, 0) + stride, stride)
    return [(start, min(start + size, length)) for start in starts]


# ---- Texts and pairs of texts ----


def text_rows(
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    max_length: int,
    problem_type: str,
    names: Sequence[str] = (),
    *,
    truncation: str = "head",
    stride: int = 0,
) -> list[Row]:
    """A row for each text or pair of texts; with truncation="windows", one or more for each text.

    Args:
      examples: their labels are names, tuples of names or numbers, as the problem is.
      tokenizer: of the model.
      max_length: tokens of a row at the most, [CLS] and [SEP] counted.
      problem_type: as transformers names it: single_label_classification, multi_label_classification or regression.
      names: of the C classes; unused in regression.
      truncation: what stays of a text that is too long: its "head", its "tail", "both" (a quarter of the room for its
        head, the rest for its tail: Sun et al. 2019, section 5.3.1, have 128 and 382), or all of it, in overlapping
        "windows" that each bear the label. Of a pair, the longer text loses its end, as in BERT.
      stride: tokens from one window to the next, see `checked_stride`.

    Raises:
      UserError: a label is not among the names; a pair is to be cut in another way; no room for a token of each text;
        or the windows do not overlap.
    """
    stride = _checked_truncation(examples, max_length, truncation, stride)
    texts = [each.text if each.text_pair is None else (each.text, each.text_pair) for each in examples]
    encoded = _encoded(tokenizer, texts, max_length if truncation == "head" else WHOLE)
    numbers = {name: number for number, name in enumerate(names)}
    rows = []
    for number, (example, (ids, types, _)) in enumerate(zip(examples, encoded, strict=True)):
        label = _text_label(example, problem_type, numbers)
        if example.text_pair is None:
            parts = _parts(ids[1:-1], max_length - 2, truncation, stride)
            inputs = [[tokenizer.cls_id, *part, tokenizer.sep_id] for part in parts]
            rows += [Row(number, as_ids(each), np.zeros(len(each), np.int32), label) for each in inputs]
        else:
            rows.append(Row(number, as_ids(ids), as_ids(types), label))
    return rows


def mean_over_rows(rows: Sequence[Row], values: np.ndarray, examples: int) -> np.ndarray:
    """The mean over each example's rows: of probabilities or numbers [R, ...] of R rows -> float64 [examples, ...]."""
    owners = np.array([row.example for row in rows], np.int64)
    sums = np.zeros((examples, *values.shape[1:]))
    np.add.at(sums, owners, values)
    counts = np.bincount(owners, minlength=examples)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def _checked_truncation(examples: Sequence[TextExample], max_length: int, truncation: str, stride: int) -> int:
    """The stride, if there are windows."""
    if truncation not in TRUNCATIONS:
        raise UserError(
            f"truncation={truncation!r} is not known: choose {', '.join(TRUNCATIONS[:-1])} or {TRUNCATIONS[-1]}"
        )
    if truncation == "head":
        return stride  # what else can be wrong, the tokenizer finds
    if any(example.text_pair is not None for example in examples):
        raise UserError(f"truncation={truncation!r} is for single texts: pairs are cut as BERT does, set 'head'")
    check_room(max_length, 3, "a text with [CLS] and [SEP]")
    return checked_stride(stride, max_length - 2, max_length) if truncation == "windows" else stride


def _parts(ids: list[int], room: int, truncation: str, stride: int) -> list[list[int]]:
    """The parts of a text that become rows, each of at most `room` tokens."""
    if truncation == "windows":
        return [ids[start:stop] for start, stop in windows(len(ids), room, stride)]
    if len(ids) <= room:
        return [ids]
    head = {"head": room, "tail": 0, "both": round(room * 128 / 510)}[truncation]
    return [ids[:head] + ids[len(ids) - (room - head) :]]


def _text_label(example: TextExample, problem_type: str, numbers: dict[str, int]) -> int | float | np.ndarray:
    if problem_type == "regression":
        return float("nan") if example.label is None else float(example.label)
    if problem_type == "single_label_classification":
        return NO_LABEL if example.label is None else number_of(example.label, numbers, f"example {example.id}")
    if problem_type != "multi_label_classification":
        raise ValueError(f"problem_type is {problem_type!r}")
    if example.label is None:
        return np.full(len(numbers), NO_LABEL, np.float32)
    label = np.zeros(len(numbers), np.float32)
    for name in example.label:
        label[number_of(name, numbers, f"example {example.id}")] = 1
    return label


def number_of(name: str, numbers: dict[str, int], place: str) -> int:
    """The number of a label.

    Raises:
      UserError: it is not among the names.
    """
    if name not in numbers:
        more = ", ..." if len(numbers) > _NAMES_SHOWN else ""
        known = ", ".join(list(numbers)[:_NAMES_SHOWN]) + more
        raise UserError(f"{place}: the label {name!r} is not among the {len(numbers)} names of the labels ({known})")
    return numbers[name]


def as_ids(numbers: Sequence[int]) -> np.ndarray:
    """int32 [L]: a ninth of the memory of a list."""
    return np.array(numbers, np.int32)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int) -> Iterator[Encoded]:
    for start in range(0, len(texts), _AT_ONCE):
        yield from tokenizer.encode_inputs(texts[start : start + _AT_ONCE], max_length)


# ---- Multiple choice ----


def choice_rows(examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_length: int) -> list[ChoiceRow]:
    """A row of C inputs [CLS] text [SEP] ending [SEP] for each example, each cut as a pair of texts.

    Raises:
      UserError: examples with different numbers of endings, a label that is none of them, or a `max_length` that has
        no room for a token of each text.
    """
    pairs = [(example.text, ending) for example in examples for ending in example.endings]
    encoded = _encoded(tokenizer, pairs, max_length)
    rows = []
    for number, example in enumerate(examples):
        choices = len(examples[0].endings)
        if len(example.endings) != choices:
            raise UserError(
                f"example {example.id} has {len(example.endings)} endings, example {examples[0].id} has {choices}: "
                "all need the same number"
            )
        if example.label is not None and not 0 <= example.label < choices:
            raise UserError(
                f"example {example.id}: the label {example.label} is none of its endings, 0 to {choices - 1}"
            )
        inputs = [next(encoded) for _ in range(choices)]
        ids, types = ([as_ids(each[part]) for each in inputs] for part in (0, 1))
        rows.append(ChoiceRow(number, ids, types, NO_LABEL if example.label is None else example.label))
    return rows


# ---- Tagging ----


def tagging_rows(
    examples: Sequence[TaggingExample], tokenizer: Tokenizer, max_length: int, names: Sequence[str]
) -> list[TaggingRow]:
    """Rows of sentences, each word's tag on its first token (Devlin et al. 2018, section 5.3).

    A sentence that is too long becomes several rows, cut between words. Every word has a token, and so a tag: one of
    which the tokenizer makes nothing (a control character) is [UNK]; one that is longer than a row keeps its head.

    Raises:
      UserError: a tag is not among the names, or `max_length` has no room for a token.
    """
    check_room(max_length, 3, "a word with [CLS] and [SEP]")
    numbers = {name: number for number, name in enumerate(names)}
    rows = []
    for number, (example, tokens) in enumerate(zip(examples, _word_tokens(examples, tokenizer), strict=True)):
        labels = [NO_LABEL] * len(tokens)
        if example.tags is not None:
            labels = [number_of(tag, numbers, f"example {example.id}") for tag in example.tags]
        tokens = [each[: max_length - 2] or [tokenizer.unk_id] for each in tokens]
        for start, stop in _filled([len(each) for each in tokens], max_length - 2):
            inside = [range(start, stop), tokens[start:stop], labels[start:stop]]
            rows.append(_tagging_row(number, tokenizer, *inside))
    return rows


def at_words(
    rows: Sequence[TaggingRow], values: Sequence[np.ndarray], examples: Sequence[TaggingExample]
) -> list[list[Any]]:
    """A value for each word of each example, from those at each position of each row.

    Args:
      rows: all rows of the examples.
      values: [at least L] for each row, of any type; only those at first tokens are read.
      examples: as `tagging_rows` had them.
    """
    found: list[list[Any]] = [[None] * len(example.words) for example in examples]
    for row, each in zip(rows, values, strict=True):
        positions = np.flatnonzero(row.words >= 0)
        for word, value in zip(row.words[positions], each[positions].tolist(), strict=True):
            found[row.example][word] = value
    return found


def _word_tokens(examples: Sequence[TaggingExample], tokenizer: Tokenizer) -> Iterator[list[list[int]]]:
    """The ids of each word of each example."""
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        different = list(dict.fromkeys(word for example in some for word in example.words))
        tokens = dict(zip(different, tokenizer.encode_batch(different), strict=True))
        yield from ([tokens[word] for word in example.words] for example in some)


def _filled(lengths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """[start, stop) of stretches of words, each as long as `room` tokens allow; no word is longer than that."""
    stretches, start, taken = [], 0, 0
    for word, length in enumerate(lengths):
        if taken + length > room:
            stretches.append((start, word))
            start, taken = word, 0
        taken += length
    return [*stretches, (start, len(lengths))] if lengths else []


def _tagging_row(
    example: int, tokenizer: Tokenizer, words: range, tokens: Sequence[list[int]], labels: Sequence[int]
) -> TaggingRow:
    ids = [tokenizer.cls_id, *(number for each in tokens for number in each), tokenizer.sep_id]
    firsts = 1 + np.cumsum([0, *map(len, tokens)])[:-1]
    label, places = np.full((2, len(ids)), NO_LABEL, np.int32)
    label[firsts], places[firsts] = labels, words
    return TaggingRow(example, as_ids(ids), np.zeros(len(ids), np.int32), label, places)
