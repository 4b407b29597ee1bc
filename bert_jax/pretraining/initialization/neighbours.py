"""Starts a model with first heads that look at the words beside each word.

A small BERT spends most of a short run on the plateau where it knows how often words occur and not what stands beside
them: with random weights no head tells one position from another. Trained BERTs have heads for the next and the
previous word (Clark et al. 2019, section 3.1); here the first layer starts with them. The architecture is untouched,
and everything goes on learning from there.
"""

import jax
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model.parameters import embeddings, layer

OFFSETS = (-1, 1, -2, 2)  # of the words that the first heads look at; heads beyond these stay random
PEAK = 7.5  # attention's score at that word; elsewhere it is near 0
RANDOM_SHARE = 0.3  # of their random weights that these heads keep: what a word is counts little at first


def check_width(config: ModelConfig) -> None:
    """Raises UserError if the width does not divide by 4, or that of a head by 2."""
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    if width % 4 or size % 2:
        raise UserError(
            f"initial_attention=neighbours wants model.hidden_size={width} to divide by 4, {size} of a head by 2"
        )


def init_neighbour_heads(params: dict, config: ModelConfig) -> dict:
    """Returns random parameters with sinusoidal positions and, in the first layer, heads that look at neighbours.

    Half of the width of a position embedding holds sine and cosine of D/4 frequencies, up to half a turn a word. A head
    reads some of these pairs as points k(p) = (sin wp, cos wp) of a plane for each frequency w. Its key is k, and the
    query of a head with offset o is q = R(o) k, where R(o) turns each plane by w o. So q(p) . k(p') is the sum of
    cos w(p' - p - o) over the frequencies, which is greatest at p' = p + o.

    Args:
      params: the random parameters, with unrolled layers; they are not changed.
      config: the config of the model.

    Returns:
      The parameters, as NumPy arrays.

    Raises:
      UserError: the width does not divide by 4, or that of a head by 2.
    """
    check_width(config)
    width, heads = config.hidden_size, config.num_attention_heads
    size, frequencies = width // heads, width // 4
    params = jax.tree.map(np.array, params)
    radians = (np.arange(frequencies) + 0.5) / frequencies * np.pi  # a word
    angles = np.arange(config.max_position_embeddings)[:, None] * radians
    amplitude = 2 * np.sqrt(2) * config.initializer_range  # twice the deviation of a word embedding
    table = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((len(angles), width - 2 * frequencies))], axis=1)
    embeddings(params)["position_embeddings"]["embedding"] = (amplitude * table).astype(np.float32)

    attention = layer(params, 0)["attention"]
    query, key = attention["query"]["kernel"], attention["key"]["kernel"]
    used = min(size // 2, frequencies)
    # LayerNorm divides by the deviation of word and position together: sqrt(3) times that of a word.
    gain = np.sqrt(PEAK * np.sqrt(size) / (used * 8 / 3))
    for head, offset in enumerate(OFFSETS[:heads]):
        chosen = (np.arange(used) * (frequencies // used) + head) % frequencies
        sines, cosines = head * size + 2 * np.arange(used), head * size + 2 * np.arange(used) + 1
        cosine, sine = gain * np.cos(radians[chosen] * offset), gain * np.sin(radians[chosen] * offset)
        for kernel in (query, key):
            kernel[:, head * size : (head + 1) * size] *= RANDOM_SHARE
        query[chosen, sines] += cosine
        query[frequencies + chosen, sines] += sine
        query[chosen, cosines] -= sine
        query[frequencies + chosen, cosines] += cosine
        key[chosen, sines] += gain
        key[frequencies + chosen, cosines] += gain
    return params
