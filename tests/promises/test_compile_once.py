"""The train step compiles once for each shape of batch."""

import dataclasses
import itertools

import pytest
from helpers.runs import tiny_run
from helpers.toy import CONFIG, Toy, toy_batch, toy_data, train

from bert_jax.pretraining import run as runs
from bert_jax.pretraining.run import pretrain

pytestmark = pytest.mark.slow


def test_batches_of_several_lengths_compile_once_each(tmp_path) -> None:
    traced: list = []

    class Watched(Toy):
        def metrics(self, params, batch, dropout_key):
            traced.append(len(batch["y"]))
            return super().metrics(params, batch, dropout_key)

    stream = lambda step: (toy_batch(number, rows=8 + number % 3) for number in itertools.count(step))  # noqa: E731
    train(Watched(), CONFIG, tmp_path, dataclasses.replace(toy_data(), train=stream))
    assert sorted(traced) == [8, 8, 9, 10]  # three steps and the evaluation


def test_step_compiles_once(finished, text_file, tmp_path, monkeypatch) -> None:
    """Two evaluations, forty steps, ten checkpoints: one trace of the train step and one of the evaluation.

    In bfloat16, which changes the result by little.
    """
    traces = []
    metrics = runs.PretrainingObjective.metrics

    def counted(self, params, batch, dropout_key):
        traces.append("evaluation" if dropout_key is None else "training")
        return metrics(self, params, batch, dropout_key)

    monkeypatch.setattr(runs.PretrainingObjective, "metrics", counted)
    result = pretrain(tiny_run(text_file, compute_dtype="bfloat16"), tmp_path)
    losses = [run.metrics["validation"]["mlm_loss"] for run in (result, finished[1])]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert sorted(traces) == ["evaluation", "training"]
