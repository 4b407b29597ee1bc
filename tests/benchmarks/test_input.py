"""The comparison of loaders: both sides give the same kind of text, and their figures are what they counted."""

import dataclasses
import itertools
import json
import os
import sys

import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.random_model import tokenizer
from helpers.synthetic_corpus import CLS, SEP, synthetic_corpus

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import input as module
from bert_jax.benchmarks.suites.input import (
    PACKED,
    VARIANTS,
    Loading,
    drawn_pairs,
    goal,
    jax_batches,
    torch_batches,
)
from bert_jax.config import DataConfig, PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.batches import PretrainingBatches
from bert_jax.text.tokenizer import SPECIAL_TOKENS

ROWS, LENGTH = 8, 64
CASE, TRAINING = f"batches of {ROWS} rows of {LENGTH}", "training of this run"
PAD, MASK = (SPECIAL_TOKENS.index(f"[{name}]") for name in ("PAD", "MASK"))


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run's folder with a corpus in memory in place of the one on disk."""
    config = PretrainingConfig(total_steps=1, batch_size=ROWS, data=DataConfig(length=LENGTH, packing=True))
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    tokenizer().save(tmp_path / "tokenizer")
    lines = [
        {"step": 50 * i, "split": "train", "tokens_per_second": 1.0 + i, "input_wait": 0.001 * i} for i in range(5)
    ]
    lines.append({"step": 250, "split": "validation", "loss": 5.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(module.Corpus, "open", lambda directory: synthetic_corpus(100))
    monkeypatch.setattr(harness, "started", in_this_process)
    monkeypatch.setattr(module, "SECONDS", 0.04)
    return tmp_path


@pytest.mark.slow
def test_the_input_suite(workdir, capsys):
    cores = os.sched_getaffinity(0)
    results = benchmark("input", workdir, rounds=3)
    assert os.sched_getaffinity(0) == cores
    assert Results.load(workdir / "benchmark" / "input.json") == results
    rates = results.by_side(CASE, "tokens_per_second")
    assert list(rates) == [PACKED, "bert_jax, nsp, a pair a row", "bert_jax, full sentences", *VARIANTS]
    for name, rate in rates.items():
        positions, filled = (results.value(CASE, name, metric) for metric in ("positions_per_second", "filled"))
        assert rate == pytest.approx(positions * filled)
        assert len(results.rounds(CASE, name, "seconds")) == 3
    best = max(rates[variant] for variant in VARIANTS)
    assert results.value(CASE, PACKED, "ratio") == pytest.approx(rates[PACKED] / best)
    assert results.value(TRAINING, "bert_jax", "positions_per_second") == 3  # the median
    packed = results.value(CASE, PACKED, "positions_per_second")
    assert results.value(TRAINING, "bert_jax", "loader_over_training") == pytest.approx(packed / 3)
    printed = capsys.readouterr().out
    assert "times the 3 positions/s that training took, which waited for it 0.2% of the time" in printed
    assert f"{PACKED}: " in printed


def test_a_run_of_another_setting_is_what_counts(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["objective"] = "sop"
    (workdir / "config.json").write_text(json.dumps(config))
    results = benchmark("input", workdir, rounds=1)
    assert results.sides(CASE)[:2] == ["bert_jax, as in this run", PACKED]
    own = results.value(CASE, "bert_jax, as in this run", "positions_per_second")
    assert results.value(TRAINING, "bert_jax", "loader_over_training") == pytest.approx(own / 3)


def test_without_pytorch_bert_jax_is_measured_alone(workdir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    results = benchmark("input", workdir, rounds=1)
    assert "ratio" not in results.metrics(CASE)
    assert [each["side"] for each in results.left_out] == list(VARIANTS)
    assert f"{VARIANTS[0]}: left out of {CASE}: import of torch" in capsys.readouterr().out


def test_a_round_counts_tokens_and_positions(monkeypatch):
    """Of batches of which one in four is half full; the first is not counted."""
    lengths = itertools.cycle([LENGTH, LENGTH // 2, LENGTH, LENGTH])
    stream = ({"sequence_ids": np.arange(LENGTH) < next(lengths) + np.zeros((ROWS, 1))} for _ in itertools.count())
    clock = itertools.count()  # a second each time that it is looked at
    monkeypatch.setattr(module, "SECONDS", 36)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    side = Loading(lambda: lambda: stream, "sequence_ids")
    assert side.metadata["figures"] == {"first_seconds": 1, "filled": 7 / 8}
    assert side.batches == 4 * 8
    assert side.metadata["positions"] == 4 * 8 * ROWS * LENGTH
    assert side.metadata["tokens"] == 7 / 8 * side.metadata["positions"]
    side.run()
    assert next(lengths) == LENGTH // 2  # 1 + 8 + 32 batches have been taken


@pytest.mark.slow
def test_batches_of_pytorch_are_of_the_same_pairs(workdir):
    """Ids of each, cut to the tokens, are rows that bert_jax lays out without packing."""
    data = DataConfig(length=LENGTH, packing=False)
    own = PretrainingBatches(synthetic_corpus(100), data, cls_id=CLS, sep_id=SEP, batch_size=1, seed=0)
    want = {tuple(own[row]["input_ids"][0].tolist()) for row in range(own.rows_per_epoch)}
    pairs = list(drawn_pairs(workdir))
    assert len(pairs) > 50
    for pair in pairs:
        size = len(pair["input_ids"])
        assert len(pair["token_type_ids"]) == len(pair["attention_mask"]) == size
        assert pair["next_sentence_label"] in (0, 1)
        assert (*pair["input_ids"], *[PAD] * (LENGTH - size)) in want
    whole = {tuple(pair["input_ids"]) for pair in pairs}
    for variant in VARIANTS:
        stream = torch_batches(workdir, variant)()
        for step, batch in enumerate(itertools.islice(stream, len(pairs) // ROWS + 3)):  # into the second epoch
            ids, inside = batch["input_ids"].numpy(), batch["attention_mask"].numpy() > 0
            longest = LENGTH if variant == VARIANTS[2] else inside.sum(axis=1).max()
            assert ids.shape == inside.shape == (len(ids), longest)
            assert len(ids) == ROWS or step == len(pairs) // ROWS  # the rest of an epoch
            assert batch["next_sentence_label"].shape == (len(ids),)
            if variant == VARIANTS[0]:
                hidden = batch["labels"].numpy() >= 0
                assert (ids == MASK).sum() > 0.5 * hidden.sum() > 0
                ids = np.where(hidden, batch["labels"].numpy(), ids)
            for row, places in zip(ids, inside, strict=True):
                assert tuple(row[places].tolist()) in whole


def test_batches_of_bert_jax_are_those_of_training(workdir):
    data = DataConfig(length=LENGTH, packing=True)
    first = next(jax_batches(workdir, data)())
    want = PretrainingBatches(synthetic_corpus(100), data, cls_id=CLS, sep_id=SEP, batch_size=ROWS, seed=0)[0]
    for name, array in want.items():
        np.testing.assert_array_equal(first[name], array)


def test_a_missed_goal_is_told():
    assert goal(19.9, 20) == "19.9, which MISSES 20"
    assert goal(2e6, 1_500_000) == "2,000,000, which reaches 1,500,000"


def test_a_run_that_has_not_trained_is_refused(workdir):
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="tokens_per_second"):
        benchmark("input", workdir, rounds=1)
