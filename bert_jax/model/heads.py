"""What stands on the body: the two heads of pre-training (Devlin et al. 2018, section 3.1)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.encoder import Bert
from bert_jax.model.layers import ACTIVATIONS, dense, layer_norm


class MaskedLanguageModelHead(nn.Module):
    """Dense, activation, LayerNorm; then the tied word table and a bias per vocabulary entry."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.transform = dense(config, config.hidden_size, self.dtype, name=None)
        self.layer_norm = layer_norm(config, self.dtype, name=None)
        self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))

    def __call__(self, hidden: jax.Array, decode: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """[..., D] -> logits float32 [..., V]; `decode` is the product with the word table."""
        transformed = self.layer_norm(ACTIVATIONS[self.config.hidden_act](self.transform(hidden)))
        return decode(transformed) + self.bias


class BertForPreTraining(nn.Module):
    """The body with both heads: Hugging Face's ``BertForPreTraining``."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.masked_language_model = MaskedLanguageModelHead(self.config, self.dtype)
        self.next_sentence = dense(self.config, 2, jnp.float32, name=None)

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        sequence_ids: jax.Array,
        sequence_starts: jax.Array,
        masked_positions: jax.Array,
        *,
        deterministic: bool = True,
    ) -> tuple[jax.Array, jax.Array]:
        """The arguments of `Bert`, and int32 [B, P]: only those positions meet the vocabulary matrix.

        Returns:
          masked-LM logits float32 [B, P, V]; next-sentence logits float32 [B, K, 2], 0 for "is next", 1 for "random".
        """
        hidden, pooled = self.bert(
            input_ids, token_type_ids, position_ids, sequence_ids, sequence_starts, deterministic=deterministic
        )
        batch, predicted = masked_positions.shape
        chosen = jnp.take_along_axis(hidden, masked_positions[:, :, None], axis=1)
        logits = self.masked_language_model(chosen.reshape(batch * predicted, -1), self.bert.embeddings.decode)
        return logits.reshape(batch, predicted, -1), self.next_sentence(pooled)
