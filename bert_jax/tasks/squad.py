"""SQuAD's JSON, and questions whose answers stand where they are said to stand."""

import dataclasses
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from bert_jax.errors import UserError
from bert_jax.text.cleaning import without_surrogates
from bert_jax.text.json_values import parse_json
from bert_jax.text.lines import read_text


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionAnsweringExample:
    """Holds a question on a context.

    Attributes:
      answers: each a text and the offset in characters where it stands in the context: ``context.startswith(*answer)``.
        Empty if the context holds none, and if they are not known.
      answerable: False if the context is known to hold no answer.
      title: of the article that the context is from; empty if not known.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    answerable: bool
    title: str = ""


class MisplacedAnswerError(UserError):
    """Says that an answer does not stand where it is said to stand."""


def read_questions(path: str, labelled: bool) -> Iterator[QuestionAnsweringExample]:
    """Yields the questions of a file in the format of SQuAD 1.1 or 2.0, in its order.

    Args:
      path: the file.
      labelled: a question needs answers, or ``is_impossible``.

    Raises:
      UserError: not such a file, an id that stands twice, or as `well_placed`; names the file and the question.
    """
    return well_placed(_questions(path), path, labelled)


def _questions(path: str) -> Iterator[QuestionAnsweringExample]:
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    seen: set[str] = set()
    for place, article in _items(path, content, "data"):
        title = str(article.get("title", "")) if isinstance(article, dict) else ""
        for place_of_paragraph, paragraph in _items(place, article, "paragraphs"):
            context = _value(place_of_paragraph, paragraph, "context", str)
            for place_of_question, item in _items(place_of_paragraph, paragraph, "qas"):
                example = _question(path, place_of_question, item, context, title)
                if example.id in seen:
                    raise UserError(f"{path} question {example.id} stands there twice: every question needs its own id")
                seen.add(example.id)
                yield example
    if not seen:
        raise UserError(f"{path} has no questions")


def _question(path: str, place: str, item: Any, context: str, title: str) -> QuestionAnsweringExample:
    name = str(_value(place, item, "id", str | int))
    place = f"{path} question {name}"
    answers = tuple(
        (_value(at, answer, "text", str), _value(at, answer, "answer_start", int))
        for at, answer in (_items(place, item, "answers") if "answers" in item else ())
    )
    text, answerable = _value(place, item, "question", str), not item.get("is_impossible", False)
    return QuestionAnsweringExample(name, text, context, answers, answerable, title)


def well_placed(
    examples: Iterable[QuestionAnsweringExample], source: str, labelled: bool
) -> Iterator[QuestionAnsweringExample]:
    """Yields each example with its answers as they stand in the context, and the offsets where they do.

    Those with an answer that stands elsewhere are left out, with a warning that counts them.

    Args:
      examples: as they were read.
      source: where, for the error.
      labelled: there must be answers, or none be possible.

    Raises:
      UserError: empty question or context, no answer at all, or no example whose answers stand at their offsets.
    """
    kept, misplaced = 0, []
    for example in examples:
        try:
            placed = _checked(example, source, labelled)
        except MisplacedAnswerError as error:
            misplaced.append(error)
            continue
        kept += 1
        yield placed
    if misplaced and not kept:
        raise misplaced[0]
    if misplaced:
        verb = "is" if len(misplaced) == 1 else "are"
        count = f"{len(misplaced):,} of {kept + len(misplaced):,} questions {verb} left out"
        warnings.warn(f"{source}: {count}, for answers that stand elsewhere; the first: {misplaced[0]}", stacklevel=2)


def _checked(example: QuestionAnsweringExample, source: str, labelled: bool) -> QuestionAnsweringExample:
    place = f"{source} question {example.id}"
    text, context = without_surrogates(example.question), without_surrogates(example.context)
    for what, value in (("question", text), ("context", context)):
        if not value.strip():
            raise UserError(f"{place} has an empty {what}: fill it in, or take the question out")
    if labelled and example.answerable and not example.answers:
        raise UserError(f"{place} has no answers: give some, or is_impossible as SQuAD 2.0 does")
    if example.answers and not example.answerable:
        raise UserError(f"{place} has both answers and is_impossible: take one of them out")
    answers = tuple(_located(place, context, without_surrogates(answer), start) for answer, start in example.answers)
    return dataclasses.replace(example, question=text, context=context, answers=answers)


def _located(place: str, context: str, answer: str, start: int) -> tuple[str, int]:
    """Returns the answer as it stands in the context, without whitespace around it.

    As in BERT's run_squad.py, it is enough that the words that the offset and the length touch hold the answer, with
    whatever whitespace between its words: copies of SQuAD with stripped contexts are off by such a little.
    """
    if not answer.strip():
        raise UserError(f"{place} has an empty answer: take it out")
    if start >= 0 and context.startswith(answer, start):
        return answer.strip(), start + len(answer) - len(answer.lstrip())
    if 0 <= start < len(context):
        first, last = start, min(start + len(answer), len(context))
        while first > 0 and not context[first - 1].isspace():
            first -= 1
        while last < len(context) and not context[last].isspace():
            last += 1
        matches = list(re.finditer(r"\s+".join(map(re.escape, answer.split())), context[first:last]))
        if matches:
            match = min(matches, key=lambda match: abs(first + match.start() - start))
            return match[0], first + match.start()
    there = context[start : start + len(answer)] if start >= 0 else ""
    elsewhere = context.find(answer)
    hint = f"it stands at {elsewhere}" if elsewhere >= 0 else "the context does not hold it"
    fault = f"answer {answer!r} is not at answer_start {start}, where {there!r} stands"
    raise MisplacedAnswerError(f"{place}: {fault}: {hint}")


def _items(place: str, value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yields the place and the value of each item in the list below `key`."""
    for number, item in enumerate(_value(place, value, key, list)):
        yield f"{place} {key}[{number}]", item


def _value(place: str, value: Any, key: str, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{place} is not an object of SQuAD's format but a {type(value).__name__}")
    if key not in value:
        raise UserError(f"{place} has no {key!r}, as SQuAD's format wants: there are {', '.join(map(repr, value))}")
    if not isinstance(value[key], kind):
        raise UserError(f"{place}: {key!r} is a {type(value[key]).__name__}, not as SQuAD's format wants")
    return value[key]
