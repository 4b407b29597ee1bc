"""Runs a model over examples, and scores what it says of them with the measures of the task."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.finetuning.batches import EvaluationBatch, evaluation_batches, in_row_order
from bert_jax.metrics import classification as scoring
from bert_jax.metrics.answering import score_answers
from bert_jax.model.quantization import dequantize
from bert_jax.tasks.examples import Example, TaggingExample
from bert_jax.tasks.objective import FinetuningObjective
from bert_jax.tasks.reading import Prediction, Reading, Reply
from bert_jax.training.metrics import add_sums
from bert_jax.training.objective import Parameters


class Outcome(NamedTuple):
    """What a model makes of a split."""

    predictions: list[Prediction]  # one for each example
    scores: dict[str, float]  # the measures of the task and the loss; empty without labels
    report: dict[str, Any]  # each class by itself; empty where there are none


class Evaluator:
    """A split, ready to be scored as often as asked; its batches stay in memory."""

    def __init__(
        self, objective: FinetuningObjective, reading: Reading, examples: Sequence[Example], batch_size: int
    ) -> None:
        self.objective, self.reading, self.examples = objective, reading, examples
        self.rows = reading.rows(examples)
        self.batches = evaluation_batches(self.rows, batch_size, reading.max_length, objective.execution.platform)

    def __call__(self, params: Parameters) -> dict[str, float]:
        """The measures of the task and the `loss`."""
        return self.outcome(params).scores

    def outcome(self, params: Parameters, progress: Callable[[np.ndarray], object] = lambda rows: None) -> Outcome:
        """Predictions, and their scores if the examples have labels; `progress` as in `forward`."""
        outputs, loss = forward(self.objective, params, self.batches, progress)
        predictions = self.reading.predictions(self.examples, self.rows, outputs)
        if not is_labelled(self.examples):
            return Outcome(predictions, {}, {})
        scores, report = score(self.reading, self.examples, predictions)
        return Outcome(predictions, {"loss": loss, **scores}, report)


def forward(
    objective: FinetuningObjective,
    params: Parameters,
    batches: Sequence[EvaluationBatch],
    progress: Callable[[np.ndarray], object] = lambda rows: None,
) -> tuple[list[Any], float]:
    """The outputs for each row, and the mean loss over the rows with labels.

    Args:
      objective: of the kind of task.
      params: of its network.
      batches: of all rows.
      progress: told the numbers of the rows after each batch.

    Returns:
      For each row, in their order, probabilities float32 [C] of classes or endings, a number [1], the numbers and
      probabilities of the likeliest tags, two arrays [L], or the logits of starts and ends, two arrays float32 [L].
    """
    sums: dict[str, list[float]] = {}
    found = []
    for batch in batches:
        outputs, metrics = jax.device_get(_outputs(objective, params, batch.arrays))
        add_sums(sums, metrics)
        found.append(list(zip(*outputs, strict=True)) if isinstance(outputs, tuple) else outputs)
        progress(batch.rows[batch.rows >= 0])
    total, count = sums.get("task_loss", (0.0, 0.0))
    return in_row_order(batches, found), total / count if count else 0.0


def _outputs_of(objective: FinetuningObjective, params: Parameters, batch: dict) -> tuple[Any, dict]:
    logits = objective.outputs(dequantize(params, objective.execution.dtype), batch, None)
    metrics = objective.score(logits, batch)
    if objective.kind in ("classification", "choice"):
        return jax.nn.softmax(logits), metrics
    if objective.kind == "several":
        return jax.nn.sigmoid(logits), metrics
    if objective.kind == "tagging":
        return (logits.argmax(-1), jax.nn.softmax(logits).max(-1)), metrics
    return logits, metrics


_outputs = jax.jit(_outputs_of, static_argnums=0)  # one for all splits and models, so that each shape compiles once


def is_labelled(examples: Sequence[Example]) -> bool:
    """Whether a split can be scored; all of it has labels or none of it."""
    first = examples[0]
    if hasattr(first, "answers"):
        return any(each.answers or not each.answerable for each in examples)
    return (first.tags if isinstance(first, TaggingExample) else first.label) is not None


def score(
    reading: Reading, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The measures of the task, and a report of each class where there are classes."""
    kind, names = reading.kind, reading.names
    if kind == "tagging":
        tags = [each.tags for each in examples], [each.tags for each in predictions]
        if scoring.marks_entities(names):
            return scoring.score_tags(*tags), scoring.tag_report(*tags)
        return scoring.score_words(*tags), scoring.word_report(*tags)
    if kind == "answering":
        return _score_replies(examples, predictions, reading.null_threshold is not None), {}
    if kind == "regression":
        return scoring.score_numbers([each.label for each in examples], [each.value for each in predictions]), {}
    if kind == "several":
        labels = np.array([[name in each.label for name in names] for each in examples], int)
        return scoring.score_several_labels(labels, [list(each.scores.values()) for each in predictions]), {}
    if kind == "choice":
        labels, values = [each.label for each in examples], [each.scores for each in predictions]
        names = tuple(f"ending{number}" for number in range(len(values[0])))
    else:
        numbers = {name: number for number, name in enumerate(names)}
        labels = [numbers[each.label] for each in examples]
        values = [list(each.scores.values()) for each in predictions]
    return scoring.score_classes(labels, values, names), scoring.class_report(labels, values, names)


def _score_replies(examples: Sequence[Example], replies: Sequence[Reply], unanswerable: bool) -> dict[str, float]:
    """SQuAD's scores; with unanswerable questions also those of the best threshold, found on what has an answer."""
    references = {each.id: [text for text, _ in each.answers] for each in examples}
    scores = score_answers(dict(zip(references, (each.answer for each in replies), strict=True)), references)
    if unanswerable:
        best = [next((answer.text for answer in each.ranked if answer.text), "") for each in replies]
        null_scores = dict(zip(references, (each.null_score_diff for each in replies), strict=True))
        found = score_answers(dict(zip(references, best, strict=True)), references, null_scores)
        scores |= {name: value for name, value in found.items() if name.startswith("best_")}
    return scores
