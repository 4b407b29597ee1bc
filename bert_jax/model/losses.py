"""The losses of the heads, as sums and counts: a label of -1 has no part in them."""

import jax
import jax.numpy as jnp
import optax

from bert_jax.training.objective import Mean


def cross_entropy(logits: jax.Array, labels: jax.Array) -> Mean:
    """Logits float32 [..., C] and int32 [...] -> nats. Of masked LM, next sentence, classes, tags and choices."""
    weights = (labels >= 0).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return Mean((losses * weights).sum(), weights.sum())


def accuracy(logits: jax.Array, labels: jax.Array) -> Mean:
    """Share of labels whose logit is the largest; [..., C] and int32 [...]."""
    weights = (labels >= 0).astype(jnp.float32)
    targets = jnp.maximum(labels, 0)
    # The maximum is at hand in the softmax; an argmax over V costs as much as the product with the word table on CPU.
    hits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] >= logits.max(axis=-1)
    return Mean((hits * weights).sum(), weights.sum())


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> Mean:
    """Several classes at once: logits float32 [..., C] and labels [..., C], 0 or 1 -> nats."""
    weights = (labels >= 0).astype(jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(logits, labels)
    return Mean((losses * weights).sum(), weights.sum())


def squared_error(predictions: jax.Array, targets: jax.Array) -> Mean:
    """Regression: float32 [...] twice; a target that is not a number has no part."""
    known = ~jnp.isnan(targets)
    errors = jnp.where(known, predictions - jnp.where(known, targets, 0), 0)
    return Mean((errors**2).sum(), known.sum().astype(jnp.float32))


def span_cross_entropy(start_logits: jax.Array, end_logits: jax.Array, starts: jax.Array, ends: jax.Array) -> Mean:
    """Question answering: logits float32 [B, L] twice, positions int32 [B] twice -> mean of both cross-entropies."""
    first, last = cross_entropy(start_logits, starts), cross_entropy(end_logits, ends)
    return Mean(first.total + last.total, first.count + last.count)
