"""The user's own files: ids that are kept, answers that stand elsewhere, files without names, and packed ones."""

import gzip
import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.data import read_examples
from bert_jax.tasks.submission import write_submission
from bert_jax.tasks.table import TASKS


def examples(folder, task, content, name="a.tsv", split="test", **columns):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return read_examples(TASKS[task], split, file=str(path), **columns)


# ---- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "content", "split", "ids"),
    [
        ("custom:classification", "index\ttext\n30\ta\n4\tb\n", "test", ["30", "4"]),
        ("custom:classification", "index\tid\ttext\n30\tx\ta\n4\ty\tb\n", "test", ["x", "y"]),
        ("custom:classification", "idx\ttext\tlabel\n5\ta\t0\n7\tb\t1\n", "validation", ["5", "7"]),
        ("custom:classification", "index\ttext\tlabel\n5\ta\t0\n5\tb\t1\n", "train", ["5", "5"]),
        ("sst2", "index\tsentence\n30\ta\n4\tb\n", "test", ["30", "4"]),
        ("qqp", "id\tquestion1\tquestion2\n9\ta\tb\n", "test", ["9"]),
        ("rte", "index\tsentence1\tsentence2\tlabel\n9\ta\tb\tentailment\n", "validation", ["9"]),
        ("sst2", "sentence\na\nb\n", "test", ["0", "1"]),
    ],
)
def test_ids_are_those_of_the_file(tmp_path, task, content, split, ids):
    assert [example.id for example in examples(tmp_path, task, content, split=split)] == ids


def test_a_submission_has_the_index_of_the_file(tmp_path):
    read = examples(tmp_path, "sst2", "index\tsentence\n30\ta\n4\tb\n")
    records = [{"id": each.id, "label": label} for each, label in zip(read, ("positive", "negative"), strict=True)]
    (path,) = write_submission(tmp_path / "made", TASKS["sst2"], "test", read, records)
    assert path.read_text() == "index\tprediction\n4\t0\n30\t1\n"


def test_an_index_that_stands_twice_is_told_where_predictions_bear_it(tmp_path):
    with pytest.raises(UserError, match="line 3: id '5' stands in an earlier row too"):
        examples(tmp_path, "custom:classification", "index\ttext\n5\ta\n5\tb\n")


# ---- answers that stand elsewhere ----------------------------------------------------------------


def squad(*starts: int) -> str:
    questions = [
        {"id": f"q{number}", "question": "Who?", "answers": [{"text": "Anna", "answer_start": start}]}
        for number, start in enumerate(starts)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": "Then Anna met Ben.", "qas": questions}]}]})


def test_questions_whose_answers_stand_elsewhere_are_left_out_and_counted(tmp_path):
    with pytest.warns(
        UserWarning, match=r"2 of 4 questions are left out, .*; the first: .* question q1: answer 'Anna'"
    ):
        read = examples(tmp_path, "custom:question_answering", squad(5, 0, 5, 99), "a.json", "train")
    assert [(each.id, each.answers) for each in read] == [(name, (("Anna", 5),)) for name in ("q0", "q2")]
    with pytest.raises(UserError, match="question q0: answer 'Anna' is not at answer_start 0"):
        examples(tmp_path, "custom:question_answering", squad(0, 99), "a.json", "train")


def test_questions_of_tables(tmp_path):
    rows = [
        {"id": "q0", "question": "Who?", "context": "Then Anna.", "answers": {"text": ["Anna"], "answer_start": [5]}},
        {
            "id": "q1",
            "question": "Who?",
            "context": "Anna met Ben.",
            "answers": {"text": ["Anna"], "answer_start": [6]},
        },
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name, content in (
        ("a.parquet", (tmp_path / "a.parquet").read_bytes()),
        ("b.json", json.dumps(rows)),
        ("b.jsonl.gz", gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())),
    ):
        with pytest.warns(UserWarning, match="1 of 2 questions is left out"):
            (read,) = examples(tmp_path, "custom:question_answering", content, name, "train")
        assert (read.id, read.answers) == ("q0", (("Anna", 5),))
    with pytest.raises(UserError, match="object 1: 'answers' is not an object with lists"):
        examples(
            tmp_path,
            "custom:question_answering",
            '[{"id": "a", "question": "b", "context": "c", "answers": 5}]',
            "c.json",
        )


# ---- files of every kind -------------------------------------------------------------------------

WANTED = [("a good film.", "1"), ("a dull, very dull film.", "0"), ("so so.", "1")]
CSV = 'text,label\na good film.,1\n"a dull, very dull film.",0\nso so.,1\n'
TSV = "text\tlabel\na good film.\t1\na dull, very dull film.\t0\nso so.\t1\n"
OBJECTS = [{"text": text, "label": label} for text, label in WANTED]
JSONL = "".join(json.dumps(each) + "\n" for each in OBJECTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a", CSV),
        ("a.tsv.gz", gzip.compress(TSV.encode(), mtime=0)),
        ("a", TSV),
        ("a", JSONL),
        ("a.json", JSONL),
        ("a.json", json.dumps(OBJECTS, indent=2)),
        ("a", json.dumps(OBJECTS)),
        ("a.json.gz", gzip.compress(json.dumps(OBJECTS).encode(), mtime=0)),
        ("a.txt", TSV),
    ],
)
def test_files_of_every_kind_give_the_same(tmp_path, name, content):
    read = examples(tmp_path, "custom:classification", content, name, "train")
    assert [(each.text, each.label) for each in read] == WANTED


def without_names(content: str) -> str:
    return content.partition("\n")[2]


@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.tsv", TSV), ("a", TSV)])
def test_a_file_without_names_is_guessed_and_told(tmp_path, name, content):
    with pytest.warns(UserWarning, match="column 1 is 'text', column 2 is 'label'"):
        read = examples(tmp_path, "custom:classification", without_names(content), name, "train")
    assert [(each.text, each.label) for each in read] == WANTED
    turned = "".join(f"{label}\t{text}\n" for text, label in WANTED)
    with pytest.warns(UserWarning, match="column 1 is 'label', column 2 is 'text'"):
        read = examples(tmp_path, "custom:classification", turned, "a.tsv", "train")
    assert [(each.text, each.label) for each in read] == WANTED


def test_columns_without_names_can_be_chosen_by_their_numbers(tmp_path):
    content = "1\ta film\tso\tneg\n6\ta good one\tbe it\tpos\n7\tbad\tit is\tneg\n"
    with pytest.warns(UserWarning, match="called by their numbers"), pytest.raises(UserError) as error:
        examples(tmp_path, "custom:classification", content, "a.tsv", "train")
    assert "choose one of '1', '2', '3', '4' with data.text" in str(error.value)
    with pytest.warns(UserWarning, match="called by their numbers"):
        read = examples(tmp_path, "custom:classification", content, "a.tsv", "train", text="2", label="4")
    assert [(each.text, each.label) for each in read] == [("a film", "neg"), ("a good one", "pos"), ("bad", "neg")]
    turned = "".join("\t".join(line.split("\t")[::-1]) + "\n" for line in content.splitlines())
    with pytest.warns(UserWarning, match="called by their numbers"):
        read = examples(tmp_path, "custom:classification", turned, "a.tsv", "test", text="2", text_pair="3", label="4")
    assert (read[0].text, read[0].text_pair, read[0].label) == ("so", "a film", "1")


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("review\tstars\nbad\tneg\n", {}, "no column 'text': choose one of 'review', 'stars' with data.text"),
        ("review\tlabel\nbad\tneg\n", {"text": "reviw"}, r"no column 'reviw': did you mean 'review'\? Choose one of"),
        ("0\t1\nbad\tneg\n", {}, "no column 'text': choose one of '0', '1' with data.text"),
        ("1\t2\nbad\tneg\n", {"text": "1"}, "no column 'label': choose one of '1', '2' with data.label"),
        ("a film\tneg\nbad\tpos\n", {"text": "1"}, "no column '1': choose one of 'a film', 'neg' with data.text"),
    ],
)
def test_names_are_not_taken_for_a_row(tmp_path, content, columns, message):
    with pytest.raises(UserError, match=message):
        examples(tmp_path, "custom:classification", content, split="train", **columns)


@pytest.mark.parametrize("task", ["custom:classification", "custom:token_classification", "custom:question_answering"])
def test_what_would_wait_for_ever_is_told(tmp_path, task):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("pipe", "is a pipe, a device or a socket"),
        ("", "is a folder"),
        ("pipe/x", "Not a directory"),
    ):
        with pytest.raises(UserError, match=words):
            read_examples(TASKS[task], "train", file=str(tmp_path / name))


@pytest.mark.parametrize("pack", [gzip.compress])
def test_a_torn_packed_file_is_told(tmp_path, pack):
    with pytest.raises(UserError, match=r"a\.csv\.gz is packed and damaged"):
        examples(tmp_path, "custom:classification", pack(CSV.encode() * 100)[:-20], "a.csv.gz")
