"""The encoder stack and the whole body of BERT (Devlin et al. 2018, section 3; post-LN as published)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.attention import KERNELS, MultiHeadAttention, choose_kernel, sequence_mask
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.layers import ACTIVATIONS, Dropout, dense, layer_norm

# What `remat` keeps of a layer besides its input. Attention's products have batch dimensions, dense ones have none.
SAVED = {"nothing": None, "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


class PositionwiseFeedForward(nn.Module):
    """Two dense layers with the activation between (Vaswani et al. 2017, section 3.3)."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[T, D] -> [T, F] -> [T, D]."""
        config = self.config
        inner = ACTIVATIONS[config.hidden_act](dense(config, config.intermediate_size, self.dtype, "inner")(hidden))
        return dense(config, config.hidden_size, self.dtype, "output")(inner)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with dropout, residual and LayerNorm after it."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    deterministic: bool = True
    kernel: str = "plain"
    length: int = 0  # L

    @nn.compact
    def __call__(self, hidden: jax.Array, rows: Any) -> tuple[jax.Array, None]:
        """Tokens [T, D], and what the kernel of attention knows of the rows -> [T, D], and nothing: as a scan wants."""
        config, deterministic = self.config, self.deterministic
        dropout = Dropout(config.hidden_dropout_prob, deterministic=deterministic)
        attention = MultiHeadAttention(config, self.dtype, self.kernel, name="attention")
        attended = attention(hidden, rows, self.length, deterministic=deterministic)
        hidden = layer_norm(config, self.dtype, "attention_layer_norm")(hidden + dropout(attended))
        transformed = PositionwiseFeedForward(config, self.dtype, name="feed_forward")(hidden)
        hidden = layer_norm(config, self.dtype, "output_layer_norm")(hidden + dropout(transformed))
        self.sow("intermediates", "hidden", hidden)
        return hidden, None


class Encoder(nn.Module):
    """The stack. `scan_layers` holds all layers in one set of stacked parameters, `layers` [layers, ...]."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: jax.Array, sequence_ids: jax.Array, *, deterministic: bool, most: int | None = None
    ) -> jax.Array:
        """[B, L, D], int32 [B, L] and K, the sequences of a row at most -> [B, L, D]."""
        config, length = self.config, sequence_ids.shape[1]
        kernel = "plain"
        # Whoever collects intermediates wants the probabilities; to draw parameters, any kernel will do.
        if not (self.is_initializing() or self.is_mutable_collection("intermediates")):
            dropout = config.attention_probs_dropout_prob > 0 and not deterministic
            kernel, _ = choose_kernel(config, self.dtype, length, most, dropout=dropout)
        rows = sequence_mask(sequence_ids) if kernel == "plain" else KERNELS[kernel][0](sequence_ids, most)
        layer = EncoderLayer
        if config.remat:
            # A scan keeps XLA from merging recomputation and forward pass; only unrolled layers need the barrier.
            layer = nn.remat(layer, prevent_cse=not config.scan_layers, policy=SAVED[config.remat_saves])
        shape = hidden.shape
        # XLA on CPU multiplies [T, D] about twice as fast backward as [B, L, D].
        hidden = hidden.reshape(-1, shape[-1])
        if config.scan_layers:
            stack = nn.scan(
                layer,
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=config.num_hidden_layers,
            )
            hidden, _ = stack(config, self.dtype, deterministic, kernel, length, name="layers")(hidden, rows)
        else:
            for index in range(config.num_hidden_layers):
                name = f"layer_{index}"
                hidden, _ = layer(config, self.dtype, deterministic, kernel, length, name=name)(hidden, rows)
        return hidden.reshape(shape)


class Pooler(nn.Module):
    """tanh(dense) of the [CLS] state of each sequence."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array, sequence_starts: jax.Array) -> jax.Array:
        """[B, L, D] and int32 [B, K], where each sequence of a row starts -> [B, K, D]."""
        first = jnp.take_along_axis(hidden, sequence_starts[:, :, None], axis=1)
        return jnp.tanh(dense(self.config, self.config.hidden_size, self.dtype, "dense")(first))


class Bert(nn.Module):
    """Embeddings, encoder and pooler: Hugging Face's ``BertModel``. The pooler has parameters if it is used."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.dtype)
        self.encoder = Encoder(self.config, self.dtype)
        self.pooler = Pooler(self.config, self.dtype)

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        sequence_ids: jax.Array,
        *,
        deterministic: bool = True,
        most: int | None = None,
    ) -> jax.Array:
        """Runs embeddings and encoder.

        Args:
          input_ids, token_type_ids, position_ids: int32 [B, L].
          sequence_ids: int32 [B, L]; 0 is padding, 1..K the sequence within the row.
          deterministic: no dropout; otherwise the `dropout` stream of keys is needed.
          most: K, sequences of a row at most, in order and padding behind them; None: any. Faster kernels of attention
            want to know.

        Returns:
          hidden states [B, L, D].
        """
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, deterministic=deterministic)
        self.sow("intermediates", "embedded", hidden)
        return self.encoder(hidden, sequence_ids, deterministic=deterministic, most=most)

    def pool(self, hidden: jax.Array, sequence_starts: jax.Array) -> jax.Array:
        """Hidden states [B, L, D] and int32 [B, K], the position of each sequence's [CLS] -> [B, K, D]."""
        return self.pooler(hidden, sequence_starts)
