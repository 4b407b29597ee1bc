"""What runs on the device: batches of texts to probabilities, states and vectors.

Everywhere `ids` is int32 [B, L]; `lengths` int32 [B], tokens of each row; `firsts` int32 [B], tokens up to and with the
first [SEP]; `masked` int32 [B, P], positions of interest.
"""

import jax
import jax.numpy as jnp

from bert_jax.model.encoder import Bert
from bert_jax.model.heads import BertForMaskedLM, BertForNextSentencePrediction
from bert_jax.model.inputs import Inputs
from bert_jax.model.parameters import body
from bert_jax.model.quantization import dequantize


def fill(
    module: BertForMaskedLM,
    params: dict,
    ids: jax.Array,
    lengths: jax.Array,
    firsts: jax.Array,
    masked: jax.Array,
    top_k: int,
) -> tuple[jax.Array, jax.Array]:
    """Probabilities float32 [B, P, top_k] at the masked positions, and whose they are."""
    variables = {"params": dequantize(params, module.execution.dtype)}
    logits = module.apply(variables, Inputs.unpacked(ids, lengths, firsts), masked_positions=masked)
    return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top_k)


def log_probability(
    module: BertForMaskedLM,
    params: dict,
    ids: jax.Array,
    lengths: jax.Array,
    firsts: jax.Array,
    masked: jax.Array,
    targets: jax.Array,
) -> jax.Array:
    """Natural logarithm of the probability of `targets` int32 [B] at the first masked position, float32 [B]."""
    variables = {"params": dequantize(params, module.execution.dtype)}
    logits = module.apply(variables, Inputs.unpacked(ids, lengths, firsts), masked_positions=masked[:, :1])[:, 0]
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]


def follow(
    module: BertForNextSentencePrediction, params: dict, ids: jax.Array, lengths: jax.Array, firsts: jax.Array
) -> jax.Array:
    """Probabilities float32 [B] of label 0, "is next"."""
    starts = jnp.zeros((ids.shape[0], 1), jnp.int32)
    variables = {"params": dequantize(params, module.execution.dtype)}
    logits = module.apply(variables, Inputs.unpacked(ids, lengths, firsts), sequence_starts=starts)
    return jax.nn.softmax(logits[:, 0], axis=-1)[:, 0]


def encode(
    module: Bert, params: dict, ids: jax.Array, lengths: jax.Array, firsts: jax.Array, pooled: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Hidden states float32 [B, L, D] and, if wanted, pooled states [B, D]."""
    variables = {"params": dequantize(body(params), module.execution.dtype)}
    hidden = module.apply(variables, Inputs.unpacked(ids, lengths, firsts), max_sequences=1)
    starts = jnp.zeros((ids.shape[0], 1), jnp.int32)
    vectors = module.apply(variables, hidden, starts, method="pool")[:, 0].astype(jnp.float32) if pooled else None
    return hidden.astype(jnp.float32), vectors


def embed(
    module: Bert,
    params: dict,
    ids: jax.Array,
    lengths: jax.Array,
    firsts: jax.Array,
    pooling: str,
    normalize: bool,
) -> jax.Array:
    """Vectors float32 [B, D]."""
    hidden, pooled = encode(module, params, ids, lengths, firsts, pooled=pooling == "pooler")
    if pooling == "mean":
        inside = jnp.arange(ids.shape[1]) < lengths[:, None]
        # A row of the padded batch has no tokens: its mean is thrown away, and must only not divide by 0.
        pooled = jnp.where(inside[:, :, None], hidden, 0).sum(1) / jnp.maximum(lengths, 1)[:, None]
    elif pooling == "cls":
        pooled = hidden[:, 0]
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True) if normalize else pooled
