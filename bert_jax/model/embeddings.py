"""What enters the encoder (Devlin et al. 2018, section 3, figure 2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.layers import Dropout, initializer, layer_norm, product_in_float32

VOCABULARY_MULTIPLE = 128  # of rows that the word table is given, within the product with it, on GPUs and TPUs


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, LayerNorm, dropout."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        config = self.config
        # Looked up in float32 whatever the compute type: a frequent word's gradient sums thousands of positions.
        shared = dict(features=config.hidden_size, embedding_init=initializer(config), dtype=jnp.float32)
        self.word_embeddings = nn.Embed(config.vocab_size, **shared)
        self.position_embeddings = nn.Embed(config.max_position_embeddings, **shared)
        self.token_type_embeddings = nn.Embed(config.type_vocab_size, **shared)
        self.layer_norm = layer_norm(config, self.dtype, name=None)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array, position_ids: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Three int32 [B, L] -> [B, L, D]."""
        summed = (
            self.word_embeddings(input_ids).astype(self.dtype)
            + self.position_embeddings(position_ids).astype(self.dtype)
            + self.token_type_embeddings(token_type_ids).astype(self.dtype)
        )
        return self.dropout(self.layer_norm(summed), deterministic=deterministic)

    def decode(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> float32 [..., V]: the product with the word table, the tied decoder of the masked-LM head."""
        table = self.word_embeddings.embedding.astype(hidden.dtype)
        words = len(table)
        if jax.default_backend() != "cpu":  # whose products want no round numbers
            table = jnp.pad(table, ((0, -words % VOCABULARY_MULTIPLE), (0, 0)))
        return product_in_float32("...d,vd->...v", hidden, table)[..., :words]
