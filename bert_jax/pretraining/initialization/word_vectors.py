"""Starts word embeddings from counts: which words occur near which in the corpus.

A short run spends most of its steps on learning which words are alike, which counting tells in seconds. The vectors
are the best low-rank approximation of the positive pointwise mutual information of words within a window (Bullinaria &
Levy 2007; Levy & Goldberg 2014, who show that word2vec approximates the same matrix). A window of a few words on either
side holds what a word is about, sentiment included; what stands right beside it is left to the encoder.
"""

import jax
import numpy as np
import scipy.sparse

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model.parameters import embeddings
from bert_jax.text.corpus import Corpus

WINDOW = 8  # words on either side
SMOOTHING = 0.75  # power of a context's frequency, which else favours rare words (Levy et al. 2015, section 3.1)
MAX_TOKENS = 20_000_000  # of a larger corpus only this many are counted, from its middle


def check_vocabulary(config: ModelConfig) -> None:
    """Raises UserError if the vocabulary is not larger than the width."""
    if config.vocab_size <= config.hidden_size:
        raise UserError(
            f"initial_embeddings=counted wants a vocabulary (model.vocab_size={config.vocab_size}) larger than "
            f"model.hidden_size={config.hidden_size}"
        )


def init_embeddings_from_counts(params: dict, config: ModelConfig, corpus: Corpus) -> dict:
    """Returns random parameters with `word_vectors` as word embeddings, as large as the random ones.

    Words that the counted text does not have keep their random embeddings.

    Args:
      params: the random parameters; they are not changed.
      config: the config of the model.
      corpus: the text to count.

    Returns:
      The parameters, as NumPy arrays.

    Raises:
      UserError: the vocabulary is not larger than the width.
    """
    check_vocabulary(config)
    params = jax.tree.map(np.array, jax.device_get(params))
    table = embeddings(params)["word_embeddings"]["embedding"]
    vectors = word_vectors(corpus, config.vocab_size, config.hidden_size)
    counted = vectors.any(axis=1)
    table[counted] = vectors[counted] * config.initializer_range * np.sqrt(config.hidden_size)
    return params


def word_vectors(corpus: Corpus, vocab_size: int, width: int) -> np.ndarray:
    """Returns vectors of unit length, float32 [V, width]; zero for entries that the counted text does not have.

    Takes 12 bytes for each pair of words that occurs, several times over; six seconds for 8 million tokens and 8,192
    entries on two cores.
    """
    from sklearn.utils.extmath import randomized_svd  # takes seconds, which a run that goes on need not wait for

    counts = cooccurrences(corpus, vocab_size)
    total = np.asarray(counts.sum(axis=1)).ravel()
    context = total**SMOOTHING / (total**SMOOTHING).sum()
    counts = counts.tocoo()
    information = np.log(counts.data / (total[counts.row] * context[counts.col]))
    positive = information > 0
    entries = (counts.row[positive], counts.col[positive])
    matrix = scipy.sparse.csr_matrix((information[positive].astype(np.float32), entries), shape=counts.shape)
    left, scales, _ = randomized_svd(matrix, width, n_iter=4, random_state=0)  # pyright: ignore[reportArgumentType]
    vectors = left * np.sqrt(scales)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # What does not occur has rounding errors only.
    return np.where(total[:, None] > 0, vectors / np.maximum(lengths, 1e-12), 0).astype(np.float32)


def cooccurrences(corpus: Corpus, vocab_size: int) -> scipy.sparse.csr_matrix:
    """Counts how often two words stand within `WINDOW` of each other in a document, float [V, V], symmetric."""
    first = max(0, corpus.num_tokens - MAX_TOKENS) // 2
    tokens = np.asarray(corpus.tokens[first : first + MAX_TOKENS], np.int32)
    ends = corpus.sentences[corpus.documents[1:]] - first
    document = np.searchsorted(ends, np.arange(len(tokens)), side="right")
    counts = scipy.sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float64)
    for distance in range(1, WINDOW + 1):
        same = document[distance:] == document[:-distance]
        pairs = tokens[:-distance][same], tokens[distance:][same]
        counts = (
            counts + scipy.sparse.coo_matrix((np.ones(len(pairs[0])), pairs), shape=(vocab_size, vocab_size)).tocsr()
        )
    return counts + counts.T
