"""Predictions in the formats that others grade: GLUE's test server, SQuAD's scripts, conlleval of CoNLL-2003.

Each function gives the text of each file by its name, from the task, a split's name, its examples, and the records of
its predictions: "id", and "label", "value", "tags", or "answer" and "null_score_diff".
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax.runtime.files import to_json, write_whole
from bert_jax.tasks.kinds.base import Task
from bert_jax.tasks.labels import normalized

Records = Sequence[Mapping[str, Any]]


def write_submission(directory: Path, task: Task, split: str, examples: Sequence[Any], records: Records) -> list[Path]:
    """Writes what the graders of a task read; nothing for a task, or a split of GLUE, that has none.

    Args:
      directory: made if there is something to write.
      task: the row of the table.
      split: its name.
      examples: of the split.
      records: of the predictions, one for each example, in the same order.

    Returns:
      the files written.
    """
    files = task.submission(task, split, examples, records) if task.submission else {}
    for name, text in files.items():
        write_whole(directory / name, text)
    return [directory / name for name in files]


# ---- GLUE ----------------------------------------------------------------------------------------


def glue(
    file: str, value: Callable[[Task, Mapping[str, Any]], str], mismatched: str = ""
) -> Callable[..., dict[str, str]]:
    """Returns the writer of FILE.tsv for test splits, in the format that jiant writes for the server.

    Args:
      file: its name on the server.
      value: what it holds of a record.
      mismatched: the file of a split whose name ends so, if there are two.
    """

    def write(task: Task, split: str, examples: Sequence[Any], records: Records) -> dict[str, str]:
        del examples
        if not split.startswith("test"):
            return {}
        rows = list(enumerate(records))
        # TFDS gives the rows in an order of its own, but with the server's index; a file of one's own may have others.
        ids = [normalized(record["id"]) for record in records]  # a program may have written 7 as 7.0
        if others := [name for name in ids if not name.isdecimal()]:
            warnings.warn(
                f"submission of {task.name}: ids such as {others[0]!r} are no numbers, as the server's are: the rows "
                "are numbered from 0",
                stacklevel=2,
            )
        else:
            rows = sorted(zip(map(int, ids), records, strict=True), key=lambda row: row[0])
        lines = ["index\tprediction", *(f"{index}\t{value(task, record)}" for index, record in rows)]
        name = mismatched if mismatched and split.endswith("mismatched") else file
        return {f"{name}.tsv": "\n".join(lines) + "\n"}

    return write


def label_name(task: Task, record: Mapping[str, Any]) -> str:
    """Returns the class by its name."""
    del task
    return record["label"]


def label_number(task: Task, record: Mapping[str, Any]) -> str:
    """Returns the class by its number."""
    return str(task.labels.index(record["label"]))


def similarity(task: Task, record: Mapping[str, Any]) -> str:
    """Returns the number within the scale of STS-B, 0 to 5."""
    del task
    return f"{min(max(0.0, record['value']), 5.0):.3f}"


# ---- SQuAD and CoNLL -----------------------------------------------------------------------------


def squad(task: Task, split: str, examples: Sequence[Any], records: Records) -> dict[str, str]:
    """Gives SPLIT.json for evaluate-v1.1.py."""
    del task, examples
    # json's escapes keep the file ASCII: the script opens it in the encoding of the machine.
    return {f"{split}.json": to_json({record["id"]: record["answer"] for record in records}) + "\n"}


def squad2(task: Task, split: str, examples: Sequence[Any], records: Records) -> dict[str, str]:
    """Gives SPLIT.json for evaluate-v2.0.py, and SPLIT.null_odds.json for its --na-prob-file."""
    odds = to_json({record["id"]: record["null_score_diff"] for record in records})
    return squad(task, split, examples, records) | {f"{split}.null_odds.json": odds + "\n"}


def conll(task: Task, split: str, examples: Sequence[Any], records: Records) -> dict[str, str]:
    """Gives SPLIT.txt for conlleval: lines of word, right tag (if known) and predicted tag, sentences a blank apart."""
    del task
    sentences = []
    for example, record in zip(examples, records, strict=True):
        # A word with a space in it would be two columns; no score depends on the words.
        words = [re.sub(r"\s", "_", word) for word in example.words]
        columns = (words, record["tags"]) if example.tags is None else (words, example.tags, record["tags"])
        sentences.append("\n".join(map(" ".join, zip(*columns, strict=True))))
    return {f"{split}.txt": "\n\n".join(sentences) + "\n"}
