"""A corpus of random text in memory, for tests of what reads one."""

import numpy as np

from bert_jax.text.corpus import CorpusArrays

CLS, SEP, FIRST = 2, 3, 5  # ids; text has ids from FIRST on


def synthetic_corpus(documents: int, seed: int = 0, distinct: bool = False) -> CorpusArrays:
    """Documents of 1 to some 60 sentences of 1 to 128 tokens, in the proportions of English prose.

    With `distinct` the token at position i is FIRST + i, so that a token says where it comes from.
    """
    rng = np.random.default_rng(seed)
    sentences = np.maximum(rng.lognormal(2.2, 0.7, documents).astype(np.int64), 1)
    lengths = np.clip(rng.lognormal(3.0, 0.7, sentences.sum()), 1, 128).astype(np.int64)
    return corpus_of(sentences, lengths, distinct, rng)


def corpus_of(sentences, lengths, distinct=True, rng=None) -> CorpusArrays:
    """A corpus of documents of so many sentences, of so many tokens."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(offsets[-1], dtype=np.uint32) if distinct else rng.integers(0, 8000, offsets[-1], np.uint16)
    return CorpusArrays(FIRST + tokens, offsets, np.concatenate([[0], np.cumsum(sentences)]).astype(np.int64))
