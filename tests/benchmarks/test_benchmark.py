"""The benchmark's suites run on a finished workdir, say what they measured, and name what is missing."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.random_model import CONFIG, random_model, tokenizer

from bert_jax.benchmarks import finetuning_comparison
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.finetuning_sides import Comparison, Ours, Theirs, check_same_loss
from bert_jax.errors import UserError
from bert_jax.experiments.parity import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, largest, parity_table
from bert_jax.interop import huggingface


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


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        benchmark("input", tmp_path / "nothing", rounds=1)
    with pytest.raises(UserError, match="input"):
        benchmark("inptu", tmp_path)


# ------------------------------------------------------------------------------------------------------------ finetune


@pytest.fixture
def tasks(tmp_path):
    """A tiny model, and a folder for each task with a few labelled rows in its official files."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=1)
    huggingface.save(tmp_path / "model", random_model(config, "BertForMaskedLM"), tokenizer())
    pairs = [(number % 2, f"the film was {'good' if number % 2 else 'bad'}", "a good film .") for number in range(16)]
    for name, header, row in (
        ("mrpc", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{0}\t1\t2\t{1}\t{2}"),
        ("stsb", "index\tsentence1\tsentence2\tscore", "7\t{1}\t{2}\t{0}.5"),
    ):
        (tmp_path / name).mkdir()
        text = "\n".join([header, *(row.format(*pair) for pair in pairs)]) + "\n"
        for file in ("train", "dev", "test"):
            (tmp_path / name / f"{file}.tsv").write_text(text)
    (tmp_path / "conll2003").mkdir()
    for file in ("train", "valid", "test"):
        (tmp_path / "conll2003" / f"{file}.txt").write_text("the DT O O\nactor NN O B-PER\nwas VB O O\n\n" * 16)
    return {name: str(tmp_path / name) for name in ("model", "mrpc", "stsb", "conll2003")}


@pytest.mark.parametrize("name", ["mrpc", "stsb", "conll2003"])
def test_both_sides_of_the_finetune_suite_start_alike(tasks, name):
    task = Comparison(name, tasks["model"], tasks[name])
    start, batch = task.start(seed=0), task.batches(seed=0)[0]
    ours, theirs = Ours(task, start, 0), Theirs(task, start, 0)
    check_same_loss(ours.loss(batch), theirs.loss(batch))
    ours_scores, theirs_scores = task.scores(ours.logits), task.scores(theirs.logits)
    assert ours_scores.keys() == set(task.recipe.metrics)
    assert ours_scores == pytest.approx(theirs_scores, abs=1e-5)
    with pytest.raises(UserError, match="do not start alike"):  # another head
        check_same_loss(ours.loss(batch), Theirs(task, task.start(seed=1), 0).loss(batch))


def test_the_finetune_suite(tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finetuning_comparison, "CHUNK", 1)
    monkeypatch.setattr(finetuning_comparison, "started", in_this_process)
    settings = dict(tasks=["mrpc"], seeds=1, rounds=2, directories={"mrpc": tasks["mrpc"]})
    found = benchmark("finetune", tmp_path, tasks["model"], **settings)["tasks"]["mrpc"]
    assert json.loads((tmp_path / "benchmark" / "finetune.json").read_text())["tasks"]["mrpc"] == found
    assert found["steps"] == 4  # 4 epochs of train and dev, 16 pairs each
    speed = found["speed"]
    assert speed["seconds_a_step"].keys() == {"bert_jax", "PyTorch sdpa", "PyTorch eager"}
    assert speed["ratio"] == speed["seconds_a_step"][speed["fastest_of_theirs"]] / speed["seconds_a_step"]["bert_jax"]
    assert len(speed["ratio_by_round"]) == 2
    assert [(run["side"], run["seed"]) for run in found["runs"]] == [("bert_jax", 0), ("PyTorch", 0)]
    for run in found["runs"]:
        assert run.keys() == {"side", "seed", "scores", "seconds_a_step", "compile_seconds", "seconds"}
        assert run["scores"].keys() == {"f1", "accuracy"}
        assert run["seconds"] > run["compile_seconds"]
    printed = capsys.readouterr().out
    assert "mrpc PyTorch seed 0: step 4 of 4, loss" in printed
    assert "times as fast" in printed

    # The finished run is read and the missing one made; a run of another setting is not taken for it.
    folder = tmp_path / "benchmark" / "finetune"
    (folder / "mrpc-PyTorch-0.json").unlink()
    again = benchmark("finetune", tmp_path, tasks["model"], **settings | {"rounds": 0})["tasks"]["mrpc"]
    assert again["speed"] is None
    assert again["runs"][0] == found["runs"][0]
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
    runs = [{"side": side, "scores": {"f1": value}} for side, each in values.items() for value in each]
    found = finetuning_comparison.summary(runs)["f1"]
    assert found["mean"] == pytest.approx({"bert_jax": 0.8, "PyTorch": 0.65})
    assert found["deviation"] == pytest.approx({"bert_jax": 0.1, "PyTorch": 0.05})
    assert found["difference_in_deviations"] == pytest.approx(0.15 / np.sqrt((0.1**2 + 0.05**2) / 2))


def test_what_the_finetune_suite_cannot_use_is_named(tmp_path):
    settings = dict(tasks=["mrpc"], seeds=1, rounds=1, directories={})
    with pytest.raises(UserError, match="--model"):
        benchmark("finetune", tmp_path, **settings)
    with pytest.raises(UserError, match="TASK=FOLDER"):
        benchmark("finetune", tmp_path, "model", **settings | {"directories": {"mrcp": "data"}})
    with pytest.raises(UserError, match="'mrcp' is not compared"):
        benchmark("finetune", tmp_path, "model", **settings | {"tasks": ["mrcp"]})
