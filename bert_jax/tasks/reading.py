"""How a model reads examples of a task, and what its outputs say of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.tasks.answering import Answer, answering_rows, best_answers
from bert_jax.tasks.examples import AnsweringExample, Example
from bert_jax.tasks.features import Row, at_words, choice_rows, mean_over_rows, tagging_rows, text_rows
from bert_jax.text.tokenizer import Tokenizer

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "several": "multi_label_classification",
    "regression": "regression",
}


class Class(NamedTuple):
    """The likeliest class of a text."""

    label: str
    score: float  # its probability
    scores: dict[str, float]  # of each class


class Classes(NamedTuple):
    """The classes that are likelier than not, of any number."""

    labels: list[str]
    scores: dict[str, float]  # probability of each class on its own


class Number(NamedTuple):
    """What a regression gives."""

    value: float


class Choice(NamedTuple):
    """The likeliest ending, by number from 0."""

    choice: int
    score: float  # its probability
    scores: list[float]  # of each ending


class Tags(NamedTuple):
    """The likeliest tag of each word."""

    tags: list[str]
    scores: list[float]  # their probabilities


class Reply(NamedTuple):
    """The answer to a question."""

    answer: str  # empty: the context holds none
    start: int  # [start, stop) in characters of the context
    stop: int
    score: float  # its probability among `ranked`
    null_score_diff: float  # by how much "no answer" scores better than the best answer
    ranked: list[Answer]  # the best answers, best first


Prediction = Class | Classes | Number | Choice | Tags | Reply


def as_json(prediction: Prediction) -> dict[str, Any]:
    """The prediction as an object of JSON."""
    found = prediction._asdict()
    if isinstance(prediction, Reply):
        found["ranked"] = [answer._asdict() for answer in prediction.ranked]
    return found


@dataclasses.dataclass(frozen=True)
class Reading:
    """From examples to rows, and from the outputs for these rows to predictions.

    Attributes:
      kind: of task.
      tokenizer: of the model.
      names: of the C classes or tags; empty where there are none.
      max_length: tokens of a row at the most.
      truncation: of single texts, see `text_rows`.
      stride: tokens from one window to the next; 0 for half a window.
      null_threshold: a question whose null_score_diff is above it has no answer; None: every question has one.
    """

    kind: str
    tokenizer: Tokenizer
    names: tuple[str, ...]
    max_length: int
    truncation: str = "head"
    stride: int = 0
    null_threshold: float | None = None

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """The rows of all examples, in their order."""
        if self.kind == "tagging":
            return tagging_rows(examples, self.tokenizer, self.max_length, self.names)
        if self.kind == "answering":
            return answering_rows(examples, self.tokenizer, self.max_length, stride=self.stride)
        if self.kind == "choice":
            return choice_rows(examples, self.tokenizer, self.max_length)
        return text_rows(
            examples,
            self.tokenizer,
            self.max_length,
            PROBLEM_TYPES[self.kind],
            self.names,
            truncation=self.truncation,
            stride=self.stride,
        )

    def predictions(self, examples: Sequence[Example], rows: Sequence[Row], outputs: Sequence[Any]) -> list[Prediction]:
        """One for each example, from the output for each row, as `Evaluator` has them."""
        if self.kind == "answering":
            return self._replies(examples, rows, outputs)
        if self.kind == "tagging":
            tags, scores = zip(*outputs, strict=True)
            names = np.array(self.names)
            at_row = (at_words(rows, [names[each] for each in tags], examples), at_words(rows, scores, examples))
            return [Tags(*found) for found in zip(*at_row, strict=True)]
        values = mean_over_rows(rows, np.stack(outputs), len(examples)).tolist()
        if self.kind == "regression":
            return [Number(row[0]) for row in values]
        if self.kind == "choice":
            return [Choice(int(np.argmax(row)), max(row), row) for row in values]
        scores = [dict(zip(self.names, row, strict=True)) for row in values]
        if self.kind == "several":
            return [Classes([name for name, score in each.items() if score > 0.5], each) for each in scores]
        return [Class(max(each, key=each.__getitem__), max(each.values()), each) for each in scores]

    def _replies(
        self, examples: Sequence[AnsweringExample], rows: Sequence[Row], outputs: Sequence[tuple[np.ndarray, ...]]
    ) -> list[Reply]:
        of_example: list[list[int]] = [[] for _ in examples]
        for number, row in enumerate(rows):
            of_example[row.example].append(number)
        replies = []
        for example, numbers in zip(examples, of_example, strict=True):
            starts, ends = zip(*(outputs[number] for number in numbers), strict=True)
            windows = [rows[number] for number in numbers]
            unanswerable = self.null_threshold is not None
            found = best_answers(windows, starts, ends, example.context, unanswerable=unanswerable)
            best = found.best
            if unanswerable and found.null_score_diff > self.null_threshold:
                best = next(answer for answer in found.ranked if not answer.text)
            replies.append(
                Reply(best.text, best.start, best.stop, best.probability, found.null_score_diff, found.ranked)
            )
        return replies
