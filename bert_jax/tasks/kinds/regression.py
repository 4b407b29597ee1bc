"""Texts and pairs of texts with a number (STS-B: Devlin et al. 2018, section 4.1)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks import labels as label_module
from bert_jax.tasks.kinds.base import Codec, Task
from bert_jax.tasks.kinds.text import TextExample, TextKind
from bert_jax.tasks.records import label_of
from bert_jax.tasks.rows import Batch, Row, padded_labels
from bert_jax.text.tables import Record
from bert_jax.training.losses import squared_error
from bert_jax.training.objective import Mean


class Number(NamedTuple):
    """Holds the number that a regression gives."""

    value: float


class Regression(TextKind):
    """Gives a text a number."""

    name = "regression"
    problem_type = "regression"

    def read_label(self, task: Task, split: str, record: Record) -> float | None:
        """Returns the number."""
        value = label_of(task, record, split)
        if value is None:
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{record.place}: {task.label!r} is {value!r:.60}, not a finite number: mend it, or take the row out"
            )
        return number

    def label_names(self, task: Task, train: Sequence[TextExample], source: str) -> tuple[str, ...]:
        """Returns none, and makes sure that not all numbers are the same."""
        label_module.check_variety({example.label for example in train}, task.label, source)
        return ()

    def names_of_head(self, task: Task, labels: tuple[str, ...], problem_type: str) -> tuple[str, ...]:
        """Returns none, and makes sure that the head gives one number."""
        self._check_problem_type(task, problem_type)
        if len(labels) != 1:
            raise UserError(f"task {task.name} is {self.name}, and the head of the model has {len(labels)} outputs")
        return ()

    def exported_labels(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the one name that transformers wants."""
        del names
        return ("value",)

    def label_value(self, example: TextExample, numbers: dict[str, int]) -> float:
        """Returns the number; NaN if it is not known."""
        del numbers
        return float("nan") if example.label is None else float(example.label)

    def labels(self, rows: Sequence[Row], batch_size: int, length: int) -> Batch:
        """Returns `labels` float32 [B]; NaN is none."""
        del length
        return {"labels": padded_labels(rows, (batch_size,), np.float32, np.nan)}

    def loss(
        self, outputs: jax.Array, batch: Any, *, label_smoothing: float = 0.0, class_weights: tuple[float, ...] = ()
    ) -> dict[str, Mean]:
        """Returns the squared error."""
        del label_smoothing, class_weights
        return {"task_loss": squared_error(outputs[:, 0], batch["labels"])}

    def probabilities(self, outputs: jax.Array) -> jax.Array:
        """Returns the numbers as they are, float32 [B, 1]."""
        return outputs

    def prediction(self, values: list[float], codec: Codec) -> Number:
        """Returns the number."""
        del codec
        return Number(values[0])

    def scores(
        self, examples: Sequence[TextExample], predictions: Sequence[Number], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns Pearson's and Spearman's correlation, their mean, and the mean squared error."""
        del codec
        from bert_jax.metrics.regression import score_numbers

        labels = [example.label for example in examples]
        return score_numbers(labels, [prediction.value for prediction in predictions]), {}
