"""Runs from Python: of either kind, with overrides, from a config or its file; and whether they have finished."""

import contextlib
import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from helpers.runs import tiny_run

from bert_jax.config import FinetuningConfig
from bert_jax.errors import UserError
from bert_jax.experiments import runs
from bert_jax.training import workdir as workdirs
from bert_jax.training.result import RunResult


@pytest.fixture(scope="module")
def pretrained(text_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    overrides = {"total_steps": 2, "data.cleaning.minimum_length": 20}
    return workdir, runs.run(tiny_run(text_file), workdir, overrides)


@pytest.mark.slow
def test_a_run_with_overrides_knows_that_it_has_finished(pretrained, text_file) -> None:
    workdir, result = pretrained
    recorded = json.loads((workdir / "config.json").read_text())
    assert (recorded["total_steps"], recorded["data"]["cleaning"]["minimum_length"]) == (2, 20)
    assert {"loss", "mlm_loss", "unigram_loss"} <= result.metrics["validation"].keys()
    assert result.model == workdir / "model"
    config = workdirs_config(tiny_run(text_file))
    assert runs.finished(config, workdir) == result
    assert runs.finished(tiny_run(text_file), workdir) is None
    assert runs.finished(config, workdir.parent / "elsewhere") is None


def workdirs_config(config):
    cleaning = dataclasses.replace(config.data.cleaning, minimum_length=20)
    return dataclasses.replace(config, total_steps=2, data=dataclasses.replace(config.data, cleaning=cleaning))


@pytest.mark.slow
def test_the_cleaning_of_the_config_reaches_the_corpus(text_file, tmp_path) -> None:
    """Of the documents, those with fewer characters than the median are dropped."""
    lengths = sorted(len(document) for document in text_file.read_text().split("\n\n"))
    runs.run(tiny_run(text_file), tmp_path, {"total_steps": 1, "data.cleaning.minimum_length": lengths[150]})
    report = json.loads((tmp_path / "corpus" / "report.json").read_text())
    assert report["documents"] == sum(length >= lengths[150] for length in lengths)


def test_a_result_is_stale_once_another_run_was_begun_or_the_model_is_gone(tmp_path) -> None:
    config = FinetuningConfig(task="mrpc", total_epochs=3.0)
    longer = dataclasses.replace(config, total_epochs=4.0)
    workdirs.register_run(config, tmp_path)
    assert workdirs.finished(config, tmp_path) is None
    result = RunResult({"validation": {"f1": 0.5}}, tmp_path / "model", {"training": 1.5})
    workdirs.finish(config, tmp_path, result)
    assert workdirs.finished(config, tmp_path) == result
    assert workdirs.finished(longer, tmp_path) is None
    assert runs.finished(config, tmp_path) is None  # there is no model
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    assert runs.finished(config, tmp_path) == result
    workdirs.register_run(longer, tmp_path)
    assert workdirs.finished(config, tmp_path) is None
    workdirs.register_run(config, tmp_path)

    record = json.loads((tmp_path / "finished.json").read_text())
    del record["config"]["balance_classes"]  # by a version that did not have it
    (tmp_path / "finished.json").write_text(json.dumps(record))
    assert workdirs.finished(config, tmp_path) == result
    assert workdirs.finished(dataclasses.replace(config, balance_classes=True), tmp_path) is None
    (tmp_path / "finished.json").write_text(json.dumps(record["config"]))  # of a version without results
    assert workdirs.finished(config, tmp_path) is None


@pytest.mark.parametrize(
    ("before", "after"), [("tagging", "token_classification"), ("token_classification", "tagging")]
)
def test_a_run_goes_on_under_the_old_and_the_new_name_of_its_task(before, after, tmp_path) -> None:
    config = FinetuningConfig(task="custom:token_classification", total_epochs=3.0)
    result = RunResult({"validation": {"f1": 0.5}}, tmp_path / "model", {"training": 1.5})
    workdirs.register_run(config, tmp_path)
    workdirs.finish(config, tmp_path, result)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    for name in ("config.json", "finished.json"):  # as the version of that name has written them
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("custom:token_classification", f"custom:{before}"))
    renamed = dataclasses.replace(config, task=f"custom:{after}")
    assert workdirs.finished(renamed, tmp_path) == result
    workdirs.register_run(renamed, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["task"] == "custom:token_classification"
    with pytest.raises(UserError, match="task was 'custom:token_classification' and is 'mrpc'"):
        workdirs.register_run(dataclasses.replace(config, task="mrpc"), tmp_path)


def test_a_record_that_this_version_cannot_read_is_refused_by_name(tmp_path) -> None:
    config = FinetuningConfig(task="mrpc", total_epochs=3.0)
    workdirs.register_run(config, tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**record, "colour": "red"}))
    with pytest.raises(UserError, match=f"{tmp_path} holds a run of another kind or version .*colour is not known"):
        workdirs.register_run(config, tmp_path)


def test_config_files_of_both_kinds(tmp_path, monkeypatch) -> None:
    begun = []
    for name in ("pretrain", "finetune"):
        monkeypatch.setattr(runs, name, lambda config, workdir, name=name: begun.append((name, config)))
    root = Path(__file__).parents[2]
    runs.run(str(root / "configs/pretrain/tiny.py"), tmp_path, {"total_steps": 20_000})
    runs.run(f"{root / 'configs/finetune/glue.py'}:mrpc", tmp_path, {"seed": 3})
    (first, pretraining), (second, finetuning) = begun
    assert (first, pretraining.total_steps, pretraining.model.hidden_size) == ("pretrain", 20_000, 128)
    assert (second, finetuning.task, finetuning.seed) == ("finetune", "mrpc", 3)
    with pytest.raises(UserError, match="did you mean seed"):
        runs.run(f"{root / 'configs/finetune/glue.py'}:mrpc", tmp_path, {"sed": 3})
    with pytest.raises(UserError, match=r"there is no config file .*none\.py"):
        runs.run(str(tmp_path / "none.py"), tmp_path)


@pytest.mark.parametrize("name", ["model", "checkpoints", "config.json", "metrics.jsonl", "finished.json", "corpus"])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo], ids=["file", "folder", "pipe"])
def test_what_stands_in_the_way_of_a_run_is_told_before_it_begins(name, make, tmp_path) -> None:
    """A pipe would be read for ever, and a file in the place of the model found when all is trained."""
    config = FinetuningConfig(total_steps=1)
    workdirs.register_run(config, tmp_path)
    (tmp_path / "config.json").unlink()
    make(tmp_path / name)
    good = make is (Path.touch if "." in name else Path.mkdir)
    message = f"{re.escape(str(tmp_path / name))} is no {'file' if '.' in name else 'folder'}: move it away"
    with (
        contextlib.nullcontext() if good else pytest.raises(UserError, match=message),
        workdirs.entered(config, tmp_path),
    ):
        pass
