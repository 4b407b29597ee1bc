"""Texts and pairs of texts with any number of classes at once."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.tasks import labels as label_module
from bert_jax.tasks.kinds.base import Codec, Task, must_have_labels
from bert_jax.tasks.kinds.text import TextExample, TextKind
from bert_jax.tasks.label_values import Alone, Vector, class_name, class_names, one_hot_names, without_vectors
from bert_jax.tasks.records import label_of
from bert_jax.tasks.rows import NO_LABEL, Batch, Row, label_number, padded_labels
from bert_jax.text.tables import Record
from bert_jax.training.losses import binary_cross_entropy
from bert_jax.training.objective import Mean


class Classes(NamedTuple):
    """Names the classes that are likelier than not, of any number."""

    labels: list[str]
    scores: dict[str, float]  # probability of each class on its own


class MultiLabel(TextKind):
    """Gives a text any number of C classes at once."""

    name = "multi_label"
    problem_type = "multi_label_classification"

    def settled(self, files: Sequence[tuple[str, list[TextExample]]]) -> list[list[TextExample]]:
        """Tells by all labels whether those of zeros and ones are vectors, or lists of the names 0 and 1."""
        given = [example.label for _, examples in files for example in examples]
        labels = iter(without_vectors(given, ", ".join(dict.fromkeys(source for source, _ in files))))
        return [[dataclasses.replace(example, label=next(labels)) for example in examples] for _, examples in files]

    def read_label(self, task: Task, split: str, record: Record) -> tuple[str, ...] | Vector | None:
        """Returns the names of the classes: see `label_values`; several columns have commas between them."""
        columns = [column.strip() for column in task.label.split(",")]
        if len(columns) > 1 and task.label not in (record.columns or record.cells):
            given = [class_name(record.cells.get(column), record, column) for column in columns]
            return None if not must_have_labels(split) and not any(given) else one_hot_names(columns, record)
        return class_names(label_of(task, record, split, empty_is_label=True), record, task.label)

    def names_in(self, example: TextExample) -> Iterable[str]:
        """Returns all classes that hold."""
        return example.label or ()

    def label_names(self, task: Task, train: Sequence[TextExample], source: str) -> tuple[str, ...]:
        """Returns all names; the same ones everywhere teach nothing, a single one, here and not there, does."""
        label_module.check_variety({example.label for example in train}, task.label, source)
        if all(isinstance(label, Alone) for label in {example.label for example in train}):
            label_module.check_alone({name for example in train for name in example.label}, source)
        names = {name for example in train for name in self.names_in(example)}
        label_module.check_names(names, sum(map(self.is_labelled, train)), task.label, source)
        return label_module.in_order(names)

    def label_value(self, example: TextExample, numbers: dict[str, int]) -> np.ndarray:
        """Returns float32 [C], 1 for each class that applies and 0 for the others."""
        if example.label is None:
            return np.full(len(numbers), NO_LABEL, np.float32)
        label = np.zeros(len(numbers), np.float32)
        for name in example.label:
            label[label_number(name, numbers, f"example {example.id}")] = 1
        return label

    def labels(self, rows: Sequence[Row], batch_size: int, length: int) -> Batch:
        """Returns `labels` float32 [B, C]; -1 is none."""
        del length
        return {"labels": padded_labels(rows, (batch_size, len(rows[0].label)), np.float32)}

    def loss(
        self, outputs: jax.Array, batch: Any, *, label_smoothing: float = 0.0, class_weights: tuple[float, ...] = ()
    ) -> dict[str, Mean]:
        """Returns the cross-entropy of the C yes-or-no decisions."""
        del label_smoothing, class_weights
        return {"task_loss": binary_cross_entropy(outputs, batch["labels"])}

    def probabilities(self, outputs: jax.Array) -> jax.Array:
        """Returns the sigmoid of each class, float32 [B, C]."""
        return jax.nn.sigmoid(outputs)

    def prediction(self, values: list[float], codec: Codec) -> Classes:
        """Returns the classes above one half."""
        scores = dict(zip(codec.labels, values, strict=True))
        return Classes([name for name, score in scores.items() if score > 0.5], scores)

    def scores(
        self, examples: Sequence[TextExample], predictions: Sequence[Classes], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns micro F1, macro F1 and the share of rows with every class right."""
        from bert_jax.metrics.classification import score_multi_label

        labels = np.array([[name in example.label for name in codec.labels] for example in examples], int)
        return score_multi_label(labels, [list(prediction.scores.values()) for prediction in predictions]), {}
