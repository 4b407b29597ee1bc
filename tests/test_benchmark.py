"""The benchmark's suites run on a finished workdir, say what they measured, and name what is missing."""

import dataclasses
import json
import os

import numpy as np
import pytest
from random_model import random_model, tokenizer
from synthetic_corpus import synthetic_corpus

from bert_jax.config import DataConfig, PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.experiments import benchmark as module
from bert_jax.experiments.benchmark import Measurement, benchmark, table
from bert_jax.experiments.parity import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, largest, parity_table
from bert_jax.interop import huggingface


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run's folder with a corpus in memory in place of the one on disk."""
    config = PretrainingConfig(total_steps=1, batch_size=8, data=DataConfig(length=64))
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    lines = [{"step": 50 * i, "split": "train", "tokens_per_second": 1.0 + i} for i in range(5)]
    lines.append({"step": 250, "split": "validation", "loss": 5.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(module.Corpus, "open", lambda directory: synthetic_corpus(100))
    real = module.positions_per_second
    monkeypatch.setattr(module, "positions_per_second", lambda batches, step: real(batches, step, seconds=0.01))
    return tmp_path


def test_the_input_suite(workdir, capsys):
    cores = os.sched_getaffinity(0)
    benchmark("input", workdir)
    assert os.sched_getaffinity(0) == cores
    saved = json.loads((workdir / "benchmark" / "input.json").read_text())
    assert {"date", "device", "threads", "versions"} <= set(saved)
    rows = {row["name"]: row for row in saved["measurements"]}
    assert all(len(row["values"]) >= 5 for row in rows.values())
    assert rows["training in this folder"]["median"] == 3.0
    loader = rows["loader on one core: nsp, packed"]["median"]
    assert rows["loader / training"]["median"] == pytest.approx(loader / 3)
    assert "loader / training" in capsys.readouterr().out


def test_a_run_of_another_setting_is_measured_too(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["objective"] = "sop"
    (workdir / "config.json").write_text(json.dumps(config))
    names = [each["name"] for each in benchmark("input", workdir)["measurements"]]
    assert "loader on one core: as in this run" in names
    assert names.index("loader / training") > names.index("loader on one core: as in this run")


def test_the_parity_suite(tmp_path, capsys):
    """Each quantity in float32 and bfloat16, ours and theirs; a model that lacks heads says so."""
    huggingface.save(tmp_path / "model", random_model(architecture="BertForMaskedLM"), tokenizer())
    found = benchmark("parity", tmp_path, str(tmp_path / "model"))["differences"]
    assert list(found) == ["bert_jax float32", "PyTorch float32", "bert_jax bfloat16", "PyTorch bfloat16"]
    for name, column in found.items():
        assert {"hidden states", "attentions", "pooled", "prediction_logits", "loss", "gradients"} <= column.keys()
        for group, value in column.items():
            if name.endswith(" float32"):
                assert value <= (GRADIENT_TOLERANCE if group == "gradients" else OUTPUT_TOLERANCE), (name, group)
            elif group != "loss":
                assert 1e-4 < value < 0.5, (name, group)  # bfloat16 has 8 bits: really computed in it
    printed = capsys.readouterr().out
    assert "has no next_sentence, no pooler: drawn at random" in printed
    assert "float32 within 1e-05" in printed
    assert "BEYOND" not in printed
    assert json.loads((tmp_path / "benchmark" / "parity.json").read_text())["differences"] == found


def test_not_a_number_is_the_largest_of_all():
    found = largest({"hidden states 0": float("nan"), "hidden states 1": 1e-7, "gradient of x": 1e-6})
    assert np.isnan(found["hidden states"])
    assert found["gradients"] == 1e-6


def test_a_difference_beyond_the_tolerance_is_told():
    column = {"hidden states": 2e-5, "gradients": 2e-5, "loss": float("nan")}
    lines = parity_table(
        {"model": "m", "batch": "b", "pytorch_device": "cpu", "differences": {"bert_jax float32": column}}
    )
    verdicts = [line.split("float32 ")[1].split()[0] for line in lines.splitlines()[2:]]
    assert verdicts == ["BEYOND", "within", "BEYOND"]


def test_a_table_tells_a_missed_target():
    lines = table([Measurement("a", "times", [1.0, 2.0, 3.0], 2.5), Measurement("b", "s", [4.0])]).splitlines()
    assert "MISSES 2.5" in lines[1]
    assert "100.0%" in lines[1]
    assert "MISSES" not in lines[2]


def test_what_is_missing_is_named(tmp_path, workdir):
    with pytest.raises(UserError, match=r"config\.json"):
        benchmark("input", tmp_path / "nothing")
    with pytest.raises(UserError, match="input"):
        benchmark("inptu", workdir)
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="tokens_per_second"):
        benchmark("input", workdir)
