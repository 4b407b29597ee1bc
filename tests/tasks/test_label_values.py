"""What is a label, and what is none: the same in every kind of file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_jax.config import TaskDataConfig
from bert_jax.errors import UserError
from bert_jax.tasks.data import read_examples, read_splits
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.labels import in_words_of, rows_of_head
from bert_jax.tasks.table import task_named


def labels_in(tmp_path, kind, values, form="jsonl", split="train", **columns):
    """Reads a file whose rows have these labels; a dict is all the cells beside the text."""
    rows = [
        {"text": f"text {number}"} | (value if columns else {"label": value}) for number, value in enumerate(values)
    ]
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = read_examples(task_named(f"custom:{kind}"), split, file=str(path), **columns)
    return [example.label for example in examples]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1.0", "1"),
        (" 1 ", "1"),
        (-0.0, "0"),
        (1.5, "1.5"),
        ("+1", "1"),
        ("1.50", "1.5"),
        ("-0.0", "0"),
        ("007", "007"),
        (1e16, "10000000000000000"),
        (True, "true"),
        ("True", "true"),
        ("pos\u00a0", "pos"),
        ("\u200bpos\ufeff", "pos"),
        ("pos \u200b\u200e", "pos"),
        ("New\u00a0 York", "New York"),
        ("cafe\u0301", "caf\u00e9"),
        ("none", "none"),
        ("(other)", "(other)"),
        ("f(x)", "f(x)"),
    ],
)
def test_a_class_has_one_name(tmp_path, value, name):
    assert labels_in(tmp_path, "classification", [value]) == [name]


@pytest.mark.parametrize(
    "value", [None, float("nan"), "NaN", "nan", "-nan", "<NA>", "", "\u00a0", "\u200b", "\ufeffnan"]
)
def test_no_label_is_no_class(tmp_path, value):
    assert labels_in(tmp_path, "classification", [value], split="test") == [None]
    with pytest.raises(UserError, match="line 2: 'label' has no label"):
        labels_in(tmp_path, "classification", ["a", value])


@pytest.mark.parametrize(
    "value", [float("inf"), "-Infinity", ["a"], {"a": 1}, "['a']", "[1, 0]", "[1 0]", "{'a'}", "array([1, 0])"]
)
def test_what_is_no_label_is_refused(tmp_path, value):
    with pytest.raises(UserError, match="line 1: 'label' is"):
        labels_in(tmp_path, "classification", [value])


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a;b", ("a", "b")),
        (" b ; a;", ("b", "a")),
        ("a|b", ("a", "b")),
        ("['a', 'b']", ("a", "b")),
        ('["a, c", "b"]', ("a, c", "b")),
        ("[]", ()),
        ("", ()),
        ([], ()),
        (["a", "a"], ("a",)),
        ([2.0, 3], ("2", "3")),
        ({"a": 1, "b": 0}, ("a",)),
        ("0;1", ("0", "1")),
    ],
)
def test_several_labels(tmp_path, value, names):
    assert labels_in(tmp_path, "multi_label", [value]) == [names]


def test_vectors_name_places(tmp_path):
    assert labels_in(tmp_path, "multi_label", [[1, 0, 1], [0, 0, 0]]) == [("0", "2"), ()]
    assert labels_in(tmp_path, "multi_label", [[1, 0, 1], [0, 1, 0]], "parquet") == [("0", "2"), ("1",)]
    assert labels_in(tmp_path, "multi_label", ["[1 0 1]", "[0. 0. 1.]"]) == [("0", "2"), ("2",)]
    assert labels_in(tmp_path, "multi_label", [[0, 1], [1, 1]]) == [("1",), ("0", "1")]
    assert labels_in(tmp_path, "multi_label", [[True, False, True]]) == [("0", "2")]
    assert labels_in(tmp_path, "multi_label", [[True, False]]) == [("0",)]
    assert labels_in(tmp_path, "multi_label", ["1;0;1", "1|0|0", "0 0 1"]) == [("0", "2"), ("0",), ("2",)]
    for rows in (["1,0,1", "0,0,1"], ["1.0 0.0 1.0", "0 0 1"], ["[True False True]", "False False True"]):
        assert labels_in(tmp_path, "multi_label", rows) == [("0", "2"), ("2",)]
    assert labels_in(tmp_path, "multi_label", [[0, 1], [2]]) == [("0", "1"), ("2",)]  # numbers of classes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0, 1], [1, 0]], "a vector of two classes, or two names"),
        ([[0, 0, 1], [1, 1]], r"vectors of \[2, 3\] classes"),
        ([[0, 0, 1], ["a"]], "beside lists of names"),
        (["a, b"], "one label or several"),
        (["a|b;c"], "one label or several"),
        (["['a' 'b']"], "looks like a list"),
        (["frozenset({'a'})"], "looks like a list"),
        (["['a', 'b"], "looks like a list"),
        ([[1, 0, None]], "a vector with a gap"),
        (["[a, b]"], "looks like a list"),
        ([{"a": 2}], "'a' is 2, and 1"),
        ([[0.9, 0.1]], "labels are no fractions"),
        ([5], "not a list of labels but a int"),
        (["1", "0"], "every label is 0 or 1"),
        ([[1], [0], []], "every label is 0 or 1"),
        ([["a", ["b"]]], "not one label but a list"),
    ],
)
def test_several_labels_that_can_be_read_in_two_ways(tmp_path, values, words):
    with pytest.raises(UserError, match=words):
        labels_in(tmp_path, "multi_label", values)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["a/b", "a", "b"], "'a/b' seems to be several labels"),
        (["a and b", "and", "a", "b"], "'a and b' seems to be several labels"),
        (["a\uff1bb", "b\uff1bc", "c\uff1ba"], "'a\uff1bb' seems to be several labels"),
        (["101", "010"], "'010' seems to be a vector"),
        (["1-0", "0-1", "0-0"], "'0-0' seems to be a vector"),
    ],
)
def test_labels_that_another_mark_parts(tmp_path, cells, words):
    task = task_named("custom:multi_label")

    def names(cells):
        examples = [TextExample("", "", None, label) for label in labels_in(tmp_path, "multi_label", cells)]
        return task.kind.label_names(task, examples, "file")

    with pytest.raises(UserError, match=words):
        names(cells)
    assert len(names([*cells, "a;d"])) > len(cells)  # then these are names
    assert len(names([[cell] for cell in cells])) == len(cells)
    with pytest.warns(UserWarning, match="no example has two labels"):
        assert names(["sci-fi", "10", "11"]) == ("10", "11", "sci-fi")


def test_columns_of_zeros_and_ones(tmp_path):
    rows = [{"toxic": 0, "insult": 1}, {"toxic": 1.0, "insult": True}, {"toxic": 0, "insult": 0}]
    assert labels_in(tmp_path, "multi_label", rows, label="toxic,insult") == [("insult",), ("toxic", "insult"), ()]
    with pytest.raises(UserError, match="line 1: 'insult' is 3, and 1"):
        labels_in(tmp_path, "multi_label", [{"toxic": 0, "insult": 3}], label="toxic,insult")


def test_columns_of_a_test_file_without_labels_are_blank_or_not_there(tmp_path):
    for rows in ([{"toxic": "", "insult": None}] * 2, [{}] * 2):
        assert labels_in(tmp_path, "multi_label", rows, split="test", label="toxic,insult") == [None, None]
    for row, words in (({"toxic": 1}, "no column 'insult'"), ({"toxic": 1, "insult": ""}, "'insult' is ''")):
        with pytest.raises(UserError, match=words):
            labels_in(tmp_path, "multi_label", [row], split="test", label="toxic,insult")
    with pytest.raises(UserError, match="'toxic' is ''"):
        labels_in(tmp_path, "multi_label", [{"toxic": "", "insult": ""}], label="toxic,insult")


@pytest.mark.parametrize(
    ("train", "validation"),
    [([[0, 1], [1, 0], [1, 1]], [[0, 1], [1, 0]]), ([[1, 0], [0, 1]], [[True, True], [True, False]])],
)
def test_what_vectors_are_all_files_of_a_run_tell(tmp_path, train, validation):
    def files(**labels):
        paths = {split: tmp_path / f"{split}.jsonl" for split in labels}
        for split, path in paths.items():
            path.write_text("".join(json.dumps({"text": "a", "label": each}) + "\n" for each in labels[split]))
        config = TaskDataConfig(**{split: str(path) for split, path in paths.items()})
        read = read_splits(task_named("custom:multi_label"), list(paths), config)
        return {split: [example.label for example in examples] for split, examples in read.items()}

    names = {(0, 1): ("1",), (1, 0): ("0",), (1, 1): ("0", "1")}
    read = files(train=train, validation=validation)
    assert read == {
        "train": [names[tuple(each)] for each in train],
        "validation": [names[tuple(each)] for each in validation],
    }
    with pytest.raises(UserError, match=r"train\.jsonl, .*validation\.jsonl: .* vectors of \[2, 3\] classes"):
        files(train=[*train, [1, 1]], validation=[[1, 0, 1]])
    with pytest.raises(UserError, match=r"train\.jsonl, .*validation\.jsonl: .* beside lists of names"):
        files(train=[*train, [1, 1]], validation=[["0"], ["1"]])


def test_a_column_that_holds_no_classes():
    task = task_named("custom:classification")

    def names(labels):
        examples = [TextExample(str(number), "text", None, label) for number, label in enumerate(labels)]
        return task.kind.label_names(task, examples, "file")

    with pytest.raises(UserError, match=r"60 different .* such as '0\.5': regression learns numbers"):
        names(f"{number}.5" for number in range(60))
    with pytest.warns(UserWarning, match="is it the right column"):
        names(str(number % 60) for number in range(200))
    with pytest.warns(UserWarning, match="differ in case or spelling only, and are classes apart: Pos, pos"):
        names(["Pos", "pos", "neg"])
    for alike in (["1", "\uff11"], ["1000", "1e3"], [".5", "0.5"], ["'a'", "a"], ["a_b", "a b"], ["ab", "a\u00adb"]):
        with pytest.warns(UserWarning, match="differ in case or spelling only"):
            names([*alike, "c"])
    with pytest.warns(UserWarning, match="'NA' is taken for a class"):
        names(["NA", "pos"])


def test_endings_are_numbered_from_0(tmp_path):
    row = {"ending0": "a", "ending1": "b"}
    assert labels_in(tmp_path, "multiple_choice", [row | {"label": "1.0"}, row | {"label": 0}], text="text") == [1, 0]
    for label in ("A", "2", -1):
        with pytest.raises(UserError, match="not the number of an ending, 0 to 1"):
            labels_in(tmp_path, "multiple_choice", [row | {"label": label}], text="text")


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (("pos", "neg"), [1, 0]),
        (("Pos\u00a0", "NEG"), [1, 0]),
        (("Pos", "NEG"), [1, 0]),
        (("pos", "neg", "neutral"), None),
        (("spam", "ham"), None),
        (("neg", "Neg"), None),
    ],
)
def test_rows_of_a_head_follow_names(labels, rows):
    assert rows_of_head(("neg", "pos"), labels) == rows


def test_numbers_are_one_name_in_a_head_of_a_former_version():
    assert rows_of_head(("0", "1"), ("1.0", "0.0")) == [1, 0]
    assert in_words_of((), ("1.0", "0.0"), "custom:classification") == ("1", "0")


@pytest.mark.parametrize(("numbers", "missing"), [((1, 2), 0), ((0, 1, 3), 2), ((0, 2), 1)])
def test_endings_have_numbers_without_gaps(tmp_path, numbers, missing):
    row = {f"ending{number}": "a" for number in numbers} | {"label": 1}
    with pytest.raises(UserError, match=f"has no column 'ending{missing}'"):
        labels_in(tmp_path, "multiple_choice", [row], text="text")


def test_endings_that_are_counted_from_1_are_told(tmp_path):
    rows = [{"ending0": "a", "ending1": "b", "ending2": "c", "label": 1 + number % 2} for number in range(20)]
    with pytest.warns(UserWarning, match="no ending0 is ever right"):
        labels_in(tmp_path, "multiple_choice", rows, text="text")
