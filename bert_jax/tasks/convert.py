"""Rows to examples: which column is what, and whether the row can be learnt from."""

import json
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from bert_jax.errors import UserError
from bert_jax.tasks.examples import ChoiceExample, TaggingExample, TextExample
from bert_jax.tasks.table import Task
from bert_jax.text.cleaning import without_surrogates
from bert_jax.text.conll import Sentence, read_sentences
from bert_jax.text.tables import Record

_LETTERS = tuple("ABCDEFGHIJ")  # of the options, in RACE
_ENDING = re.compile(r"ending(\d+)")


def is_labelled(split: str) -> bool:
    """Whether every example of a split must have a label."""
    return not split.startswith("test")


def examples_of_rows(task: Task, split: str, rows: Iterator[Record]) -> Iterator[TextExample | ChoiceExample]:
    """An example of each row (of each question, in RACE). Torn rows of a flawed data set are left out, with a warning.

    An example's id is the column ``id`` of a custom task (``idx`` in TFDS, ``id`` in RACE), or else the number of the
    row in its file from 0, which is what GLUE's test server wants.

    Raises:
      UserError: a column is missing, an id stands twice, or a row cannot be; names file and line.
    """
    convert = _text_example if task.kind != "choice" else _choice_example
    seen: set[str] = set()
    torn: list[Record] = []
    for number, row in enumerate(rows):
        if task.flawed and len(row.cells) < len(row.columns):
            torn.append(row)
            continue
        name = _id(task, row, number)
        if name in seen:
            raise UserError(f"{row.place}: id {name!r} stands in an earlier row too: change it, or rename the column")
        seen.add(name)
        if task.passages:
            yield from _questions_of(task, row, name, split)
        else:
            yield convert(task, row, name, split)
    if torn:
        left_out = f"{torn[0].source}: {len(torn)} torn rows are left out, the first is line {torn[0].number}"
        warnings.warn(f"{left_out}; {task.name} is published with such rows", stacklevel=2)


def _id(task: Task, row: Record, number: int) -> str:
    columns = ("id",) if task.custom else ("id", "example_id") if task.passages else ("idx",)
    return next((str(row.cells[column]) for column in columns if row.cells.get(column) not in (None, "")), str(number))


# -------------------------------------------------------------------------------------------------- texts and pairs


def _text_example(task: Task, row: Record, name: str, split: str) -> TextExample:
    text = _text(task, row, task.text, "text")
    column = task.text_pair
    if not column and task.custom and task.text != "text_pair" and row.cells.get("text_pair"):
        column = "text_pair"  # not left unread only because the task would do without
    pair = _text(task, row, column, "text_pair") if column else None
    value = _given_label(task, row, split)
    if value is None:
        return TextExample(name, text, pair, None)
    if task.kind == "regression":
        return TextExample(name, text, pair, _number(task, row, value))
    if task.kind == "several":
        return TextExample(name, text, pair, _names(task, row, value))
    return TextExample(name, text, pair, _name(task, row, value))


def _text(task: Task, row: Record, column: str, key: str) -> str:
    value = row.cell(column, key)
    value = "" if value is None else value
    if not isinstance(value, str):
        raise UserError(f"{row.place}: {column!r} is not a text but a {type(value).__name__}")
    if not value.strip() and not task.flawed:
        raise UserError(f"{row.place}: {column!r} is empty: fill it in, or take the row out")
    return without_surrogates(value)


def _given_label(task: Task, row: Record, split: str) -> Any:
    """What stands in the label's column; None if the test split has no such column, or nothing in it."""
    if not is_labelled(split) and task.label not in (row.columns or row.cells):
        return None
    value = row.cell(task.label, "label")
    value = value.strip() if isinstance(value, str) else value
    if task.kind == "several" and value is not None:
        return value
    # GLUE in TFDS, and copies made from it, have -1 where a label is secret.
    secret = not task.custom and not is_labelled(split) and value in (-1, "-1")
    if value is None or value == "" or secret:
        if is_labelled(split):
            raise UserError(f"{row.place}: {task.label!r} has no label: fill it in, or take the row out")
        return None
    return value


def _name(task: Task, row: Record, value: Any) -> str:
    if isinstance(value, list | dict):
        raise UserError(f"{row.place}: {task.label!r} is not one label but a {type(value).__name__}")
    name = value.strip() if isinstance(value, str) else json.dumps(value)
    if not task.labels or name in task.labels:
        return name
    if name.isdecimal() and int(name) < len(task.labels):
        return task.labels[int(name)]
    numbers = f"0 to {len(task.labels) - 1}"
    raise UserError(f"{row.place}: {task.label!r} is {name!r}, not one of {', '.join(task.labels)} or {numbers}")


def _names(task: Task, row: Record, value: Any) -> tuple[str, ...]:
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise UserError(f"{row.place}: {task.label!r} is not a list of labels but a {type(value).__name__}")
    names = dict.fromkeys(_name(task, row, part) for part in parts)
    return tuple(name for name in names if name)


def _number(task: Task, row: Record, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{row.place}: {task.label!r} is {value!r}, not a finite number: mend it, or take the row out")
    return number


# ---------------------------------------------------------------------------------------------------------- choice


def _choice_example(task: Task, row: Record, name: str, split: str) -> ChoiceExample:
    columns = sorted(
        (column for column in row.columns or row.cells if _ENDING.fullmatch(column)),
        key=lambda column: int(column.removeprefix("ending")),
    )
    if len(columns) < 2:
        row.cell(f"ending{len(columns)}")  # tells which columns there are
    begin = row.cell(task.text_pair, "text_pair") if task.text_pair else ""
    endings = tuple(f"{begin} {_text(task, row, column, '')}".strip() for column in columns)
    value = _given_label(task, row, split)
    label = None if value is None else _place(task, row, value, len(endings))
    return ChoiceExample(name, _text(task, row, task.text, "text"), endings, label)


def _place(task: Task, row: Record, value: Any, count: int) -> int:
    number = str(value)
    if not number.isdecimal() or int(number) >= count:
        raise UserError(f"{row.place}: {task.label!r} is {value!r}, not the number of an ending, 0 to {count - 1}")
    return int(number)


def _questions_of(task: Task, row: Record, name: str, split: str) -> Iterator[ChoiceExample]:
    """RACE's questions on one text: an option fills the blank of its question, or follows it."""
    text = _text(task, row, task.text, "text")
    questions, options = row.cell(task.text_pair, "text_pair"), row.cell("options")
    answers = _given_label(task, row, split)
    answers = [None] * len(questions) if answers is None else answers
    if not len(questions) == len(options) == len(answers):
        raise UserError(f"{row.place} has {len(questions)} questions, {len(options)} options, {len(answers)} answers")
    for number, (question, choices, letter) in enumerate(zip(questions, options, answers, strict=True)):
        endings = tuple(question.replace("_", end) if "_" in question else f"{question} {end}" for end in choices)
        letters = _LETTERS[: len(endings)]
        if letter is not None and letter not in letters:
            raise UserError(f"{row.place}: answer {number} is {letter!r}, not one of {', '.join(letters)}")
        label = None if letter is None else letters.index(letter)
        yield ChoiceExample(f"{name}-{number}", text, endings, label)


# --------------------------------------------------------------------------------------------------------- tagging


def tagging_examples(task: Task, split: str, path: str) -> Iterator[TaggingExample]:
    """The sentences of a file in CoNLL columns.

    Raises:
      UserError: as `read_sentences`; no such column; or a tag that the task does not know.
    """
    sentences = read_sentences(path)
    count = len(sentences[0].lines[0])
    word = _column(task.text, "text", count, path)
    tag = _tag_column(task, split, sentences[0], word, path)
    for number, sentence in enumerate(sentences):
        words = tuple(fields[word] for fields in sentence.lines)
        tags = None if tag is None else tuple(fields[tag] for fields in sentence.lines)
        if tags and task.labels and not set(task.labels).issuperset(tags):
            place = next(place for place, name in enumerate(tags) if name not in task.labels)
            raise UserError(
                f"{path} line {sentence.line + place}: tag {tags[place]!r} is not one of {', '.join(task.labels)}: "
                "mend it, or choose a column with data.label"
            )
        yield TaggingExample(str(number), words, tags)


def _tag_column(task: Task, split: str, first: Sentence, word: int, path: str) -> int | None:
    """The column of the tags from 0: the one asked for, or the last that holds tags the task knows, or the last."""
    count = len(first.lines[0])
    if task.label:
        return _column(task.label, "label", count, path)
    if count == 1:
        if is_labelled(split):
            raise UserError(f"{path} line {first.line} has one column, a word without a tag")
        return None
    others = [column for column in range(count) if column != word]
    known = [column for column in others if {fields[column] for fields in first.lines}.issubset(task.labels)]
    return (known or others)[-1]


def _column(name: str, key: str, count: int, path: str) -> int:
    if not name.isdecimal() or not 1 <= int(name) <= count:
        raise UserError(f"{path} has no column {name!r}: choose a number from 1 to {count} with data.{key}")
    return int(name) - 1
