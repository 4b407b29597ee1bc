"""One of several endings of a text: SWAG, RACE and files of one's own (Devlin et al. 2018, section 4.4)."""

import dataclasses
import os
import re
import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model import heads
from bert_jax.model.inputs import Inputs
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.kinds.base import Codec, CrossEntropyKind, NamelessKind, Task
from bert_jax.tasks.label_values import class_name
from bert_jax.tasks.records import identified, label_of, text_of
from bert_jax.tasks.rows import NO_LABEL, Batch, Row, as_ids, encode_in_parts, lay_out, mean_over_rows, padded_labels
from bert_jax.text.tables import Record, read_objects

_ENDING = re.compile(r"ending(\d+)")
_MANY = 20  # examples of which one should have the first ending
_LETTERS = tuple("ABCDEFGHIJ")  # of the options, in RACE


@dataclasses.dataclass(frozen=True, slots=True)
class MultipleChoiceExample:
    """Holds a text and ways to go on, of which number `label` (from 0) is right; None if not known."""

    id: str
    text: str
    endings: tuple[str, ...]
    label: int | None


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class MultipleChoiceRow(Row):
    """Holds C inputs, one for each ending: `ids` and `token_type_ids` are lists of C arrays, int32 [L] each."""

    ids: list[np.ndarray]
    token_type_ids: list[np.ndarray]
    label: int

    @property
    def inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids and token_type_ids of each ending."""
        return list(zip(self.ids, self.token_type_ids, strict=True))


class Choice(NamedTuple):
    """Names the likeliest ending, by its number from 0."""

    choice: int
    score: float  # its probability
    scores: list[float]  # of each ending


class MultipleChoice(CrossEntropyKind, NamelessKind):
    """Chooses the best of the endings in the columns ``ending0``, ``ending1``, ..."""

    name = "multiple_choice"
    head = "multiple_choice"

    def read_records(self, task: Task, split: str, records: Iterator[Record]) -> Iterator[MultipleChoiceExample]:
        """Yields an example of each record."""
        for name, record in identified(task, records, split):
            there = record.columns or record.cells
            columns = [f"ending{number}" for number in range(max(2, sum(map(bool, map(_ENDING.fullmatch, there)))))]
            if missing := [column for column in columns if column not in there]:  # a label would mean another ending
                record.cell(missing[0])  # its error tells which columns there are
            begin = record.cell(task.text_pair, "text_pair") if task.text_pair else ""
            endings = tuple(f"{begin} {text_of(task, record, column, '')}".strip() for column in columns)
            value = label_of(task, record, split)
            label = None if value is None else _ending_number(task, record, value, len(endings))
            yield MultipleChoiceExample(name, text_of(task, record, task.text, "text"), endings, label)

    def content(self, example: MultipleChoiceExample) -> Hashable:
        """Returns the text, of which there may be several questions."""
        return example.text

    def check_alike(self, examples: Sequence[MultipleChoiceExample], source: str) -> None:
        """Raises UserError if only some examples have labels, or if they offer different numbers of endings."""
        super().check_alike(examples, source)
        counts = {len(example.endings): example.id for example in examples}
        if len(counts) > 1:
            found = ", ".join(f"{count} in example {name}" for count, name in sorted(counts.items()))
            raise UserError(f"{source}: every example needs as many endings, but there are {found}")
        if len(examples) >= _MANY and all(example.label for example in examples):
            warnings.warn(f"{source}: no ending0 is ever right: are endings counted from 0 there?", stacklevel=2)

    def rows(self, examples: Sequence[MultipleChoiceExample], codec: Codec) -> list[MultipleChoiceRow]:
        """Makes a row of C inputs [CLS] text [SEP] ending [SEP] for each example, each cut as a pair of texts.

        Raises:
          UserError: examples with different numbers of endings, a label that is none of them, or a `max_length` that
            has no room for a token of each text.
        """
        pairs = [(example.text, ending) for example in examples for ending in example.endings]
        encoded = encode_in_parts(codec.tokenizer, pairs, codec.max_length)
        rows = []
        for number, example in enumerate(examples):
            choices = len(examples[0].endings)
            if len(example.endings) != choices:
                raise UserError(
                    f"example {example.id} has {len(example.endings)} endings, example {examples[0].id} has "
                    f"{choices}: all need the same number"
                )
            if example.label is not None and not 0 <= example.label < choices:
                raise UserError(
                    f"example {example.id}: the label {example.label} is none of its endings, 0 to {choices - 1}"
                )
            inputs = [next(encoded) for _ in range(choices)]
            ids = [as_ids(encoding.ids) for encoding in inputs]
            types = [as_ids(encoding.token_type_ids) for encoding in inputs]
            rows.append(MultipleChoiceRow(number, ids, types, NO_LABEL if example.label is None else example.label))
        return rows

    def labels(self, rows: Sequence[MultipleChoiceRow], batch_size: int, length: int) -> Batch:
        """Returns `labels` int32 [B]; -1 is none."""
        del length
        return {"labels": padded_labels(rows, (batch_size,), np.int32)}

    def batch(self, rows: Sequence[MultipleChoiceRow], batch_size: int, length: int) -> Batch:
        """Lays some rows out with a dimension for the endings: inputs are int32 [B, C, L]."""
        arrays = lay_out(rows, batch_size, length)
        inputs = {name: array.reshape(batch_size, -1, length) for name, array in arrays.items()}
        return inputs | self.labels(rows, batch_size, length)

    def network(self, model: ModelConfig, labels: int, execution: Execution) -> nn.Module:
        """Returns the body with a score for the pooled state of each ending."""
        del labels
        return heads.BertForMultipleChoice(model, execution)

    def init(self, network: nn.Module, key: jax.Array) -> Any:
        """Draws the variables of the network."""
        ids = jnp.zeros((1, 2, 8), jnp.int32)
        return network.init(key, Inputs(ids, ids, ids, ids))

    def probabilities(self, outputs: jax.Array) -> jax.Array:
        """Returns the softmax over the endings, float32 [B, C]."""
        return jax.nn.softmax(outputs)

    def exported_outputs(self, network: nn.Module, variables: Any, batch: Any) -> dict[str, jax.Array]:
        """Returns `logits` float32 [B]: the rows are the endings of one text."""
        endings = {name: array[None] for name, array in batch.items()}
        return {"logits": self.outputs(network, variables, endings)[0]}

    def predictions(
        self,
        examples: Sequence[MultipleChoiceExample],
        rows: Sequence[MultipleChoiceRow],
        outputs: Sequence[Any],
        codec: Codec,
    ) -> list[Choice]:
        """Returns the likeliest ending of each example."""
        del codec
        values = mean_over_rows(rows, np.stack(outputs), len(examples)).tolist()
        return [Choice(int(np.argmax(row)), max(row), row) for row in values]

    def scores(
        self, examples: Sequence[MultipleChoiceExample], predictions: Sequence[Choice], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns what a classification has, the endings being classes by their numbers."""
        del codec
        from bert_jax.metrics.classification import class_report, score_classes  # scikit-learn takes a second

        labels = np.array([example.label for example in examples])
        values = [prediction.scores for prediction in predictions]
        names = tuple(f"ending{number}" for number in range(len(values[0])))
        return score_classes(labels, values, names), class_report(labels, values, names)


def _ending_number(task: Task, record: Record, value: Any, count: int) -> int:
    number = class_name(value, record, task.label)
    if not number.isdecimal() or int(number) >= count:  # letters, or numbers from 1, are not guessed at
        raise UserError(
            f"{record.place}: {task.label!r} is {value!r:.60}, not the number of an ending, 0 to {count - 1}"
        )
    return int(number)


class ReadingComprehension(MultipleChoice):
    """Reads RACE, where a record holds a text and all its questions, each with some options."""

    id_columns = ("id", "example_id")

    def read_file(self, task: Task, split: str, path: str, *, official: bool) -> Iterator[MultipleChoiceExample]:
        """Yields the questions of JSON objects: one in each file below a folder, or one a line of a single file."""
        del official
        paths = [path]
        if os.path.isdir(path):
            paths = sorted(os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names)
            paths = [name for name in paths if name.endswith(".txt")]
        if not paths:
            raise UserError(f"{path} has no .txt files below it, as RACE has")
        return self.read_records(task, split, (record for name in paths for record in read_objects(name)))

    def read_records(self, task: Task, split: str, records: Iterator[Record]) -> Iterator[MultipleChoiceExample]:
        """Yields an example of each question; an option fills the blank of its question, or follows it."""
        for name, record in identified(task, records, split):
            text = text_of(task, record, task.text, "text")
            questions, options = record.cell(task.text_pair, "text_pair"), record.cell("options")
            answers = label_of(task, record, split)
            answers = [None] * len(questions) if answers is None else answers
            if not len(questions) == len(options) == len(answers):
                raise UserError(
                    f"{record.place} has {len(questions)} questions, {len(options)} options, {len(answers)} answers"
                )
            for number, (question, choices, letter) in enumerate(zip(questions, options, answers, strict=True)):
                endings = tuple(
                    question.replace("_", end) if "_" in question else f"{question} {end}" for end in choices
                )
                letters = _LETTERS[: len(endings)]
                if letter is not None and letter not in letters:
                    raise UserError(f"{record.place}: answer {number} is {letter!r}, not one of {', '.join(letters)}")
                label = None if letter is None else letters.index(letter)
                yield MultipleChoiceExample(f"{name}-{number}", text, endings, label)
