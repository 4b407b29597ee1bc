"""The comparison of pre-training steps: both sides do the same, and the figures are what their names say."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.in_this_process import in_this_process

from bert_jax.benchmarks import training_speed as module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.our_step import Start, Step, StepSetting, loss_of
from bert_jax.benchmarks.their_step import WAYS, Theirs, Way
from bert_jax.benchmarks.training_speed import (
    batch_flops,
    check_same_loss,
    comparison,
    full_batches,
    real_text,
    step_flops,
    trimmed,
)
from bert_jax.config import SIZES, DataConfig, ModelConfig, PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.masking import predictions_per_row
from bert_jax.text.build import build_corpus
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import train_tokenizer

SETTING = StepSetting("small", 4, 48, "float32", 600)


@pytest.fixture(autouse=True, scope="module")
def narrow_layers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", (3, 64, 4))
        yield


@pytest.fixture(scope="module")
def batches():
    """As `full_batches` has them, but for a row of the second batch that is left empty, as batches of text have."""
    found = full_batches(SETTING.vocab_size, 4, 48)
    empty = {name: array.copy() for name, array in found[1].items()}
    empty["sequence_ids"][-1] = empty["input_ids"][-1] = empty["token_type_ids"][-1] = 0
    empty["next_sentence_labels"][-1] = -1
    return [found[0], empty, *found[2:]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tmp_path_factory.mktemp("start") / "model"


@pytest.fixture(scope="module")
def start(batches, weights):
    return Start(SETTING, batches, weights).facts


@pytest.fixture(scope="module")
def ours(batches, start, weights):
    return Step(SETTING, batches, weights)


def test_the_train_suite(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "started", in_this_process)
    theirs = Way("sdpa", "all")
    monkeypatch.setitem(WAYS, "cpu", (theirs,))
    monkeypatch.setattr(ModelConfig, "vocab_size", 400)
    found = benchmark("train", tmp_path, sizes=["tiny:2"], length=16, dtype="auto", rounds=2, profile=True)[
        "equal_work"
    ]["tiny"]
    assert list(found["seconds_a_step"]) == ["bert_jax", theirs.name]
    assert not found["left_out"]
    assert found["rows"] == 2
    assert set(found["filled"].values()) == {1.0}
    assert len(found["ratio_by_round"]) == 2
    rates = found["tokens_per_second"]
    assert found["ratio"] == pytest.approx(rates["bert_jax"] / rates[theirs.name])
    assert json.loads((tmp_path / "benchmark" / "train.json").read_text())["equal_work"]["tiny"] == found
    printed = capsys.readouterr().out
    assert "times as fast" in printed
    assert "The costliest of" in printed
    assert list((tmp_path / "benchmark" / "profile" / "tiny").glob("plugins/profile/*/*.xplane.pb"))


class OfAnotherStart(Theirs):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.facts["first_loss"] *= 1.001


def test_a_side_that_starts_with_another_loss_is_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "Theirs", OfAnotherStart)
    monkeypatch.setattr(ModelConfig, "vocab_size", 400)
    with pytest.raises(UserError, match="does not start as bert_jax does"):
        benchmark("train", tmp_path, sizes=["tiny:2"], length=16, dtype="auto", rounds=1, profile=False)


def test_ours_takes_packed_rows_of_the_text_and_theirs_padded_ones(tmp_path, text_file, monkeypatch):
    tokenizer = train_tokenizer(Documents(str(text_file)), 300)
    tokenizer.save(tmp_path / "tokenizer")
    build_corpus(str(text_file), tokenizer, tmp_path / "elsewhere", longest=61)
    config = PretrainingConfig(data=DataConfig(corpus=str(tmp_path / "elsewhere")), total_steps=1)
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    monkeypatch.setattr(module, "measured", lambda *arguments: arguments)
    setting = StepSetting("tiny", 4, 64, "float32", 600)
    changed, packed, padded, rounds = real_text(tmp_path, setting, 3, by_length=False)
    assert (changed, rounds) == (dataclasses.replace(setting, vocab_size=tokenizer.vocab_size), 3)
    assert all(batch["sequence_ids"].shape == (4, 64) for batch in packed)
    assert max(batch["sequence_ids"].max() for batch in packed) > 1
    for batch in padded:
        assert (batch["sequence_ids"] <= 1).all()
        assert (batch["sequence_ids"][:, -1] > 0).any()  # no longer than its longest row
    *_, by_length, _ = real_text(tmp_path, setting, 3, by_length=True)
    share = lambda batches: np.mean([(batch["sequence_ids"] > 0).mean() for batch in batches])  # noqa: E731
    assert share(by_length) > max(0.95, share(padded))
    longest = [batch["input_ids"].shape[1] for batch in by_length]
    assert longest == sorted(longest, reverse=True)  # spread over long and short rows
    assert longest[0] > longest[-1]


@pytest.mark.parametrize("sizes", [["huge"], ["tiny:many"], ["tiny:0"]])
def test_sizes_that_do_not_exist(sizes, tmp_path):
    with pytest.raises(UserError, match="wants to be SIZE or SIZE:ROWS"):
        benchmark("train", tmp_path, sizes=sizes, length=16, dtype="auto", rounds=1, profile=False)


@pytest.fixture(scope="module")
def our_losses(ours, batches):
    """Of the first step, which is done already, and of those that follow."""
    return [ours.facts["first_loss"], *(loss_of(ours.objective, ours.step(batch)) for batch in batches[1:])]


@pytest.mark.parametrize(
    "way",
    [Way("eager"), Way("sdpa", "all"), Way("sdpa", checkpointed=True)],
    ids=lambda way: way.name,
)
def test_both_sides_take_the_same_steps(our_losses, start, way, weights):
    """Loss by loss, so that theirs has the masks, gradient, clipping and update of ours."""
    theirs = Theirs(way, "float32", weights, start["masked"])
    assert theirs.facts["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    assert theirs.network.is_gradient_checkpointing == way.checkpointed
    losses = [theirs.facts["first_loss"], *(float(theirs.step(batch)) for batch in theirs.batches[1:])]
    assert losses == pytest.approx(our_losses, rel=1e-5)


def test_another_start_is_refused():
    check_same_loss("x", 7.0, 7.0 + 1e-5, "float32")
    with pytest.raises(UserError, match="x does not start as bert_jax does"):
        check_same_loss("x", 7.0, 7.001, "float32")
    with pytest.raises(UserError, match="does not start"):
        check_same_loss("x", float("nan"), 7.0, "bfloat16")


def test_operations_are_those_of_the_products_in_the_step(ours, start):
    batch = start["masked"][0]

    def loss(params):
        metrics = ours.objective.metrics(params, batch, None)
        return sum(metrics[name].total for name in ours.objective.losses)

    counted = products(jax.make_jaxpr(jax.grad(loss))(ours.state.params).jaxpr)
    want = step_flops(SETTING.model(), [48] * 4, 4 * predictions_per_row(48, 0.15))
    assert want == pytest.approx(counted, rel=0.005)  # the pooler and the next-sentence head are left out


def test_operations_on_padding_and_between_sequences_do_not_count(batches):
    model, full = SETTING.model(), batches[0]
    packed = {"sequence_ids": np.where(np.arange(48) < 24, 1, 2) * np.ones((4, 1), int)}
    padded = {"sequence_ids": (np.arange(48) < 24) * np.ones((4, 1), int)}
    predicted = 4 * predictions_per_row(48, 0.15)
    assert batch_flops(model, full) == step_flops(model, [48] * 4, predicted)
    assert batch_flops(model, packed) == step_flops(model, [24] * 8, predicted)
    assert batch_flops(model, padded) == step_flops(model, [24] * 4, predicted / 2)
    assert batch_flops(model, batches[1]) == step_flops(model, [48] * 3, 3 / 4 * predicted)


def products(jaxpr) -> int:
    """Operations of all matrix products of a jaxpr."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval
            total += 2 * equation.outvars[0].aval.size * int(np.prod([left.shape[axis] for axis in contracted]))
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                total += products(value.jaxpr)
            elif hasattr(value, "eqns"):
                total += products(value)
    return total


def test_columns_of_padding_are_cut_off():
    ids = np.array([[5, 6, 0, 0, 0], [7, 8, 9, 0, 0]])
    batch = {"input_ids": ids, "sequence_ids": (ids > 0).astype(int), "next_sentence_labels": np.zeros((2, 4))}
    found = trimmed(batch)
    assert {name: array.shape for name, array in found.items()} == {
        "input_ids": (2, 3),
        "sequence_ids": (2, 3),
        "next_sentence_labels": (2, 4),
    }
    np.testing.assert_array_equal(found["input_ids"], ids[:, :3])


def test_figures_of_a_comparison():
    times = {"bert_jax": [2.0, 4.0, 2.0], "a": [4.0, 4.0, 4.0], "b": [2.0, 2.0, 6.0]}
    found = comparison(times, 2, {"bert_jax": 100, "a": 300, "b": 50}, {"bert_jax": 0.25, "a": 0.5, "b": 0.5})
    assert found["seconds_a_step"] == {"bert_jax": 1.0, "a": 2.0, "b": 1.0}
    assert found["tokens_per_second"] == {"bert_jax": 100, "a": 150, "b": 50}
    assert found["fastest_of_theirs"] == "a"
    assert found["ratio"] == pytest.approx(100 / 150)
    assert found["ratio_by_round"] == pytest.approx([4 / 2 / 3, 4 / 4 / 3, 4 / 2 / 3])
    assert found["utilisation"]["a"] == 0.25
    assert found["utilisation"]["bert_jax"] == 0.25
    assert found["spread"]["bert_jax"] == 1.0
    assert found["seconds_of_turns"] == times
