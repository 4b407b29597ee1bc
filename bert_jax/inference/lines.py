"""Many questions to a model: a line of input each, a JSON object a line of output, in the same order."""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tqdm import tqdm

from bert_jax.errors import UserError
from bert_jax.inference.predictor import Model

Answer = dict[str, Any] | UserError


def fill_mask(
    model: Model, lines: list[str], progress: Callable[[int], object], *, top_k: int, batch_size: int
) -> list[Answer]:
    """Answers texts with [MASK]."""
    answers = model.fill_mask_batch(lines, top_k, batch_size, progress)
    return [
        answer
        if isinstance(answer, UserError)
        else {"masks": [[prediction._asdict() for prediction in mask] for mask in answer]}
        for answer in answers
    ]


def next_sentence(
    model: Model, lines: list[str], progress: Callable[[int], object], *, batch_size: int
) -> list[Answer]:
    """Answers lines of two texts with a tab between."""
    answers: list[Answer] = [UserError(f"wanted first<TAB>second, found {line.count(chr(9))} tabs") for line in lines]
    good = [number for number, line in enumerate(lines) if line.count("\t") == 1]
    pairs = [tuple(lines[number].split("\t")) for number in good]
    for number, answer in zip(good, model.next_sentence_batch(pairs, batch_size, progress), strict=True):
        answers[number] = answer if isinstance(answer, UserError) else {"probability": answer}
    return answers


def predict_lines(task: Callable[..., list[Answer]], source: BinaryIO, target: TextIO, *, window: int) -> int:
    """Answers every line of `source` with a JSON object in `target`, {"error": ...} for a line that has no answer.

    Args:
      task: `fill_mask` or `next_sentence`, with all but the lines and the progress given.
      source: UTF-8, of any length: `window` lines at a time are read, sorted by length and answered.
      target: gets a line for each.
      window: lines held in memory.

    Returns:
      How many lines have no answer.
    """
    errors = 0
    first = 1
    with tqdm(unit=" lines", file=sys.stderr) as bar:
        while lines := list(itertools.islice(source, window)):
            for answer in _answered(task, lines, first, bar):
                errors += "error" in answer
                target.write(json.dumps(answer, ensure_ascii=False) + "\n")
            target.flush()
            first += len(lines)
            bar.update(first - 1 - bar.n)  # the lines without an answer
    return errors


def _answered(task: Callable[..., list[Answer]], lines: list[bytes], first: int, bar: tqdm) -> Iterator[dict]:
    """One object for each line; `first` is the number of the first line in the input."""
    answers: list[Any] = [None] * len(lines)
    texts = {}
    for number, line in enumerate(lines):
        try:
            texts[number] = line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            answers[number] = UserError(f"not UTF-8 at byte {error.start + 1}")
    for number, answer in zip(texts, task(list(texts.values()), bar.update), strict=True):
        answers[number] = answer
    for number, answer in enumerate(answers, first):
        yield {"error": f"line {number}: {answer}"} if isinstance(answer, UserError) else answer


@contextlib.contextmanager
def opened_output(path: str) -> Iterator[TextIO]:
    """The file, written under a temporary name and renamed when all is well; standard output if `path` is empty."""
    if not path:
        sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
