"""The objective of fine-tuning: a head on the body, and its loss (Devlin et al. 2018, section 4)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from bert_jax.config import ModelConfig
from bert_jax.model.depths import layer_depths
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.kinds.base import Kind
from bert_jax.training.objective import Batch, Mean, Objective, Parameters


@dataclasses.dataclass(frozen=True)
class TaskObjective(Objective):
    """Trains the head of a task on the body.

    Attributes:
      kind: of task.
      model: the architecture.
      labels: C; 1 for regression, unused where there are no classes.
      label_smoothing: share of each target that goes to all classes alike (Szegedy et al. 2015, section 7).
      class_weights: of each class in the loss, [C]; empty for equal ones.
      execution: where and in which type it computes.
    """

    kind: Kind
    model: ModelConfig
    labels: int = 1
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    execution: Execution = Execution()

    @property
    def losses(self) -> tuple[str, ...]:
        """Names the one loss."""
        return ("task_loss",)

    @property
    def network(self) -> nn.Module:
        """Returns the body with the head of this kind of task."""
        return self.kind.network(self.model, self.labels, self.execution)

    def init(self, key: jax.Array) -> Parameters:
        """Draws random parameters, float32."""
        return self.kind.init(self.network, key)["params"]

    def prepare(self, batch: Batch, keys: jax.Array, *, training: bool) -> Batch:
        """Returns the batch as it is: nothing is drawn here."""
        del keys, training
        return batch

    def outputs(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> Any:
        """Returns logits, float32: [B, C] of classes, numbers and choices, [B, L, C] of tags, two [B, L] of spans."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return self.kind.outputs(self.network, {"params": params}, batch, deterministic=dropout_key is None, rngs=rngs)

    def metrics(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> dict[str, Mean]:
        """Returns sums and counts of the loss, and of the accuracy where there are classes."""
        return self.loss(self.outputs(params, batch, dropout_key), batch)

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """Returns the same from the outputs."""
        return self.kind.loss(outputs, batch, label_smoothing=self.label_smoothing, class_weights=self.class_weights)

    def layer_depths(self, params: Parameters) -> Any:
        """Returns the depth of each parameter."""
        return layer_depths(params)
