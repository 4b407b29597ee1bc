"""Draws on the device which tokens are hidden, and behind what (Devlin et al. 2018, A.1)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def predictions_per_row(length: int, mask_rate: float) -> int:
    """Returns P, the static number of predicted positions of a row: its share of L, up to a multiple of four."""
    return min(length, 4 * math.ceil(length * mask_rate / 4))


def choose_positions(
    key: jax.Array,
    sequence_ids: Int[Array, " L"],
    candidates: Bool[Array, " L"],
    continuations: Bool[Array, " L"] | None,
    *,
    mask_rate: float,
    sequences: int,
) -> tuple[Int[Array, " P"], Bool[Array, " P"]]:
    """Draws the positions of a row to predict: of each sequence max(1, round(length * mask_rate)), uniformly.

    Args:
      key: the key of this row.
      sequence_ids: the sequence of each token, int32 [L].
      candidates: the tokens that may be drawn, bool [L], False for special tokens and padding.
      continuations: the tokens that continue the word before them, bool [L], for whole-word masking: whole words are
        drawn until the next would exceed the sequence's number. None for every token by itself.
      mask_rate: the share of a sequence's tokens; special ones count, as in the original.
      sequences: the largest sequence id, K.

    Returns:
      The positions int32 [P] and whether each is used, bool [P], P = predictions_per_row(L, mask_rate). Where the
      rounding of several packed sequences asks for more than P, the surplus is left unmasked.
    """
    length = sequence_ids.size
    scores = jax.random.uniform(key, (length,))
    lengths = jnp.zeros(sequences + 1).at[sequence_ids].add(1.0)
    # Rounded here in double precision: in float32, 190 * 0.15 is a little more than 28.5.
    numbers = np.maximum(1.0, np.round(np.arange(length + 1) * mask_rate))
    budget = jnp.asarray(numbers, jnp.float32)[lengths.astype(jnp.int32)][sequence_ids]

    # A word starts where nothing is continued, and behind a special token: truncation leaves pieces without their head.
    behind_special = jnp.concatenate([jnp.array([True]), ~candidates[:-1]])
    starts = jnp.ones_like(candidates) if continuations is None else ~continuations | ~candidates | behind_special
    words = jnp.cumsum(starts)
    word_size = jnp.zeros(length + 1).at[words].add(1.0)[words]
    # A word has the score of its first piece: the least of all its pieces' would favour long words.
    word_score = jnp.ones(length + 1).at[words].min(jnp.where(starts, scores, 1))[words]
    candidates &= word_size <= budget

    # One sort: by sequence, candidates first, words in random order, their pieces together (the sort is stable).
    order = jnp.argsort(4 * sequence_ids + 2 * ~candidates + word_score)
    rank = jnp.zeros(length).at[order].set(jnp.arange(length, dtype=jnp.float32))
    rank -= (jnp.cumsum(lengths) - lengths)[sequence_ids]
    last_rank_of_word = jnp.zeros(length + 1).at[words].max(rank)[words]
    chosen = candidates & (last_rank_of_word < budget)

    # Chosen positions first, in random order, so that a surplus is dropped without favour.
    order = jnp.argsort(jnp.where(chosen, scores, 1 + scores))
    positions = order[: predictions_per_row(length, mask_rate)]
    return positions.astype(jnp.int32), chosen[positions]


def hide_tokens(
    key: jax.Array,
    input_ids: Int[Array, " L"],
    positions: Int[Array, " P"],
    used: Bool[Array, " P"],
    *,
    mask_id: int,
    vocab_size: int,
) -> Int[Array, " L"]:
    """Replaces a row's tokens at the used positions: 80 % [MASK], 10 % random of the whole vocabulary, 10 % kept.

    Args:
      key: the key of this row.
      input_ids: the tokens, int32 [L].
      positions: the distinct positions, int32 [P].
      used: the positions that are used, bool [P].
      mask_id: the id of [MASK].
      vocab_size: V, the size of the vocabulary.

    Returns:
      The tokens as the model sees them, int32 [L].
    """
    action_key, token_key = jax.random.split(key)
    action = jax.random.uniform(action_key, positions.shape)
    original = input_ids[positions]
    random = jax.random.randint(token_key, positions.shape, 0, vocab_size)
    replacement = jnp.where(action < 0.8, mask_id, jnp.where(action < 0.9, random, original))
    return input_ids.at[positions].set(jnp.where(used, replacement, original))
