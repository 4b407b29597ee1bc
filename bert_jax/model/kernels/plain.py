"""Attends by two products and a softmax: it runs anywhere, in any pattern, and has the probabilities to give."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from bert_jax.model.kernels.kernel import AttentionSpec, Kernel
from bert_jax.model.layers import Dropout, precision, product_in_float32
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution


def scaled_dot_product_attention(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B L N H"],
    value: Float[Array, "B L N H"],
    mask: Bool[Array, "#B 1 L L"],
    dropout: Dropout | None = None,
) -> tuple[Float[Array, "B L N H"], Float32[Array, "B N L L"]]:
    """Computes softmax(Q K^T / sqrt(H)) V, the softmax in float32 (Vaswani et al. 2017, equation 1).

    Args:
      query: the queries, [B, L, N, H].
      key: the keys, [B, L, N, H].
      value: the values, [B, L, N, H].
      mask: the pairs of positions where attention is allowed, bool [B, 1, L, L].
      dropout: the dropout of the probabilities, as BERT has it; None for none.

    Returns:
      The context, [B, L, N, H], and the probabilities before dropout, float32 [B, N, L, L].
    """
    scale = query.shape[-1] ** -0.5
    scores = product_in_float32("bqnh,bknh->bnqk", query, key)
    probabilities = jax.nn.softmax(jnp.where(mask, scores * scale, jnp.finfo(jnp.float32).min), axis=-1)
    kept = probabilities if dropout is None else dropout(probabilities)
    context = jnp.einsum("bnqk,bknh->bqnh", kept.astype(value.dtype), value, precision=precision(value.dtype))
    return context, probabilities


def prepare(
    sequence_ids: Int[Array, "B L"], max_sequences: int | None, pattern: AttentionPattern
) -> Bool[Array, "B 1 L L"]:
    """Returns the mask of the pattern, bool [B, 1, L, L]."""
    del max_sequences
    return pattern.mask(sequence_ids)


def attend(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B L N H"],
    value: Float[Array, "B L N H"],
    mask: Bool[Array, "#B 1 L L"],
    execution: Execution,
) -> Float[Array, "B L N H"]:
    """Computes `scaled_dot_product_attention` without probabilities and dropout, for where no gradient is wanted.

    Heads come first, and the division by the sum of the softmax comes behind the product with V: on a CPU that is 1.3
    times (64 tokens) to twice (192) as fast. With its gradient it is slower.
    """
    del execution
    query, key, value = (array.swapaxes(1, 2) for array in (query * query.shape[-1] ** -0.5, key, value))
    product = functools.partial(jnp.matmul, precision=precision(query.dtype), preferred_element_type=jnp.float32)
    scores = jnp.where(mask, product(query, key.swapaxes(2, 3)), jnp.finfo(jnp.float32).min)
    powers = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    context = product(powers.astype(value.dtype), value) / powers.sum(axis=-1, keepdims=True)
    return context.astype(value.dtype).swapaxes(1, 2)


def obstacle(spec: AttentionSpec) -> None:
    """Returns None: this kernel can do everything."""
    del spec


PLAIN = Kernel("plain", "", prepare, attend, obstacle, gives_probabilities=True)
