"""Defines what every network takes."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@flax.struct.dataclass
class Inputs:
    """Holds the rows of a batch, int32 [B, L] each; of multiple choice [B, C, L].

    Attributes:
      input_ids: the tokens.
      token_type_ids: the sentence of each token: 0 for the first of a pair, 1 for the second.
      position_ids: the place of each token in its sequence.
      sequence_ids: the sequence of each token within its row, 1..K; 0 is padding.
    """

    input_ids: Int[Array, "*rows L"]
    token_type_ids: Int[Array, "*rows L"]
    position_ids: Int[Array, "*rows L"]
    sequence_ids: Int[Array, "*rows L"]

    @classmethod
    def of_batch(cls, batch: Mapping[str, jax.Array]) -> "Inputs":
        """Takes the arrays of these names from a batch."""
        return cls(**{field.name: batch[field.name] for field in dataclasses.fields(cls)})

    @classmethod
    def unpacked(cls, ids: Int[Array, "B L"], lengths: Int[Array, " B"], first_lengths: Int[Array, " B"]) -> "Inputs":
        """Makes the inputs of rows with one sequence each.

        Args:
          ids: the tokens, int32 [B, L].
          lengths: the number of tokens of each row, int32 [B].
          first_lengths: the number of tokens of its first sentence, with [CLS] and the first [SEP], int32 [B].
        """
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
        inside = positions < lengths[:, None]
        token_types = ((positions >= first_lengths[:, None]) & inside).astype(jnp.int32)
        return cls(ids, token_types, positions, inside.astype(jnp.int32))

    def map(self, function: Callable[[jax.Array], jax.Array]) -> "Inputs":
        """Applies a function to each of the arrays."""
        return jax.tree.map(function, self)
