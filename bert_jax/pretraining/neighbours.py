"""Initial weights whose first heads look at the words beside each word.

A small BERT spends most of a short run on the plateau where it knows how often words occur and not what stands beside
them: with random weights no head tells one position from another. Trained BERTs have heads for the next and the
previous word (Clark et al. 2019, section 3.1); here the first layer starts with them. The architecture is untouched,
and everything goes on learning from there.
"""

import jax
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError

OFFSETS = (-1, 1, -2, 2)  # of the words that the first heads look at; heads beyond these stay random
PEAK = 7.5  # attention's score at that word; elsewhere it is near 0
KEPT = 0.3  # of the random weights of these heads, so that what a word is counts little at first


def look_at_neighbours(params: dict, config: ModelConfig) -> dict:
    """The drawn parameters with other position embeddings, and other queries and keys in the first layer.

    Half of the width of a position embedding holds sine and cosine of D/4 frequencies up to half a turn a word; the
    query of a head turns them by its offset, so that its product with the key is greatest there.

    Args:
      params: with unrolled layers, as they were drawn.
      config: of the model.

    Raises:
      UserError: the width does not divide by 4, or that of a head by 2.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    size, frequencies = width // heads, width // 4
    if width % 4 or size % 2:
        raise UserError(
            f"initial_attention=neighbours wants model.hidden_size={width} to divide by 4, {size} of a head by 2"
        )
    params = jax.tree.map(np.array, params)
    turns = (np.arange(frequencies) + 0.5) / frequencies * np.pi  # radians a word
    angles = np.arange(config.max_position_embeddings)[:, None] * turns
    amplitude = 2 * np.sqrt(2) * config.initializer_range  # twice the deviation of a word embedding
    table = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((len(angles), width - 2 * frequencies))], axis=1)
    params["bert"]["embeddings"]["position_embeddings"]["embedding"] = (amplitude * table).astype(np.float32)

    attention = params["bert"]["encoder"]["layer_0"]["attention"]
    query, key = attention["query"]["kernel"], attention["key"]["kernel"]
    used = min(size // 2, frequencies)
    # LayerNorm divides by the deviation of word and position together: sqrt(3) times that of a word.
    gain = np.sqrt(PEAK * np.sqrt(size) / (used * 8 / 3))
    for head, offset in enumerate(OFFSETS[:heads]):
        chosen = (np.arange(used) * (frequencies // used) + head) % frequencies
        sines, cosines = head * size + 2 * np.arange(used), head * size + 2 * np.arange(used) + 1
        turned = gain * np.cos(turns[chosen] * offset), gain * np.sin(turns[chosen] * offset)
        for kernel in (query, key):
            kernel[:, head * size : (head + 1) * size] *= KEPT
        query[chosen, sines] += turned[0]
        query[frequencies + chosen, sines] += turned[1]
        query[chosen, cosines] -= turned[1]
        query[frequencies + chosen, cosines] += turned[0]
        key[chosen, sines] += gain
        key[frequencies + chosen, cosines] += gain
    return params
