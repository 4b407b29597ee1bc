"""Damage files of every kind at random: what reads them answers or says in one line what is wrong, and nothing else.

In the suite a few trials of each kind; `pytest tests/promises/test_hostile_files.py --trials=1000` tries more.
"""

import bz2
import gzip
import io
import json
import lzma
import random
import warnings

import pyarrow
import pyarrow.parquet
import pytest

from bert_jax.errors import UserError
from bert_jax.inference.inputs import opened_inputs
from bert_jax.inference.lines import LINE_TASKS
from bert_jax.tasks.data import read_examples
from bert_jax.tasks.table import TASKS
from bert_jax.text.sources import read_documents

ROWS = [{"id": n, "text": f'Text "{n}", à 中\u0301 {"x" * (n % 7)}', "label": "ab"[n % 2]} for n in range(40)]
CHARACTERS = [b'"', b"\n", b"\r", b"\t", b",", b"\\", b"\0", b"\xff", b"\xed\xa0\x80", b"[" * 2_000, b'{"a":' * 2_000]
CHARACTERS += [b"\\ud83d", b"NaN", b"1e999", b"<doc id='1'>\n", b"\xef\xbb\xbf", b"9" * 5_000, b"\xe2\x80\xa8"]


def contents() -> dict[str, bytes]:
    """A valid file of each kind."""
    csv_rows = ['"{id}","{0}",{label}\r\n'.format(row["text"].replace('"', '""'), **row) for row in ROWS]
    tsv_rows = ["{id}\t{text}\t{label}\n".format(**row) for row in ROWS]
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), parquet, row_group_size=7)
    questions = [{"id": str(n), "question": "Who?", "answers": [{"text": "Text", "answer_start": 0}]} for n in range(9)]
    squad = {
        "data": [
            {"title": "t", "paragraphs": [{"context": row["text"], "qas": questions[n : n + 1]}]}
            for n, row in enumerate(ROWS[:9])
        ]
    }
    objects = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    return {
        "a.csv": ("id,text,label\r\n" + "".join(csv_rows)).encode(),
        "a.tsv": ("id\ttext\tlabel\n" + "".join(tsv_rows)).encode(),
        "a.jsonl": objects,
        "a.json": json.dumps(ROWS, indent=1).encode(),
        "squad.json": json.dumps(squad).encode(),
        "a.parquet": parquet.getvalue(),
        "a.jsonl.gz": gzip.compress(objects),
        "a.jsonl.bz2": bz2.compress(objects),
        "a.csv.xz": lzma.compress("".join(csv_rows).encode()),
        "a": objects,
        "a.txt": b'<doc id="1" title="A">\nA\n\nText.\n</doc>\n' + b"A text.\n\n" * 20,
    }


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cuts, zeroes, flips, or writes into the content at a place drawn at random."""
    place = draw.randrange(len(content))
    length = min(draw.choice([1, 1, 4, 50]), len(content) - place)
    region = content[place : place + length]
    put = {
        "cut off": content[:place],
        "cut out": content[:place] + content[place + length :],
        "zeroed": content[:place] + bytes(length) + content[place + length :],
        "flipped": content[:place]
        + bytes(each ^ (1 << draw.randrange(8)) for each in region)
        + content[place + length :],
        "written": content[:place] + draw.choice(CHARACTERS) + content[place:],
        "swapped": content[:place] + region[::-1] + content[place + length :],
    }
    return put[draw.choice(list(put))]


def asked(path: str) -> list:
    with opened_inputs(LINE_TASKS["classify"], path, None, {}) as inputs:
        return list(inputs)


DOORS = {
    "pre-training": lambda path: list(read_documents(path)),
    "fine-tuning": lambda path: read_examples(TASKS["custom:classification"], "test", file=path),
    "questions": lambda path: read_examples(TASKS["custom:question_answering"], "train", file=path),
    "prediction": asked,
}


def fault_of(read, path: str) -> str:
    """Says what is wrong with how a file is read; nothing if it is read, or refused in one line."""
    try:
        json.dumps([repr(each) for each in read(path)], ensure_ascii=False).encode("utf-8", "backslashreplace")
    except UserError as error:
        return "several lines" if "\n" in str(error) else ""
    except Exception as error:  # whatever a reader lets through
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", contents())
def test_damaged_files_are_read_or_told(tmp_path, trials, name, door):
    content, path = contents()[name], tmp_path / name
    for trial in range(trials or 12):
        draw = random.Random(f"{name} {door} {trial}")
        path.write_bytes(damaged(content, draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fault = fault_of(DOORS[door], str(path))
        assert not fault, f"trial {trial}: {fault}"
