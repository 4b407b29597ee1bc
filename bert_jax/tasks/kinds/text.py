"""What texts and pairs of texts have in common, whatever their label is: rows, and the head on the pooled state."""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

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
from bert_jax.tasks.kinds.base import Codec, Kind, Task
from bert_jax.tasks.label_values import Vector
from bert_jax.tasks.records import identified, text_of
from bert_jax.tasks.rows import (
    WHOLE,
    Row,
    as_ids,
    check_room,
    checked_stride,
    encode_in_parts,
    mean_over_rows,
    windows,
)
from bert_jax.text.tables import Record


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


def _parts(ids: list[int], room: int, truncation: str, stride: int) -> list[list[int]]:
    """Returns the parts of a text that become rows, each of at most `room` tokens."""
    if truncation == "windows":
        return [ids[start:stop] for start, stop in windows(len(ids), room, stride)]
    if len(ids) <= room:
        return [ids]
    head = {"head": room, "tail": 0, "both": round(room * 128 / 510)}[truncation]
    return [ids[:head] + ids[len(ids) - (room - head) :]]
