"""What predict.py is asked: columns of tables are those of their names, and one bad row leaves the others answered."""

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import threading

import pyarrow
import pyarrow.parquet
import pytest
from helpers.fine_tuned import fine_tuned

from bert_jax.config import HeadSettings, TaskDataConfig
from bert_jax.errors import UserError
from bert_jax.inference import lines
from bert_jax.inference.evaluate import evaluate_task
from bert_jax.inference.inputs import opened_inputs

CLASSIFY, ANSWER, FILL_MASK = (lines.LINE_TASKS[name] for name in ("classify", "answer", "fill-mask"))
OBJECTS = [{"id": 7, "text": "the film", "label": 1}, {"id": 8, "text": "was bad", "label": 0}]
ROWS = [("the film", 7), ("was bad", 8)]


def asked(path, task=CLASSIFY, json_lines=None, **columns):
    with opened_inputs(task, str(path), json_lines, columns) as inputs:
        return list(inputs)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_tables_of_all_kinds_ask_the_same(tmp_path, name, pack):
    separated = "id{0}text{0}label\n7{0}the film{0}1\n8{0}was bad{0}0\n"
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(OBJECTS), parquet)
    objects = "".join(json.dumps(each) + "\n" for each in OBJECTS)
    contents = {
        "a.csv": separated.format(",").encode(),
        "a.tsv": separated.format("\t").encode(),
        "a.jsonl": objects.encode(),
        "a.json": json.dumps(OBJECTS).encode(),
        "a.parquet": parquet.getvalue(),
        "a": objects.encode(),
    }
    extension = {bytes: "", gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}[pack]
    found = asked(written(tmp_path, name + extension, pack(contents[name])))
    assert [(each.fields["text"], int(each.id["id"])) for each in found] == ROWS
    assert all(set(each.fields) == {"text"} for each in found)


@pytest.mark.parametrize(
    ("content", "columns", "fields"),
    [
        ("text\ttext_pair\tlabel\na\tb\t1\nc\t\t0\n", {}, [{"text": "a", "text_pair": "b"}, {"text": "c"}]),
        ("label\treview\n1\ta\n", {"text": "review"}, [{"text": "a"}]),
        ("x\ty\na\tb\n", {"text": "y", "text_pair": "x"}, [{"text": "b", "text_pair": "a"}]),
    ],
)
def test_columns(tmp_path, content, columns, fields):
    assert [each.fields for each in asked(written(tmp_path, "a.tsv", content), **columns)] == fields


@pytest.mark.parametrize(
    ("content", "task", "fields"),
    [
        ("sentence\tlabel\na\t1\n", CLASSIFY, {"text": "a"}),
        ("index\tsentence1\tsentence2\tlabel\n5\ta\tb\t1\n", CLASSIFY, {"text": "a", "text_pair": "b"}),
        ("question\tsentence\na\tb\n", CLASSIFY, {"text": "a", "text_pair": "b"}),
        ("index\tsentence\n5\ta\n", FILL_MASK, {"text": "a"}),
    ],
)
def test_columns_of_published_tasks_are_found_and_told(tmp_path, content, task, fields):
    with pytest.warns(UserWarning, match="text is '"):
        (found,) = asked(written(tmp_path, "a.tsv", content), task)
    assert found.fields == fields


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "review\tstars\na\tb\n", {}, "has no column 'text': choose one of 'review', 'stars' with --text"),
        ("a.csv", "review,stars\na,b\n", {"text": "revew"}, r"has no column 'revew': did you mean 'review'\?"),
        ("a.csv", "text,label\na,b\n", {"text_pair": "second"}, "has no column 'second': choose one of"),
        ("a.csv", "text,label\n", {}, "has no rows"),
        ("a.txt", "a\n", {"text": "review"}, "lines have no columns: leave --text out"),
    ],
)
def test_columns_that_are_not_there(tmp_path, name, content, columns, message):
    with pytest.raises(UserError, match=message):
        asked(written(tmp_path, name, content), **columns)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.txt.gz"])
def test_a_text_that_begins_with_names_is_a_table(tmp_path, name):
    def fields(content, **columns):
        content = gzip.compress(content.encode()) if name.endswith(".gz") else content
        return [each.fields for each in asked(written(tmp_path, name, content), **columns)]

    assert fields("text\tlabel\na film\t1\n") == [{"text": "a film"}]
    assert fields("stars\tReview\n5\ta film\n", text="Review") == [{"text": "a film"}]
    assert fields("Question, who?\na film\n") == [{"text": "Question, who?"}, {"text": "a film"}]
    if name == "a":
        assert fields("label,text\n1,a film\n") == [{"text": "a film"}]
    else:
        with pytest.raises(UserError, match="is ',' what parts its columns"):
            fields("label,text\n1,a film\n")


def test_a_tsv_without_names_is_told_and_loses_no_row(tmp_path):
    with pytest.warns(UserWarning, match=r"a\.tsv does not name its columns question and context"):
        found = asked(written(tmp_path, "a.tsv", "who?\tthe actor\nwhy\n"), ANSWER)
    assert found[0].fields == {"question": "who?", "context": "the actor"}
    assert "found 0 tabs" in str(found[1].fields)
    with pytest.warns(UserWarning, match="column 1 is 'text'"):
        found = asked(written(tmp_path, "a.tsv", "the film\t1\nwas bad, very bad\t0\nthe\t1\n"))
    assert [each.fields["text"] for each in found] == ["the film", "was bad, very bad", "the"]


def test_a_bad_row_leaves_the_others_answered(tmp_path):
    found = asked(written(tmp_path, "a.csv", "text,label\na,1\nb,c,2\n\n ,0\nd\n"))
    assert [each.place for each in found] == ["line 2", "line 3", "line 5", "line 6"]
    assert [str(found[1].fields), str(found[2].fields)] == [
        "1 more fields than columns: is there a separator within a text?",
        "the text is empty",
    ]
    assert [found[0].fields, found[3].fields] == [{"text": "a"}, {"text": "d"}]


def test_what_can_be_read_before_an_error_is_answered(tmp_path):
    path = written(tmp_path, "a.csv", 'text\na\nb\n"c\n')
    target = io.StringIO()
    with opened_inputs(FILL_MASK, str(path), None, {}) as inputs, pytest.raises(UserError, match="line 4"):
        lines.predict_lines(lambda records, progress: [{"n": each} for each in records], inputs, target, window=9)
    assert [json.loads(line)["n"]["text"] for line in target.getvalue().splitlines()] == ["a", "b"]


def test_ids_come_back_as_json_can_write_them(tmp_path):
    objects = r'{"id": {"\ud83d": ["\ud83d"]}, "text": "a"}' + '\n{"index": 5, "text": "a"}\n{"text": "a"}\n'
    found = asked(written(tmp_path, "a.jsonl", objects))
    assert [each.id for each in found] == [{"id": {"\ufffd": ["\ufffd"]}}, {"id": 5}, {}]
    table = pyarrow.table({"idx": pyarrow.array([86_400_000], pyarrow.timestamp("ms")), "text": ["a"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert asked(tmp_path / "a.parquet")[0].id == {"id": "1970-01-02 00:00:00"}


def test_deep_json_in_a_line(tmp_path):
    deep = '{"id": ' + "[" * 990 + "]" * 990 + ', "text": "a"}\n'
    found = asked(written(tmp_path, "a.jsonl", deep + '{"text": "b"}\n{"text": "c", "text": "d"}\n'))
    assert "nested deeper" in str(found[0].fields)
    assert found[1].fields == {"text": "b"}
    assert "two values of one name: 'text'" in str(found[2].fields)


def test_a_pipe_is_read_as_it_comes_and_a_folder_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("the film\nbad\n"))
    writer.start()
    assert [each.fields["text"] for each in asked(tmp_path / "pipe")] == ["the film", "bad"]
    writer.join()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="a pipe, a device or a socket"):
        asked(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="folder"):
        asked(tmp_path)


# ---- what the model was trained on ---------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return fine_tuned("classification", ("no", "yes"))


@pytest.mark.parametrize(
    ("trained", "asked_of", "fault"),
    [
        ("single", ("a", "b"), "was trained on single texts"),
        ("pairs", "a", "was trained on pairs"),
        ("single", "a", None),
        ("pairs", ("a", "b"), None),
        ("both", ("a", "b"), None),
        ("both", "a", None),
        ("", "a", None),
    ],
)
def test_a_model_says_when_it_is_asked_of_what_it_was_not_trained_on(model, trained, asked_of, fault, recwarn):
    model.settings = HeadSettings(inputs=trained)
    if fault:
        with pytest.raises(UserError, match=fault):
            model.classify([asked_of])
    else:
        assert model.classify([asked_of])[0].label in ("no", "yes")
    assert not recwarn.list


def test_a_model_that_does_not_know_warns_of_pairs(model):
    model.settings = HeadSettings()
    with pytest.warns(UserWarning, match="does not tell whether it was trained on pairs"):
        model.classify([("a", "b")])


def test_a_model_of_single_texts_is_not_scored_on_pairs(model, tmp_path):
    model.settings = HeadSettings(inputs="single")
    data = TaskDataConfig(test=str(written(tmp_path, "a.csv", "text,text_pair,label\na,b,no\nc,,yes\n")))
    with pytest.raises(UserError, match=r"a\.csv: the model was trained on single texts"):
        evaluate_task(model, "custom:classification", "test", data, tmp_path / "out")


# ---- output that is stopped ----------------------------------------------------------------------


def test_what_was_answered_stays_when_the_writer_is_stopped(tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    write = functools.partial(print, '{"value": 1}')
    writer = lines.opened_output(str(output))
    write(file=writer.__enter__())
    assert not writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert (tmp_path / "out.jsonl.partial").read_text() == '{"value": 1}\n'
    assert f"1 lines, is in {output}.partial" in capsys.readouterr().err
    assert not output.exists()
    with lines.opened_output(str(output)) as file:
        write(file=file)
    assert output.read_text() == '{"value": 1}\n'
    with pytest.raises(UserError, match="stopped early"), lines.opened_output(str(tmp_path / "b")):
        raise UserError("stopped early")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.partial"]


def test_a_file_of_the_name_of_a_partial_output_is_not_overwritten(tmp_path):
    (tmp_path / "out.partial").write_text("my own")
    with pytest.raises(UserError, match=r"out\.partial is there"), lines.opened_output(str(tmp_path / "out")):
        pass
    assert (tmp_path / "out.partial").read_text() == "my own"


def test_an_answer_that_is_not_finite_is_an_error_in_its_place():
    inputs = iter([lines.Input(f"line {number}", {"id": number}, {"text": "a"}) for number in (1, 2, 3)])
    target = io.StringIO()
    answers = [{"score": 0.5}, {"ranked": [{"score": float("nan")}]}, {"score": float("inf")}]
    assert lines.predict_lines(lambda records, progress: answers[: len(records)], inputs, target, window=9) == 2
    found = [json.loads(line) for line in target.getvalue().splitlines()]
    assert [each["id"] for each in found] == [1, 2, 3]
    assert found[0]["score"] == 0.5
    assert found[1]["error"].startswith("line 2: a result is not a finite number")
    assert found[2]["error"].startswith("line 3: a result is not a finite number")
