"""Runs a model over the examples of a split, and scores what it says with the measures of the task."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.finetuning import scoring
from bert_jax.finetuning.answering import answering_rows, best_answers
from bert_jax.finetuning.batches import evaluation_batches, in_row_order
from bert_jax.finetuning.examples import Example
from bert_jax.finetuning.features import Row, choice_rows, mean_over_rows, tagging_rows, text_rows, word_tags
from bert_jax.finetuning.objective import FinetuningObjective
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.metrics import add_sums
from bert_jax.training.objective import Parameters

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "several": "multi_label_classification",
    "regression": "regression",
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How examples become rows: the tokenizer, the lengths, the names of the classes."""

    kind: str
    tokenizer: Tokenizer
    names: tuple[str, ...]
    max_length: int
    truncation: str = "head"
    stride: int = 128

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """The rows of all examples, in their order."""
        if self.kind == "tagging":
            return tagging_rows(examples, self.tokenizer, self.max_length, self.names)
        if self.kind == "answering":
            return answering_rows(examples, self.tokenizer, self.max_length, stride=self.stride)
        if self.kind == "choice":
            return choice_rows(examples, self.tokenizer, self.max_length)
        return text_rows(
            examples,
            self.tokenizer,
            self.max_length,
            PROBLEM_TYPES[self.kind],
            self.names,
            truncation=self.truncation,
            stride=self.stride,
        )


class Evaluator:
    """A split, ready to be scored as often as asked; its batches stay in memory."""

    def __init__(
        self, objective: FinetuningObjective, reading: Reading, examples: Sequence[Example], batch_size: int
    ) -> None:
        self.examples, self.reading = examples, reading
        self.rows = reading.rows(examples)
        self.batches = evaluation_batches(self.rows, batch_size, reading.max_length)
        self._run = jax.jit(lambda params, batch: _outputs(objective, params, batch))

    def __call__(self, params: Parameters) -> dict[str, float]:
        """The measures of the task and the `loss`."""
        outputs, loss = self._forward(params)
        return {"loss": loss, **self._scores(outputs)}

    def predictions(self, params: Parameters) -> list[dict[str, Any]]:
        """What the model says of each example, with the example's id, in their order."""
        outputs, _ = self._forward(params)
        answers = self._answers(outputs)
        return [{"id": example.id, **answer} for example, answer in zip(self.examples, answers, strict=True)]

    def _forward(self, params: Parameters) -> tuple[list[Any], float]:
        """The outputs for each row, and the mean loss."""
        sums: dict[str, list[float]] = {}
        found = []
        for batch in self.batches:
            outputs, metrics = jax.device_get(self._run(params, batch.arrays))
            add_sums(sums, metrics)
            found.append(list(zip(*outputs, strict=True)) if isinstance(outputs, tuple) else outputs)
        total, count = sums["task_loss"]
        return in_row_order(self.batches, found), total / count if count else 0.0

    def _averaged(self, outputs: list[np.ndarray]) -> np.ndarray:
        """[examples, C]: over the windows of each."""
        return mean_over_rows(self.rows, np.stack(outputs), len(self.examples))

    def _scores(self, outputs: list[Any]) -> dict[str, float]:
        examples, names = self.examples, self.reading.names
        if self.reading.kind == "tagging":
            return scoring.score_tags([each.tags for each in examples], word_tags(self.rows, outputs, examples, names))
        if self.reading.kind == "answering":
            answers = self._answers(outputs)
            references = {each.id: [text for text, _ in each.answers] for each in examples}
            null_scores = {each.id: answer["null_score_diff"] for each, answer in zip(examples, answers, strict=True)}
            predictions = {each.id: answer["answer"] for each, answer in zip(examples, answers, strict=True)}
            unanswerable = not all(references.values())
            return scoring.score_answers(predictions, references, null_scores if unanswerable else None)
        values = self._averaged(outputs)
        if self.reading.kind == "regression":
            return scoring.score_numbers([each.label for each in examples], values[:, 0])
        if self.reading.kind == "several":
            labels = np.array([[name in each.label for name in names] for each in examples], int)
            return scoring.score_several_labels(labels, values)
        names = names or tuple(str(number) for number in range(values.shape[1]))
        numbers = {name: number for number, name in enumerate(names)}
        labels = [each.label if self.reading.kind == "choice" else numbers[each.label] for each in examples]
        return scoring.score_classes(np.array(labels), values, names)

    def _answers(self, outputs: list[Any]) -> list[dict[str, Any]]:
        names, kind = self.reading.names, self.reading.kind
        if kind == "tagging":
            return [{"tags": tags} for tags in word_tags(self.rows, outputs, self.examples, names)]
        if kind == "answering":
            return self._spans(outputs)
        values = self._averaged(outputs)
        if kind == "regression":
            return [{"value": float(value)} for value in values[:, 0]]
        if kind == "several":
            return [{"labels": [name for name, p in zip(names, row, strict=True) if p > 0.5]} for row in values]
        if kind == "choice":
            return [{"choice": int(row.argmax()), "score": float(row.max())} for row in values]
        return [{"label": names[row.argmax()], "score": float(row.max())} for row in values]

    def _spans(self, outputs: list[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
        of_example: list[list[int]] = [[] for _ in self.examples]
        for number, row in enumerate(self.rows):
            of_example[row.example].append(number)
        unanswerable = any(not each.answerable for each in self.examples)
        found = []
        for example, numbers in zip(self.examples, of_example, strict=True):
            starts, ends = zip(*(outputs[number] for number in numbers), strict=True)
            rows = [self.rows[number] for number in numbers]
            answers = best_answers(rows, starts, ends, example.context, unanswerable=unanswerable)
            best = answers.best
            found.append(
                {
                    "answer": best.text,
                    "start": best.start,
                    "score": best.probability,
                    "null_score_diff": answers.null_score_diff,
                }
            )
        return found


def _outputs(objective: FinetuningObjective, params: Parameters, batch: dict) -> tuple[Any, dict]:
    """Probabilities, numbers, numbers of tags, or logits of starts and ends; and the metrics."""
    logits = objective.outputs(params, batch, None)
    metrics = objective.score(logits, batch)
    if objective.kind in ("classification", "choice"):
        return jax.nn.softmax(logits), metrics
    if objective.kind == "several":
        return jax.nn.sigmoid(logits), metrics
    return (logits.argmax(-1) if objective.kind == "tagging" else logits), metrics
