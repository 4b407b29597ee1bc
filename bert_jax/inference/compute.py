"""What runs on the device: batches of texts to probabilities, states and vectors.

A batch holds `ids` int32 [B, L]; `lengths` int32 [B], tokens of each row; `firsts` int32 [B], tokens up to and with the
first [SEP]; `masked` int32 [B, P], positions of interest; and `targets` int32 [B], where they are asked for.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from bert_jax.model.encoder import Bert
from bert_jax.model.heads import BertForMaskedLM, BertForNextSentencePrediction
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import Intermediates, apply_and_collect
from bert_jax.model.parameters import apply, body
from bert_jax.model.quantization import dequantize

TextBatch = dict[str, Int[Array, "B ..."]]


def top_tokens(
    module: BertForMaskedLM, params: dict, batch: TextBatch, *, top_k: int
) -> tuple[Float32[Array, "B P k"], Int[Array, "B P k"]]:
    """Returns the highest probabilities float32 [B, P, top_k] at the masked positions, and the ids that have them."""
    weights = dequantize(params, module.execution.dtype)
    logits = apply(module, weights, _inputs(batch), masked_positions=batch["masked"])
    probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top_k)  # as a list
    return probabilities, ids


def log_probability(module: BertForMaskedLM, params: dict, batch: TextBatch) -> Float32[Array, " B"]:
    """Returns the natural logarithm of the probability of `targets` at the first masked position, float32 [B]."""
    weights = dequantize(params, module.execution.dtype)
    logits = apply(module, weights, _inputs(batch), masked_positions=batch["masked"][:, :1])[:, 0]
    return jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][:, None], axis=1)[:, 0]


def next_sentence_probability(
    module: BertForNextSentencePrediction, params: dict, batch: TextBatch
) -> Float32[Array, " B"]:
    """Returns the probabilities float32 [B] of label 0, "is next"."""
    starts = jnp.zeros((batch["ids"].shape[0], 1), jnp.int32)
    weights = dequantize(params, module.execution.dtype)
    logits = apply(module, weights, _inputs(batch), sequence_starts=starts)
    return jax.nn.softmax(logits[:, 0], axis=-1)[:, 0]


def states(
    module: Bert, params: dict, batch: TextBatch, *, pooled: bool
) -> tuple[Float32[Array, "B L D"], Float32[Array, "B D"] | None]:
    """Returns hidden states float32 [B, L, D] and, if wanted, pooled states [B, D]."""
    weights = dequantize(body(params), module.execution.dtype)
    hidden = apply(module, weights, _inputs(batch), max_sequences=1)
    starts = jnp.zeros((hidden.shape[0], 1), jnp.int32)
    vectors = apply(module, weights, hidden, starts, method="pool")[:, 0].astype(jnp.float32) if pooled else None
    return hidden.astype(jnp.float32), vectors


def intermediates(module: Bert, params: dict, batch: TextBatch) -> Intermediates:
    """Returns the states and attentions of all layers, float32."""
    _, collected = apply_and_collect(module, dequantize(body(params), module.execution.dtype), _inputs(batch))
    return jax.tree.map(lambda array: array.astype(jnp.float32), collected)


def vectors(module: Bert, params: dict, batch: TextBatch, *, pooling: str, normalize: bool) -> Float32[Array, "B D"]:
    """Returns vectors float32 [B, D]."""
    hidden, pooled = states(module, params, batch, pooled=pooling == "pooler")
    if pooling == "mean":
        lengths = batch["lengths"]
        inside = jnp.arange(hidden.shape[1]) < lengths[:, None]
        # A row of the padded batch has no tokens: its mean is thrown away, and must only not divide by 0.
        pooled = jnp.where(inside[:, :, None], hidden, 0).sum(1) / jnp.maximum(lengths, 1)[:, None]
    elif pooling == "cls":
        pooled = hidden[:, 0]
    assert pooled is not None
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True) if normalize else pooled


def _inputs(batch: TextBatch) -> Inputs:
    return Inputs.unpacked(batch["ids"], batch["lengths"], batch["firsts"])
