"""Masked language modelling on the device: which tokens are hidden, and behind what (Devlin et al. 2018, A.1)."""

import math
from functools import partial

import jax
import jax.numpy as jnp


def predictions_per_row(length: int, mask_rate: float) -> int:
    """P, the static number of predicted positions of a row: its share of L, rounded up to a multiple of four."""
    return min(length, 4 * math.ceil(length * mask_rate / 4))


def choose_positions(
    key: jax.Array,
    sequence_ids: jax.Array,
    candidates: jax.Array,
    continuations: jax.Array | None,
    *,
    mask_rate: float,
    sequences: int,
) -> tuple[jax.Array, jax.Array]:
    """Draws the positions to predict: of each sequence max(1, round(length * mask_rate)), uniformly.

    Args:
      key: of this batch.
      sequence_ids: int32 [B, L].
      candidates: bool [B, L], False for special tokens and padding.
      continuations: for whole-word masking bool [B, L], True where a token continues the word before it: whole words
        are drawn until the next would exceed the sequence's number. None: every token for itself.
      mask_rate: share of a sequence's tokens; special ones count, as in the original.
      sequences: K, the largest sequence id.

    Returns:
      positions int32 [B, P] and whether each is used, bool [B, P], P = predictions_per_row(L, mask_rate). Where the
      rounding of several packed sequences asks for more than P, the surplus is left unmasked.
    """
    batch, length = sequence_ids.shape
    scores = jax.random.uniform(key, (batch, length))
    starts = jnp.ones_like(candidates) if continuations is None else ~continuations
    words = jnp.cumsum(starts, axis=1)
    chosen = jax.vmap(partial(_choose_in_row, mask_rate=mask_rate, sequences=sequences))(
        scores, sequence_ids, candidates, words
    )
    # Chosen positions first, in random order, so that a surplus is dropped without favour.
    order = jnp.argsort(jnp.where(chosen, scores, 1 + scores), axis=1)
    positions = order[:, : predictions_per_row(length, mask_rate)]
    return positions.astype(jnp.int32), jnp.take_along_axis(chosen, positions, axis=1)


def _choose_in_row(
    scores: jax.Array, sequence_ids: jax.Array, candidates: jax.Array, words: jax.Array, *, mask_rate, sequences
) -> jax.Array:
    """One row, all arguments [L], `words` numbering its words -> bool [L]."""
    length = scores.size
    lengths = jnp.zeros(sequences + 1).at[sequence_ids].add(1.0)
    budgets = jnp.maximum(1.0, jnp.round(lengths * mask_rate))
    sequence_budget = budgets[sequence_ids]
    word_size = jnp.zeros(length + 1).at[words].add(1.0)[words]
    word_score = jnp.ones(length + 1).at[words].min(scores)[words]
    candidates &= word_size <= sequence_budget

    # One sort: by sequence, candidates first, words in random order, their pieces together (the sort is stable).
    order = jnp.argsort(4 * sequence_ids + 2 * ~candidates + word_score)
    rank = jnp.zeros(length).at[order].set(jnp.arange(length, dtype=jnp.float32))
    rank -= (jnp.cumsum(lengths) - lengths)[sequence_ids]
    last_rank_of_word = jnp.zeros(length + 1).at[words].max(rank)[words]
    return candidates & (last_rank_of_word < sequence_budget)


def hide_tokens(
    key: jax.Array, input_ids: jax.Array, positions: jax.Array, used: jax.Array, *, mask_id: int, vocab_size: int
) -> jax.Array:
    """Replaces the tokens at the used positions: 80 % [MASK], 10 % random of the whole vocabulary, 10 % kept.

    Args:
      key: of this batch.
      input_ids: int32 [B, L].
      positions: int32 [B, P], distinct within a row.
      used: bool [B, P].
      mask_id: of [MASK].
      vocab_size: V.

    Returns:
      int32 [B, L].
    """
    action_key, token_key = jax.random.split(key)
    action = jax.random.uniform(action_key, positions.shape)
    original = jnp.take_along_axis(input_ids, positions, axis=1)
    random = jax.random.randint(token_key, positions.shape, 0, vocab_size)
    replacement = jnp.where(action < 0.8, mask_id, jnp.where(action < 0.9, random, original))
    rows = jnp.arange(input_ids.shape[0])[:, None]
    return input_ids.at[rows, positions].set(jnp.where(used, replacement, original))
