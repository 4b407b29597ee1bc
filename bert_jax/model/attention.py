"""Defines multi-head attention (Vaswani et al. 2017, section 3.2), within sequences only."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from bert_jax.config import ModelConfig
from bert_jax.model.kernels.kernel import Kernel
from bert_jax.model.kernels.plain import PLAIN, scaled_dot_product_attention
from bert_jax.model.layers import Dropout, dense
from bert_jax.runtime.execution import Execution


class MultiHeadAttention(nn.Module):
    """Attends with N heads side by side, and projects their output."""

    config: ModelConfig
    execution: Execution = Execution()
    kernel: Kernel = PLAIN

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "T D"], rows: Any, length: int, *, deterministic: bool
    ) -> Float[Array, "T D"]:
        """Attends within the rows.

        Args:
          hidden: the states of the tokens, [T, D], T = B * L.
          rows: the description of the rows that the kernel's `prepare` gives.
          length: L, the tokens of a row.
          deterministic: whether there is no dropout.

        Returns:
          The states after attention, [T, D].
        """
        config = self.config
        heads = config.num_attention_heads
        split = (-1, length, heads, config.hidden_size // heads)
        query, key, value = (
            dense(config, config.hidden_size, self.execution, name)(hidden).reshape(split)
            for name in ("query", "key", "value")  # XLA on a GPU merges the three products, unless they are large
        )
        # Only this formula drops probabilities, gives them to whoever collects intermediates, and is fast with its
        # gradient.
        if self.kernel.gives_probabilities and (not deterministic or self.is_mutable_collection("intermediates")):
            dropout = Dropout(config.attention_probs_dropout_prob, deterministic=deterministic)
            context, probabilities = scaled_dot_product_attention(query, key, value, rows, dropout)
            self.sow("intermediates", "probabilities", probabilities)
        else:
            context = self.kernel.attend(query, key, value, rows, self.execution)
        return dense(config, config.hidden_size, self.execution, "output")(context.reshape(hidden.shape))
