"""Predictions in the formats that others grade: GLUE's test server, SQuAD's scripts, conlleval of CoNLL-2003."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax.runtime.files import write_whole
from bert_jax.tasks.examples import Example
from bert_jax.tasks.table import Task

# Of each task of GLUE the name of its file, and whether its labels are names or the numbers of the classes.
_GLUE = {
    "cola": ("CoLA", "number"),
    "sst2": ("SST-2", "number"),
    "mrpc": ("MRPC", "number"),
    "qqp": ("QQP", "number"),
    "stsb": ("STS-B", "score"),
    "mnli": ("MNLI", "name"),
    "qnli": ("QNLI", "name"),
    "rte": ("RTE", "name"),
    "wnli": ("WNLI", "number"),
}


def write_submission(
    directory: Path, task: Task, split: str, examples: Sequence[Example], predictions: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Writes what the graders of a task read; nothing for a task, or a split of GLUE, that has none.

    GLUE, test splits only: TASK.tsv (MNLI-m.tsv and MNLI-mm.tsv), in the format that jiant writes for the server.
    SQuAD: SPLIT.json, of evaluate-v1.1.py and evaluate-v2.0.py; in 2.0 also SPLIT.null_odds.json, for --na-prob-file.
    CoNLL-2003: SPLIT.txt, of conlleval.

    Args:
      directory: made if there is something to write.
      task: the row of the table.
      split: its name.
      examples: of the split.
      predictions: one for each example, in the same order: "id", and "label", "value", "tags", or "answer" and
        "null_score_diff".

    Returns:
      the files written.
    """
    if task.name in _GLUE:
        files = _glue(task, split, predictions) if split.startswith("test") else {}
    elif task.name in ("squad", "squad2"):
        files = _squad(task, split, predictions)
    elif task.name == "conll2003":
        files = {f"{split}.txt": _conll(examples, predictions)}
    else:
        files = {}
    for name, text in files.items():
        write_whole(directory / name, text)
    return [directory / name for name in files]


def _glue(task: Task, split: str, predictions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    name, form = _GLUE[task.name]
    if task.name == "mnli":
        name = "MNLI-mm" if split.endswith("mismatched") else "MNLI-m"

    def written(prediction: Mapping[str, Any]) -> str:
        if form == "score":
            return f"{min(max(0.0, prediction['value']), 5.0):.3f}"
        return prediction["label"] if form == "name" else str(task.labels.index(prediction["label"]))

    rows = list(enumerate(predictions))
    # TFDS gives the rows in an order of its own, but with the server's index; a file of one's own may have other ids.
    if all(prediction["id"].isdecimal() for prediction in predictions):
        rows = sorted(((int(prediction["id"]), prediction) for prediction in predictions), key=lambda row: row[0])
    lines = ["index\tprediction", *(f"{index}\t{written(prediction)}" for index, prediction in rows)]
    return {f"{name}.tsv": "\n".join(lines) + "\n"}


def _squad(task: Task, split: str, predictions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    # json's escapes keep the files ASCII: the scripts open them in the encoding of the machine.
    found = {f"{split}.json": json.dumps({each["id"]: each["answer"] for each in predictions})}
    if task.name == "squad2":
        odds = {each["id"]: each["null_score_diff"] for each in predictions}
        found[f"{split}.null_odds.json"] = json.dumps(odds)
    return {name: text + "\n" for name, text in found.items()}


def _conll(examples: Sequence[Example], predictions: Sequence[Mapping[str, Any]]) -> str:
    """Lines of word, right tag (if known) and predicted tag; a blank line between sentences."""
    sentences = []
    for example, prediction in zip(examples, predictions, strict=True):
        # A word with a space in it would be two columns; no score depends on the words.
        words = [re.sub(r"\s", "_", word) for word in example.words]
        columns = (words, prediction["tags"]) if example.tags is None else (words, example.tags, prediction["tags"])
        sentences.append("\n".join(map(" ".join, zip(*columns, strict=True))))
    return "\n\n".join(sentences) + "\n"
