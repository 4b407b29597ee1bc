"""Texts and pairs of texts with one class (Devlin et al. 2018, section 4.1)."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.tasks import labels as label_module
from bert_jax.tasks.kinds.base import Codec, CrossEntropyKind, Task
from bert_jax.tasks.kinds.text import TextExample, TextKind
from bert_jax.tasks.label_values import in_words_of, one_class_name
from bert_jax.tasks.records import label_of
from bert_jax.tasks.rows import NO_LABEL, Batch, Row, label_number, padded_labels
from bert_jax.text.tables import Record


class Class(NamedTuple):
    """Names the likeliest class of a text."""

    label: str
    score: float  # its probability
    scores: dict[str, float]  # of each class


class Classification(CrossEntropyKind, TextKind):
    """Gives a text one of C classes."""

    name = "classification"
    problem_type = "single_label_classification"
    balances_classes = True

    def read_label(self, task: Task, split: str, record: Record) -> str | None:
        """Returns the name of the class."""
        value = label_of(task, record, split)
        return None if value is None else in_words_of(task, record, one_class_name(value, record, task.label))

    def names_in(self, example: TextExample) -> Iterable[str]:
        """Returns the class."""
        return () if example.label is None else (example.label,)

    def label_names(self, task: Task, train: Sequence[TextExample], source: str) -> tuple[str, ...]:
        """Returns the names; says what is odd about them where they are those of the data."""
        names = super().label_names(task, train, source)
        if not task.labels:
            label_module.check_names(names, sum(map(self.is_labelled, train)), task.label, source)
        return names

    def label_value(self, example: TextExample, numbers: dict[str, int]) -> int:
        """Returns the number of the class."""
        return NO_LABEL if example.label is None else label_number(example.label, numbers, f"example {example.id}")

    def labels(self, rows: Sequence[Row], batch_size: int, length: int) -> Batch:
        """Returns `labels` int32 [B]; -1 is none."""
        del length
        return {"labels": padded_labels(rows, (batch_size,), np.int32)}

    def probabilities(self, outputs: jax.Array) -> jax.Array:
        """Returns the softmax over the classes, float32 [B, C]."""
        return jax.nn.softmax(outputs)

    def prediction(self, values: list[float], codec: Codec) -> Class:
        """Returns the likeliest class."""
        scores = dict(zip(codec.labels, values, strict=True))
        return Class(max(scores, key=scores.__getitem__), max(scores.values()), scores)

    def scores(
        self, examples: Sequence[TextExample], predictions: Sequence[Class], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns accuracy, F1, Matthews, calibration error and cross-entropy, and a report of each class."""
        from bert_jax.metrics.classification import class_report, score_classes  # scikit-learn takes a second

        numbers = {name: number for number, name in enumerate(codec.labels)}
        labels = [numbers[example.label] for example in examples]
        values = [list(prediction.scores.values()) for prediction in predictions]
        return score_classes(labels, values, codec.labels), class_report(labels, values, codec.labels)
