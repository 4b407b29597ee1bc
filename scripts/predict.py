r"""Predictions of a trained model, one JSON object a line, in the order of the input.

  echo "A [MASK] performance." | python scripts/predict.py fill-mask --model=runs/quickstart
  python scripts/predict.py next-sentence --model=runs/quickstart --input=pairs.tsv --output=predictions.jsonl

TASK, and what a line of the input holds:
  fill-mask       a text with one or more [MASK]   -> {"masks": [[{"token", "score", "text"}, ...] for each mask]}
  next-sentence   first text <TAB> second text     -> {"probability": that the second follows the first}

A line that cannot be answered gives {"error": ...} on its own line. The input is read and answered in windows of
`--window` lines, so it may be of any length.
"""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

from absl import flags
from tqdm import tqdm

import bert_jax
from bert_jax import command
from bert_jax.errors import UserError
from bert_jax.inference.predictor import Model

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "workdir of a finished run, or a folder in Hugging Face layout, as in --model=runs/quickstart",
    required=True,
)
_INPUT = flags.DEFINE_string("input", "", "file in UTF-8, as in --input=texts.txt; empty: standard input")
_OUTPUT = flags.DEFINE_string("output", "", "file, as in --output=predictions.jsonl; empty: standard output")
_TOP_K = flags.DEFINE_integer("top_k", 5, "fill-mask: proposals for each [MASK], as in --top_k=3", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "lines run at once, as in --batch_size=8", lower_bound=1)
_WINDOW = flags.DEFINE_integer(
    "window", 4_096, "lines read, sorted by length and answered together, as in --window=100", lower_bound=1
)


def fill_mask(model: Model, lines: list[str], progress: Callable[[int], object]) -> list[dict | UserError]:
    """Answers texts with [MASK]."""
    answers = model.fill_mask_batch(lines, _TOP_K.value, _BATCH_SIZE.value, progress)
    return [
        answer
        if isinstance(answer, UserError)
        else {"masks": [[prediction._asdict() for prediction in mask] for mask in answer]}
        for answer in answers
    ]


def next_sentence(model: Model, lines: list[str], progress: Callable[[int], object]) -> list[dict | UserError]:
    """Answers lines of two texts with a tab between."""
    answers: list = [UserError(f"wanted first<TAB>second, found {line.count(chr(9))} tabs") for line in lines]
    good = [number for number, line in enumerate(lines) if line.count("\t") == 1]
    pairs = [tuple(lines[number].split("\t")) for number in good]
    for number, answer in zip(good, model.next_sentence_batch(pairs, _BATCH_SIZE.value, progress), strict=True):
        answers[number] = answer if isinstance(answer, UserError) else {"probability": answer}
    return answers


TASKS = {"fill-mask": fill_mask, "next-sentence": next_sentence}


def answered(task: Callable, model: Model, lines: list[bytes], first: int, bar: tqdm) -> Iterator[dict]:
    """One object for each line; `first` is the number of the first line in the input."""
    answers: list = [None] * len(lines)
    texts = {}
    for number, line in enumerate(lines):
        try:
            texts[number] = line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            answers[number] = UserError(f"not UTF-8 at byte {error.start + 1}")
    for number, answer in zip(texts, task(model, list(texts.values()), bar.update), strict=True):
        answers[number] = answer
    for number, answer in enumerate(answers, first):
        yield {"error": f"line {number}: {answer}"} if isinstance(answer, UserError) else answer


def predict(task: Callable, model: Model, source: BinaryIO, target: TextIO) -> int:
    """Answers all lines; returns how many had no answer."""
    errors = 0
    first = 1
    with tqdm(unit=" lines", file=sys.stderr) as bar:
        while lines := list(itertools.islice(source, _WINDOW.value)):
            for answer in answered(task, model, lines, first, bar):
                errors += "error" in answer
                target.write(json.dumps(answer, ensure_ascii=False) + "\n")
            target.flush()
            first += len(lines)
            bar.update(first - 1 - bar.n)  # the lines without an answer
    return errors


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
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def main(arguments: list[str]) -> None:
    """Runs one task over the input."""
    if len(arguments) != 2 or arguments[1] not in TASKS:
        raise UserError(f"wanted one TASK of {', '.join(TASKS)}; got {' '.join(arguments[1:]) or 'none'}")
    with contextlib.ExitStack() as stack:
        # Opened before the model is loaded: a misspelt name is told at once.
        source = stack.enter_context(open(_INPUT.value, "rb")) if _INPUT.value else sys.stdin.buffer
        target = stack.enter_context(opened_output(_OUTPUT.value))
        errors = predict(TASKS[arguments[1]], bert_jax.load(_MODEL.value), source, target)
    if errors:
        print(f'{errors} lines have no answer: see "error" in the output', file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
