"""The comparison of pre-training steps: both sides do the same, and the figures are what their names say."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.products import products

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.harness import step_flops
from bert_jax.benchmarks.jax_side import JaxPretraining, Start, StepSetting, loss_of
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import train as module
from bert_jax.benchmarks.suites.train import batch_flops, full_batches, text_batches, trimmed
from bert_jax.benchmarks.torch_side import STEP_VARIANTS, StepVariant, TorchPretraining
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
        patch.setitem(SIZES, "tiny", (1, 32, 2))
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
    return Start(SETTING, batches, weights).metadata


@pytest.fixture(scope="module")
def side(batches, start, weights):
    return JaxPretraining(SETTING, batches, weights)


CASE = "tiny, 2 rows of 16, equal work"


@pytest.fixture
def small_suite(monkeypatch):
    monkeypatch.setattr(harness, "started", in_this_process)
    monkeypatch.setattr(harness, "peak_flops", lambda dtype: 1e9)
    monkeypatch.setattr(ModelConfig, "vocab_size", 400)


@pytest.mark.slow
@pytest.mark.torch
def test_the_train_suite(tmp_path, monkeypatch, capsys, small_suite):
    variant, missing = StepVariant("sdpa", "all"), StepVariant("no_such_attention")
    monkeypatch.setitem(STEP_VARIANTS, "cpu", (variant, missing))
    results = benchmark("train", tmp_path, sizes=["tiny:2"], length=16, dtype="auto", rounds=2, profile=True)
    assert results.sides(CASE) == ["bert_jax", variant.name]
    assert [(each["case"], each["side"]) for each in results.left_out] == [(CASE, missing.name)]
    assert results.by_side(CASE, "filled") == {"bert_jax": 1.0, variant.name: 1.0}
    assert len(results.rounds(CASE, "bert_jax", "ratio")) == 2
    rates = results.by_side(CASE, "tokens_per_second")
    seconds = results.by_side(CASE, "seconds")
    assert rates == pytest.approx({name: 2 * 16 / each for name, each in seconds.items()})
    assert results.value(CASE, "bert_jax", "ratio") == pytest.approx(rates["bert_jax"] / rates[variant.name])
    flops = step_flops(StepSetting("tiny", 2, 16, "float32", 400).model(), [16, 16], 2 * predictions_per_row(16, 0.15))
    assert results.value(CASE, "bert_jax", "utilization") == pytest.approx(flops / 1e9 / seconds["bert_jax"])
    assert {"trace_seconds", "compile_seconds", "run_seconds", "peak_bytes"} <= set(results.metrics(CASE))
    saved = Results.load(tmp_path / "benchmark" / "train.json")
    assert saved == results
    assert saved.environment["versions"]["jax"] == jax.__version__
    assert saved.environment.keys() >= {"date", "commit", "device", "processor", "threads"}
    command = "--sizes=tiny:2 --length=16 --dtype=auto --rounds=2 --profile"
    assert saved.commands == [f"python scripts/benchmark.py --suite=train --workdir={tmp_path} {command}"]
    printed = capsys.readouterr().out
    assert f"{CASE}: " in printed
    assert "times as fast" in printed
    assert "The costliest of" in printed
    assert list((tmp_path / "benchmark" / "profile" / "tiny").glob("plugins/profile/*/*.xplane.pb"))


class OfAnotherStart(TorchPretraining):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.metadata["first_loss"] *= 1.001


@pytest.mark.slow
@pytest.mark.torch
def test_a_side_that_starts_with_another_loss_is_not_timed(tmp_path, monkeypatch, small_suite):
    monkeypatch.setattr(module, "TorchPretraining", OfAnotherStart)
    with pytest.raises(UserError, match="does not start as bert_jax does"):
        benchmark("train", tmp_path, sizes=["tiny:2"], length=16, dtype="auto", rounds=1, profile=False)
    assert not (tmp_path / "benchmark" / "train.json").exists()


@pytest.fixture
def text_run(tmp_path, text_file):
    """A folder with what a run on some text leaves."""
    tokenizer = train_tokenizer(Documents(str(text_file)), 300)
    tokenizer.save(tmp_path / "tokenizer")
    build_corpus(str(text_file), tokenizer, tmp_path / "elsewhere", longest=61)
    config = PretrainingConfig(data=DataConfig(corpus=str(tmp_path / "elsewhere")), total_steps=1)
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    return tmp_path, tokenizer


def test_rows_of_the_text_are_packed_here_and_padded_in_pytorch(text_run):
    workdir, tokenizer = text_run
    setting = StepSetting("tiny", 4, 64, "float32", 600)
    changed, packed, padded = text_batches(workdir, setting, by_length=False)
    assert changed == dataclasses.replace(setting, vocab_size=tokenizer.vocab_size)
    assert all(batch["sequence_ids"].shape == (4, 64) for batch in packed)
    assert max(batch["sequence_ids"].max() for batch in packed) > 1
    for batch in padded:
        assert (batch["sequence_ids"] <= 1).all()
        assert (batch["sequence_ids"][:, -1] > 0).any()  # no longer than its longest row
    *_, by_length = text_batches(workdir, setting, by_length=True)
    share = lambda batches: np.mean([(batch["sequence_ids"] > 0).mean() for batch in batches])  # noqa: E731
    assert share(by_length) > max(0.95, share(padded))
    longest = [batch["input_ids"].shape[1] for batch in by_length]
    assert longest == sorted(longest, reverse=True)  # spread over long and short rows
    assert longest[0] > longest[-1]


def test_the_suite_measures_the_text_of_a_run(text_run, monkeypatch):
    workdir, _ = text_run
    compared = []
    monkeypatch.setattr(module, "compare_steps", lambda results, work, *arguments: compared.append((work, arguments)))
    module.train_suite(workdir, sizes=["tiny:4"], length=64, dtype="auto", rounds=3, profile=False)
    assert [work for work, _ in compared] == [module.EQUAL_WORK, module.TEXT, module.TEXT_BY_LENGTH]
    assert [arguments[1] is arguments[2] for _, arguments in compared] == [True, False, False]
    assert all(arguments[-1] == 3 for _, arguments in compared)


@pytest.mark.parametrize("sizes", [["huge"], ["tiny:many"], ["tiny:0"]])
def test_sizes_that_do_not_exist(sizes, tmp_path):
    with pytest.raises(UserError, match="wants to be SIZE or SIZE:ROWS"):
        benchmark("train", tmp_path, sizes=sizes, length=16, dtype="auto", rounds=1, profile=False)


@pytest.fixture(scope="module")
def jax_losses(side, batches):
    """Of the first step, which is done already, and of those that follow."""
    return [side.metadata["first_loss"], *(loss_of(side.objective, side.step(batch)) for batch in batches[1:])]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    "variant",
    [StepVariant("eager"), StepVariant("sdpa", "all"), StepVariant("sdpa", checkpointed=True)],
    ids=lambda variant: variant.name,
)
def test_both_sides_take_the_same_steps(jax_losses, start, variant, weights):
    """Loss by loss, so that PyTorch's has the masks, gradient, clipping and update of bert_jax."""
    torch_side = TorchPretraining(variant, "float32", weights, start["masked"])
    assert torch_side.metadata["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    assert torch_side.network.is_gradient_checkpointing == variant.checkpointed
    losses = [torch_side.metadata["first_loss"], *(float(torch_side.step(batch)) for batch in torch_side.batches[1:])]
    assert losses == pytest.approx(jax_losses, rel=1e-5)


@pytest.mark.slow
@pytest.mark.torch
def test_operations_are_those_of_the_products_in_the_step(side, start):
    batch = start["masked"][0]

    def loss(params):
        metrics = side.objective.metrics(params, batch, None)
        return sum(metrics[name].total for name in side.objective.losses)

    counted = products(jax.make_jaxpr(jax.grad(loss))(side.state.params).jaxpr)
    want = step_flops(SETTING.model(), [48] * 4, 4 * predictions_per_row(48, 0.15))
    assert want == pytest.approx(counted, rel=0.005)  # the pooler and the next-sentence head are left out


@pytest.mark.slow
def test_operations_on_padding_and_between_sequences_do_not_count(batches):
    model, full = SETTING.model(), batches[0]
    packed = {"sequence_ids": np.where(np.arange(48) < 24, 1, 2) * np.ones((4, 1), int)}
    padded = {"sequence_ids": (np.arange(48) < 24) * np.ones((4, 1), int)}
    predicted = 4 * predictions_per_row(48, 0.15)
    assert batch_flops(model, full) == step_flops(model, [48] * 4, predicted)
    assert batch_flops(model, packed) == step_flops(model, [24] * 8, predicted)
    assert batch_flops(model, padded) == step_flops(model, [24] * 4, predicted / 2)
    assert batch_flops(model, batches[1]) == step_flops(model, [48] * 3, 3 / 4 * predicted)


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
