"""Computes the losses of the heads, as sums and counts: a label of -1 has no part in them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num

from bert_jax.training.objective import Mean

Labels = Array | np.ndarray


def cross_entropy(logits: Float[Array, "*rows C"], labels: Int[Labels, "*rows"]) -> Mean:
    """Computes the cross-entropy in nats from logits float32 [..., C] and labels int32 [...], one class for each."""
    weights = (labels >= 0).astype(jnp.float32)
    losses = jax.nn.logsumexp(logits, axis=-1) - _at_labels(logits, labels)
    return Mean((losses * weights).sum(), weights.sum())


@jax.custom_jvp
def _at_labels(logits: jax.Array, labels: Labels) -> jax.Array:
    """Returns the logits of the labels, [...] from [..., C] and int32 [...]; for a label of -1, anything."""
    return jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]


@_at_labels.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    # By comparison, which fuses into the gradient of the softmax; that of an index writes zeros of all of [..., C].
    (logits, labels), (change, _) = primals, tangents
    classes = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)
    return _at_labels(logits, labels), jnp.where(classes == labels[..., None], change, 0).sum(axis=-1)


def accuracy(logits: Float[Array, "*rows C"], labels: Int[Labels, "*rows"]) -> Mean:
    """Computes the share of labels int32 [...] whose logit in [..., C] is the largest."""
    weights = (labels >= 0).astype(jnp.float32)
    # The maximum is at hand in the softmax; an argmax over V costs as much as the product with the word table on CPU.
    hits = _at_labels(logits, labels) >= logits.max(axis=-1)
    return Mean((hits * weights).sum(), weights.sum())


def weighted_cross_entropy(
    logits: Float[Array, "*rows C"],
    labels: Int[Labels, "*rows"],
    label_smoothing: float,
    class_weights: tuple[float, ...],
) -> Mean:
    """Computes the smoothed and weighted cross-entropy, whose mean is over the weights, as in PyTorch.

    Args:
      logits: the logits, float32 [..., C].
      labels: the classes, int32 [...]; -1 has no part.
      label_smoothing: the share of each target that goes to all classes alike (Szegedy et al. 2015, section 7).
      class_weights: the weight of each class, [C]; empty for equal ones.
    """
    classes = logits.shape[-1]
    targets = optax.smooth_labels(jax.nn.one_hot(jnp.maximum(labels, 0), classes), label_smoothing)
    weight_of_class = jnp.array(class_weights or (1.0,) * classes, jnp.float32)
    weights = jnp.where(labels >= 0, weight_of_class[jnp.maximum(labels, 0)], 0.0)
    losses = optax.safe_softmax_cross_entropy(logits, targets * weight_of_class)
    return Mean(jnp.where(labels >= 0, losses, 0.0).sum(), weights.sum())


def binary_cross_entropy(logits: Float[Array, "*rows C"], labels: Num[Labels, "*rows C"]) -> Mean:
    """Computes the cross-entropy in nats where several classes may hold at once.

    Args:
      logits: the logits, float32 [..., C].
      labels: the classes, 0 or 1, [..., C]; -1 has no part.
    """
    weights = (labels >= 0).astype(jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(logits, labels)
    return Mean((losses * weights).sum(), weights.sum())


def squared_error(predictions: Float[Array, "*rows"], targets: Float[Labels, "*rows"]) -> Mean:
    """Computes the loss of regression from float32 [...] twice; a target that is not a number has no part."""
    known = ~jnp.isnan(targets)
    errors = jnp.where(known, predictions - jnp.where(known, targets, 0), 0)
    return Mean((errors**2).sum(), known.sum().astype(jnp.float32))


def span_cross_entropy(
    start_logits: Float[Array, "B L"],
    end_logits: Float[Array, "B L"],
    starts: Int[Labels, " B"],
    ends: Int[Labels, " B"],
) -> Mean:
    """Computes the mean cross-entropy of starts and ends: logits float32 [B, L] twice, positions int32 [B] twice."""
    first, last = cross_entropy(start_logits, starts), cross_entropy(end_logits, ends)
    return Mean(first.total + last.total, first.count + last.count)
