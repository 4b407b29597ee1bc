"""The task of fine-tuning: a head on the body, and its loss (Devlin et al. 2018, section 4)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import ModelConfig
from bert_jax.model import heads
from bert_jax.model.inputs import Inputs
from bert_jax.runtime.execution import Execution
from bert_jax.training.losses import accuracy, binary_cross_entropy, span_cross_entropy, squared_error
from bert_jax.training.objective import Batch, Mean, Parameters


@dataclasses.dataclass(frozen=True)
class FinetuningObjective:
    """An `Objective` of the training loop.

    Attributes:
      kind: of task: classification, several, regression, tagging, answering or choice.
      model: the architecture.
      labels: C; 1 for regression, unused where there are no classes.
      label_smoothing: share of each target that goes to all classes alike (Szegedy et al. 2015, section 7).
      class_weights: of each class in the loss, [C]; empty for equal ones.
      execution: where and in which type it computes.
    """

    kind: str
    model: ModelConfig
    labels: int = 1
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    execution: Execution = Execution()

    losses = ("task_loss",)

    @property
    def network(self) -> heads.nn.Module:
        """The body with the head of this kind of task."""
        if self.kind == "tagging":
            return heads.BertForTokenClassification(self.model, self.labels, self.execution)
        if self.kind == "answering":
            return heads.BertForQuestionAnswering(self.model, self.execution)
        if self.kind == "choice":
            return heads.BertForMultipleChoice(self.model, self.execution)
        return heads.BertForSequenceClassification(self.model, self.labels, self.execution)

    def init(self, key: jax.Array) -> Parameters:
        """Random parameters, float32."""
        ids = jnp.zeros((1, 2, 8) if self.kind == "choice" else (1, 8), jnp.int32)
        return self.network.init(key, Inputs(ids, ids, ids, ids), **self._starts(ids))["params"]

    def prepare(self, batch: Batch, keys: jax.Array, *, training: bool) -> Batch:
        """The batch as it is: nothing is drawn here."""
        del keys, training
        return batch

    def outputs(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> jax.Array | tuple:
        """Logits float32: [B, C] of classes, numbers (C = 1) and choices, [B, L, C] of tags, two [B, L] of answers."""
        found = self.network.apply(
            {"params": params},
            Inputs.of_batch(batch),
            **self._starts(batch["input_ids"]),
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return found[:, 0] if self._starts(batch["input_ids"]) else found

    def metrics(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> dict[str, Mean]:
        """Sums and counts of the loss, and of the accuracy where there are classes."""
        return self.score(self.outputs(params, batch, dropout_key), batch)

    def score(self, outputs: jax.Array | tuple, batch: Batch) -> dict[str, Mean]:
        """The same from the outputs."""
        if self.kind == "answering":
            return {"task_loss": span_cross_entropy(*outputs, batch["starts"], batch["ends"])}
        if self.kind == "regression":
            return {"task_loss": squared_error(outputs[:, 0], batch["labels"])}
        if self.kind == "several":
            return {"task_loss": binary_cross_entropy(outputs, batch["labels"])}
        return {
            "task_loss": self._cross_entropy(outputs, batch["labels"]),
            "accuracy": accuracy(outputs, batch["labels"]),
        }

    def _cross_entropy(self, logits: jax.Array, labels: jax.Array) -> Mean:
        """Smoothed and weighted: the mean is over the weights, as in PyTorch."""
        classes = logits.shape[-1]
        targets = optax.smooth_labels(jax.nn.one_hot(jnp.maximum(labels, 0), classes), self.label_smoothing)
        class_weights = jnp.array(self.class_weights or (1.0,) * classes, jnp.float32)
        weights = jnp.where(labels >= 0, class_weights[jnp.maximum(labels, 0)], 0.0)
        losses = optax.safe_softmax_cross_entropy(logits, targets * class_weights)
        return Mean(jnp.where(labels >= 0, losses, 0.0).sum(), weights.sum())

    def _starts(self, ids: jax.Array) -> dict[str, jax.Array]:
        if self.kind in ("tagging", "answering", "choice"):
            return {}
        return {"sequence_starts": jnp.zeros((ids.shape[0], 1), jnp.int32)}
