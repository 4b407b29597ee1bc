"""What is inside: the states of every layer and the attention of every head."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from bert_jax.model.inputs import Inputs
from bert_jax.model.parameters import BODY, apply, layer_name


@flax.struct.dataclass
class Intermediates:
    """The states within the body of a network.

    Attributes:
      embedded: output of the embeddings, [B, L, D].
      hidden: output of each layer, [layers, B, L, D].
      attentions: attention probabilities before dropout, float32 [layers, B, N, L, L].
    """

    embedded: jax.Array
    hidden: jax.Array
    attentions: jax.Array


def apply_and_collect(network: nn.Module, params: dict, inputs: Inputs, **arguments: Any) -> tuple[Any, Intermediates]:
    """Applies a network and collects the intermediates of its body, whether its layers are scanned or not.

    Args:
      network: `Bert`, or one with a head on it.
      params: its parameters.
      inputs: of its body.
      **arguments: whatever else `apply` is to be given.

    Returns:
      The outputs of the network, and the intermediates.
    """
    outputs, state = apply(network, params, inputs, **arguments, mutable=["intermediates"])
    collected = state["intermediates"]
    collected = collected.get(BODY, collected)
    encoder = collected["encoder"]
    if "layers" in encoder:
        layers = encoder["layers"]
    else:
        unrolled = [encoder[layer_name(index)] for index in range(len(encoder))]
        layers = jax.tree.map(lambda *values: jnp.stack(values), *unrolled)
    # Flax keeps a tuple of all values of a name; each of these has one.
    (embedded,), (hidden,) = collected["embedded"], layers["hidden"]
    (attentions,) = layers["attention"]["probabilities"]
    return outputs, Intermediates(embedded, hidden.reshape(-1, *embedded.shape), attentions)
