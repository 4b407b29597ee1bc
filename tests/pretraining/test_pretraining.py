"""A real run on a small text: from raw text to a model that answers, killed and resumed on the way."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers.runs import metric_lines, tiny_run

import bert_jax
from bert_jax.config import DataConfig, PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.pretraining import run as runs
from bert_jax.pretraining.run import pretrain, summary, unigram_loss
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import workdir as workdirs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(text_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, pretrain(tiny_run(text_file), workdir)


def script(text_file: Path, directory: Path, workdir: Path) -> list[str]:
    """The command of `tiny_run`, through scripts/pretrain.py."""
    values = dataclasses.asdict(tiny_run(text_file))
    config = directory / "tiny_run.py"
    config.write_text(
        f"from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({values!r})\n"
    )
    return [sys.executable, str(ROOT / "scripts" / "pretrain.py"), f"--config={config}", f"--workdir={workdir}"]


def last_state(workdir: Path, step: int) -> dict:
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]


def test_a_run_leaves_what_the_design_names(finished) -> None:
    workdir, result = finished
    assert {path.name for path in workdir.iterdir()} >= {
        *("config.json", "metrics.jsonl", "checkpoints", "tokenizer", "corpus", "model", "finished.json"),
    }
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 8
    train_line, validation_line = metric_lines(workdir)[0], metric_lines(workdir)[-1]
    assert train_line["split"] == "train"
    assert {"loss", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "learning_rate"} <= train_line.keys()
    assert validation_line["mlm_loss"] == result.metrics["validation"]["mlm_loss"]
    assert validation_line["mlm_perplexity"] == pytest.approx(np.exp(validation_line["mlm_loss"]))
    assert "nats" in summary(result)
    assert result.model == workdir / "model"
    assert result.seconds.keys() == {"vocabulary", "corpus", "training", "export"}


def test_the_exported_model_answers(finished) -> None:
    workdir, _ = finished
    model = bert_jax.load(workdir)
    (predictions,) = model.fill_mask("abc [MASK] def.", top_k=3)
    assert len(predictions) == 3
    assert 0 < model.next_sentence("abc.", "def.") < 1


def test_training_learns(text_file, tmp_path) -> None:
    """Words in fixed order: the model beats the word frequencies by far."""
    documents = ["one two three four five six seven eight. " * count for count in range(2, 42)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    config = tiny_run(
        tmp_path / "text.txt",
        total_steps=250,
        batch_size=16,
        log_every=50,
        eval_every=250,
        checkpoint_every=250,
        optimizer=dataclasses.replace(tiny_run(text_file).optimizer, learning_rate=5e-3, bias_correction=True),
    )
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, min_frequency=1),
        model=dataclasses.replace(
            config.model, vocab_size=100, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, hidden_size=32
        ),
    )
    metrics = pretrain(config, tmp_path / "run").metrics["validation"]
    assert metrics["mlm_loss"] < metrics["unigram_loss"] - 1.0


def test_sigkill_and_restart_give_the_same_bits(finished, text_file, tmp_path) -> None:
    straight, _ = finished
    workdir = tmp_path / "killed"
    command = script(text_file, tmp_path, workdir)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not (workdir / "checkpoints" / "4").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (workdir / "model").exists(), process.stderr.read().decode()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert metric_lines(workdir) == metric_lines(straight)
    first, second = last_state(workdir, 40), last_state(straight, 40)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    weights = [(path / "model" / "model.safetensors").read_bytes() for path in (workdir, straight)]
    assert weights[0] == weights[1]


def test_sigterm_saves_says_so_and_exits(text_file, tmp_path) -> None:
    workdir = tmp_path / "run"
    command = [*script(text_file, tmp_path, workdir), "--config.total_steps=100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (workdir / "checkpoints" / "4").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: saved after step" in errors
    step = int(errors.split("after step ")[1].split(";")[0].replace(",", ""))
    assert (workdir / "checkpoints" / str(step)).is_dir()


def test_another_config_in_the_same_workdir_is_refused(finished, text_file) -> None:
    workdir, _ = finished
    config = tiny_run(text_file)
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, hidden_size=32))
    with pytest.raises(UserError, match=r"model.hidden_size was 16 and is 32.*another --workdir"):
        pretrain(wider, workdir)


def test_a_run_of_a_version_with_fewer_keys_goes_on(text_file, tmp_path) -> None:
    config = tiny_run(text_file)
    workdirs.claim(tmp_path, config)
    (tmp_path / "corpus").mkdir()
    values = json.loads((tmp_path / "config.json").read_text())
    del values["optimizer"]["mu_dtype"], values["model"]["attention"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    changed = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, mu_dtype="bfloat16"))
    with pytest.raises(UserError, match=r"optimizer\.mu_dtype was 'float32' and is 'bfloat16'"):
        workdirs.claim(tmp_path, changed)
    workdirs.claim(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["mu_dtype"] == "float32"


def test_more_steps_in_the_same_workdir_go_on(text_file, tmp_path) -> None:
    pretrain(tiny_run(text_file, total_steps=4, tensorboard=True), tmp_path)
    pretrain(tiny_run(text_file, total_steps=6, tensorboard=True), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert [line["step"] for line in metric_lines(tmp_path) if line["split"] == "validation"] == [4, 6]


def test_init_from_starts_from_the_weights_and_their_vocabulary(finished, text_file, tmp_path) -> None:
    workdir, result = finished
    loss = result.metrics["validation"]["mlm_loss"]
    vocabulary = bert_jax.load(workdir).config.vocab_size
    config = tiny_run(text_file, init_from=str(workdir), total_steps=1)
    model = dataclasses.replace(config.model, vocab_size=vocabulary)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=0.0)
    config = dataclasses.replace(config, model=model, optimizer=optimizer)
    again = pretrain(config, tmp_path / "again")
    assert again.metrics["validation"]["mlm_loss"] == pytest.approx(loss, abs=1e-6)
    stacked = dataclasses.replace(config, model=dataclasses.replace(model, scan_layers=True))
    stacked = pretrain(stacked, tmp_path / "stacked")
    assert stacked.metrics["validation"]["mlm_loss"] == pytest.approx(loss, abs=1e-5)
    deeper = dataclasses.replace(config, model=dataclasses.replace(model, num_hidden_layers=3))
    with pytest.raises(UserError, match=r"another architecture: set model.num_hidden_layers=2 \(it is 3\)"):
        pretrain(deeper, tmp_path / "deeper")


def test_corpus_of_another_tokenizer_is_refused(finished, text_file, tmp_path) -> None:
    workdir, _ = finished
    Tokenizer.from_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]).save(tmp_path / "other")
    config = tiny_run(text_file)
    data = DataConfig(corpus=str(workdir / "corpus"), tokenizer=str(tmp_path / "other"), length=32)
    config = dataclasses.replace(config, data=data)
    with pytest.raises(UserError, match=r"has 6 entries: set model.vocab_size=6"):
        pretrain(config, tmp_path / "run")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=6))
    with pytest.raises(UserError, match="was built with another tokenizer"):
        pretrain(config, tmp_path / "run6")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataConfig(), "set either data.source"),
        (DataConfig(source="a.txt", corpus="b"), "not both"),
        (DataConfig(corpus="b"), "data.corpus needs data.tokenizer"),
        (DataConfig(source="a.txt", length=1_024), "longer than the position table"),
    ],
)
def test_contradictions_are_told_before_any_work(data: DataConfig, message: str, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(PretrainingConfig(total_steps=1, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir_is_one_line(text_file, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/run \(Not a directory\)"):
        pretrain(tiny_run(text_file), file / "run")


def test_read_only_workdir_is_one_line(text_file, tmp_path) -> None:
    tmp_path.chmod(0o555)
    user = os.geteuid()
    os.seteuid(user or 65534)  # nothing is read-only to root
    try:
        with pytest.raises(UserError, match=r"cannot write to .* \(Permission denied\): give another --workdir"):
            workdirs.claim(tmp_path / "run", tiny_run(text_file))
    finally:
        os.seteuid(user)


def test_full_disk_is_one_line_and_keeps_the_checkpoints(text_file, tmp_path) -> None:
    """The disk is as good as full: from here on, no file may grow beyond some kilobytes."""
    workdir = tmp_path / "run"
    command = script(text_file, tmp_path, workdir)
    subprocess.run([*command, "--config.total_steps=4"], cwd=ROOT, check=True, capture_output=True)
    before = last_state(workdir, 4)
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 4; exec "$@"', "bash", *command]
    result = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    # TensorStore's threads complain besides, before or behind.
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: a checkpoint cannot be written to")
    jax.tree.map(np.testing.assert_array_equal, before, last_state(workdir, 4))


def test_vocabularies_must_be_one(finished, text_file, tmp_path) -> None:
    workdir, _ = finished
    tokens = Tokenizer.load(workdir / "tokenizer").tokens
    Tokenizer.from_vocabulary([*tokens[:5], *reversed(tokens[5:])]).save(tmp_path / "other")
    config = tiny_run(text_file, init_from=str(workdir))
    model = dataclasses.replace(config.model, vocab_size=len(tokens))
    other = dataclasses.replace(config.data, tokenizer=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"the vocabularies in .* differ"):
        pretrain(dataclasses.replace(config, model=model, data=other), tmp_path / "run")


def test_what_an_error_asks_for_can_be_done_in_the_same_workdir(tmp_path, text_file) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(text_file.read_bytes() + b"\n\ncaf\xe9 is not UTF-8.\n")
    config = tiny_run(text, total_steps=1)
    with pytest.raises(UserError, match=r"--config\.data\.errors=replace"):
        pretrain(config, tmp_path / "run")
    pretrain(dataclasses.replace(config, data=dataclasses.replace(config.data, errors="replace")), tmp_path / "run")


def test_one_document_is_too_few(tmp_path) -> None:
    (tmp_path / "text.txt").write_text("One document alone. It has two sentences, and another line.\n" * 9)
    with pytest.raises(UserError, match="no held-out documents: it needs two documents"):
        pretrain(tiny_run(tmp_path / "text.txt"), tmp_path / "run")


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
    losses = [each.metrics["validation"]["mlm_loss"] for each in (result, finished[1])]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert sorted(traces) == ["evaluation", "training"]


@pytest.mark.parametrize("objective", ["sop", "none"])
def test_other_objectives_train_and_predict(objective: str, text_file, tmp_path) -> None:
    config = tiny_run(text_file, total_steps=3)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, objective=objective, packing=False))
    result = pretrain(config, tmp_path)
    for name in ("nsp_loss", "nsp_majority"):
        assert (name in result.metrics["validation"]) == (objective == "sop")
    assert ("Sentence-pair" in summary(result)) == (objective == "sop")
    assert bert_jax.load(tmp_path).fill_mask("[MASK]")[0]


def test_unigram_loss_is_the_cross_entropy_of_smoothed_counts() -> None:
    tokenizer = Tokenizer.from_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"])
    train = np.array([0, 9, 0, 0, 0, 3, 1, 0])  # special tokens do not count: masking never hides them
    batch = {"input_ids": np.array([[2, 5, 1, 3], [2, 7, 3, 0]])}
    expected = -(np.log(4 / 7) + np.log(1 / 7)) / 2
    assert unigram_loss(train, [batch], tokenizer) == pytest.approx(expected)
