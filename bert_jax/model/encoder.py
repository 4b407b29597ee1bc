"""Defines the encoder stack and the whole body of BERT (Devlin et al. 2018, section 3; post-LN as published)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.config import ModelConfig
from bert_jax.model.attention import MultiHeadAttention
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.inputs import Inputs
from bert_jax.model.kernels.choose import choose_kernel
from bert_jax.model.kernels.kernel import Kernel
from bert_jax.model.kernels.plain import PLAIN
from bert_jax.model.layers import ACTIVATIONS, Dropout, dense, layer_norm
from bert_jax.model.parameters import STACKED_LAYERS, layer_name
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

# What `remat` keeps of a layer besides its input. Attention's products have batch dimensions, dense ones have none.
SAVED = {"nothing": None, "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


class PositionwiseFeedForward(nn.Module):
    """Applies two dense layers with the activation between them (Vaswani et al. 2017, section 3.3)."""

    config: ModelConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """Transforms each token by itself: [T, D] -> [T, F] -> [T, D]."""
        config = self.config
        inner = dense(config, config.intermediate_size, self.execution, "inner")(hidden)
        return dense(config, config.hidden_size, self.execution, "output")(ACTIVATIONS[config.hidden_act](inner))


class EncoderLayer(nn.Module):
    """Applies attention and feed-forward, each with dropout, residual and LayerNorm after it."""

    config: ModelConfig
    execution: Execution = Execution()
    deterministic: bool = True
    kernel: Kernel = PLAIN
    length: int = 0  # L

    @nn.compact
    def __call__(self, hidden: Float[Array, "T D"], rows: Any) -> tuple[Float[Array, "T D"], None]:
        """Returns the tokens [T, D] after the layer, and None, as a scan wants; `rows` is for the kernel."""
        config, execution, deterministic = self.config, self.execution, self.deterministic
        dropout = Dropout(config.hidden_dropout_prob, deterministic=deterministic)
        attention = MultiHeadAttention(config, execution, self.kernel, name="attention")
        attended = attention(hidden, rows, self.length, deterministic=deterministic)
        hidden = layer_norm(config, execution.dtype, "attention_layer_norm")(hidden + dropout(attended))
        transformed = PositionwiseFeedForward(config, execution, name="feed_forward")(hidden)
        hidden = layer_norm(config, execution.dtype, "output_layer_norm")(hidden + dropout(transformed))
        self.sow("intermediates", "hidden", hidden)
        return hidden, None


class Encoder(nn.Module):
    """Applies the layers; with `scan_layers` all parameters are stacked in one set, `layers` [layers, ...]."""

    config: ModelConfig
    execution: Execution = Execution()

    pattern: AttentionPattern = AttentionPattern()

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        sequence_ids: Int[Array, "B L"],
        *,
        deterministic: bool,
        max_sequences: int | None = None,
    ) -> Float[Array, "B L D"]:
        """Returns [B, L, D] from [B, L, D]; see `Bert` for `sequence_ids` and `max_sequences`."""
        config, execution, length = self.config, self.execution, sequence_ids.shape[1]
        kernel = PLAIN
        # Whoever collects intermediates wants the probabilities; to draw parameters, any kernel will do.
        if not (self.is_initializing() or self.is_mutable_collection("intermediates")):
            dropout = config.attention_probs_dropout_prob > 0 and not deterministic
            kernel, _ = choose_kernel(config, execution, length, max_sequences, dropout=dropout, pattern=self.pattern)
        rows = kernel.prepare(sequence_ids, max_sequences, self.pattern)
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
                in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
                length=config.num_hidden_layers,
            )
            hidden, _ = stack(config, execution, deterministic, kernel, length, name=STACKED_LAYERS)(hidden, rows)
        else:
            for index in range(config.num_hidden_layers):
                name = layer_name(index)
                hidden, _ = layer(config, execution, deterministic, kernel, length, name=name)(hidden, rows)
        return hidden.reshape(shape)


class Pooler(nn.Module):
    """Applies tanh(dense) to the [CLS] state of each sequence."""

    config: ModelConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], sequence_starts: Int[Array, "B K"]) -> Float[Array, "B K D"]:
        """Returns [B, K, D] from hidden states [B, L, D] and where each sequence of a row starts, int32 [B, K]."""
        first = jnp.take_along_axis(hidden, sequence_starts[:, :, None], axis=1)
        return jnp.tanh(dense(self.config, self.config.hidden_size, self.execution, "dense")(first))


class Bert(nn.Module):
    """Applies embeddings, encoder and pooler, as Hugging Face's ``BertModel``.

    The pooler has parameters if it is used. `pattern` says which positions attend to which; BERT's is full.
    """

    config: ModelConfig
    execution: Execution = Execution()

    pattern: AttentionPattern = AttentionPattern()

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.execution)
        self.encoder = Encoder(self.config, self.execution, self.pattern)
        self.pooler = Pooler(self.config, self.execution)

    def __call__(
        self, inputs: Inputs, *, deterministic: bool = True, max_sequences: int | None = None
    ) -> Float[Array, "B L D"]:
        """Runs embeddings and encoder.

        Args:
          inputs: the rows of a batch, int32 [B, L] each.
          deterministic: whether there is no dropout; otherwise the `dropout` stream of keys is needed.
          max_sequences: K, the most sequences that a row has, in order and with padding behind them; None if that is
            not known. Faster kernels of attention need it.

        Returns:
          The hidden states, [B, L, D].
        """
        hidden = self.embeddings(inputs, deterministic=deterministic)
        self.sow("intermediates", "embedded", hidden)
        return self.encoder(hidden, inputs.sequence_ids, deterministic=deterministic, max_sequences=max_sequences)

    def pool(self, hidden: Float[Array, "B L D"], sequence_starts: Int[Array, "B K"]) -> Float[Array, "B K D"]:
        """Returns [B, K, D] from hidden states [B, L, D] and the position of each sequence's [CLS], int32 [B, K]."""
        return self.pooler(hidden, sequence_starts)
