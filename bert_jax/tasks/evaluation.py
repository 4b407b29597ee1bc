"""Runs a model over examples, and scores what it predicts with the measures of the task."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.model.quantization import dequantize
from bert_jax.tasks.batches import EvaluationBatch, evaluation_batches, in_row_order
from bert_jax.tasks.kinds.base import Codec, can_be_scored
from bert_jax.tasks.objective import TaskObjective
from bert_jax.training.forward import forward_of
from bert_jax.training.metrics import add_sums
from bert_jax.training.objective import Mean, Parameters


class Outcome(NamedTuple):
    """Holds what a model makes of a split."""

    predictions: list[Any]  # one for each example
    scores: dict[str, float]  # the measures of the task and the loss; empty without labels
    report: dict[str, Any]  # each class by itself; empty where there are none


class Evaluator:
    """Scores a split as often as it is asked to; the batches stay in memory."""

    def __init__(self, objective: TaskObjective, codec: Codec, examples: Sequence[Any], batch_size: int) -> None:
        self.objective, self.codec, self.examples = objective, codec, examples
        self.rows = objective.kind.rows(examples, codec)
        self.batches = evaluation_batches(
            objective.kind, self.rows, batch_size, codec.max_length, objective.execution.platform
        )

    def __call__(self, params: Parameters) -> dict[str, float]:
        """Returns the measures of the task and the `loss`."""
        return self.outcome(params).scores

    def outcome(self, params: Parameters, progress: Callable[[np.ndarray], object] = lambda rows: None) -> Outcome:
        """Returns predictions, and their scores if the examples have labels; `progress` as in `forward`."""
        kind = self.objective.kind
        outputs, loss = forward(self.objective, params, self.batches, progress)
        predictions = kind.predictions(self.examples, self.rows, outputs, self.codec)
        if not can_be_scored(kind, self.examples):
            return Outcome(predictions, {}, {})
        scores, report = kind.scores(self.examples, predictions, self.codec)
        return Outcome(predictions, {"loss": loss, **scores}, report)


def forward(
    objective: TaskObjective,
    params: Parameters,
    batches: Sequence[EvaluationBatch],
    progress: Callable[[np.ndarray], object] = lambda rows: None,
) -> tuple[list[Any], float]:
    """Runs the network of a task over all rows.

    Args:
      objective: of the task.
      params: of its network.
      batches: of all rows.
      progress: is called after each batch with the numbers of its rows.

    Returns:
      What `Kind.probabilities` gives for each row, in their order, and the mean loss over the rows with labels.
    """
    run = forward_of(objective.execution.mesh, _probabilities_and_loss, objective)
    sums: dict[str, list[float]] = {}
    outputs = []
    for batch, (of_batch, metrics) in zip(batches, run(params, (batch.arrays for batch in batches)), strict=True):
        add_sums(sums, metrics)
        outputs.append(of_batch)
        progress(batch.rows[batch.rows >= 0])
    total, count = sums.get("task_loss", (0.0, 0.0))
    return in_row_order(batches, outputs), total / count if count else 0.0


def _probabilities_and_loss(
    objective: TaskObjective, params: Parameters, batch: dict[str, Any]
) -> tuple[Any, dict[str, Mean]]:
    outputs = objective.outputs(dequantize(params, objective.execution.dtype), batch, None)
    return objective.kind.probabilities(outputs), objective.loss(outputs, batch)
