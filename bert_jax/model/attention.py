"""Scaled dot-product and multi-head attention (Vaswani et al. 2017, section 3.2), within sequences only."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.layers import Dropout, dense, precision


def sequence_mask(sequence_ids: jax.Array) -> jax.Array:
    """int32 [B, L] -> bool [B, 1, L, L]: position i may look at j if both are of the same sequence of the row.

    Padding (id 0) looks at padding, so that no row of the softmax is empty; nothing of it reaches a sequence.
    """
    return (sequence_ids[:, :, None] == sequence_ids[:, None, :])[:, None]


def scaled_dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, dropout: Dropout | None = None
) -> tuple[jax.Array, jax.Array]:
    """softmax(Q K^T / sqrt(H)) V, the softmax in float32 (Vaswani et al. 2017, equation 1).

    Args:
      query, key, value: [B, L, N, H].
      mask: bool [B, 1, L, L], True where attention is allowed.
      dropout: applied to the probabilities, as BERT does; None for none.

    Returns:
      [B, L, N, H], and the probabilities before dropout, float32 [B, N, L, L].
    """
    scale = query.shape[-1] ** -0.5
    product = functools.partial(jnp.einsum, precision=precision(query.dtype))
    scores = product("bqnh,bknh->bnqk", query, key, preferred_element_type=jnp.float32)
    probabilities = jax.nn.softmax(jnp.where(mask, scores * scale, jnp.finfo(jnp.float32).min), axis=-1)
    kept = probabilities if dropout is None else dropout(probabilities)
    return product("bnqk,bknh->bqnh", kept.astype(value.dtype), value), probabilities


class MultiHeadAttention(nn.Module):
    """N heads side by side, and the output projection."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array, mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """Tokens [T, D] and mask bool [B, 1, L, L], T = B * L -> [T, D]."""
        config = self.config
        batch, _, length, _ = mask.shape
        heads = config.num_attention_heads
        split = (batch, length, heads, config.hidden_size // heads)
        query, key, value = (
            dense(config, config.hidden_size, self.dtype, name)(hidden).reshape(split)
            for name in ("query", "key", "value")
        )
        dropout = Dropout(config.attention_probs_dropout_prob, deterministic=deterministic)
        context, probabilities = scaled_dot_product_attention(query, key, value, mask, dropout)
        self.sow("intermediates", "probabilities", probabilities)
        return dense(config, config.hidden_size, self.dtype, "output")(context.reshape(hidden.shape))
