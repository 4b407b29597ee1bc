"""A file reads the same for pre-training and for fine-tuning: the same texts, or the same error."""

import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest
from toy_reviews.toy_reviews_dataset_builder import TEXTS

from bert_jax.errors import UserError
from bert_jax.tasks.data import read_examples
from bert_jax.tasks.table import TASKS
from bert_jax.text import lines
from bert_jax.text.cleaning import Cleaning
from bert_jax.text.sources import TextSource, read_documents
from bert_jax.text.tables import read_records, read_rows
from bert_jax.text.tfds import tfds_records

NONE = Cleaning(
    html_tags=False,
    html_entities=False,
    control_characters=False,
    unicode_form="",
    letters=False,
    drop_duplicates=False,
)
ROWS = "".join(f"{'x' * 40} number {i}.,{i % 2}\n" for i in range(1_000))

TEXTS_OF = {
    "plain.csv": ("text,label\na,1\nb,0\n", ["a", "b"]),
    "mark.csv": ("\ufefftext,label\na,1\nb,0\n", ["a", "b"]),
    "mark.tsv": ("\ufefftext\tlabel\na\t1\nb\t0\n", ["a", "b"]),
    "lines.ndjson": ('{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', ["a", "b"]),
    "mark.jsonl": ('\ufeff{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', ["a", "b"]),
    "windows.csv": ("text,label\r\na,1\r\nb,0\r\n", ["a", "b"]),
    "windows.tsv": ("text\tlabel\r\na\t1\r\nb\t0\r\n", ["a", "b"]),
    "macintosh.csv": ('text,label\ra,1\r"b\rc",0\r', ["a", "b\rc"]),
    "blank.csv": ("text,label\n\na,1\n\n\nb,0\n\n", ["a", "b"]),
    "blank.tsv": ("text\tlabel\n\na\t1\n\r\nb\t0", ["a", "b"]),
    "quotes.csv": ('text,label\n"a ""b"", c",1\n"d\ne\r\nf\rg",0\nit"s,1\n', ['a "b", c', "d\ne\r\nf\rg", 'it"s']),
    "long_quote.csv": ('text,label\n"' + "a, b\nc\n" * 30 + 'd",1\ne,0\n', ["a, b\nc\n" * 30 + "d", "e"]),
    "quotes.tsv": ('text\tlabel\n"a\t1\nb "c" d\t0\n', ['"a', 'b "c" d']),
    "return.tsv": ("text\tlabel\na\rb\t1\nc\t0\n", ["a\rb", "c"]),
    "separators.csv": ("text,label\na\u2028b\x0bc\x85d,1\ne,0\n", ["a\u2028b\x0bc\x85d", "e"]),
    "separators.tsv": ("text\tlabel\na\u2028b\x0bc\x85d\t1\ne\t0\n", ["a\u2028b\x0bc\x85d", "e"]),
    "separators.jsonl": ('{"text": "a\u2028b", "label": 1}\n \n{"text": "c", "label": 0}\n', ["a\u2028b", "c"]),
    "nul.csv": ("text,label\na\0b,1\nc,0\n", ["a\0b", "c"]),
    "surplus_columns.csv": ("text,label,,\na,1,,\nb,0,,\n", ["a", "b"]),
}

ERRORS_OF = {
    "never_closed.csv": (
        "text,label\n" + ROWS.replace("x", '"', 1),
        "line 2: unexpected end of data (a quote that is never closed, or not doubled?)",
    ),
    "closed_later.csv": (
        'text,label\nfirst,1\n"second\n\nline,1\n' + ROWS.replace(" number 499", '" number 499'),
        "line 3: ',' expected after '\"' (a quote that is never closed, or not doubled?)",
    ),
    "closed_before_a_comma.csv": (
        "text,label\n" + ROWS.replace("x", '"', 1).replace(" number 499.", ' number 499."'),
        "line 2: a quoted text goes on to line 501, and what is in it looks like rows of their own",
    ),
    "backslash.csv": ('text,label\n"A \\"good\\" film.",1\n', "line 2: ',' expected after '\"'"),
    "return.csv": ("text,label\na,1\nb\rc,0\n", "line 3: a carriage return outside quotes"),
    "macintosh.tsv": ("text\tlabel\ra\t1\rb\t0\r", "line 1 has a carriage return within a column's name"),
    "twice.csv": ("text,label,text\na,1,b\n", "line 1 has 2 columns named 'text'"),
    "twice.tsv": ("label\ttext\tlabel\na\t1\tb\n", "line 1 has 2 columns named 'label'"),
    "twice.jsonl": ('{"text": "a", "label": 1, "text": "b"}\n', "line 1 has 2 columns named 'text'"),
    "twice_within.jsonl": ('{"text": "a", "label": {"b": 1, "b": 2}}\n', "line 1 has 2 columns named 'b'"),
    "surplus.csv": ("text,label\na, b,1\n", "line 2 has 3 fields, but there are 2 columns"),
    "surplus.tsv": ("text\tlabel\na\tb\t1\n", "line 2 has 3 fields, but there are 2 columns"),
    "short.csv": ('label,text\n1,"a\nb"\n\n0\n', "line 5 has 1 fields, but column 'text' is number 2"),
    "short.tsv": ("label\ttext\n1\ta\n0\n", "line 3 has 1 fields, but column 'text' is number 2"),
    "latin.csv": (b"text,label\na,1\ncaf\xe9,0\n", "is not UTF-8: line 3, byte offset 18 is 0xe9; convert the file"),
    "latin.tsv": (b"text\tlabel\ncaf\xe9\t0\n", "is not UTF-8: line 2, byte offset 14 is 0xe9; convert the file"),
    "latin.jsonl": (b'{"text": "\xff"}', "is not UTF-8: line 1, byte offset 10 is 0xff; convert the file"),
    "utf16.csv": ("text,label\na,1\n".encode("utf-16"), "is not UTF-8: line 1, byte offset 0 is 0xff"),
    "torn.jsonl": ('{"text": "a", "label": 1}\n\n{"text":\n', "line 3 is not a JSON object"),
    "list.jsonl": ('["a"]\n', "line 1 is not a JSON object but a list"),
    "deep.jsonl": ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1 is not a JSON object"),
    "number.jsonl": ('{"text": 5, "label": 1}\n', "line 1: 'text' is not a text but a int"),
    "column.jsonl": ('{"body": "a", "label": 1}\n', "line 1 has no column 'text': choose one of 'body', 'label' with "),
    "column.csv": ("body,label\na,1\n", "has no column 'text': choose one of 'body', 'label' with "),
    "index.csv": (",body\n1,a\n", "has no column 'text': choose one of '', 'body' with "),
    "semicolon.csv": ("text;label\na;1\n", "has no column 'text' (is ';' what parts its columns?"),
    "long.csv": ("text,label\n" + "x" * 70_000, "line 2 is longer than"),
    "long.tsv": ("text\tlabel\n" + "x" * 70_000, "line 2 is longer than"),
    "long.jsonl": ('{"text": "' + "x" * 70_000, "line 1 is longer than"),
    "no.parquet": ("PAR1", "is not a parquet file"),
}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def in_pretraining(path: str) -> list[str]:
    return list(read_documents(TextSource(path, cleaning=NONE)))


def in_finetuning(path: str) -> list[str]:
    return [example.text for example in read_examples(TASKS["custom:classification"], "train", file=path)]


DOORS = pytest.mark.parametrize("read", [in_pretraining, in_finetuning])


@DOORS
@pytest.mark.parametrize("name", TEXTS_OF)
def test_the_same_texts(tmp_path, name, read):
    content, texts = TEXTS_OF[name]
    assert read(written(tmp_path, name, content)) == texts


@DOORS
@pytest.mark.parametrize("name", ERRORS_OF)
def test_the_same_error(tmp_path, monkeypatch, name, read):
    monkeypatch.setattr(lines, "LINE_LIMIT", 65_536 if name.startswith("long") else lines.LINE_LIMIT)
    content, message = ERRORS_OF[name]
    path = written(tmp_path, name, content)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@DOORS
def test_parquet(tmp_path, read):
    path = str(tmp_path / "a.parquet")
    texts = [f"text {number}" for number in range(1_000)]
    pyarrow.parquet.write_table(pyarrow.table({"label": [n % 2 for n in range(1_000)], "text": texts}), path)
    assert read(path) == texts
    category = pyarrow.array(texts[:2]).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table({"text": category, "label": [0, 1]}), path)
    assert read(path) == texts[:2]


@DOORS
@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (["text", "text"], [["a"], ["b"]], "has 2 columns named 'text'"),
        (["body", "label"], [["a"], [1]], "has no column 'text': choose one of 'body', 'label' with "),
        (["text", "label"], [[1], [1]], "row 1: 'text' is not a text but a int"),
        (["text", "label"], [[b"a"], [1]], "row 1: 'text' is not a text but a bytes"),
    ],
)
def test_the_same_error_of_parquet(tmp_path, names, values, message, read):
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(list(map(pyarrow.array, values)), names=names), path)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read(path)
    assert str(error.value).startswith(path)


@DOORS
def test_parquet_that_is_not_utf8_or_damaged(tmp_path, read):
    path = tmp_path / "a.parquet"
    texts = pyarrow.array([b"good", b"caf\xe9"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": [0, 1]}), path)
    with pytest.raises(UserError, match=r"a\.parquet is not UTF-8: row 2; convert the file"):
        read(str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(40) + whole[44:])
    with pytest.raises(UserError, match=r"a\.parquet"):
        read(str(path))


@DOORS
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "A film of 1999.,1\nB\n\n'C',0\n"),
        ("a.tsv", "1\tA film of 1999.\n0\tB\n1\t'C'\n"),
        ("a.csv.gz", gzip.compress(b"A film of 1999.,1\nB,0\n'C',0\n", mtime=0)),
    ],
)
def test_a_file_without_names_loses_no_row(tmp_path, name, content, read):
    content = content if isinstance(content, bytes) else content.replace("\nB\n", "\nB,0\n")
    with pytest.warns(UserWarning, match="does not name its columns: its first line looks like a row"):
        assert read(written(tmp_path, name, content)) == ["A film of 1999.", "B", "'C'"]


@DOORS
def test_a_file_that_is_not_there(tmp_path, read):
    with pytest.raises(UserError, match=r"none\.csv"):
        read(str(tmp_path / "none.csv"))


# ---- what only one of them meets -----------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "\ufeff \n", "text,label\n"])
def test_files_without_rows_are_an_error_alone_and_none_among_others(tmp_path, content):
    path = written(tmp_path, "a.csv", content)
    assert list(read_records(path)) == []
    with pytest.raises(UserError, match=r"a\.csv (is empty|has no rows)"):
        list(read_rows(path))
    written(tmp_path, "b.csv", "text\nsome text\n")
    assert in_pretraining(str(tmp_path / "*.csv")) == ["some text"]


def test_numbers_are_of_the_first_line_of_a_record(tmp_path):
    path = written(tmp_path, "a.csv", 'text\n"a\nb"\n\nc\n"d\n\ne"\nf\n')
    assert [record.number for record in read_rows(path)] == [2, 5, 6, 9]
    path = written(tmp_path, "a.tsv", "\ntext\n\na\nb\n")
    assert [record.place for record in read_rows(path)] == [f"{path} line 4", f"{path} line 5"]


def test_records_come_before_all_of_the_file_is_read(tmp_path):
    path = written(tmp_path, "a.csv", "text\n" + "some text\n" * 200_000)
    read = []
    next(read_records(path, on_read=read.append))
    assert sum(read) < 100_000
    assert sum(1 for _ in read_records(path, on_read=read.append)) == 200_000


@pytest.mark.parametrize("extension", ["csv", "tsv"])
def test_bytes_that_are_not_utf8_can_be_replaced(tmp_path, extension):
    path = written(tmp_path, f"a.{extension}", b"text\ncaf\xe9\nb\n")
    assert [record.cells["text"] for record in read_records(path, errors="replace")] == ["caf\ufffd", "b"]


def test_tfds_gives_records(tmp_path, monkeypatch):
    from toy_reviews import ToyReviews

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    ToyReviews(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    records = list(tfds_records("toy_reviews", "train"))
    assert [record.place for record in records] == [f"tfds:toy_reviews:train record {i}" for i in range(3)]
    assert sorted(record.cells["body"] for record in records) == sorted(TEXTS)
    assert {record.cells["label"] for record in records} == {"0", "1"}
    documents = read_documents(TextSource("tfds:toy_reviews:train", column="body", cleaning=NONE))
    assert list(documents) == [record.cells["body"] for record in records]
    with pytest.raises(UserError, match="has no split 'test'"):
        tfds_records("toy_reviews", "test")  # before the first record


def test_a_table_written_as_json_lines_and_as_csv_is_one(tmp_path):
    texts = ['a "b", c', "d\ne", "f\rg"]
    quoted = "".join('"{}"\n'.format(text.replace('"', '""')) for text in texts)
    objects = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    paths = written(tmp_path, "a.csv", "text\n" + quoted), written(tmp_path, "a.jsonl", objects)
    assert [[record.cells for record in read_rows(path)] for path in paths] == [[{"text": text} for text in texts]] * 2
