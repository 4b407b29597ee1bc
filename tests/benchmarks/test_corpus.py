"""The comparison of vocabulary and corpus building: both sides do the same, and the figures are what they say."""

import os

import numpy as np
import pytest
from helpers.in_this_process import in_this_process

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import corpus as module
from bert_jax.benchmarks.suites.corpus import (
    Work,
    check_same_tokens,
    compare,
    jax_corpus,
    jax_vocabulary,
    peer_corpus,
    peer_vocabulary,
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
    counts, peer_counts = (
        of(each, tmp_path / "tokenizer") for of, each in ((jax_corpus, source), (peer_corpus, texts))
    )
    np.testing.assert_array_equal(counts, peer_counts)
    ids = [number for text in texts for number in tokenizer.encode_batch([text])[0]]
    np.testing.assert_array_equal(peer_counts, np.bincount(ids, minlength=tokenizer.vocab_size))
    check_same_tokens(counts, peer_counts)
    with pytest.raises(UserError, match=r"1\.00% of the tokens differ"):
        check_same_tokens(np.array([50, 49, 0]), np.array([50, 50, 0]))
    with pytest.raises(UserError, match="do not cut the text alike"):
        check_same_tokens(counts, peer_counts[::-1])


def test_both_sides_find_the_same_entries(source, tmp_path):
    """Of words of two letters: in longer ones equally frequent pairs are merged in any order."""
    words = ["of", "to", "in", "is", "It", "no", "só"]
    text = " ".join(word for number, word in enumerate(words) for _ in range(2 + number))
    (tmp_path / "words.txt").write_text(text)
    entries = jax_vocabulary(str(tmp_path / "words.txt"))
    assert set(entries) == set(peer_vocabulary([text]))
    assert {"of", "it", "so", "##o", "[MASK]"} <= set(entries)


def test_work_on_one_core():
    cores = os.sched_getaffinity(0)
    assert Work(lambda: len(os.sched_getaffinity(0)), "one core").metadata == {"result": 1}
    assert Work(lambda: len(os.sched_getaffinity(0)), "all cores").metadata == {"result": len(cores)}
    assert os.sched_getaffinity(0) == cores


def test_each_side_has_a_process_on_one_core_and_on_all(monkeypatch):
    kept = []

    def started(make, *, keep_memory):
        kept.append((make.args[1], keep_memory))
        return in_this_process(make)

    monkeypatch.setattr(harness, "started", started)
    results = Results("corpus", "t", "megabytes_per_second")
    assert compare(results, "corpus", dict, list, 10.0, 3) == [{}, []]
    # Only bert_jax runs with the memory that scripts keep.
    assert kept == [("one core", True), ("one core", False), ("all cores", True), ("all cores", False)]
    assert results.cases() == ["corpus, one core", "corpus, all cores"]
    for case in results.cases():
        seconds = results.by_side(case, "seconds")
        assert list(seconds) == ["bert_jax", "tokenizers"]
        rates = {name: 10.0 / each for name, each in seconds.items()}
        assert results.by_side(case, "megabytes_per_second") == pytest.approx(rates)
        assert len(results.rounds(case, "bert_jax", "ratio")) == 3


@pytest.mark.slow
def test_the_corpus_suite(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "started", in_this_process)
    results = benchmark("corpus", tmp_path, source=source, rounds=2)
    assert Results.load(tmp_path / "benchmark" / "corpus.json") == results
    documents = Documents(source)
    texts = list(documents)
    assert results.metadata["documents"] == len(texts) == 301
    assert results.metadata["megabytes"] == documents.report.text_bytes / 1e6
    tokenizer = Tokenizer(train_tokenizer(texts, 300).backend)
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    assert results.metadata["tokens"] == tokens
    for cores in ("one core", "all cores"):
        case = f"corpus, {cores}"
        seconds = results.value(case, "tokenizers", "seconds")
        assert results.value(case, "tokenizers", "tokens_per_second") == pytest.approx(tokens / seconds)
        assert len(results.rounds(case, "bert_jax", "ratio")) == 2
        assert results.by_side(f"vocabulary, {cores}", "megabytes_per_second").keys() == {"bert_jax", "tokenizers"}
    assert "301 documents" in capsys.readouterr().out
    with pytest.raises(UserError, match="--rounds=1 at least"):
        benchmark("corpus", tmp_path, source=source, rounds=0)
    with pytest.raises(UserError, match=r"nothing\.txt"):
        benchmark("corpus", tmp_path, source=str(tmp_path / "nothing.txt"), rounds=1)
