"""Texts and pairs of texts with a class, with any number of classes, or with a number (Devlin et al. 2018, 4.1)."""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.config.finetuning import TRUNCATIONS
from bert_jax.errors import UserError
from bert_jax.model import heads
from bert_jax.model.inputs import Inputs
from bert_jax.runtime.execution import Execution
from bert_jax.tasks import labels as label_module
from bert_jax.tasks.kinds.base import Codec, CrossEntropyKind, Kind, Task, must_have_labels
from bert_jax.tasks.label_values import Vector, class_names, in_words_of, one_class_name, one_hot_names, without_vectors
from bert_jax.tasks.records import identified, label_of, text_of
from bert_jax.tasks.rows import (
    NO_LABEL,
    WHOLE,
    Batch,
    Row,
    as_ids,
    check_room,
    checked_stride,
    encode_in_parts,
    label_number,
    mean_over_rows,
    padded_labels,
    windows,
)
from bert_jax.text.tables import Record
from bert_jax.training.losses import binary_cross_entropy, squared_error
from bert_jax.training.objective import Mean


@dataclasses.dataclass(frozen=True, slots=True)
class TextExample:
    """Holds a text or a pair, and its label.

    The label is a name, a number in regression, or all names that hold; None if it is not known.
    """

    id: str
    text: str
    text_pair: str | None
    label: Any  # of which of these types, its kind knows


class TextKind(Kind):
    """Does what the three kinds have in common: texts, rows, the head on the pooled state."""

    head = "sequence_classification"
    truncates = True

    def read_records(self, task: Task, split: str, records: Iterator[Record]) -> Iterator[TextExample]:
        """Yields an example of each record."""
        for name, record in identified(task, records, split):
            text = text_of(task, record, task.text, "text")
            column = task.text_pair
            if not column and task.custom and task.text != "text_pair" and record.cells.get("text_pair"):
                column = "text_pair"  # not left unread only because the task would do without
            pair = text_of(task, record, column, "text_pair") if column else None
            yield TextExample(name, text, pair, self.read_label(task, split, record))

    def content(self, example: TextExample) -> Hashable:
        """Returns the text or the pair."""
        return example.text, example.text_pair

    def inputs_of(self, examples: Sequence[TextExample]) -> str:
        """Tells whether they are single texts, pairs, or both."""
        found = {"single" if example.text_pair is None else "pairs" for example in examples}
        return "both" if len(found) > 1 else "".join(found)

    def read_label(self, task: Task, split: str, record: Record) -> str | float | tuple[str, ...] | Vector | None:
        """Returns the label of a record; None if it is not known.

        Raises:
          UserError: what stands there is no label.
        """
        raise NotImplementedError

    def label_value(self, example: TextExample, numbers: dict[str, int]) -> int | float | np.ndarray:
        """Returns the label of an example as the loss takes it; `numbers` are those of the names."""
        raise NotImplementedError

    def fault(self, example: TextExample, codec: Codec) -> str:
        """Says that a pair can only be cut as BERT does."""
        if codec.truncation != "head" and example.text_pair is not None:
            return f"truncation={codec.truncation!r} is for single texts: pairs are cut as BERT does, set 'head'"
        return ""

    def rows(self, examples: Sequence[TextExample], codec: Codec) -> list[Row]:
        """Makes a row for each text or pair of texts; with truncation="windows", one or more for each text.

        What stays of a text that is too long is its "head", its "tail", "both" (a quarter of the room for its head, the
        rest for its tail: Sun et al. 2019, section 5.3.1, have 128 and 382), or all of it, in overlapping "windows"
        that each bear the label. Of a pair, the longer text loses its end, as in BERT.

        Raises:
          UserError: a label is not among the names; a pair is to be cut in another way; there is no room for a token of
            each text; or the windows do not overlap.
        """
        tokenizer, truncation = codec.tokenizer, codec.truncation
        stride = self._check(examples, codec)
        texts = [
            example.text if example.text_pair is None else (example.text, example.text_pair) for example in examples
        ]
        encoded = encode_in_parts(tokenizer, texts, codec.max_length if truncation == "head" else WHOLE)
        numbers = {name: number for number, name in enumerate(codec.labels)}
        rows = []
        for number, (example, (ids, types, _)) in enumerate(zip(examples, encoded, strict=True)):
            label = self.label_value(example, numbers)
            if example.text_pair is None:
                parts = _parts(ids[1:-1], codec.max_length - 2, truncation, stride)
                inputs = [[tokenizer.cls_id, *part, tokenizer.sep_id] for part in parts]
                rows += [Row(number, as_ids(row), np.zeros(len(row), np.int32), label) for row in inputs]
            else:
                rows.append(Row(number, as_ids(ids), as_ids(types), label))
        return rows

    def _check(self, examples: Sequence[TextExample], codec: Codec) -> int:
        """Returns the stride, if there are windows."""
        if codec.truncation not in TRUNCATIONS:
            raise UserError(
                f"truncation={codec.truncation!r} is not known: choose {', '.join(TRUNCATIONS[:-1])} or "
                f"{TRUNCATIONS[-1]}"
            )
        if codec.truncation == "head":
            return codec.stride  # what else can be wrong, the tokenizer finds
        for example in examples:
            if fault := self.fault(example, codec):
                raise UserError(fault)
        check_room(codec.max_length, 3, "a text with [CLS] and [SEP]")
        if codec.truncation == "windows":
            return checked_stride(codec.stride, codec.max_length - 2, codec.max_length)
        return codec.stride

    def network(self, model: ModelConfig, labels: int, execution: Execution) -> nn.Module:
        """Returns the body with a dense layer on the pooled state."""
        return heads.BertForSequenceClassification(model, labels, execution)

    def init(self, network: nn.Module, key: jax.Array) -> Any:
        """Draws the variables of the network."""
        ids = jnp.zeros((1, 8), jnp.int32)
        return network.init(key, Inputs(ids, ids, ids, ids), sequence_starts=ids[:, :1])

    def outputs(self, network: nn.Module, variables: Any, batch: Any, **settings: Any) -> jax.Array:
        """Returns float32 [B, C]; every row holds one sequence, which starts at 0."""
        starts = jnp.zeros((batch["input_ids"].shape[0], 1), jnp.int32)
        return super().outputs(network, variables, batch, sequence_starts=starts, **settings)[:, 0]

    def predictions(
        self, examples: Sequence[TextExample], rows: Sequence[Row], outputs: Sequence[Any], codec: Codec
    ) -> list:
        """Averages over the rows of each example."""
        values = mean_over_rows(rows, np.stack(outputs), len(examples)).tolist()
        return [self.prediction(row, codec) for row in values]

    def prediction(self, values: list[float], codec: Codec) -> Any:
        """Makes the prediction of one example from its [C] probabilities or its number."""
        raise NotImplementedError


# ---- one class -----------------------------------------------------------------------------------


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


# ---- any number of classes -----------------------------------------------------------------------


class Classes(NamedTuple):
    """Names the classes that are likelier than not, of any number."""

    labels: list[str]
    scores: dict[str, float]  # probability of each class on its own


class MultiLabel(TextKind):
    """Gives a text any number of C classes at once."""

    name = "multi_label"
    problem_type = "multi_label_classification"

    def read_records(self, task: Task, split: str, records: Iterator[Record]) -> Iterator[TextExample]:
        """Yields an example of each record; what its lists of zeros and ones are, all of them tell."""
        examples = list(super().read_records(task, split, records))
        labels = without_vectors([example.label for example in examples], split)
        for example, label in zip(examples, labels, strict=True):
            yield dataclasses.replace(example, label=label)

    def read_label(self, task: Task, split: str, record: Record) -> tuple[str, ...] | Vector | None:
        """Returns the names of the classes: see `label_values`; several columns have commas between them."""
        columns = [column.strip() for column in task.label.split(",")]
        if len(columns) > 1 and task.label not in (record.columns or record.cells):
            if not must_have_labels(split) and not set(columns) <= set(record.columns or record.cells):
                return None
            return one_hot_names(columns, record)
        return class_names(label_of(task, record, split, empty_is_label=True), record, task.label)

    def names_in(self, example: TextExample) -> Iterable[str]:
        """Returns all classes that hold."""
        return example.label or ()

    def label_names(self, task: Task, train: Sequence[TextExample], source: str) -> tuple[str, ...]:
        """Returns all names; the same ones everywhere teach nothing, a single one, here and not there, does."""
        label_module.check_variety({example.label for example in train}, task.label, source)
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


# ---- a number ------------------------------------------------------------------------------------


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
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{record.place}: {task.label!r} is {value!r}, not a finite number: mend it, or take the row out"
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


# ---- shared --------------------------------------------------------------------------------------


def kind_of_head(problem_type: str, labels: Sequence[str]) -> TextKind:
    """Returns the kind that a head of sequence classification serves.

    Whatever the file says, a head with one output gives a number: a single class would always be right.
    """
    if len(labels) == 1:
        return Regression()
    kinds = {kind.problem_type: kind for kind in (MultiLabel(), Regression())}
    return kinds.get(problem_type, Classification())


def _parts(ids: list[int], room: int, truncation: str, stride: int) -> list[list[int]]:
    """Returns the parts of a text that become rows, each of at most `room` tokens."""
    if truncation == "windows":
        return [ids[start:stop] for start, stop in windows(len(ids), room, stride)]
    if len(ids) <= room:
        return [ids]
    head = {"head": room, "tail": 0, "both": round(room * 128 / 510)}[truncation]
    return [ids[:head] + ids[len(ids) - (room - head) :]]
