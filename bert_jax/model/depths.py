"""How deep each parameter lies, for learning rates by layer."""

import re
from typing import Any

import jax
import numpy as np


def layer_depths(params: Any) -> Any:
    """Returns the depth of each parameter of a BERT and its heads.

    The embeddings are 0 and the layers count from 1; the pooler and the heads, above the last, are -1. Leaves are
    int [], or [layers, 1, ...] where a scan stacks the layers.
    """
    return jax.tree_util.tree_map_with_path(_depth, params)


def _depth(path: Any, leaf: jax.Array) -> np.ndarray:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if "/layers/" in name:
        return np.arange(1, len(leaf) + 1).reshape(-1, *[1] * (leaf.ndim - 1))
    layer = re.search(r"/layer_(\d+)/", name)
    if layer:
        return np.array(int(layer[1]) + 1)
    return np.array(0 if "embeddings/" in name else -1)
