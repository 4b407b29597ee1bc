"""What the loop asks of a task: parameters from a key, and the loss and metrics of a batch as sums and counts."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax

Batch = Mapping[str, jax.Array]
Parameters = Any  # a tree of arrays


class Mean(NamedTuple):
    """A mean that is not divided yet, so that the mean over devices, micro-batches and steps is exact."""

    total: jax.Array
    count: jax.Array


class Objective(Protocol):
    """A task. Every method is pure and is traced into the jitted step.

    The loss is the sum of the means that `losses` names; their counts must not depend on the parameters.
    """

    losses: tuple[str, ...]

    def init(self, key: jax.Array) -> Parameters:
        """Parameters from a key."""
        ...

    def prepare(self, batch: Batch, keys: jax.Array, *, training: bool) -> Batch:
        """The global batch as the model sees it, for example masked, with a key for each row [B].

        Every leaf, in and out, has leading dimension B.
        """
        ...

    def metrics(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> dict[str, Mean]:
        """Sums and counts over a prepared (micro-)batch; no dropout without a key."""
        ...
