"""Tags as files have them: white space around them, strays among thousands, in columns and in records alike."""

import bz2
import dataclasses
import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.data import read_examples
from bert_jax.tasks.table import TASKS

TASK = TASKS["custom:token_classification"]
WORDS = [["Jane", "Roe", "saw", "Rome"], ["Rome", "fell"]]
TAGS = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]


def write(path, tags, separator=" ", end=""):
    """The sentences fifty times, with the given tags in the first two."""
    sentences = [(words, tags if number < 1 else TAGS) for number in range(50) for words in [WORDS]]
    flat = [pair for words, names in sentences for pair in zip(words, names, strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"tokens": words, "tags": names}) + "\n" for words, names in flat))
    elif path.suffix == ".parquet":
        table = {"tokens": [words for words, _ in flat], "tags": [names for _, names in flat]}
        pyarrow.parquet.write_table(pyarrow.table(table), path)
    else:
        lines = ("".join(f"{word}{separator}{tag}{end}\n" for word, tag in zip(*each, strict=True)) for each in flat)
        path.write_text("\n".join(lines), encoding="utf-8")
    return read_examples(TASK, "train", file=str(path))


def sentences(examples):
    return [list(example.words) for example in examples[:2]], [list(example.tags) for example in examples[:2]]


def test_records_are_known_by_what_is_in_the_file(tmp_path):
    write(tmp_path / "a.jsonl", TAGS)
    for name in ("b", "b.ndjson", "b.jsonl.bz2"):
        content = (tmp_path / "a.jsonl").read_bytes()
        (tmp_path / name).write_bytes(bz2.compress(content) if name.endswith("bz2") else content)
        assert sentences(read_examples(TASK, "train", file=str(tmp_path / name))) == (WORDS, TAGS)


@pytest.fixture(params=["a.txt", "a.jsonl", "a.parquet"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.mark.parametrize(
    ("separator", "end"), [("\t", ""), ("\t", "\t"), ("\t", " "), (" ", " "), (" ", "\u00a0"), ("\t", "\u200b\t")]
)
def test_white_space_around_a_tag_is_no_part_of_it_in_columns(separator, end, tmp_path):
    assert sentences(write(tmp_path / "a.txt", TAGS, separator, end)) == (WORDS, TAGS)


@pytest.mark.parametrize("space", [" ", "\t", "\u00a0", "\ufeff"])
def test_white_space_around_a_tag_is_no_part_of_it_in_records(space, path):
    spaced = [[f"{space}{tag}{space}" for tag in names] for names in TAGS]
    if path.suffix != ".txt":
        assert sentences(write(path, spaced)) == (WORDS, TAGS)


def test_some_lines_with_a_tab_at_their_end(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("Jane\tB-PER\t\nRoe\tI-PER\nsaw\tO\t\t\n")
    (example,) = read_examples(TASK, "train", file=str(file))
    assert example.tags == ("B-PER", "I-PER", "O")


def test_a_stray_spelling_is_read_as_the_usual_one_and_said(path, capsys):
    assert sentences(write(path, [["b-PER", "I-per", "o", "B-LOC"], ["B-LOC", "o"]])) == (WORDS, TAGS)
    said = capsys.readouterr().out
    assert "tag 'I-per' (1 times, " in said
    place = {".txt": ("line 3", "line 1"), ".jsonl": ("line 1", "line 1"), ".parquet": ("row 1", "row 1")}[path.suffix]
    assert f"{path}: tag 'o' (2 times, first at {place[0]}) is read as 'O'" in said
    assert f"{path}: tag 'b-PER' (1 times, first at {place[1]}) is read as 'B-PER'" in said


def test_a_type_has_one_spelling_behind_all_letters(path, capsys):
    assert sentences(write(path, [["B-per", "I-PER", "O", "b-Loc"], ["B-LOC", "O"]])) == (WORDS, TAGS)
    said = capsys.readouterr().out
    assert "tag 'B-per' (1 times" in said
    assert "tag 'b-Loc' (1 times" in said
    path.with_name("a.txt").write_text("a Per-B\nb PER-I\nc O\nd LOC-B\ne PER-B\nf PER-I\n")
    (example,) = read_examples(TASK, "train", file=str(path.with_name("a.txt")))
    assert example.tags == ("PER-B", "PER-I", "O", "LOC-B", "PER-B", "PER-I")


@pytest.mark.parametrize("stray", ["PER", "B_PER", "0", "X-PER", "-PER", "BPER"])
def test_a_tag_of_no_scheme_among_many_is_refused_with_its_place(stray, path):
    place = {".txt": "line 6", ".jsonl": "line 2", ".parquet": "row 2"}[path.suffix]
    message = f"{path}: tags are BIO (B-, I-, O), but not {stray!r} (1 times, first at {place}): mend these"
    with pytest.raises(UserError, match=re.escape(message)):
        write(path, [TAGS[0], [stray, "O"]])


def test_a_column_that_holds_no_tags(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("\n".join(f"word{number} NN" for number in range(200)) + "\nx \"\ny ''\n")
    with pytest.raises(UserError, match="column 1 is that of the words"):
        read_examples(TASK, "train", file=str(file), label="1")
    words = read_examples(TASK, "train", file=str(file), text="2", label="1")
    with pytest.raises(UserError, match=r"column '1' has 202 different labels in 202 examples"):
        TASK.kind.label_names(dataclasses.replace(TASK, label="1"), words, str(file))
    assert TASK.kind.label_names(TASK, read_examples(TASK, "train", file=str(file)), str(file)) == ('"', "''", "NN")
    file.write_bytes(b"a\tB-X\rb\tO\r\rc\tO\r")
    with pytest.raises(UserError, match="line 1 has a carriage return within"):
        read_examples(TASK, "train", file=str(file))


def test_parts_of_speech_are_left_alone(tmp_path, capsys):
    file = tmp_path / "a.txt"
    file.write_text("a DT\nb dt\nc NN\n")
    assert read_examples(TASK, "train", file=str(file))[0].tags == ("DT", "dt", "NN")
    assert not capsys.readouterr().out


def test_a_test_file_of_records_may_have_no_tags(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"words": WORDS[0]}) + "\n")
    (example,) = read_examples(TASK, "test", file=str(file))
    assert (example.words, example.tags) == (tuple(WORDS[0]), None)
