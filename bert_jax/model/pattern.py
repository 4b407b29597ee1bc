"""Says which positions of a row may attend to which."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from bert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class AttentionPattern:
    """Holds a rule of attention within a sequence; no pattern lets one sequence of a row attend to another.

    Attributes:
      causal: whether a position attends to itself and to earlier positions only.
      window: the largest distance at which a position attends to another; None for any distance.
    """

    causal: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 0:
            raise UserError(f"window={self.window}: a position attends at least to itself, at a distance of 0")

    def mask(self, sequence_ids: Int[Array, "B L"]) -> Bool[Array, "B 1 L L"]:
        """Returns where attention is allowed, as bool [B, 1, L, L] from int32 [B, L].

        Padding (id 0) attends to padding, so that no row of the softmax is empty; nothing of it reaches a sequence.
        """
        allowed = sequence_ids[:, :, None] == sequence_ids[:, None, :]
        positions = jnp.arange(sequence_ids.shape[1])
        distance = positions[:, None] - positions  # [L, L], from a key up to its query
        if self.causal:
            allowed &= distance >= 0
        if self.window is not None:
            allowed &= abs(distance) <= self.window
        return allowed[:, None]
