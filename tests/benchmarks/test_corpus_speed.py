"""The comparison of vocabulary and corpus building: both sides do the same, and the figures are what they say."""

import json
import os

import numpy as np
import pytest
from helpers.in_this_process import in_this_process

from bert_jax.benchmarks import corpus_speed as module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.corpus_speed import (
    Work,
    check_same_tokens,
    compared,
    our_corpus,
    our_vocabulary,
    their_corpus,
    their_vocabulary,
)
from bert_jax.errors import UserError
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture
def source(text_file, tmp_path, monkeypatch):
    """A text with markup and a document that comes twice; small vocabulary, small batches."""
    monkeypatch.setattr(module, "VOCAB_SIZE", 300)
    monkeypatch.setattr(module, "DOCUMENTS_AT_ONCE", 7)
    path = tmp_path / "text.txt"
    path.write_text(f"{text_file.read_text()}\n\n<br />abc &amp; a bc.\n\n<br />abc &amp; a bc.\n")
    return str(path)


def test_both_sides_find_the_same_tokens(source, tmp_path):
    texts = list(Documents(source))
    tokenizer = train_tokenizer(texts, 300)
    tokenizer.save(tmp_path / "tokenizer")
    ours, theirs = (of(each, tmp_path / "tokenizer") for of, each in ((our_corpus, source), (their_corpus, texts)))
    np.testing.assert_array_equal(ours, theirs)
    ids = [number for text in texts for number in tokenizer.encode_batch([text])[0]]
    np.testing.assert_array_equal(theirs, np.bincount(ids, minlength=tokenizer.vocab_size))
    check_same_tokens(ours, theirs)
    with pytest.raises(UserError, match=r"1\.00% of the tokens differ"):
        check_same_tokens(np.array([50, 49, 0]), np.array([50, 50, 0]))
    with pytest.raises(UserError, match="do not cut the text alike"):
        check_same_tokens(ours, theirs[::-1])


def test_both_sides_find_the_same_entries(source, tmp_path):
    """Of words of two letters: in longer ones equally frequent pairs are merged in any order."""
    words = ["of", "to", "in", "is", "It", "no", "só"]
    text = " ".join(word for number, word in enumerate(words) for _ in range(2 + number))
    (tmp_path / "words.txt").write_text(text)
    ours = our_vocabulary(str(tmp_path / "words.txt"))
    assert set(ours) == set(their_vocabulary([text]))
    assert {"of", "it", "so", "##o", "[MASK]"} <= set(ours)


def test_work_on_one_core():
    cores = os.sched_getaffinity(0)
    assert Work(lambda: len(os.sched_getaffinity(0)), "one core").facts == {"found": 1}
    assert Work(lambda: len(os.sched_getaffinity(0)), "all cores").facts == {"found": len(cores)}
    assert os.sched_getaffinity(0) == cores


def test_figures_of_a_comparison(monkeypatch):
    times = {
        "bert_jax one core": [2.0, 4.0, 2.0],
        "tokenizers one core": [4.0, 4.0, 5.0],
        "bert_jax all cores": [1.0, 1.0, 1.0],
        "tokenizers all cores": [0.5, 1.0, 0.5],
    }

    def in_turns(sides, rounds):
        assert list(sides) == list(times)
        assert rounds == 3
        return times

    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "in_turns", in_turns)
    found, figures = compared(dict, list, 10.0, 3)
    assert found == [{}, []]
    assert figures["one core"] == {
        "seconds": {"bert_jax": 2.0, "tokenizers": 4.0},
        "spread": {"bert_jax": 1.0, "tokenizers": 0.25},
        "megabytes_per_second": {"bert_jax": 5.0, "tokenizers": 2.5},
        "peak_bytes": {"bert_jax": 1_000_000_000, "tokenizers": 1_000_000_000},
        "ratio_by_round": [2.0, 1.0, 2.5],
        "ratio": 2.0,
    }
    assert figures["all cores"]["ratio"] == 0.5


def test_the_corpus_suite(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "started", in_this_process)
    found = benchmark("corpus", tmp_path, source=source, rounds=2)
    assert json.loads((tmp_path / "benchmark" / "corpus.json").read_text())["corpus"] == found["corpus"]
    documents = Documents(source)
    texts = list(documents)
    assert found["documents"] == len(texts) == 301
    assert found["megabytes"] == documents.report.text_bytes / 1e6
    tokenizer = Tokenizer(train_tokenizer(texts, 300).backend)
    assert found["tokens"] == sum(map(len, tokenizer.encode_batch(texts)))
    for cores in ("one core", "all cores"):
        each = found["corpus"][cores]
        assert each["tokens_per_second"]["tokenizers"] == pytest.approx(found["tokens"] / each["seconds"]["tokenizers"])
        assert len(each["ratio_by_round"]) == 2
        assert each["megabytes_per_second"].keys() == {"bert_jax", "tokenizers"}
    printed = capsys.readouterr().out
    assert "301 documents" in printed
    assert printed.count("vocabulary, ") == printed.count("corpus, ") == 4
    with pytest.raises(UserError, match="--rounds=1 at least"):
        benchmark("corpus", tmp_path, source=source, rounds=0)
    with pytest.raises(UserError, match=r"nothing\.txt"):
        benchmark("corpus", tmp_path, source=str(tmp_path / "nothing.txt"), rounds=1)
