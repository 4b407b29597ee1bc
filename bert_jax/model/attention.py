"""Scaled dot-product and multi-head attention (Vaswani et al. 2017, section 3.2), within sequences only."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model.kernels import (
    LANES,
    cudnn_attention,
    cudnn_rows,
    splash_attention,
    splash_rows,
)
from bert_jax.model.layers import Dropout, dense, precision, product_in_float32

# What each kernel wants to know of the rows, and attention itself; "plain" gives the probabilities too.
HOMES = {"cudnn": "gpu", "splash": "tpu"}
KERNELS = {"cudnn": (cudnn_rows, cudnn_attention), "splash": (splash_rows, splash_attention)}


def choose_kernel(
    config: ModelConfig, dtype: jnp.dtype, length: int, most: int | None, *, dropout: bool
) -> tuple[str, str]:
    """The kernel of `config.attention`; of "auto", the fastest that this machine's devices and the rows allow.

    Args:
      config: of the model.
      dtype: compute type.
      length: L.
      most: K, sequences of a row at most; None: not known.
      dropout: whether probabilities are dropped.

    Returns:
      "cudnn", "splash" or "plain"; and of "plain", why.

    Raises:
      UserError: the kernel that `config.attention` names cannot do it.
    """
    platform = jax.default_backend()
    fitting = next((kernel for kernel, home in HOMES.items() if home == platform), "plain")
    kernel = fitting if config.attention == "auto" else config.attention
    if kernel == "plain":
        return kernel, f"no other on {platform}" if config.attention == "auto" else "as configured"
    head = config.hidden_size // config.num_attention_heads
    several = most != 1 and kernel == "cudnn"
    obstacles = {
        f"it runs on {HOMES[kernel]}, and this is a {platform}": platform != HOMES[kernel],
        "model.attention_probs_dropout_prob is not 0": dropout,
        f"{length} tokens are no multiple of {LANES}": kernel == "splash" and length % LANES,
        f"of {length} tokens the matrices cost less": kernel == "splash" and length <= LANES,
        f"it computes in bfloat16, not in {jnp.dtype(dtype).name}": kernel == "cudnn" and dtype == jnp.float32,
        f"a head of {head} is no multiple of 8, or above 128": kernel == "cudnn" and (head % 8 or head > 128),
        "how many sequences a row has is not known": several and most is None,
        "several sequences in a row want a Hopper GPU or newer": several and not _hopper(),
        "there are several TPUs and no mesh": platform == "tpu" and jax.device_count() > 1 and _no_mesh(),
    }
    found = [obstacle for obstacle, stands in obstacles.items() if stands]
    if found and config.attention != "auto":
        raise UserError(f"model.attention={kernel} cannot be used here: {found[0]}; set it to auto")
    return ("plain", f"not {kernel}: {found[0]}") if found else (kernel, "")


def describe_kernel(config: ModelConfig, dtype: jnp.dtype, length: int, most: int) -> str:
    """What training with these settings attends with, for people."""
    kernel, why = choose_kernel(config, dtype, length, most, dropout=config.attention_probs_dropout_prob > 0)
    return f"attention: {kernel} ({why})" if why else f"attention: {kernel}"


def _no_mesh() -> bool:
    return jax.sharding.get_abstract_mesh().empty


def _hopper() -> bool:
    return float(getattr(jax.local_devices()[0], "compute_capability", 0)) >= 9


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
    scores = product_in_float32("bqnh,bknh->bnqk", query, key)
    probabilities = jax.nn.softmax(jnp.where(mask, scores * scale, jnp.finfo(jnp.float32).min), axis=-1)
    kept = probabilities if dropout is None else dropout(probabilities)
    context = jnp.einsum("bnqk,bknh->bqnh", kept.astype(value.dtype), value, precision=precision(value.dtype))
    return context, probabilities


def forward_attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """`scaled_dot_product_attention` without probabilities and dropout, as a CPU likes it where no gradient is wanted.

    Heads first, and the division by the sum of the softmax behind the product with V: 1.3 times (64 tokens) to twice
    (192) as fast. With its gradient it is slower.
    """
    query, key, value = (each.swapaxes(1, 2) for each in (query * query.shape[-1] ** -0.5, key, value))
    product = functools.partial(jnp.matmul, precision=precision(query.dtype), preferred_element_type=jnp.float32)
    scores = jnp.where(mask, product(query, key.swapaxes(2, 3)), jnp.finfo(jnp.float32).min)
    powers = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    context = product(powers.astype(value.dtype), value) / powers.sum(axis=-1, keepdims=True)
    return context.astype(value.dtype).swapaxes(1, 2)


class MultiHeadAttention(nn.Module):
    """N heads side by side, and the output projection."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    kernel: str = "plain"

    @nn.compact
    def __call__(self, hidden: jax.Array, rows: Any, length: int, *, deterministic: bool) -> jax.Array:
        """Tokens [T, D], T = B * L, and what `kernel` wants to know of the rows; plain: their mask -> [T, D]."""
        config = self.config
        heads = config.num_attention_heads
        split = (-1, length, heads, config.hidden_size // heads)
        query, key, value = (
            dense(config, config.hidden_size, self.dtype, name)(hidden).reshape(split)
            for name in ("query", "key", "value")  # XLA on a GPU merges the three products, unless they are large
        )
        if self.kernel == "plain" and deterministic and not self.is_mutable_collection("intermediates"):
            context = forward_attention(query, key, value, rows)
        elif self.kernel == "plain":
            dropout = Dropout(config.attention_probs_dropout_prob, deterministic=deterministic)
            context, probabilities = scaled_dot_product_attention(query, key, value, rows, dropout)
            self.sow("intermediates", "probabilities", probabilities)
        else:
            _, attention = KERNELS[self.kernel]
            context = attention(query, key, value, rows)
        return dense(config, config.hidden_size, self.dtype, "output")(context.reshape(hidden.shape))
