"""Several seeds in one command: what is run, what is left alone, what is said of all of them."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import random_model

from bert_jax.config import FinetuningConfig
from bert_jax.errors import Interrupted, UserError
from bert_jax.experiments import runs
from bert_jax.experiments.seeds import check_layout, finetune_seeds, score_table
from bert_jax.interop import huggingface, pretrained
from bert_jax.training import workdir as workdirs
from bert_jax.training.result import RunResult

CONFIG = FinetuningConfig(task="mrpc", init_from="MODEL", total_epochs=3.0)
# Of MRPC, the mean of F1 and accuracy chooses: seed 1 of three, though others have the best of each and the best test.
F1 = [0.9, 0.8, 0.6, 0.99, 0.7]
ACCURACY = [0.6, 0.8, 0.9, 0.7, 0.7]
TEST_F1 = [0.7, 0.5, 0.75, 0.6, 0.65]


@pytest.fixture
def started(monkeypatch):
    """The seeds that were run, by something that is quicker than training."""
    started = []

    def finetune(config, workdir):
        started.append(config.seed)
        workdirs.register_run(config, workdir)
        (workdir / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
        place = config.seed % len(F1)
        validation = {"loss": 1.0, "f1": F1[place], "accuracy": ACCURACY[place]}
        scores = {"validation": validation, "test": {"f1": TEST_F1[place]}}
        (workdir / "scores.json").write_text(json.dumps(scores))
        huggingface.save(workdir / "model", random_model.random_model(seed=config.seed), random_model.tokenizer())
        result = RunResult(scores, workdir / "model", {})
        workdirs.finish(config, workdir, result)
        return result

    monkeypatch.setattr(runs, "finetune", finetune)
    return started


def assert_same_model(one: Path, other: Path):
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    assert files == {path.name: path.read_bytes() for path in other.iterdir()}


def test_seeds_beyond_the_last_are_refused_at_once(tmp_path):
    with pytest.raises(UserError, match=r"seed=\d+ is out of range"):
        finetune_seeds(CONFIG, tmp_path, 10**15)
    assert not list(tmp_path.iterdir())


def test_scores_of_all_seeds_and_the_model_of_the_best(tmp_path, started, capsys):
    summary = finetune_seeds(CONFIG, tmp_path, 3)
    assert started == [0, 1, 2] == summary["seeds"]
    assert json.loads((tmp_path / "scores.json").read_text()) == summary
    assert set(summary["scores"]) == {"validation", "test"}
    assert set(summary["scores"]["validation"]) == {"loss", "f1", "accuracy"}
    for split, metric, values in (("validation", "f1", F1[:3]), ("test", "f1", TEST_F1[:3])):
        found = summary["scores"][split][metric]
        assert found["values"] == values
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert summary["best_seed"] == 1
    assert_same_model(pretrained.resolve(tmp_path), tmp_path / "seed_1" / "model")
    assert "seed 1 is the best on validation (f1_accuracy 0.8000)" in capsys.readouterr().out.splitlines()[-1]


def test_more_seeds_are_added_to_those_that_have_finished(tmp_path, started):
    finetune_seeds(CONFIG, tmp_path, 3)
    before = (tmp_path / "seed_0" / "config.json").stat().st_mtime_ns
    summary = finetune_seeds(CONFIG, tmp_path, 5)
    assert started == [0, 1, 2, 3, 4]
    assert (tmp_path / "seed_0" / "config.json").stat().st_mtime_ns == before
    assert summary["scores"]["validation"]["f1"]["values"] == F1
    assert summary["best_seed"] == 3
    assert_same_model(tmp_path / "model", tmp_path / "seed_3" / "model")


def test_the_seeds_follow_that_of_the_config(tmp_path, started):
    summary = finetune_seeds(dataclasses.replace(CONFIG, seed=12), tmp_path, 2)
    assert started == summary["seeds"] == [12, 13]
    assert json.loads((tmp_path / "seed_13" / "config.json").read_text())["seed"] == 13


def test_what_has_not_finished_is_run_again(tmp_path, started, monkeypatch):
    """Interrupted, prolonged, prolonged in vain, or without its model."""
    plain = runs.finetune

    def interrupted(config, workdir):
        if config.seed == 1:
            workdirs.register_run(config, workdir)
            raise Interrupted(7, signal.SIGTERM)
        return plain(config, workdir)

    monkeypatch.setattr(runs, "finetune", interrupted)
    with pytest.raises(Interrupted):
        finetune_seeds(CONFIG, tmp_path, 3)
    assert not (tmp_path / "scores.json").exists()
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(runs, "finetune", plain)
    finetune_seeds(CONFIG, tmp_path, 3)
    assert started == [0, 1, 2]

    longer = dataclasses.replace(CONFIG, total_epochs=4.0)
    monkeypatch.setattr(runs, "finetune", interrupted)
    with pytest.raises(Interrupted):
        finetune_seeds(longer, tmp_path, 3)
    monkeypatch.setattr(runs, "finetune", plain)
    finetune_seeds(CONFIG, tmp_path, 3)  # seed 1 may have gone on already
    assert started[3:] == [0, 0, 1]
    finetune_seeds(longer, tmp_path, 3)
    assert started[6:] == [0, 1, 2]

    (tmp_path / "seed_2" / "model" / "model.safetensors").unlink()
    finetune_seeds(longer, tmp_path, 3)
    assert started[9:] == [2]


@pytest.mark.parametrize(
    ("there", "count"),
    [
        ("config.json", 2),
        ("checkpoints/1/state", 2),
        ("model/model.safetensors", 2),
        ("scores.json", 2),
        ("seed_0/config.json", 1),
    ],
)
def test_one_seed_and_several_share_no_workdir(tmp_path, started, there, count):
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("{}")
    with pytest.raises(UserError, match="another --workdir"):
        check_layout(tmp_path, count) if count == 1 else finetune_seeds(CONFIG, tmp_path, count)
    assert started == []


def test_a_single_run_beside_the_seeds_is_refused(tmp_path, started):
    finetune_seeds(CONFIG, tmp_path, 2)
    check_layout(tmp_path / "seed_0", 1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds config\.json"):
        finetune_seeds(CONFIG, tmp_path, 2)


def test_another_config_is_refused(tmp_path, started):
    finetune_seeds(CONFIG, tmp_path, 2)
    with pytest.raises(UserError, match=r"label_smoothing was 0\.0 and is 0\.1"):
        finetune_seeds(dataclasses.replace(CONFIG, label_smoothing=0.1), tmp_path, 2)


def test_table():
    accuracy = {"mean": 0.85, "standard_deviation": 0.0707106, "values": [0.8, 0.9]}
    f1 = {"mean": 88.5, "standard_deviation": 0.5, "values": [88.0, 89.0]}
    assert score_table({"scores": {"validation": {"accuracy": accuracy}, "test": {"f1": f1}}}) == (
        "split       metric    mean     deviation  values\n"
        "validation  accuracy  0.8500   0.0707     0.8000 0.9000\n"
        "test        f1        88.5000  0.5000     88.0000 89.0000"
    )


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_command(tmp_path):
    """scripts/finetune.py trains two seeds, which differ; one seed in the same folder is refused."""
    body = random_model.random_model(dataclasses.replace(random_model.CONFIG, num_hidden_layers=1))
    huggingface.save(tmp_path / "body", body, random_model.tokenizer())
    for split in ("train", "validation"):
        rows = "".join(f"{text} film,{label}\n" for text, label in (("good", "yes"), ("bad", "no")) * 4)
        (tmp_path / f"{split}.csv").write_text("text,label\n" + rows)
    settings = {
        "init_from": tmp_path / "body",
        "data.train": tmp_path / "train.csv",
        "data.validation": tmp_path / "validation.csv",
        "max_length": 16,
        "batch_size": 8,
        "tensorboard": False,
    }
    root, workdir = Path(__file__).parents[2], tmp_path / "run"
    command = [sys.executable, "scripts/finetune.py", f"--workdir={workdir}"]
    command += ["--config=configs/finetune/custom.py:classification"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    done = subprocess.run([*command, "--seeds=2"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((workdir / "scores.json").read_text())
    assert done.stdout.strip().endswith(score_table(summary))
    assert_same_model(workdir / "model", workdir / f"seed_{summary['best_seed']}" / "model")
    weights = [(workdir / f"seed_{seed}" / "model" / "model.safetensors").read_bytes() for seed in (0, 1)]
    assert weights[0] != weights[1]

    refused = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {workdir} holds runs with several seeds")
