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
import functools
import sys

from absl import flags

import bert_jax
from bert_jax import command
from bert_jax.errors import UserError
from bert_jax.inference import lines

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


TASKS = ("fill-mask", "next-sentence")


def main(arguments: list[str]) -> None:
    """Runs one task over the input."""
    if len(arguments) != 2 or arguments[1] not in TASKS:
        raise UserError(f"wanted one TASK of {', '.join(TASKS)}; got {' '.join(arguments[1:]) or 'none'}")
    with contextlib.ExitStack() as stack:
        # Opened before the model is loaded: a misspelt name is told at once.
        source = stack.enter_context(open(_INPUT.value, "rb")) if _INPUT.value else sys.stdin.buffer
        target = stack.enter_context(lines.opened_output(_OUTPUT.value))
        model = bert_jax.load(_MODEL.value)
        task = functools.partial(lines.next_sentence, model, batch_size=_BATCH_SIZE.value)
        if arguments[1] == "fill-mask":
            task = functools.partial(lines.fill_mask, model, batch_size=_BATCH_SIZE.value, top_k=_TOP_K.value)
        errors = lines.predict_lines(task, source, target, window=_WINDOW.value)
    if errors:
        print(f'{errors} lines have no answer: see "error" in the output', file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
