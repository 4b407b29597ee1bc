"""Defines the protocol of a task: parameters from a key, and the loss and metrics of a batch as sums and counts."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Batch = Mapping[str, jax.Array]
Parameters = Any  # a tree of arrays


class Mean(NamedTuple):
    """Holds a mean that is not divided yet, so that the mean over devices, micro-batches and steps is exact."""

    total: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


class Objective(Protocol):
    """Defines a task. `init`, `prepare` and `metrics` are pure and are traced into the jitted step.

    The loss is the sum of the means that `losses` names; their counts must not depend on the parameters.
    """

    @property
    def losses(self) -> tuple[str, ...]:
        """Names the means whose sum is trained on."""
        ...

    def init(self, key: jax.Array) -> Parameters:
        """Returns parameters drawn from a key."""
        ...

    def prepare(self, batch: Batch, keys: jax.Array, *, training: bool) -> Batch:
        """Returns the global batch as the model sees it, for example masked, with a key for each row [B].

        Every leaf, in and out, has leading dimension B.
        """
        ...

    def metrics(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> dict[str, Mean]:
        """Returns sums and counts over a prepared (micro-)batch; without a key there is no dropout."""
        ...

    def derived(self, means: dict[str, float]) -> dict[str, float]:
        """Returns the metrics that follow from the means over many batches, such as a perplexity."""
        del means
        return {}

    def layer_depths(self, params: Parameters) -> Any:
        """Returns how deep each parameter lies, for learning rates by layer; here, nothing is a layer.

        Leaves are int []: 0 for what lies below all layers, 1 for the lowest layer, and so on; -1 for what lies above
        them. Where a parameter stacks several layers, its leaf is int [layers, 1, ...].
        """
        return jax.tree.map(lambda _: np.array(-1), params)
