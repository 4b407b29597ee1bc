"""The benchmark's suites run on a finished workdir, say what they measured, and name what is missing."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.random_model import CONFIG, random_model, tokenizer

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.harness import check_same_loss
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import table
from bert_jax.benchmarks.suites import finetune
from bert_jax.benchmarks.suites.finetune import Comparison
from bert_jax.benchmarks.suites.parity import largest, note_verdicts
from bert_jax.errors import UserError
from bert_jax.experiments.parity import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from bert_jax.interop import huggingface


@pytest.mark.slow
@pytest.mark.torch
def test_the_parity_suite(tmp_path, capsys):
    """Each quantity in float32 and bfloat16, of bert_jax and PyTorch; a model that lacks heads says so."""
    huggingface.save(tmp_path / "model", random_model(architecture="BertForMaskedLM"), tokenizer())
    results = benchmark("parity", tmp_path, str(tmp_path / "model"))
    assert {"hidden states", "attentions", "pooled", "prediction_logits", "loss", "gradients"} <= set(results.cases())
    for quantity in results.cases():
        values = results.by_side(quantity, "difference")
        assert list(values) == ["bert_jax float32", "PyTorch float32", "bert_jax bfloat16", "PyTorch bfloat16"]
        for name, value in values.items():
            if name.endswith(" float32"):
                assert value <= (GRADIENT_TOLERANCE if quantity == "gradients" else OUTPUT_TOLERANCE), (name, quantity)
            elif quantity != "loss":
                assert 1e-4 < value < 0.5, (name, quantity)  # bfloat16 has 8 bits: really computed in it
    printed = capsys.readouterr().out
    assert "has no next_sentence, no pooler: drawn at random" in printed
    assert "float32 within 1e-05" in printed
    assert "BEYOND" not in printed
    assert Results.load(tmp_path / "benchmark" / "parity.json") == results
    assert not (tmp_path / "benchmark" / "parity.svg").exists()


def test_not_a_number_is_the_largest_of_all():
    groups = largest({"hidden states 0": float("nan"), "hidden states 1": 1e-7, "gradient of x": 1e-6})
    assert np.isnan(groups["hidden states"])
    assert groups["gradients"] == 1e-6


def test_a_difference_beyond_the_tolerance_is_told():
    results = Results("parity", "t", "")
    for quantity, value in {"hidden states": 2e-5, "gradients": 2e-5, "loss": float("nan")}.items():
        results.add(quantity, "bert_jax float32", difference=value)
    note_verdicts(results)
    verdicts = [line.split("float32 ")[1].split()[0] for line in table(results).splitlines()[1:]]
    assert verdicts == ["BEYOND", "within", "BEYOND"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        benchmark("input", tmp_path / "nothing", rounds=1)
    with pytest.raises(UserError, match="input"):
        benchmark("inptu", tmp_path)


# ---- finetune ------------------------------------------------------------------------------------


@pytest.fixture
def tasks(tmp_path):
    """A tiny model, and a folder for each task with a few labelled rows in its official files."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=1)
    huggingface.save(tmp_path / "model", random_model(config, "BertForMaskedLM"), tokenizer())
    pairs = [(number % 2, f"the film was {'good' if number % 2 else 'bad'}", "a good film .") for number in range(16)]
    for name, header, row in (
        ("mrpc", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{0}\t1\t2\t{1}\t{2}"),
        ("stsb", "index\tsentence1\tsentence2\tscore", "{3}\t{1}\t{2}\t{0}.5"),
    ):
        (tmp_path / name).mkdir()
        text = "\n".join([header, *(row.format(*pair, index) for index, pair in enumerate(pairs))]) + "\n"
        for file in ("train", "dev", "test"):
            (tmp_path / name / f"{file}.tsv").write_text(text)
    (tmp_path / "conll2003").mkdir()
    for file in ("train", "valid", "test"):
        (tmp_path / "conll2003" / f"{file}.txt").write_text("the DT O O\nactor NN O B-PER\nwas VB O O\n\n" * 16)
    return {name: str(tmp_path / name) for name in ("model", "mrpc", "stsb", "conll2003")}


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("name", ["mrpc", "stsb", "conll2003"])
def test_both_sides_of_the_finetune_suite_start_alike(tasks, name):
    task = Comparison(name, tasks["model"], tasks[name])
    start, batch = task.start(seed=0), task.batches(seed=0)[0]
    own, peer = task.jax_side(start, 0), task.torch_side(start, 0)
    check_same_loss("PyTorch", own.loss(batch), peer.loss(batch), "float32")
    scores, peer_scores = task.scores(own.logits), task.scores(peer.logits)
    assert scores.keys() == set(task.recipe.metrics)
    assert scores == pytest.approx(peer_scores, abs=1e-5)
    other = task.torch_side(task.start(seed=1), 0)  # another head
    with pytest.raises(UserError, match="does not start as"):
        check_same_loss("PyTorch", own.loss(batch), other.loss(batch), "float32")


@pytest.mark.slow
@pytest.mark.torch
def test_the_finetune_suite(tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finetune, "CHUNK", 1)
    monkeypatch.setattr(harness, "started", in_this_process)
    settings = dict(tasks=["mrpc"], seeds=1, rounds=2, directories={"mrpc": tasks["mrpc"]})
    results = benchmark("finetune", tmp_path, tasks["model"], **settings)
    assert Results.load(tmp_path / "benchmark" / "finetune.json") == results
    assert results.metadata["steps"] == {"mrpc": 4}  # 4 epochs of train and dev, 16 pairs each
    seconds = results.by_side("mrpc, a step", "seconds")
    assert list(seconds) == ["bert_jax", "PyTorch sdpa", "PyTorch eager"]
    best = min(seconds["PyTorch sdpa"], seconds["PyTorch eager"])
    assert results.value("mrpc, a step", "bert_jax", "ratio") == pytest.approx(best / seconds["bert_jax"])
    assert len(results.rounds("mrpc, a step", "bert_jax", "ratio")) == 2
    runs = "mrpc, whole runs"
    assert results.sides(runs) == ["bert_jax", "PyTorch"]
    assert set(results.metrics(runs)) == {"f1", "accuracy", "step_seconds", "compile_seconds", "total_seconds"}
    assert len(results.rounds(runs, "PyTorch", "f1")) == 1
    compiled = results.value(runs, "bert_jax", "compile_seconds")
    assert results.value(runs, "bert_jax", "total_seconds") > compiled > 0
    printed = capsys.readouterr().out
    assert "mrpc PyTorch seed 0: step 4 of 4, loss" in printed
    assert "times as fast" in printed

    # The finished run is read and the missing one made; a run of another setting is not taken for it.
    folder = tmp_path / "benchmark" / "finetune"
    (folder / "mrpc-PyTorch-0.json").unlink()
    again = benchmark("finetune", tmp_path, tasks["model"], **settings | {"rounds": 0})
    assert again.cases() == [runs]
    for metric in again.metrics(runs):
        assert again.value(runs, "bert_jax", metric) == results.value(runs, "bert_jax", metric)
    printed = capsys.readouterr().out
    assert "mrpc-bert_jax-0.json is finished and not repeated" in printed
    assert "bert_jax seed 0: step" not in printed
    assert "PyTorch seed 0: step 4 of 4" in printed
    saved = json.loads((folder / "mrpc-PyTorch-0.json").read_text())
    saved["setting"]["init_from"] = "another"
    (folder / "mrpc-PyTorch-0.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="another setting"):
        benchmark("finetune", tmp_path, tasks["model"], **settings | {"rounds": 0})


def test_scores_over_seeds():
    values = {"bert_jax": (0.8, 0.9, 0.7), "PyTorch": (0.6, 0.7, 0.65)}
    seconds = {"total_seconds": 3.0, "compile_seconds": 1.0, "step_seconds": 0.1}
    runs = {side: [{"scores": {"f1": value}, **seconds} for value in each] for side, each in values.items()}
    results = Results("finetune", "t", "seconds")
    finetune.record_scores(results, "c", runs)
    assert results.by_side("c", "f1") == pytest.approx({"bert_jax": 0.8, "PyTorch": 0.65})
    assert results.by_side("c", "f1_deviation") == pytest.approx({"bert_jax": 0.1, "PyTorch": 0.05})
    assert results.rounds("c", "PyTorch", "f1") == [0.6, 0.7, 0.65]
    assert results.notes["c"] == f"f1 +0.1500, {0.15 / np.sqrt((0.1**2 + 0.05**2) / 2):+.1f} deviations"


def test_what_the_finetune_suite_cannot_use_is_named(tmp_path):
    settings = dict(tasks=["mrpc"], seeds=1, rounds=1, directories={})
    with pytest.raises(UserError, match="--model"):
        benchmark("finetune", tmp_path, **settings)
    with pytest.raises(UserError, match="TASK=FOLDER"):
        benchmark("finetune", tmp_path, "model", **settings | {"directories": {"mrcp": "data"}})
    with pytest.raises(UserError, match="'mrcp' is not compared"):
        benchmark("finetune", tmp_path, "model", **settings | {"tasks": ["mrcp"]})
