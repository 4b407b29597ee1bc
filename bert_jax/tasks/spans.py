"""Rows of questions with windows of their contexts, and from logits back to spans in the context's own text."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.tasks.rows import AT_ONCE, NO_LABEL, WHOLE, Row, as_ids, check_room, checked_stride, windows
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.words import Span, characters, has_marks

_NO_ANSWER = (0, 0)  # both at [CLS]


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class QuestionAnsweringRow(Row):
    """Holds [CLS] question [SEP] window of the context [SEP]; the window has D tokens.

    Attributes:
      label: positions in the row of the answer's first and last token; (0, 0), [CLS], if the window does not hold all
        of the answer, or there is none; (-1, -1) if the example is to have one, but none is given.
      first: position in the row of the window's first token.
      offsets: int32 [D, 2], the window's tokens as [start, stop) in characters of the context.
      has_most_context: bool [D], no other window has more context for the token: only here may an answer start with it.
    """

    label: tuple[int, int]
    first: int
    offsets: np.ndarray
    has_most_context: np.ndarray


class Candidate(NamedTuple):
    """Holds a stretch of the context, or no answer (an empty text)."""

    text: str
    start: int  # [start, stop) in characters of the context
    stop: int
    score: float  # sum of its two logits
    probability: float  # among those that it is listed with


class Answers(NamedTuple):
    """Holds the best answers that the rows of a question give."""

    best: Candidate  # the best that is not empty; empty only if the context has no token
    ranked: list[Candidate]  # the best, best first
    null_score: float  # of [CLS] as start and end, the least of all rows
    null_score_diff: float  # null_score less the score of `best`: above a threshold, there is no answer


def question_rows(
    examples: Sequence[QuestionAnsweringExample],
    tokenizer: Tokenizer,
    max_length: int,
    *,
    stride: int = 0,
    question_length: int = 64,
) -> list[QuestionAnsweringRow]:
    """Makes as many rows for each question as its context has windows.

    The first of several answers is the label; where its ends lie inside tokens, the whole tokens are.

    Args:
      examples: questions, with or without answers.
      tokenizer: of the model.
      max_length: tokens of a row at the most.
      stride: tokens of the context from one window to the next, see `checked_stride`.
      question_length: tokens of a question, half of a row if that is shorter than two of them; it loses the rest.

    Raises:
      UserError: a question of full length leaves no room for the context, or its windows do not overlap.
    """
    check_room(max_length, 8, "a question with some of its context")
    if max_length < 2 * question_length:
        question_length = (max_length - 3) // 2
    stride = checked_stride(stride, max_length - question_length - 3, max_length)
    rows = []
    for number, question, ids, offsets in _tokens(examples, tokenizer):
        question = [tokenizer.cls_id, *question[:question_length], tokenizer.sep_id]
        answer = _answer_tokens(examples[number], offsets)
        spans = windows(len(ids), max_length - len(question) - 1, stride)
        owners = _window_with_most_context(spans)
        for window, (start, stop) in enumerate(spans):
            row = as_ids([*question, *ids[start:stop], tokenizer.sep_id])
            types = (np.arange(len(row)) >= len(question)).astype(np.int32)
            label = _label(examples[number], answer, start, stop, len(question))
            here = owners[start:stop] == window
            rows.append(QuestionAnsweringRow(number, row, types, label, len(question), offsets[start:stop], here))
    return rows


def best_answers(
    rows: Sequence[QuestionAnsweringRow],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    context: str,
    *,
    unanswerable: bool,
    count: int = 20,
    longest: int = 30,
) -> Answers:
    """Returns the best answers to one question, by the rules of run_squad.

    A span is inside one window, begins where its token has most context, and begins and ends at one of the `count` best
    starts and ends of its row. Where that allows none (the original gives up), any start and end will do.

    Args:
      rows: all rows of the question.
      start_logits: float [at least L] for each row.
      end_logits: likewise.
      context: the text that the offsets of the rows count in.
      unanswerable: "no answer" is ranked too, with the least score that a row gives it (SQuAD 2.0). It always has a
        place: one behind the last if it is not among the best.
      count: answers of different text that are ranked.
      longest: tokens of an answer.
    """
    null_score = min(float(start[0]) + float(end[0]) for start, end in zip(start_logits, end_logits, strict=True))
    null = Candidate("", 0, 0, null_score, 0.0)
    scores, places = _spans(rows, start_logits, end_logits, longest, count)
    if not len(scores):
        scores, places = _spans(rows, start_logits, end_logits, longest, WHOLE)
    candidates = _best_of_each_text(scores, places, context, count)
    ranked = candidates or [null]
    if unanswerable and candidates:
        ranked = sorted([*candidates, null], key=lambda answer: -answer.score)
        ranked = ranked if ranked[-1] is null else ranked[:count]
    weights = np.exp([answer.score - ranked[0].score for answer in ranked])
    shares = (weights / weights.sum()).tolist()
    ranked = [answer._replace(probability=share) for answer, share in zip(ranked, shares, strict=True)]
    best = next((answer for answer in ranked if answer.text), (candidates or ranked)[0])
    return Answers(best, ranked, null_score, null_score - best.score)


def _tokens(
    examples: Sequence[QuestionAnsweringExample], tokenizer: Tokenizer
) -> Iterator[tuple[int, list[int], list[int], np.ndarray]]:
    """Yields of each example its number, the ids of question and context, and int32 [D, 2] offsets in the context.

    Questions on one context share its arrays.
    """
    for first in range(0, len(examples), AT_ONCE):
        part = examples[first : first + AT_ONCE]
        different = list(dict.fromkeys(example.context for example in part))
        encoded = tokenizer.encode_inputs([example.question for example in part] + different, WHOLE)
        contexts = {
            context: (encoding.ids[1:-1], _whole_characters(context, encoding.offsets[1:-1]))
            for context, encoding in zip(different, encoded[len(part) :], strict=True)
        }
        for number, example in enumerate(part):
            yield first + number, encoded[number].ids[1:-1], *contexts[example.context]


def _whole_characters(context: str, offsets: Sequence[Span]) -> np.ndarray:
    """Returns int32 [D, 2], the offsets of tokens, each made to cover the characters that it has a part of.

    The tokenizer drops accents, and what cannot be seen, and makes tokens of a character and of its marks: an answer
    would begin or end within a character.
    """
    places = np.array(offsets, np.int32).reshape(-1, 2)
    if not has_marks(context):
        return places
    spans = np.array(characters(context), np.int32)
    owner = np.repeat(np.arange(len(spans)), spans[:, 1] - spans[:, 0])  # of each code point, its character
    return np.stack([spans[owner[places[:, 0]], 0], spans[owner[places[:, 1] - 1], 1]], axis=1).reshape(-1, 2)


def _answer_tokens(example: QuestionAnsweringExample, offsets: np.ndarray) -> tuple[int, int] | None:
    """Returns the first and last token of the context that the answer has a part of; None if there is none."""
    if not example.answerable or not example.answers:
        return None
    text, start = example.answers[0]
    touched = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _label(
    example: QuestionAnsweringExample, answer: tuple[int, int] | None, start: int, stop: int, first: int
) -> tuple[int, int]:
    """Returns the answer's tokens as positions in the row of the window [start, stop)."""
    if example.answerable and not example.answers:
        return NO_LABEL, NO_LABEL
    if answer is not None and start <= answer[0] and answer[1] < stop:
        return first + answer[0] - start, first + answer[1] - start
    return _NO_ANSWER


def _window_with_most_context(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns int64 [tokens], the window in which each token is farthest from the nearer end; of equals, the first."""
    scores = np.full(spans[-1][1], -1.0)
    owners = np.zeros(len(scores), np.int64)
    for number, (start, stop) in enumerate(spans):
        before = np.arange(stop - start)
        score = np.minimum(before, before[::-1]) + 0.01 * (stop - start)
        better = start + np.flatnonzero(score > scores[start:stop])
        scores[better], owners[better] = score[better - start], number
    return owners


def _spans(
    rows: Sequence[QuestionAnsweringRow],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    longest: int,
    best: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the spans that begin and end at the `best` starts and ends of their row.

    Returns:
      scores float64 [n], and int64 [n, 2], where they start and stop in the context.
    """
    scores, places = [np.zeros(0)], [np.zeros((0, 2), np.int64)]
    for row, starts, ends in zip(rows, start_logits, end_logits, strict=True):
        starts, ends = (np.asarray(logits[: len(row.ids)], np.float64) for logits in (starts, ends))
        first, last = (np.argsort(-logits, kind="stable")[:best] - row.first for logits in (starts, ends))
        first, last = (tokens[(tokens >= 0) & (tokens < len(row.offsets))] for tokens in (first, last))
        first, last = np.meshgrid(first[row.has_most_context[first]], last, indexing="ij")
        allowed = (first <= last) & (last < first + longest)
        first, last = first[allowed], last[allowed]
        scores.append(starts[row.first + first] + ends[row.first + last])
        places.append(np.stack([row.offsets[first, 0], row.offsets[last, 1]], axis=1))
    return np.concatenate(scores), np.concatenate(places)


def _best_of_each_text(scores: np.ndarray, places: np.ndarray, context: str, count: int) -> list[Candidate]:
    """Returns the `count` best spans of different text, best first."""
    candidates: dict[str, Candidate] = {}
    for index in np.argsort(-scores, kind="stable").tolist():
        start, stop = places[index].tolist()
        text = context[start:stop]
        if text not in candidates:
            candidates[text] = Candidate(text, start, stop, float(scores[index]), 0.0)
            if len(candidates) == count:
                break
    return list(candidates.values())
