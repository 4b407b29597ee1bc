"""A kind of task that the package does not know: one class and one row of the table, and all else follows.

CONTRIBUTING tells users so; this is the shortest kind that trains, is scored, exported and loaded again.
"""

import dataclasses
import json
from typing import NamedTuple

import jax
import numpy as np
import pytest
from helpers import random_model
from helpers.finetuning_runs import config_for

import bert_jax
from bert_jax.config import TaskDataConfig
from bert_jax.finetuning.run import finetune
from bert_jax.inference.evaluate import evaluate_task
from bert_jax.interop import huggingface
from bert_jax.model import heads
from bert_jax.tasks import table
from bert_jax.tasks.kinds.base import CrossEntropyKind, Task
from bert_jax.tasks.records import identified, label_of, text_of
from bert_jax.tasks.rows import Row, as_ids, label_number, padded_labels

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class OpeningExample:
    id: str
    text: str
    label: str | None


class Opening(NamedTuple):
    opening: str
    probability: float


class OpeningKind(CrossEntropyKind):
    """The class of a text, told by the state of its [CLS] alone."""

    name = "opening"
    head = "token_classification"

    def read_records(self, task, split, records):
        for name, record in identified(task, records):
            yield OpeningExample(name, text_of(task, record, task.text, "text"), label_of(task, record, split))

    def names_in(self, example):
        return () if example.label is None else (example.label,)

    def rows(self, examples, codec):
        numbers = {name: number for number, name in enumerate(codec.labels)}
        encoded = codec.tokenizer.encode_inputs([example.text for example in examples], codec.max_length)
        return [
            Row(
                number,
                as_ids(encoding.ids),
                as_ids(encoding.token_type_ids),
                -1 if example.label is None else label_number(example.label, numbers, example.id),
            )
            for number, (example, encoding) in enumerate(zip(examples, encoded, strict=True))
        ]

    def labels(self, rows, batch_size, length):
        return {"labels": padded_labels(rows, (batch_size,), np.int32)}

    def network(self, model, labels, execution):
        return heads.BertForTokenClassification(model, labels, execution)

    def outputs(self, network, variables, batch, **settings):
        return super().outputs(network, variables, batch, **settings)[:, 0]

    def probabilities(self, outputs):
        return jax.nn.softmax(outputs)

    def predictions(self, examples, rows, outputs, codec):
        return [Opening(codec.labels[int(np.argmax(row))], float(np.max(row))) for row in outputs]

    def scores(self, examples, predictions, codec):
        right = [example.label == each.opening for example, each in zip(examples, predictions, strict=True)]
        return {"accuracy": float(np.mean(right))}, {}


def test_a_new_kind_is_trained_scored_exported_and_evaluated(tmp_path, monkeypatch):
    monkeypatch.setitem(table.TASKS, "custom:opening", Task("custom:opening", OpeningKind(), "accuracy"))
    body = tmp_path / "body"
    config = dataclasses.replace(random_model.CONFIG, max_position_embeddings=80)
    huggingface.save(body, random_model.random_model(config), random_model.tokenizer())
    config = dataclasses.replace(config_for(tmp_path, "classification", body), task="custom:opening")

    result = finetune(config, tmp_path / "run")
    assert result.metrics["validation"]["accuracy"] >= 0.95
    lines = (tmp_path / "run" / "predictions" / "validation.jsonl").read_text().splitlines()
    assert json.loads(lines[0]).keys() == {"id", "opening", "probability"}

    data = TaskDataConfig(validation=config.data.validation)
    scores = evaluate_task(bert_jax.load(str(result.model)), "custom:opening", "validation", data, tmp_path / "scores")
    assert scores["scores"] == pytest.approx(result.metrics["validation"], rel=1e-5)
    assert (tmp_path / "scores" / "predictions.jsonl").read_text().splitlines() == lines
