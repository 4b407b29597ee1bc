"""Reads files in CoNLL columns: a word a line, a blank line between sentences."""

import re
from typing import NamedTuple

from bert_jax.errors import UserError
from bert_jax.text.lines import read_text
from bert_jax.text.tables import file_type


class Sentence(NamedTuple):
    """Holds the lines of a sentence: the number of the first, and the columns of all."""

    line: int
    lines: list[list[str]]


def read_sentences(path: str) -> list[Sentence]:
    """Returns the sentences of a file in CoNLL columns.

    Columns are separated by tabs, or by spaces if the first line has no tab; white space at the end of a line makes no
    column. Lines that begin with -DOCSTART- part documents, as in CoNLL-2003, and are left out.

    Raises:
      UserError: the file cannot be read, has no words, or a line has another number of columns than the first has, or
        a carriage return within.
    """
    if file_type(path) in (".csv", ".json", ".jsonl", ".parquet"):
        raise UserError(f"{path} is not in CoNLL columns: a word and its tag a line, a blank line between sentences")
    sentences: list[Sentence] = []
    columns, has_tabs, in_sentence = 0, False, False
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            in_sentence = False
            continue
        line = line.rstrip(" \t\r")
        if "\r" in line:
            raise UserError(f"{path} line {number} has a carriage return within: save the file with Unix line ends")
        has_tabs = "\t" in line if not columns else has_tabs
        # Not split(): a word may hold a space of another kind, such as U+00A0.
        fields = line.split("\t") if has_tabs else re.split(" +", line.strip(" "))
        columns = columns or len(fields)
        if len(fields) != columns or not all(fields):
            fault = "an empty column" if len(fields) == columns else f"{len(fields)} columns"
            raise UserError(
                f"{path} line {number} has {fault}, but the file began with {columns}: {line.strip()[:80]!r}"
            )
        if not in_sentence:
            sentences.append(Sentence(number, []))
            in_sentence = True
        sentences[-1].lines.append(fields)
    if not sentences:
        raise UserError(f"{path} has no words")
    return sentences
