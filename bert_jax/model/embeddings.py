"""Defines the embeddings, which enter the encoder (Devlin et al. 2018, section 3, figure 2)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from bert_jax.config import ModelConfig
from bert_jax.model.inputs import Inputs
from bert_jax.model.layers import Dropout, initializer, layer_norm, product_in_float32
from bert_jax.runtime.execution import Execution

VOCABULARY_MULTIPLE = 128  # on GPUs and TPUs the word table is padded to such a number of rows within its product


class Embeddings(nn.Module):
    """Sums word, position and token-type embeddings; LayerNorm and dropout follow."""

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        config = self.config
        # Looked up in float32 whatever the compute type: a frequent word's gradient sums thousands of positions.
        table = functools.partial(
            nn.Embed, features=config.hidden_size, embedding_init=initializer(config), dtype=jnp.float32
        )
        self.word_embeddings = table(config.vocab_size)
        self.position_embeddings = table(config.max_position_embeddings)
        self.token_type_embeddings = table(config.type_vocab_size)
        self.layer_norm = layer_norm(config, self.execution.dtype, name=None)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def __call__(self, inputs: Inputs, *, deterministic: bool) -> Float[Array, "B L D"]:
        """Returns the embedded tokens, [B, L, D]."""
        dtype = self.execution.dtype
        summed = (
            self.word_embeddings(inputs.input_ids).astype(dtype)
            + self.position_embeddings(inputs.position_ids).astype(dtype)
            + self.token_type_embeddings(inputs.token_type_ids).astype(dtype)
        )
        return self.dropout(self.layer_norm(summed), deterministic=deterministic)

    def decode(self, hidden: Float[Array, "*rows D"]) -> Float32[Array, "*rows V"]:
        """Multiplies [..., D] with the word table into float32 [..., V]: the tied decoder of the masked-LM head."""
        table = self.word_embeddings.embedding.astype(hidden.dtype)
        words = len(table)
        if self.execution.platform != "cpu":  # whose products want no round numbers
            table = jnp.pad(table, ((0, -words % VOCABULARY_MULTIPLE), (0, 0)))
        return product_in_float32("...d,vd->...v", hidden, table)[..., :words]
