"""A tag for each word: named entities, parts of speech (Devlin et al. 2018, section 5.3)."""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.metrics.entities import entity_report, score_entities
from bert_jax.metrics.tag_schemes import measure, scheme_of_labels
from bert_jax.model import heads
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.kinds.base import Codec, CrossEntropyKind, Task, must_have_labels
from bert_jax.tasks.labels import check_names, normalized
from bert_jax.tasks.rows import AT_ONCE, NO_LABEL, Batch, Row, as_ids, check_room, label_number
from bert_jax.tasks.tags import respelt
from bert_jax.text.conll import Sentence, read_sentences
from bert_jax.text.tables import Record, file_type, sniffed_type
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.words import learned_words

_RECORDS = (".json", ".jsonl", ".parquet")  # other files hold columns
# What lists of words and of tags are called in records, if the config does not say.
_WORD_COLUMNS = ("tokens", "words", "text")
_TAG_COLUMNS = ("tags", "ner_tags", "labels", "label")
_TAG_TYPES = (str, int, np.integer)


@dataclasses.dataclass(frozen=True, slots=True)
class TokenClassificationExample:
    """Holds a sentence in words, and as many tags; None if they are not known."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TokenClassificationRow(Row):
    """Holds words of a sentence, each with its tag on its first token.

    Attributes:
      label: int32 [L], the tag's number at the first token of a word; -1 elsewhere.
      words: int32 [L], the word's number in the example at its first token; -1 elsewhere.
    """

    label: np.ndarray
    words: np.ndarray


class Tags(NamedTuple):
    """Names the likeliest tag of each word."""

    tags: list[str]
    scores: list[float]  # their probabilities


class TokenClassification(CrossEntropyKind):
    """Gives each word one of C tags, read at its first token."""

    name = "token_classification"
    head = "token_classification"
    balances_classes = True

    # ---- data ------------------------------------------------------------------------------------

    def read_file(self, task: Task, split: str, path: str, *, official: bool) -> Iterator[TokenClassificationExample]:
        """Yields the sentences of a file in CoNLL columns, or of records with a list of words and one of tags.

        White space around a tag is no part of it.

        Raises:
          UserError: as `read_sentences`; no such column; a tag that the task does not know, or a stray one
            (`respelt`).
        """
        if (file_type(path) or sniffed_type(path)) in _RECORDS:
            yield from super().read_file(task, split, path, official=official)
            return
        sentences = read_sentences(path)
        count = len(sentences[0].lines[0])
        word = _column(task.text, "text", count, path)
        tag = _tag_column(task, split, sentences[0], word, path)
        if tag is None:
            spellings: Mapping[str, str] = {}
        else:
            spellings = respelt(
                (
                    (normalized(fields[tag]), f"line {sentence.line + place}")
                    for sentence in sentences
                    for place, fields in enumerate(sentence.lines)
                ),
                path,
            )
        for number, sentence in enumerate(sentences):
            words = tuple(fields[word] for fields in sentence.lines)
            tags = None if tag is None else _read_as(spellings, [fields[tag] for fields in sentence.lines])
            if tags and task.labels and not set(task.labels).issuperset(tags):
                place = next(place for place, name in enumerate(tags) if name not in task.labels)
                raise UserError(
                    f"{path} line {sentence.line + place}: tag {tags[place]!r} is not one of {', '.join(task.labels)}: "
                    "mend it, or choose a column with data.label"
                )
            yield TokenClassificationExample(str(number), words, tags)

    def read_records(self, task: Task, split: str, records: Iterator[Record]) -> Iterator[TokenClassificationExample]:
        """Yields the sentences of records whose columns hold a list of words and one of tags.

        Raises:
          UserError: no such columns, a record without as many tags as words, or a stray tag (`respelt`).
        """
        sentences = [
            (record, words, tags)
            for record in records
            for words, tags in [_sentence(task, split, record)]
            if words  # TFDS's reader of CoNLL files ends each with an empty sentence
        ]
        places = (
            (tag, record.place.removeprefix(f"{record.source} ")) for record, _, tags in sentences for tag in tags or ()
        )
        spellings = respelt(places, sentences[0][0].source if sentences else "")
        for record, words, tags in sentences:
            yield TokenClassificationExample(str(record.number), words, tags and _read_as(spellings, tags))

    def is_labelled(self, example: TokenClassificationExample) -> bool:
        """Tells whether the tags are known."""
        return example.tags is not None

    def content(self, example: TokenClassificationExample) -> Hashable:
        """Returns the words."""
        return example.words

    def names_in(self, example: TokenClassificationExample) -> Iterable[str]:
        """Returns the tags."""
        return example.tags or ()

    def label_names(self, task: Task, train: Sequence[TokenClassificationExample], source: str) -> tuple[str, ...]:
        """Returns the names; says what is odd about them where they are those of the data."""
        names = super().label_names(task, train, source)
        if not task.labels:
            check_names(names, sum(len(example.words) for example in train), task.label or "tags", source)
        return names

    def fitted(self, codec: Codec, examples: Sequence[TokenClassificationExample]) -> Codec:
        """Returns the codec with the words that the examples have whole, as `tag` is to have them."""
        return dataclasses.replace(codec, whole_words=learned_words([example.words for example in examples]))

    # ---- rows and batches ------------------------------------------------------------------------

    def rows(self, examples: Sequence[TokenClassificationExample], codec: Codec) -> list[TokenClassificationRow]:
        """Makes rows of sentences, each word's tag on its first token.

        A sentence that is too long becomes several rows, cut between words. Every word has a token, and so a tag: one
        of which the tokenizer makes nothing (a control character) is [UNK]; one that is longer than a row keeps its
        head.

        Raises:
          UserError: a tag is not among the names, or `max_length` has no room for a token.
        """
        room = codec.max_length - 2
        check_room(codec.max_length, 3, "a word with [CLS] and [SEP]")
        numbers = {name: number for number, name in enumerate(codec.labels)}
        rows = []
        for number, (example, tokens) in enumerate(zip(examples, _word_tokens(examples, codec.tokenizer), strict=True)):
            labels = [NO_LABEL] * len(tokens)
            if example.tags is not None:
                labels = [label_number(tag, numbers, f"example {example.id}") for tag in example.tags]
            tokens = [ids[:room] or [codec.tokenizer.unk_id] for ids in tokens]
            for start, stop in _stretches([len(ids) for ids in tokens], room):
                inside = [range(start, stop), tokens[start:stop], labels[start:stop]]
                rows.append(_row(number, codec.tokenizer, *inside))
        return rows

    def labels(self, rows: Sequence[TokenClassificationRow], batch_size: int, length: int) -> Batch:
        """Returns `labels` int32 [B, L]; -1 is none."""
        labels = np.full((batch_size, length), NO_LABEL, np.int32)
        for number, row in enumerate(rows):
            labels[number, : len(row.label)] = row.label
        return {"labels": labels}

    # ---- on the device ---------------------------------------------------------------------------

    def network(self, model: ModelConfig, labels: int, execution: Execution) -> nn.Module:
        """Returns the body with a dense layer on each token."""
        return heads.BertForTokenClassification(model, labels, execution)

    def probabilities(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the numbers of the likeliest tags, int32 [B, L], and their probabilities, float32 [B, L]."""
        return outputs.argmax(-1), jax.nn.softmax(outputs).max(-1)

    # ---- predictions and scores ------------------------------------------------------------------

    def predictions(
        self,
        examples: Sequence[TokenClassificationExample],
        rows: Sequence[TokenClassificationRow],
        outputs: Sequence[tuple[np.ndarray, np.ndarray]],
        codec: Codec,
    ) -> list[Tags]:
        """Returns the tag of each word, read at its first token."""
        if not rows:
            return [Tags([], []) for _ in examples]
        tags, scores = zip(*outputs, strict=True)
        names = np.array(codec.labels)
        tags_of_words = at_words(rows, [names[numbers] for numbers in tags], examples)
        return [Tags(*pair) for pair in zip(tags_of_words, at_words(rows, scores, examples), strict=True)]

    def scores(
        self, examples: Sequence[TokenClassificationExample], predictions: Sequence[Tags], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns precision, recall and F1 of entities; where tags mark none, accuracy and macro F1 of words."""
        tags = [example.tags or () for example in examples], [prediction.tags for prediction in predictions]
        scheme = scheme_of_labels(codec.labels)
        if scheme is not None:
            return score_entities(*tags, scheme), entity_report(*tags, scheme)
        from bert_jax.metrics.classification import score_words, word_report  # scikit-learn takes a second

        return score_words(*tags), word_report(*tags)

    def measure(self, labels: tuple[str, ...]) -> str:
        """Says whether entities or words are scored, and why."""
        return measure(labels)


def at_words(
    rows: Sequence[TokenClassificationRow],
    values: Sequence[np.ndarray],
    examples: Sequence[TokenClassificationExample],
) -> list[list[Any]]:
    """Takes a value for each word of each example from those at each position of each row.

    Args:
      rows: all rows of the examples.
      values: [at least L] for each row, of any type; only those at first tokens are read.
      examples: as `TokenClassification.rows` had them.
    """
    of_words: list[list[Any]] = [[None] * len(example.words) for example in examples]
    for row, at_tokens in zip(rows, values, strict=True):
        positions = np.flatnonzero(row.words >= 0)
        for word, value in zip(row.words[positions], at_tokens[positions].tolist(), strict=True):
            of_words[row.example][word] = value
    return of_words


def _read_as(spellings: Mapping[str, str], tags: Iterable[str]) -> tuple[str, ...]:
    """Returns the tags without white space around them, in their usual spelling."""
    return tuple(spellings.get(tag, tag) for tag in map(normalized, tags))


def _sentence(task: Task, split: str, record: Record) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Returns the words of a record, and its tags; None where a split may be without and has none.

    Raises:
      UserError: there are no such columns, or they do not hold as many texts.
    """
    word = _named_column(task.text, _WORD_COLUMNS, record)
    tag = _named_column(task.label, _TAG_COLUMNS, record)
    words = record.cell(word, "text")
    if not isinstance(words, list | tuple | np.ndarray) or not all(isinstance(each, str) and each for each in words):
        raise UserError(f"{record.place}: column {word!r} holds no list of words")
    tags = record.cells.get(tag) if not must_have_labels(split) else record.cell(tag, "label")
    if tags is None and not must_have_labels(split):
        return tuple(words), None
    if not isinstance(tags, list | tuple | np.ndarray) or not all(isinstance(each, _TAG_TYPES) for each in tags):
        raise UserError(f"{record.place}: column {tag!r} holds no list of tags")
    names = tuple(normalized(str(each)) for each in tags)
    if not all(names):
        raise UserError(f"{record.place}: tag {names.index('')} in column {tag!r} is empty")
    if len(names) != len(words):
        raise UserError(f"{record.place} has {len(words)} words, but {len(names)} tags")
    return tuple(words), names


def _named_column(name: str, usual: Sequence[str], record: Record) -> str:
    """Returns the column of a record: the given one, or of those that are commonly called so the first that it has."""
    if name and not name.isdecimal():
        return name
    return next((each for each in usual if each in record.cells), usual[0])


def _tag_column(task: Task, split: str, first: Sentence, word: int, path: str) -> int | None:
    """Returns the column of the tags from 0: the given one, or the last that holds tags of the task, or the last."""
    count = len(first.lines[0])
    if task.label:
        if (tag := _column(task.label, "label", count, path)) == word:
            raise UserError(
                f"{path}: column {task.label} is that of the words: choose that of the tags with data.label"
            )
        return tag
    if count == 1:
        if must_have_labels(split):
            raise UserError(f"{path} line {first.line} has one column, a word without a tag")
        return None
    others = [column for column in range(count) if column != word]
    known = [
        column for column in others if {normalized(fields[column]) for fields in first.lines}.issubset(task.labels)
    ]
    return (known or others)[-1]


def _column(name: str, key: str, count: int, path: str) -> int:
    if not name.isdecimal() or not 1 <= int(name) <= count:
        raise UserError(f"{path} has no column {name!r}: choose a number from 1 to {count} with data.{key}")
    return int(name) - 1


def _word_tokens(examples: Sequence[TokenClassificationExample], tokenizer: Tokenizer) -> Iterator[list[list[int]]]:
    """Yields the ids of each word of each example."""
    for start in range(0, len(examples), AT_ONCE):
        part = examples[start : start + AT_ONCE]
        different = list(dict.fromkeys(word for example in part for word in example.words))
        tokens = dict(zip(different, tokenizer.encode_batch(different), strict=True))
        yield from ([tokens[word] for word in example.words] for example in part)


def _stretches(lengths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Returns [start, stop) of stretches of words, each as long as `room` tokens allow; no word is longer than that."""
    stretches, start, taken = [], 0, 0
    for word, length in enumerate(lengths):
        if taken + length > room:
            stretches.append((start, word))
            start, taken = word, 0
        taken += length
    return [*stretches, (start, len(lengths))] if lengths else []


def _row(
    example: int, tokenizer: Tokenizer, words: range, tokens: Sequence[list[int]], labels: Sequence[int]
) -> TokenClassificationRow:
    ids = [tokenizer.cls_id, *(number for word in tokens for number in word), tokenizer.sep_id]
    firsts = 1 + np.cumsum([0, *map(len, tokens)])[:-1]
    label, places = np.full((2, len(ids)), NO_LABEL, np.int32)
    label[firsts], places[firsts] = labels, words
    return TokenClassificationRow(example, as_ids(ids), np.zeros(len(ids), np.int32), label, places)
