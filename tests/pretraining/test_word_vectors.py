"""Initial word embeddings from counts, against counting by hand and a corpus whose topics are known."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from helpers.initial_weights import CONFIG, drawn
from helpers.synthetic_corpus import corpus_of

from bert_jax.config import PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.initialization import word_vectors as module
from bert_jax.pretraining.initialization.word_vectors import cooccurrences, word_vectors
from bert_jax.pretraining.run import first_params
from bert_jax.text.corpus import CorpusArrays

TOPICS = np.array([np.arange(5, 85), np.arange(85, 165)])  # ids; 165 to 199 do not occur


def topical_corpus() -> CorpusArrays:
    """400 documents of two sentences of 20 tokens, each document of one topic."""
    rng = np.random.default_rng(0)
    corpus = corpus_of(np.full(400, 2), np.full(800, 20), distinct=True)
    topics = np.repeat(np.arange(400) % 2, 40)
    return dataclasses.replace(corpus, tokens=TOPICS[topics, rng.integers(0, 80, 16_000)].astype(np.uint16))


def test_pairs_are_counted_within_documents(monkeypatch):
    rng = np.random.default_rng(0)
    corpus = corpus_of([2, 1, 3], [4, 9, 1, 7, 12, 3], distinct=False, rng=rng)
    corpus = dataclasses.replace(corpus, tokens=rng.integers(0, 6, 36).astype(np.uint16))
    ends = [0, 13, 14, 36]
    for first, last in ((0, 36), (10, 26)):  # all of it, and its middle
        monkeypatch.setattr(module, "MAX_TOKENS", last - first)
        want = np.zeros((6, 6))
        for begin, end in itertools.pairwise(ends):
            begin, end = max(begin, first), min(end, last)
            for i in range(begin, end):
                for j in range(max(begin, i - 8), min(end, i + 9)):
                    want[corpus.tokens[i], corpus.tokens[j]] += i != j
        np.testing.assert_array_equal(cooccurrences(corpus, 6).toarray(), want)


def test_words_of_a_topic_are_alike():
    vectors = word_vectors(topical_corpus(), 200, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors[5:165], axis=1), 1, rtol=1e-5)
    assert not vectors[:5].any()
    assert not vectors[165:].any()
    alike = vectors @ vectors.T
    for index, topic in enumerate(TOPICS):
        others = TOPICS[1 - index]
        within = (alike[np.ix_(topic, topic)].sum() - len(topic)) / (len(topic) * (len(topic) - 1))
        assert within > alike[np.ix_(topic, others)].mean() + 0.1


@pytest.mark.slow
def test_only_words_that_occur_are_replaced():
    config = PretrainingConfig(total_steps=1, initial_embeddings="counted", model=CONFIG)
    before, corpus = drawn(CONFIG), topical_corpus()
    after = first_params(config, corpus, before)
    table, new = (params["bert"]["embeddings"]["word_embeddings"]["embedding"] for params in (before, after))
    same = (np.asarray(table) == new).all(axis=1)
    assert same[:5].all()
    assert same[165:].all()
    assert not same[5:165].any()
    assert new[5:165].std() == pytest.approx(CONFIG.initializer_range, rel=0.05)
    after["bert"]["embeddings"]["word_embeddings"]["embedding"] = table
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.slow
def test_what_cannot_be():
    with pytest.raises(UserError, match="initial_embeddings is for random weights"):
        PretrainingConfig(total_steps=1, initial_embeddings="counted", init_from="x")
    with pytest.raises(UserError, match="initial_embeddings='mine'"):
        PretrainingConfig(total_steps=1, initial_embeddings="mine")
    narrow = dataclasses.replace(CONFIG, vocab_size=100)
    config = PretrainingConfig(total_steps=1, initial_embeddings="counted", model=narrow)
    with pytest.raises(UserError, match=r"larger than model\.hidden_size=128"):
        first_params(config, topical_corpus(), drawn(narrow))
