"""Collects what is inside: the states of every layer and the attention of every head."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from bert_jax.model.inputs import Inputs
from bert_jax.model.parameters import BODY, STACKED_LAYERS, apply, layer_name


@flax.struct.dataclass
class Intermediates:
    """Holds the states within the body of a network.

    Attributes:
      embedded: the output of the embeddings, [B, L, D].
      hidden: the output of each layer, [layers, B, L, D].
      attentions: the attention probabilities before dropout, float32 [layers, B, N, L, L].
    """

    embedded: Float[Array, "B L D"]
    hidden: Float[Array, "layers B L D"]
    attentions: Float32[Array, "layers B N L L"]


def apply_and_collect(network: nn.Module, params: dict, inputs: Inputs, **arguments: Any) -> tuple[Any, Intermediates]:
    """Applies a network and collects the intermediates of its body, whether its layers are scanned or not.

    Args:
      network: the network, `Bert` or one with a head on it.
      params: the parameters of the network.
      inputs: the inputs of its body.
      **arguments: the other arguments of `apply`.

    Returns:
      The outputs of the network, and the intermediates.
    """
    outputs, state = apply(network, params, inputs, **arguments, mutable=["intermediates"])
    collected = state["intermediates"]
    collected = collected.get(BODY, collected)
    encoder = collected["encoder"]
    if STACKED_LAYERS in encoder:
        layers = encoder[STACKED_LAYERS]
    else:
        unrolled = [encoder[layer_name(index)] for index in range(len(encoder))]
        layers = jax.tree.map(lambda *values: jnp.stack(values), *unrolled)
    # Flax keeps a tuple of all values of a name; each of these has one.
    (embedded,), (hidden,) = collected["embedded"], layers["hidden"]
    (attentions,) = layers["attention"]["probabilities"]
    return outputs, Intermediates(embedded, hidden.reshape(-1, *embedded.shape), attentions)
