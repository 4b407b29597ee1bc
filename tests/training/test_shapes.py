"""The shapes and types in annotations are those that functions take and give."""

import beartype
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from bert_jax.model.kernels.plain import scaled_dot_product_attention
from bert_jax.training import losses

LOGITS, LABELS, NUMBERS = np.zeros((2, 3, 5), np.float32), np.ones((2, 3), np.int32), np.zeros(4, np.float32)
HEADS, MASK = np.zeros((2, 4, 3, 8), np.float32), np.ones((2, 1, 4, 4), bool)
CASES = [
    (losses.cross_entropy, (LOGITS, LABELS), (LOGITS, LABELS[:1])),
    (losses.cross_entropy, (LOGITS[0], LABELS[0]), (LOGITS, LABELS.astype(np.float32))),
    (losses.accuracy, (LOGITS, LABELS), (LOGITS, LABELS[..., None])),
    (losses.weighted_cross_entropy, (LOGITS, LABELS, 0.1, ()), (LOGITS, LABELS, 0.1, 1)),
    (losses.binary_cross_entropy, (LOGITS, LOGITS), (LOGITS, LOGITS[..., :4])),
    (losses.squared_error, (NUMBERS, NUMBERS), (NUMBERS, NUMBERS[:, None])),
    (
        losses.span_cross_entropy,
        (LOGITS[0], LOGITS[0], LABELS[0], LABELS[0]),
        (LOGITS[0], LOGITS[0], LABELS[0], LABELS),
    ),
    (scaled_dot_product_attention, (HEADS, HEADS, HEADS, MASK), (HEADS, HEADS, HEADS[:, :3], MASK)),
    (scaled_dot_product_attention, (HEADS, HEADS, HEADS, MASK[:1]), (HEADS, HEADS, HEADS, MASK[..., :3])),
]


def on_device(values: tuple) -> list:
    return [jnp.asarray(value) if isinstance(value, np.ndarray) else value for value in values]


@pytest.mark.parametrize(("function", "right", "wrong"), CASES)
def test_annotations_tell_right_shapes_from_wrong_ones(function, right, wrong):
    checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)(function)
    checked(*on_device(right))
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(*on_device(wrong))
