"""What every network takes."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Inputs:
    """The rows of a batch, int32 [B, L] each; of multiple choice [B, C, L].

    Attributes:
      input_ids: tokens.
      token_type_ids: 0 for the first sentence of a pair, 1 for the second.
      position_ids: place of a token in its sequence.
      sequence_ids: 0 is padding, 1..K the sequence within the row.
    """

    input_ids: jax.Array
    token_type_ids: jax.Array
    position_ids: jax.Array
    sequence_ids: jax.Array

    @classmethod
    def of_batch(cls, batch: Mapping[str, jax.Array]) -> "Inputs":
        """Takes the arrays of these names from a batch."""
        return cls(**{field.name: batch[field.name] for field in dataclasses.fields(cls)})

    @classmethod
    def unpacked(cls, ids: jax.Array, lengths: jax.Array, first_lengths: jax.Array) -> "Inputs":
        """Makes the inputs of rows with one sequence each.

        Args:
          ids: int32 [B, L].
          lengths: int32 [B], tokens of each row.
          first_lengths: int32 [B], tokens of its first sentence, with [CLS] and the first [SEP].
        """
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
        inside = positions < lengths[:, None]
        token_types = ((positions >= first_lengths[:, None]) & inside).astype(jnp.int32)
        return cls(ids, token_types, positions, inside.astype(jnp.int32))

    def map(self, function: Callable[[jax.Array], jax.Array]) -> "Inputs":
        """Applies a function to each of the arrays."""
        return jax.tree.map(function, self)
