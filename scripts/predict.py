r"""Predicts with a trained model: one JSON object a line, in the order of the input.

  echo "A [MASK] performance." | python scripts/predict.py fill-mask --model=runs/quickstart
  python scripts/predict.py classify --model=runs/sentiment --input=reviews.txt --output=predictions.jsonl
  python scripts/predict.py answer --model=runs/squad --input=questions.jsonl

TASK, the line of the input, and the line of the output:
  fill-mask       text with one or more [MASK]   {"masks": [[{"token", "score", "text"}, ...] for each mask]}
  next-sentence   text <TAB> text_pair           {"probability": that the second follows the first}
  classify        text [<TAB> text_pair]         {"label", "score", "scores"}; {"labels", "scores"} if there may be
                                                 several; {"value"} in regression
  tag             text                           {"words": [{"text", "start", "stop", "tag", "score"}, ...],
                                                  "entities": [{"label", "text", "start", "stop", "score"}, ...]}
  answer          question <TAB> context         {"answer", "start", "stop", "score", "null_score_diff", "ranked"}
  embed           text [<TAB> text_pair]         {"vector": [...]}

With an input that ends in .jsonl, or with --json_lines, a line is an object with these names as keys ("text" may be a
list of words for tag), and its "id", if there is one, comes back. A line that cannot be answered gives {"error": ...}
on its own line. The input is read and answered in windows of `--window` lines, so it may be of any length.
"""

import contextlib
import functools
import sys

from absl import flags

import bert_jax
from bert_jax.runtime import command
from bert_jax.config.finetuning import TRUNCATIONS
from bert_jax.errors import UserError
from bert_jax.inference import lines
from bert_jax.inference.embedder import POOLINGS
from bert_jax.inference.loaded import DTYPES

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "workdir of a finished run, or a folder in Hugging Face layout, as in --model=runs/quickstart",
    required=True,
)
_INPUT = flags.DEFINE_string("input", "", "file to read, in UTF-8, as in --input=texts.txt; standard input by default")
_OUTPUT = flags.DEFINE_string(
    "output", "", "file to write, as in --output=predictions.jsonl; standard output by default"
)
flags.DEFINE_integer("top_k", 5, "fill-mask: number of words for each [MASK], as in --top_k=3", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    32,
    "largest number of lines computed together, as in --batch_size=8; on a CPU long lines go in smaller batches",
    lower_bound=1,
)
_WINDOW = flags.DEFINE_integer(
    "window",
    4_096,
    "number of lines that are read, sorted by length and answered together, as in --window=100",
    lower_bound=1,
)
_JSON_LINES = flags.DEFINE_bool(
    "json_lines", None, "read lines as JSON objects, as in --json_lines; by default if the input ends in .jsonl"
)
flags.DEFINE_integer(
    "max_length",
    0,
    "classify, tag, answer, embed: longest row in tokens, as in --max_length=128; 0 takes that of the model's "
    "training, or the longest that the model can read",
    lower_bound=0,
)
flags.DEFINE_enum(
    "truncation",
    None,
    TRUNCATIONS,
    "classify: part of a longer text that is read, as in --truncation=windows (all of it, averaged); that of the "
    "model's training by default",
)
flags.DEFINE_float(
    "null_threshold",
    None,
    "answer: a question whose null_score_diff is above this has no answer, as in --null_threshold=0; the model's own "
    "by default",
)
flags.DEFINE_enum(
    "pooling", "mean", POOLINGS, "embed: how the vectors of the last layer become one, as in --pooling=cls"
)
flags.DEFINE_bool("normalize", False, "embed: scale the vectors to unit length, as in --normalize")

_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    DTYPES,
    "type of the computation, as in --dtype=bfloat16 (faster, about two digits); int8 takes a quarter of the memory",
)


def main(arguments: list[str]) -> None:
    """Runs one task over the input."""
    if _INPUT.value.endswith((".csv", ".parquet")):
        raise UserError(f"{_INPUT.value} is a table: give lines of text or of JSON, or let evaluate.py read it")
    if len(arguments) != 2 or arguments[1] not in lines.LINE_TASKS:
        raise UserError(f"wanted one TASK of {', '.join(lines.LINE_TASKS)}; got {' '.join(arguments[1:]) or 'none'}")
    name = arguments[1]
    json_lines = _INPUT.value.endswith(".jsonl") if _JSON_LINES.value is None else _JSON_LINES.value
    with contextlib.ExitStack() as stack:
        # Opened before the model is loaded: a misspelt name is reported at once.
        source = stack.enter_context(open(_INPUT.value, "rb")) if _INPUT.value else sys.stdin.buffer
        target = stack.enter_context(lines.opened_output(_OUTPUT.value))
        model = bert_jax.load(_MODEL.value, _DTYPE.value)
        task = lines.LINE_TASKS[name]
        run = functools.partial(task.run, model, batch_size=_BATCH_SIZE.value, **options(task.options))
        errors = lines.predict_lines(
            lines.LINE_TASKS[name], run, source, target, window=_WINDOW.value, json_lines=json_lines
        )
    if errors:
        print(f'{errors} lines have no answer: see "error" in the output', file=sys.stderr)


def options(names: tuple[str, ...]) -> dict[str, object]:
    """Returns the flags of these names that are set; the others are as the model was trained."""
    return {name: value for name in names if (value := flags.FLAGS[name].value) is not None}


if __name__ == "__main__":
    command.run(main)
