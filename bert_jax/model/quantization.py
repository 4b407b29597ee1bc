"""Keeps matrices in eight bits: a quarter of the device memory of float32, for inference."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.model.parameters import is_body_matrix


class Int8Matrix(NamedTuple):
    """Holds values * scale, rounded to the nearest; scaled by absolute maxima (Dettmers et al. 2022, section 2.1)."""

    values: Any  # int8, of the shape of the matrix
    scale: Any  # float32: for each column of a kernel [1, out], for each row of a table [V, 1]


def quantize(params: dict) -> dict:
    """Puts an `Int8Matrix` in the place of each matrix and table of the body; heads, biases and LayerNorm stay."""

    def quantized(path: tuple, leaf: np.ndarray) -> np.ndarray | Int8Matrix:
        if not is_body_matrix(path):
            return leaf
        scale = np.abs(leaf).max(axis=-2 if path[-1].key == "kernel" else -1, keepdims=True) / 127
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        return Int8Matrix(np.rint(leaf / scale).astype(np.int8), scale)

    return jax.tree_util.tree_map_with_path(quantized, params)


def dequantize(params: dict, dtype: jnp.dtype) -> dict:
    """Returns the parameters that `quantize` got, as near as eight bits are; it leaves others as they are."""

    def matrix(leaf: Any) -> Any:
        is_quantized = isinstance(leaf, Int8Matrix)
        return (leaf.values * leaf.scale).astype(dtype) if is_quantized else leaf

    return jax.tree.map(matrix, params, is_leaf=lambda leaf: isinstance(leaf, Int8Matrix))
