"""Knows, as the one place that does, where the parts of a tree of parameters are.

A tree has the body under one key, and beside it a key for each head. The body has `embeddings`, `encoder` and perhaps
`pooler`; the encoder has `layer_0`, `layer_1`, ..., or all layers stacked in `layers` (`scan_layers`).
"""

from typing import Any

import flax.linen as nn

BODY = "bert"
POOLER = "pooler"
STACKED_LAYERS = "layers"


def body(params: dict) -> dict:
    """Returns the parameters of `Bert`."""
    return params[BODY]


def with_body(params: dict, new_body: dict) -> dict:
    """Returns the tree with another body; the heads stay."""
    return {**params, BODY: new_body}


def embeddings(params: dict) -> dict:
    """Returns the tables and the LayerNorm of `Embeddings`."""
    return params[BODY]["embeddings"]


def encoder(params: dict) -> dict:
    """Returns the layers, unrolled or stacked."""
    return params[BODY]["encoder"]


def with_encoder(params: dict, new_encoder: dict) -> dict:
    """Returns the tree with other layers; all else stays."""
    return with_body(params, {**params[BODY], "encoder": new_encoder})


def layer_name(index: int) -> str:
    """Returns the key of an unrolled layer."""
    return f"layer_{index}"


def layer(params: dict, index: int) -> dict:
    """Returns the parameters of an unrolled layer."""
    return encoder(params)[layer_name(index)]


def with_layer(params: dict, index: int, new_layer: dict) -> dict:
    """Returns the tree with another layer in the place of an unrolled one."""
    return with_encoder(params, {**encoder(params), layer_name(index): new_layer})


def part_names(params: dict) -> set[str]:
    """Returns what a tree has besides the body: the names of the heads, and "pooler" if there is one."""
    return (params.keys() - {BODY}) | ({POOLER} & body(params).keys())


def without_pooler(params: dict) -> dict:
    """Returns the tree without the pooler, if it has one."""
    return with_body(params, {name: part for name, part in body(params).items() if name != POOLER})


def is_body_matrix(path: tuple[Any, ...]) -> bool:
    """Says whether a path of `jax.tree_util` is that of a matrix or table of the body."""
    return path[0].key == BODY and path[-1].key in ("kernel", "embedding")


def apply(network: nn.Module, params: dict, *arguments: Any, **settings: Any) -> Any:
    """Runs a network with its parameters, and returns what its ``__call__`` (or `method`) does.

    Flax types the result as a pair with changed collections too, which it is only with `mutable`.
    """
    return network.apply({"params": params}, *arguments, **settings)
