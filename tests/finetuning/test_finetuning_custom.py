"""A user's own files for fine-tuning, and the labels found in them."""

import json
from pathlib import Path

import pytest
from helpers.official_files import CONTEXT, FILES

from bert_jax.tasks.data import read_examples
from bert_jax.tasks.kinds.multiple_choice import MultipleChoiceExample
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassificationExample
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.tasks.table import TASKS


def label_names(task, train, source="the training data"):
    return task.kind.label_names(task, train, source)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", '\ufefftext,label,id\n"Good, ""very"" good.\nYes.",pos,x\nBad.,neg,y\n'),
        (
            "a.jsonl",
            '{"text": "Good, \\"very\\" good.\\nYes.", "label": "pos", "id": "x"}\n\n'
            '{"id": "y", "text": "Bad.", "label": "neg"}\n',
        ),
    ],
)
def test_custom_classification(tmp_path, name, text):
    expected = [TextExample("x", 'Good, "very" good.\nYes.', None, "pos"), TextExample("y", "Bad.", None, "neg")]
    examples = read_examples(TASKS["custom:classification"], "train", file=write(tmp_path / name, text))
    assert examples == expected
    assert label_names(TASKS["custom:classification"], examples) == ("neg", "pos")


def test_custom_tsv_has_no_quotes_and_windows_line_ends(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b'label\ttext\r\n1\t"Open.\r\n 0 \tsaid "yes"\r\n')
    examples = read_examples(TASKS["custom:classification"], "train", file=str(tmp_path / "a.tsv"))
    assert examples == [TextExample("0", '"Open.', None, "1"), TextExample("1", 'said "yes"', None, "0")]


def test_custom_csv_with_long_texts_and_old_line_ends(tmp_path):
    long = "word " * 100_000
    path = write(tmp_path / "a.csv", f"text,label\r{long},1\rb,2\r")
    examples = read_examples(TASKS["custom:classification"], "train", file=path)
    assert [(example.text, example.label) for example in examples] == [(long, "1"), ("b", "2")]


def test_a_file_for_a_task_without_header_may_have_one_of_its_own(tmp_path):
    path = write(tmp_path / "a.csv", "line,good\nWho.,1\n")
    examples = read_examples(TASKS["cola"], "train", file=path, text="line", label="good")
    assert examples == [TextExample("0", "Who.", None, "acceptable")]


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,c\nfirst,second,yes\nthird,fourth,no\n")
    expected = [TextExample("0", "first", "second", "yes"), TextExample("1", "third", "fourth", "no")]
    for name in ("custom:classification", "custom:pairs"):
        assert read_examples(TASKS[name], "train", file=path, text="a", text_pair="b", label="c") == expected


def test_a_column_of_second_texts_is_read_where_the_task_could_do_without(tmp_path):
    table = write(tmp_path / "a.csv", "text,text_pair,label\nA.,B.,1\n")
    singles = ('"text": "A.", ', '"text": "A.", "text_pair": null, ', '"text": "A.", "text_pair": "", ')
    lines = "".join(f'{{{texts}"label": 1}}\n' for texts in ('"text": "A.", "text_pair": "B.", ', *singles))
    lines = write(tmp_path / "a.jsonl", lines)
    for name in ("custom:classification", "custom:regression", "custom:multi_label"):
        (example,) = read_examples(TASKS[name], "train", file=table)
        assert example.text_pair == "B."
    examples = read_examples(TASKS["custom:regression"], "train", file=lines)
    assert [example.text_pair for example in examples] == ["B.", None, None, None]
    (example,) = read_examples(TASKS["custom:regression"], "train", file=table, text="text_pair")
    assert (example.text, example.text_pair) == ("B.", None)
    (review,) = read_examples(TASKS["imdb"], "train", file=write(tmp_path / "b.csv", "text,text_pair,label\nA.,B.,1\n"))
    assert review.text_pair is None  # a task of the table is what it is


def test_custom_labels_of_other_types_and_none(tmp_path):
    path = write(
        tmp_path / "a.jsonl", "".join(f'{{"text": "t", "label": {label}}}\n' for label in ("3", "true", '"3"'))
    )
    task = TASKS["custom:classification"]
    assert [example.label for example in read_examples(task, "train", file=path)] == ["3", "true", "3"]
    path = write(tmp_path / "a.csv", "text,label\na,-1\nb,1\n")
    assert [example.label for example in read_examples(task, "test", file=path)] == ["-1", "1"]  # not GLUE's -1
    for text in ("text\na\nb\n", "text,label\na,\nb,\n"):
        path = write(tmp_path / "a.csv", text)
        assert [example.label for example in read_examples(task, "test", file=path)] == [None, None]


def test_labels_given_by_number_in_a_file_for_a_task_of_the_table(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,negative\n")
    assert [example.label for example in read_examples(TASKS["imdb"], "train", file=path)] == ["positive", "negative"]


def test_custom_several_labels(tmp_path):
    task = TASKS["custom:multi_label"]
    expected = [("b", "a"), (), ("a",)]
    for name, text in {
        "a.csv": "text,label\nt,b; a;b\nu,\nv,a\n",
        "a.jsonl": '{"text": "t", "label": ["b", "a"]}\n{"text": "u", "label": []}\n{"text": "v", "label": "a"}\n',
    }.items():
        examples = read_examples(task, "train", file=write(tmp_path / name, text))
        assert [example.label for example in examples] == expected
        assert label_names(task, examples) == ("a", "b")


def test_custom_regression(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,-1\nb,2.5e-1\n")
    assert [example.label for example in read_examples(TASKS["custom:regression"], "test", file=path)] == [-1.0, 0.25]


def test_custom_tagging_takes_the_last_column_or_the_one_named(tmp_path):
    task = TASKS["custom:token_classification"]
    path = write(tmp_path / "a.conll", "1 New\u00a0York X LOC\n2 is Y O\n \n1 big Y O\n")
    by_number = read_examples(task, "train", file=path, text="2")
    assert by_number == [
        TokenClassificationExample("0", ("New\u00a0York", "is"), ("LOC", "O")),
        TokenClassificationExample("1", ("big",), ("O",)),
    ]
    assert read_examples(task, "train", file=path, label="3")[0].tags == ("X", "Y")
    path = write(tmp_path / "a.txt", "New York\tLOC\nis\tO\n")
    assert read_examples(task, "train", file=path) == [
        TokenClassificationExample("0", ("New York", "is"), ("LOC", "O"))
    ]
    path = write(tmp_path / "a.txt", "LOC Paris\nO is\n")
    assert read_examples(task, "train", file=path, text="2") == [
        TokenClassificationExample("0", ("Paris", "is"), ("LOC", "O"))
    ]
    path = write(tmp_path / "b.txt", "New\nYork\n")
    assert read_examples(task, "test", file=path) == [TokenClassificationExample("0", ("New", "York"), None)]


def test_custom_answering_and_choice(tmp_path):
    path = write(tmp_path / "a.json", FILES["squad/train-v2.0.json"])
    examples = read_examples(TASKS["custom:question_answering"], "train", file=path)
    assert examples == read_examples(TASKS["squad2"], "train", file=path)
    assert [example.answerable for example in examples] == [True, True, False]
    endings = "abcdefghijk"  # ending10 comes behind ending9, wherever its column is
    header = ",".join(["text", "ending10", "label", *(f"ending{number}" for number in range(10))])
    path = write(tmp_path / "a.csv", header + "\n" + ",".join(["It", "k", "1", *endings[:10]]) + "\n")
    assert read_examples(TASKS["custom:multiple_choice"], "train", file=path) == [
        MultipleChoiceExample("0", "It", tuple(endings), 1)
    ]


def test_questions_without_answers_are_for_the_test_split(tmp_path):
    asked = {"id": 7, "question": "Who?"}
    content = {"data": [{"paragraphs": [{"context": "Anna did.", "qas": [asked]}]}]}
    path = write(tmp_path / "a.json", json.dumps(content))
    expected = [QuestionAnsweringExample("7", "Who?", "Anna did.", (), True)]
    assert read_examples(TASKS["custom:question_answering"], "test", file=path) == expected


@pytest.mark.parametrize(
    ("answer", "start", "expected"),
    [
        ("be", 89, ("be", 88)),  # the nearer one of two in a word
        ("(C++ code)", 59, ("(C++  code)", 59)),
        ("Anna", 9, ("Anna", 10)),  # at the space before
        ("Anna", 11, ("Anna", 10)),  # within the first word, as in copies with a stripped context
        ("Anna went to", 10, ("Anna  went to", 10)),  # one space for two
        (" Anna ", 9, ("Anna", 10)),
        (" Anna", 10, ("Anna", 10)),
        ("May", 41, ("May", 41)),  # not the first one
        ("warm", 49, ("warm", 49)),
    ],
)
def test_answers_are_found_as_the_code_of_bert_finds_them(tmp_path, answer, start, expected):
    asked = {"id": "q", "question": "?", "answers": [{"text": answer, "answer_start": start}]}
    content = {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [asked]}]}]}
    (example,) = read_examples(TASKS["squad"], "train", file=write(tmp_path / "a.json", json.dumps(content)))
    assert example.answers == (expected,)
    assert all(CONTEXT.startswith(text, place) for text, place in example.answers)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("10", "9", "-1"), ("-1", "9", "10")),
        (("b", "10", "9"), ("10", "9", "b")),
        (("nan", "2", "10"), ("10", "2", "nan")),
    ],
)
def test_found_label_names_are_sorted_numbers_by_number(labels, names):
    train = [TextExample(str(number), "t", None, label) for number, label in enumerate(labels)]
    assert label_names(TASKS["custom:classification"], train) == names


def test_label_names_of_the_table_and_of_tasks_without():
    train = [TextExample("0", "t", None, "neutral"), TextExample("1", "t", None, "entailment")]
    assert label_names(TASKS["mnli"], train) == ("entailment", "neutral", "contradiction")
    assert label_names(TASKS["squad"], [QuestionAnsweringExample("0", "?", "c", (), False)]) == ()
    assert label_names(TASKS["swag"], [MultipleChoiceExample("0", "t", ("a", "b"), 0)]) == ()
    assert label_names(TASKS["stsb"], [TextExample("0", "t", "u", 1.0), TextExample("1", "t", "u", 0.5)]) == ()
    tagged = [
        TokenClassificationExample("0", ("w", "v"), ("O", "B-PER")),
        TokenClassificationExample("1", ("w",), ("B-ORG",)),
    ]
    assert label_names(TASKS["custom:token_classification"], tagged) == ("B-ORG", "B-PER", "O")


def test_secret_labels_in_copies_of_glue(tmp_path):
    path = write(tmp_path / "test.tsv", "sentence\tlabel\nx\t-1\n")
    assert read_examples(TASKS["sst2"], "test", file=path) == [TextExample("0", "x", None, None)]


def test_half_characters_from_json_are_replaced(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "\\ud83d!", "label": "a"}\n')
    assert read_examples(TASKS["custom:classification"], "train", file=path)[0].text == "\ufffd!"
