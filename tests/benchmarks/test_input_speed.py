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

from bert_jax.benchmarks import input_speed as module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.input_speed import PACKED, WAYS, Loading, drawn_pairs, input_table, our_batches, their_batches
from bert_jax.config import DataConfig, PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.batches import PretrainingBatches
from bert_jax.text.tokenizer import SPECIAL_TOKENS

ROWS, LENGTH = 8, 64
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
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "SECONDS", 0.04)
    return tmp_path


def test_the_input_suite(workdir, capsys):
    cores = os.sched_getaffinity(0)
    found = benchmark("input", workdir, rounds=3)
    assert os.sched_getaffinity(0) == cores
    assert json.loads((workdir / "benchmark" / "input.json").read_text())["ratio"] == found["ratio"]
    rates, seconds = found["tokens_per_second"], found["seconds_a_step"]
    assert list(rates) == [PACKED, "bert_jax, nsp, a pair a row", "bert_jax, full sentences", *WAYS]
    for name, rate in rates.items():
        assert rate == pytest.approx(found["positions_per_second"][name] * found["filled"][name])
        assert len(found["seconds_of_turns"][name]) == 3
        assert seconds[name] > 0
    assert found["ratio"] == rates[PACKED] / max(rates[way] for way in WAYS)
    assert found["loader_over_training"] == pytest.approx(found["positions_per_second"][PACKED] / 3)
    printed = capsys.readouterr().out
    assert "times the 3 positions/s that training took" in printed
    assert "training waited for it 0.2% of the time" in printed


def test_a_run_of_another_setting_is_what_counts(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["objective"] = "sop"
    (workdir / "config.json").write_text(json.dumps(config))
    found = benchmark("input", workdir, rounds=1)
    assert list(found["tokens_per_second"])[:2] == ["bert_jax, as in this run", PACKED]
    ours = found["positions_per_second"]["bert_jax, as in this run"]
    assert found["loader_over_training"] == pytest.approx(ours / 3)


def test_without_pytorch_ours_is_measured_alone(workdir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    found = benchmark("input", workdir, rounds=1)
    assert "ratio" not in found
    assert found["left_out"].keys() == set(WAYS)
    assert f"{WAYS[0]}: left out: import of torch" in capsys.readouterr().out


def test_a_turn_counts_tokens_and_positions(monkeypatch):
    """Of batches of which one in four is half full; the first is not counted."""
    lengths = itertools.cycle([LENGTH, LENGTH // 2, LENGTH, LENGTH])
    stream = ({"sequence_ids": np.arange(LENGTH) < next(lengths) + np.zeros((ROWS, 1))} for _ in itertools.count())
    clock = itertools.count()  # a second each time that it is looked at
    monkeypatch.setattr(module, "SECONDS", 36)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    side = Loading(lambda: lambda: stream, "sequence_ids")
    assert side.facts["first_batch"] == 1
    assert side.batches == 4 * 8
    assert side.facts["positions"] == 4 * 8 * ROWS * LENGTH
    assert side.facts["tokens"] == 7 / 8 * side.facts["positions"]
    side.turn()
    assert next(lengths) == LENGTH // 2  # 1 + 8 + 32 batches have been taken


def test_their_batches_are_of_the_same_pairs(workdir):
    """Ids of each, cut to the tokens, are rows that ours lays out without packing."""
    data = DataConfig(length=LENGTH, packing=False)
    ours = PretrainingBatches(synthetic_corpus(100), data, cls_id=CLS, sep_id=SEP, batch_size=1, seed=0)
    want = {tuple(ours[row]["input_ids"][0].tolist()) for row in range(ours.rows_per_epoch)}
    pairs = list(drawn_pairs(workdir))
    assert len(pairs) > 50
    for pair in pairs:
        size = len(pair["input_ids"])
        assert len(pair["token_type_ids"]) == len(pair["attention_mask"]) == size
        assert pair["next_sentence_label"] in (0, 1)
        assert (*pair["input_ids"], *[PAD] * (LENGTH - size)) in want
    whole = {tuple(pair["input_ids"]) for pair in pairs}
    for way in WAYS:
        stream = their_batches(workdir, way)()
        for step, batch in enumerate(itertools.islice(stream, len(pairs) // ROWS + 3)):  # into the second epoch
            ids, inside = batch["input_ids"].numpy(), batch["attention_mask"].numpy() > 0
            longest = LENGTH if way == WAYS[2] else inside.sum(axis=1).max()
            assert ids.shape == inside.shape == (len(ids), longest)
            assert len(ids) == ROWS or step == len(pairs) // ROWS  # the rest of an epoch
            assert batch["next_sentence_label"].shape == (len(ids),)
            if way == WAYS[0]:
                hidden = batch["labels"].numpy() >= 0
                assert (ids == MASK).sum() > 0.5 * hidden.sum() > 0
                ids = np.where(hidden, batch["labels"].numpy(), ids)
            for row, places in zip(ids, inside, strict=True):
                assert tuple(row[places].tolist()) in whole


def test_ours_are_the_batches_of_training(workdir):
    data = DataConfig(length=LENGTH, packing=True)
    first = next(our_batches(workdir, data)())
    want = PretrainingBatches(synthetic_corpus(100), data, cls_id=CLS, sep_id=SEP, batch_size=ROWS, seed=0)[0]
    for name, array in want.items():
        np.testing.assert_array_equal(first[name], array)


def test_a_missed_target_is_told(workdir):
    found = benchmark("input", workdir, rounds=1)
    lines = input_table(found | {"loader_over_training": 19.9}).splitlines()
    assert "19.9, which MISSES 20" in lines[-2]
    found["positions_per_second"][PACKED] = 2e6
    assert "2,000,000, which reaches 1,500,000" in input_table(found)


def test_a_run_that_has_not_trained_is_refused(workdir):
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="tokens_per_second"):
        benchmark("input", workdir, rounds=1)
