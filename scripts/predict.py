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
list of words for tag). An input that ends in .csv, .tsv, .json or .parquet is a table with these columns, or those that
--text and --text_pair name; each may be packed (.gz, .bz2, .xz). An id of its own (id, idx or index) comes back. A line
that cannot be answered gives {"error": ...} on its own line. The input is read and answered in windows of `--window`
lines, so it may be of any length; a run that is stopped leaves what it answered in OUTPUT.partial.
"""

from bert_jax.runtime import command

import contextlib
import functools
import sys

from absl import flags

import bert_jax
from bert_jax.config.finetuning import TRUNCATIONS
from bert_jax.errors import UserError, did_you_mean
from bert_jax.inference import lines
from bert_jax.inference.embedder import POOLINGS
from bert_jax.inference.inputs import opened_inputs
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
_COLUMNS = {
    "text": flags.DEFINE_string("text", "", "column of the text in a table or in objects, as in --text=review"),
    "text_pair": flags.DEFINE_string("text_pair", "", "column of the second text, as in --text_pair=hypothesis"),
}
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
    if len(arguments) != 2 or arguments[1] not in lines.LINE_TASKS:
        name = " ".join(arguments[1:])
        meant = did_you_mean(name, lines.LINE_TASKS)
        raise UserError(f"wanted one TASK of {', '.join(lines.LINE_TASKS)}; got {name or 'none'}{meant}")
    task = lines.LINE_TASKS[arguments[1]]
    columns = {field: flag.value for field, flag in _COLUMNS.items() if flag.value}
    if unknown := columns.keys() - set(task.fields):
        raise UserError(f"{arguments[1]} has {' and '.join(task.fields)}: leave --{' and --'.join(unknown)} out")
    with contextlib.ExitStack() as stack:
        # Opened before the model is loaded: a misspelt name is reported at once.
        inputs = stack.enter_context(opened_inputs(task, _INPUT.value, _JSON_LINES.value, columns))
        target = stack.enter_context(lines.opened_output(_OUTPUT.value))
        model = bert_jax.load(_MODEL.value, _DTYPE.value)
        run = functools.partial(task.run, model, batch_size=_BATCH_SIZE.value, **options(task.options))
        errors = lines.predict_lines(run, inputs, target, window=_WINDOW.value)
    if errors:
        print(f'{errors} lines have no answer: see "error" in the output', file=sys.stderr)


def options(names: tuple[str, ...]) -> dict[str, object]:
    """Returns the flags of these names that are set; the others are as the model was trained."""
    return {name: value for name in names if (value := flags.FLAGS[name].value) is not None}


if __name__ == "__main__":
    command.run(main, positional="TASK")
