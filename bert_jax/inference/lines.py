"""Many questions to a model: a line of input each, a JSON object a line of output, in the same order."""

import contextlib
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from tqdm import tqdm

from bert_jax.errors import UserError
from bert_jax.inference.model import Model
from bert_jax.runtime.files import whole_file
from bert_jax.tasks.predictions import as_json
from bert_jax.text.cleaning import without_surrogates

Fields = dict[str, Any]  # of a line, by their names


class LineTask(NamedTuple):
    """Describes what the lines of an input are, and what answers them.

    Attributes:
      fields: of a line with tabs, and the keys of a JSON object, in this order.
      needed: so many of them must be there.
      run: from the model, the records, a function to be called with progress, and options to an answer or an error for
        each record.
      options: names of the options that `run` takes.
      takes_words: the field may be a list of words.
    """

    fields: tuple[str, ...]
    needed: int
    run: Callable[..., list[Any]]
    options: tuple[str, ...] = ()
    takes_words: bool = False


def fill_mask(model: Model, records: list[Fields], progress: Callable, *, top_k: int, batch_size: int) -> list[Any]:
    """Proposes tokens for each [MASK]."""
    answers = model.fill_mask_batch([record["text"] for record in records], top_k, batch_size, progress)
    return _wrapped("masks", answers)


def next_sentence(model: Model, records: list[Fields], progress: Callable, *, batch_size: int) -> list[Any]:
    """Returns the probability that the second text follows the first."""
    pairs = [(record["text"], record["text_pair"]) for record in records]
    return _wrapped("probability", model.next_sentence_batch(pairs, batch_size, progress))


def classify(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns the class of each text or pair."""
    return model.classify_batch(_texts(records), progress=progress, **options)


def tag(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns the words and entities of each text."""
    return model.tag_batch([record["text"] for record in records], progress=progress, **options)


def answer(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns the answer to each question in its context."""
    questions = [(record["question"], record["context"]) for record in records]
    return model.answer_batch(questions, progress=progress, **options)


def embed(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns a vector for each text or pair."""
    vectors = model.embed_batch(_texts(records), progress=progress, **options)
    return _wrapped("vector", [vector if isinstance(vector, UserError) else vector.tolist() for vector in vectors])


LINE_TASKS = {
    "fill-mask": LineTask(("text",), 1, fill_mask, ("top_k",)),
    "next-sentence": LineTask(("text", "text_pair"), 2, next_sentence),
    "classify": LineTask(("text", "text_pair"), 1, classify, ("truncation", "max_length")),
    "tag": LineTask(("text",), 1, tag, ("max_length",), takes_words=True),
    "answer": LineTask(("question", "context"), 2, answer, ("null_threshold", "max_length")),
    "embed": LineTask(("text", "text_pair"), 1, embed, ("pooling", "normalize", "max_length")),
}

_ANSWERS = (  # the keys of a line of output, besides "id"
    *({"masks"}, {"probability"}, {"label", "score", "scores"}, {"labels", "scores"}, {"value"}, {"words", "entities"}),
    *({"answer", "start", "stop", "score", "null_score_diff", "ranked"}, {"vector"}, {"error"}),
)


def predict_lines(
    task: LineTask, run: Callable[..., list[Any]], source: BinaryIO, target: TextIO, *, window: int, json_lines: bool
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
    run([], lambda answered: None)  # a head that the model lacks is reported before anything is read
    errors = 0
    first = 1
    with tqdm(unit=" lines", file=sys.stderr) as bar:
        while lines := list(itertools.islice(source, window)):
            records = [_record(task, line, json_lines) for line in lines]
            for answered in _answered(task, run, records, first, bar):
                errors += "error" in answered
                target.write(json.dumps(answered, ensure_ascii=False) + "\n")
            target.flush()
            first += len(lines)
            bar.update(first - 1 - bar.n)  # the lines without an answer
    return errors


def _wrapped(name: str, answers: list[Any]) -> list[Any]:
    """Makes an object of one key of each answer; errors stay."""
    return [answer if isinstance(answer, UserError) else {name: as_json(answer)} for answer in answers]


def _texts(records: list[Fields]) -> list[str | tuple[str, str]]:
    return [
        (record["text"], record["text_pair"]) if record.get("text_pair") is not None else record["text"]
        for record in records
    ]


def _record(task: LineTask, line: bytes, json_lines: bool) -> Fields | UserError:
    """Returns the fields of a line, not yet checked, or what is wrong with it."""
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
    """Returns the value without halves of surrogate pairs, such as a cut emoji, which UTF-8 does not have."""
    if isinstance(value, str):
        return without_surrogates(value)
    return [_writable(each) for each in value] if isinstance(value, list) else value


def _checked(task: LineTask, record: Fields) -> Fields | UserError:
    """Returns the record, or what is missing in it."""
    for number, field in enumerate(task.fields):
        value = record.get(field)
        if value is None and number >= task.needed:
            continue
        if value is None:
            return UserError(f"no {field!r} in it: there is {', '.join(map(repr, record)) or 'nothing'}")
        if task.takes_words and isinstance(value, list):
            if not value or not all(isinstance(word, str) and word.strip() for word in value):
                return UserError(f"{field!r} is not a list of words")
        elif not isinstance(value, str):
            return UserError(f"{field!r} is not a text but a {type(value).__name__}")
        elif not value.strip():
            return UserError(f"the {field} is empty")
    return record


def _answered(
    task: LineTask, run: Callable, records: list[Fields | UserError], first: int, bar: tqdm
) -> Iterator[dict[str, Any]]:
    """Yields one object for each line; `first` is the number of the first line in the input."""
    checked = [record if isinstance(record, UserError) else _checked(task, record) for record in records]
    good = [record for record in checked if not isinstance(record, UserError)]
    answers = iter(run(good, bar.update) if good else [])
    for number, (record, result) in enumerate(zip(records, checked, strict=True), first):
        name = {"id": record["id"]} if isinstance(record, dict) and "id" in record else {}
        result = result if isinstance(result, UserError) else next(answers)
        yield name | ({"error": f"line {number}: {result}"} if isinstance(result, UserError) else as_json(result))


@contextlib.contextmanager
def opened_output(path: str) -> Iterator[TextIO]:
    """Opens a file that is renamed from a temporary name when all is well; standard output if `path` is empty.

    Raises:
      UserError: there is such a file, and it does not hold predictions.
    """
    if not path:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    if not _may_replace(Path(path)):
        raise UserError(f"{path} is there and does not hold predictions: move it away, or give another --output")
    with whole_file(Path(path)) as file:
        yield file


def _may_replace(path: Path) -> bool:
    """Says whether a file is absent, empty, no file but a device or a pipe, or begins with an answer of ours."""
    try:
        if not path.is_file() or not path.stat().st_size:
            return not path.is_dir()
        with path.open(encoding="utf-8") as file:
            answer = json.loads(file.readline(1 << 24))
        return isinstance(answer, dict) and set(answer) - {"id"} in _ANSWERS
    except (OSError, ValueError, RecursionError):
        return False
