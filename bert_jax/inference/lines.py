"""Many questions to a model: a line of input each, a JSON object a line of output, in the same order."""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from tqdm import tqdm

from bert_jax.errors import UserError
from bert_jax.inference.predictor import Model
from bert_jax.tasks.reading import as_json
from bert_jax.text.cleaning import without_surrogates

Answer = dict[str, Any] | UserError
Record = dict[str, Any]


class Task(NamedTuple):
    """What the lines of an input are, and what answers them.

    Attributes:
      fields: of a line with tabs, and the keys of a JSON object, in this order.
      needed: so many of them must be there.
      run: from the model, the records and a function to be told of progress to an answer for each record.
    """

    fields: tuple[str, ...]
    needed: int
    run: Callable[..., list[Answer]]


def fill_mask(model: Model, records: list[Record], progress: Callable, *, top_k: int, batch_size: int) -> list[Answer]:
    """Proposals for each [MASK]."""
    answers = model.fill_mask_batch([record["text"] for record in records], top_k, batch_size, progress)
    return [
        answer
        if isinstance(answer, UserError)
        else {"masks": [[prediction._asdict() for prediction in mask] for mask in answer]}
        for answer in answers
    ]


def next_sentence(model: Model, records: list[Record], progress: Callable, *, batch_size: int) -> list[Answer]:
    """The probability that the second text follows the first."""
    answers = model.next_sentence_batch(_texts(records), batch_size, progress)
    return [answer if isinstance(answer, UserError) else {"probability": answer} for answer in answers]


def classify(model: Model, records: list[Record], progress: Callable, **options: Any) -> list[Answer]:
    """The class of each text or pair."""
    return [answer._asdict() for answer in model.classify(_texts(records), progress=progress, **options)]


def tag(model: Model, records: list[Record], progress: Callable, **options: Any) -> list[Answer]:
    """The words and entities of each text."""
    texts = [record["text"] for record in records]
    return [
        {"words": [word._asdict() for word in each.words], "entities": [entity._asdict() for entity in each.entities]}
        for each in model.tag(texts, progress=progress, **options)
    ]


def answer(model: Model, records: list[Record], progress: Callable, **options: Any) -> list[Answer]:
    """The answer to each question in its context."""
    questions = [(record["question"], record["context"]) for record in records]
    return [as_json(reply) for reply in model.answer_batch(questions, progress=progress, **options)]


def embed(model: Model, records: list[Record], progress: Callable, **options: Any) -> list[Answer]:
    """A vector for each text or pair."""
    return [{"vector": vector.tolist()} for vector in model.embed(_texts(records), progress=progress, **options)]


TASKS = {
    "fill-mask": Task(("text",), 1, fill_mask),
    "next-sentence": Task(("text", "text_pair"), 2, next_sentence),
    "classify": Task(("text", "text_pair"), 1, classify),
    "tag": Task(("text",), 1, tag),
    "answer": Task(("question", "context"), 2, answer),
    "embed": Task(("text", "text_pair"), 1, embed),
}


def predict_lines(
    task: Task, run: Callable[..., list[Answer]], source: BinaryIO, target: TextIO, *, window: int, json_lines: bool
) -> int:
    """Answers every line of `source` with a JSON object in `target`, {"error": ...} for a line that has no answer.

    Args:
      task: what the lines are.
      run: `task.run` with all but the records and the progress given.
      source: UTF-8, of any length: `window` lines at a time are read, sorted by length and answered.
      target: gets a line for each; the "id" of a line of JSON, if it has one, comes first.
      window: lines held in memory.
      json_lines: each line is an object; otherwise it is the fields of the task with tabs between.

    Returns:
      How many lines have no answer.
    """
    run([], lambda answered: None)  # a head that the model lacks is told before anything is read
    errors = 0
    first = 1
    with tqdm(unit=" lines", file=sys.stderr) as bar:
        while lines := list(itertools.islice(source, window)):
            records = [_record(task, line, json_lines) for line in lines]
            for found in _answered(task, run, records, first, bar):
                errors += "error" in found
                target.write(json.dumps(found, ensure_ascii=False) + "\n")
            target.flush()
            first += len(lines)
            bar.update(first - 1 - bar.n)  # the lines without an answer
    return errors


def _texts(records: list[Record]) -> list[str | tuple[str, str]]:
    return [
        (record["text"], record["text_pair"]) if record.get("text_pair") is not None else record["text"]
        for record in records
    ]


def _record(task: Task, line: bytes, json_lines: bool) -> Record | UserError:
    """The fields of a line, not yet checked, or what is wrong with it."""
    try:
        text = line.rstrip(b"\r\n").decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return UserError(f"not UTF-8 at byte {error.start + 1}")
    if json_lines:
        try:
            record = json.loads(text, parse_constant=_not_json)
        except ValueError as error:
            return UserError(f"not JSON: {error}")
        if not isinstance(record, dict):
            return UserError(f"not a JSON object but a {type(record).__name__}")
        record = {key: _writable(value) for key, value in record.items()}
    else:
        # Where there is one field only, a tab is a character like any other.
        values = text.split("\t") if len(task.fields) > 1 else [text]
        if not task.needed <= len(values) <= len(task.fields):
            return UserError(f"wanted {'<TAB>'.join(task.fields)}, found {len(values) - 1} tabs")
        record = dict(zip(task.fields, values, strict=False))
    return record


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is none of its numbers")


def _writable(value: Any) -> Any:
    """The value without halves of surrogate pairs, such as a cut emoji, which UTF-8 does not have."""
    if isinstance(value, str):
        return without_surrogates(value)
    return [_writable(each) for each in value] if isinstance(value, list) else value


def _checked(task: Task, record: Record) -> Record | UserError:
    """The record, or what is missing in it."""
    for number, field in enumerate(task.fields):
        value = record.get(field)
        if value is None and number >= task.needed:
            continue
        if value is None:
            return UserError(f"no {field!r} in it: there is {', '.join(map(repr, record)) or 'nothing'}")
        if task.run is tag and isinstance(value, list):
            if not value or not all(isinstance(word, str) and word.strip() for word in value):
                return UserError(f"{field!r} is not a list of words")
        elif not isinstance(value, str):
            return UserError(f"{field!r} is not a text but a {type(value).__name__}")
        elif not value.strip():
            return UserError(f"the {field} is empty")
    return record


def _answered(
    task: Task, run: Callable, records: list[Record | UserError], first: int, bar: tqdm
) -> Iterator[dict[str, Any]]:
    """One object for each line; `first` is the number of the first line in the input."""
    checked = [record if isinstance(record, UserError) else _checked(task, record) for record in records]
    answers = iter(_run(run, [record for record in checked if not isinstance(record, UserError)], bar))
    for number, (record, found) in enumerate(zip(records, checked, strict=True), first):
        name = {"id": record["id"]} if isinstance(record, dict) and "id" in record else {}
        found = found if isinstance(found, UserError) else next(answers)
        yield name | ({"error": f"line {number}: {found}"} if isinstance(found, UserError) else found)


def _run(run: Callable, records: list[Record], bar: tqdm) -> list[Answer]:
    """An answer for each record; one that cannot be answered must not take the others with it."""
    if not records:
        return []
    try:
        return run(records, bar.update)
    except UserError as error:
        if len(records) == 1:
            return [error]
    half = len(records) // 2
    return _run(run, records[:half], bar) + _run(run, records[half:], bar)


@contextlib.contextmanager
def opened_output(path: str) -> Iterator[TextIO]:
    """The file, written under a temporary name and renamed when all is well; standard output if `path` is empty."""
    if not path:
        sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
