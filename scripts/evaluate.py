r"""Scores a model on a task, or its masked LM on text; prints a table and writes it, as JSON too, into a folder.

  python scripts/evaluate.py --model=runs/mrpc --task=mrpc --directory=glue_data/MRPC --split=test \
      --output=runs/mrpc_test
  python scripts/evaluate.py --model=runs/mine --task=custom:classification --input=more.csv --output=runs/more
  python scripts/evaluate.py --model=runs/quickstart --source='texts/*.txt' --output=runs/on_texts

On a task the folder gets scores.json, report.txt, predictions.jsonl and, for tasks with graders of their own (GLUE,
SQuAD, CoNLL-2003), submission/. Without labels in the data there are predictions only.
"""

from bert_jax.runtime import command

from pathlib import Path

import source_flags
from absl import flags
from tqdm import tqdm

import bert_jax
from bert_jax.config import TaskDataConfig
from bert_jax.config.finetuning import TRUNCATIONS
from bert_jax.errors import UserError
from bert_jax.inference.evaluate import evaluate_task, evaluate_text
from bert_jax.inference.loaded import DTYPES
from bert_jax.inference.model import Model
from bert_jax.text.sources import TextSource

flags.adopt_module_key_flags(source_flags)  # --help shows them; --source is text for a masked LM
_MODEL = flags.DEFINE_string("model", None, "MODEL, as in --model=runs/mrpc", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "folder for the results, as in --output=runs/mrpc_test", required=True)
_TASK = flags.DEFINE_string("task", "", "name of the task, as in --task=mrpc or --task=custom:classification")
_SPLIT = flags.DEFINE_string("split", "", "split of the task to score, as in --split=test; validation by default")
_DIRECTORY = flags.DEFINE_string(
    "directory", "", "folder of the task's official files, as in --directory=glue_data/MRPC"
)
_INPUT = flags.DEFINE_string("input", "", "your own file, with or without labels, as in --input=more.csv")
_TEXT = flags.DEFINE_string("text", "", "column of the text, as in --text=review; the task's own by default")
_TEXT_PAIR = flags.DEFINE_string("text_pair", "", "column of the second text, as in --text_pair=hypothesis")
_LABEL = flags.DEFINE_string("label", "", "column of the label, as in --label=stars")
_MAX_LENGTH = flags.DEFINE_integer(
    "max_length",
    0,
    "longest row in tokens, as in --max_length=128; 0 takes that of the model's training",
    lower_bound=0,
)
_TRUNCATION = flags.DEFINE_enum(
    "truncation",
    None,
    TRUNCATIONS,
    "part of a longer single text that is read, as in --truncation=windows (all of it, averaged); that of the model's "
    "training by default",
)
_ROWS = flags.DEFINE_integer(
    "rows", 10_000, "largest number of rows of --source to score, as in --rows=1000", lower_bound=1
)
_PSEUDO_PERPLEXITY = flags.DEFINE_integer(
    "pseudo_perplexity",
    0,
    "number of documents of --source whose pseudo-perplexity is computed (slow), as in --pseudo_perplexity=20",
    lower_bound=0,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "number of rows computed together, as in --batch_size=8", lower_bound=1
)

_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    DTYPES,
    "type of the computation, as in --dtype=bfloat16 (faster, about two digits); int8 takes a quarter of the memory",
)


def main(_: list[str]) -> None:
    """Scores the model as the flags say."""
    source = source_flags.text_source()
    if bool(_TASK.value) == bool(source.source):
        raise UserError("set either --task (a fine-tuned head) or --source (a masked LM on text)")
    model, output = bert_jax.load(_MODEL.value, _DTYPE.value), Path(_OUTPUT.value)
    if source.source:
        score_text(model, source, output)
    else:
        score_task(model, output)
    print((output / "report.txt").read_text(), end="")


def score_text(model: Model, source: TextSource, output: Path) -> None:
    """Scores the masked language model on text."""
    with tqdm(unit=" documents", disable=None if _PSEUDO_PERPLEXITY.value else True) as bar:
        evaluate_text(
            model,
            source,
            output,
            length=_MAX_LENGTH.value or min(128, model.config.max_position_embeddings),
            max_rows=_ROWS.value,
            pseudo_perplexity_of=_PSEUDO_PERPLEXITY.value,
            batch_size=_BATCH_SIZE.value,
            progress=bar.update,
        )


def score_task(model: Model, output: Path) -> None:
    """Scores the fine-tuned head on a task."""
    if _INPUT.value and _SPLIT.value:
        raise UserError("--input is a file, --split a part of the task's own data: set one of them")
    split = "test" if _INPUT.value else _SPLIT.value or "validation"  # test may be without labels
    data = TaskDataConfig(
        directory=_DIRECTORY.value,
        test=_INPUT.value,
        text=_TEXT.value,
        text_pair=_TEXT_PAIR.value,
        label=_LABEL.value,
    )
    with tqdm(unit=" rows", disable=None) as bar:
        evaluate_task(
            model,
            _TASK.value,
            split,
            data,
            output,
            max_length=_MAX_LENGTH.value,
            truncation=_TRUNCATION.value or "",
            batch_size=_BATCH_SIZE.value,
            progress=lambda rows: bar.update(len(rows)),
        )


if __name__ == "__main__":
    command.run(main)
