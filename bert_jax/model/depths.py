"""Tells how deep each parameter lies, for learning rates by layer."""

from typing import Any

import jax
import numpy as np

from bert_jax.model.parameters import STACKED_LAYERS, body, embeddings, encoder, layer_name, with_body, with_encoder


def layer_depths(params: dict) -> dict:
    """Returns the depth of each parameter of a BERT and its heads.

    The embeddings are 0 and the layers count from 1; the pooler and the heads, above the last, are -1. Leaves are
    int [], or [layers, 1, ...] where a scan stacks the layers.
    """
    layers = encoder(params)
    if STACKED_LAYERS in layers:
        depths = {STACKED_LAYERS: jax.tree.map(_depths_in_stack, layers[STACKED_LAYERS])}
    else:
        names = [layer_name(index) for index in range(len(layers))]
        depths = {name: _everywhere(index + 1, layers[name]) for index, name in enumerate(names)}
    above = with_encoder(_everywhere(-1, params), depths)
    return with_body(above, {**body(above), "embeddings": _everywhere(0, embeddings(params))})


def _everywhere(depth: int, params: Any) -> Any:
    return jax.tree.map(lambda _: np.array(depth), params)


def _depths_in_stack(leaf: jax.Array) -> np.ndarray:
    return np.arange(1, len(leaf) + 1).reshape(-1, *[1] * (leaf.ndim - 1))
