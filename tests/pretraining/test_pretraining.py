"""A real run on a small text: from raw text to a model that answers, killed and resumed on the way."""

import dataclasses
import json
import re
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.runs import metric_lines, tiny_run

import bert_jax
from bert_jax.config import DataConfig, ModelConfig, PretrainingConfig, model_config
from bert_jax.errors import UserError
from bert_jax.metrics.language_model import majority_share, unigram_loss
from bert_jax.pretraining.run import pretrain, read_run, summary, warn_of_text
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import workdir as workdirs
from bert_jax.training.result import RunResult


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_exported_model_answers(finished) -> None:
    workdir, _ = finished
    model = bert_jax.load(workdir)
    (predictions,) = model.fill_mask("abc [MASK] def.", top_k=3)
    assert len(predictions) == 3
    assert 0 < model.next_sentence("abc.", "def.") < 1


@pytest.mark.slow
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


@pytest.mark.slow
def test_another_config_in_the_same_workdir_is_refused(finished, text_file) -> None:
    workdir, _ = finished
    config = tiny_run(text_file)
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, hidden_size=32))
    with pytest.raises(UserError, match=r"model.hidden_size was 16 and is 32.*another --workdir"):
        pretrain(wider, workdir)


def test_pre_training_in_several_processes_is_refused(text_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="runs in one process with all its devices, not in 2"):
        pretrain(tiny_run(text_file), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_version_with_fewer_keys_goes_on(text_file, tmp_path) -> None:
    config = tiny_run(text_file)
    workdirs.register_run(config, tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["optimizer"]["mu_dtype"], values["model"]["attention"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    changed = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, mu_dtype="bfloat16"))
    with pytest.raises(UserError, match=r"optimizer\.mu_dtype was 'float32' and is 'bfloat16'"):
        workdirs.register_run(changed, tmp_path)
    workdirs.register_run(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["mu_dtype"] == "float32"


@pytest.mark.slow
def test_more_steps_in_the_same_workdir_go_on(text_file, tmp_path) -> None:
    pretrain(tiny_run(text_file, total_steps=4, tensorboard=True), tmp_path)
    pretrain(tiny_run(text_file, total_steps=6, tensorboard=True), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert [line["step"] for line in metric_lines(tmp_path) if line["split"] == "validation"] == [4, 6]


@pytest.mark.slow
def test_init_from_starts_from_the_weights_and_their_vocabulary(finished, text_file, tmp_path) -> None:
    workdir, result = finished
    loss = result.metrics["validation"]["mlm_loss"]
    vocabulary = bert_jax.load(workdir).config.vocab_size
    config = tiny_run(text_file, init_from=str(workdir), total_steps=1)
    dropouts = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = ModelConfig(**dropouts)  # the shape is that of init_from
    optimizer = dataclasses.replace(config.optimizer, learning_rate=0.0)
    config = dataclasses.replace(config, model=model, optimizer=optimizer)
    again = pretrain(config, tmp_path / "again")
    assert bert_jax.load(tmp_path / "again").config.vocab_size == vocabulary
    assert again.metrics["before_training"]["mlm_loss"] == pytest.approx(loss, abs=1e-6)
    assert f"Before training it was {loss:.3f} nats" in summary(again)
    assert again.metrics["validation"]["mlm_loss"] == pytest.approx(loss, abs=1e-6)
    stacked = dataclasses.replace(config, model=dataclasses.replace(model, scan_layers=True))
    stacked = pretrain(stacked, tmp_path / "stacked")
    assert stacked.metrics["validation"]["mlm_loss"] == pytest.approx(loss, abs=1e-5)
    deeper = dataclasses.replace(config, model=dataclasses.replace(model, num_hidden_layers=3))
    with pytest.raises(UserError, match=r"another architecture, model.num_hidden_layers=2 \(asked for: 3\)"):
        pretrain(deeper, tmp_path / "deeper")


@pytest.mark.slow
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


@pytest.mark.slow
def test_vocabularies_must_be_one(finished, text_file, tmp_path) -> None:
    workdir, _ = finished
    tokens = Tokenizer.load(workdir / "tokenizer").tokens
    Tokenizer.from_vocabulary([*tokens[:5], *reversed(tokens[5:])]).save(tmp_path / "other")
    config = tiny_run(text_file, init_from=str(workdir))
    model = dataclasses.replace(config.model, vocab_size=len(tokens))
    other = dataclasses.replace(config.data, tokenizer=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"the vocabularies in .* differ"):
        pretrain(dataclasses.replace(config, model=model, data=other), tmp_path / "run")


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert unigram_loss(train, [batch], tokenizer.special_ids) == pytest.approx(expected)


def test_the_majority_is_the_share_of_the_commoner_answer() -> None:
    batches = [{"next_sentence_labels": np.array(labels)} for labels in ([[1, 0, -1]], [[1, 1, -1]])]
    assert majority_share(batches) == 0.75
    assert majority_share([{"next_sentence_labels": np.array([[-1]])}]) == 0


def test_before_the_first_checkpoint_any_key_may_change_that_the_corpus_does_not_follow_from(
    text_file, tmp_path, monkeypatch
) -> None:
    """As after a first step that ran out of memory; what was made of the text is used again."""

    def fails(*arguments, **settings):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("bert_jax.pretraining.run.train", fails)
    with pytest.raises(RuntimeError):
        pretrain(tiny_run(text_file), tmp_path)
    made = (tmp_path / "corpus" / "header.json").stat().st_mtime_ns
    config = tiny_run(text_file, batch_size=4, seed=7, model=model_config("tiny", vocab_size=300))
    changed = dataclasses.replace(config, data=dataclasses.replace(config.data, mask_rate=0.2, length=200))
    with pytest.raises(UserError) as refused:
        pretrain(changed, tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}/tokenizer and {tmp_path}/corpus were made for another config (data.length was 32 and is 200): "
        "remove them to have them made anew, or give another --workdir"
    )
    with pytest.raises(RuntimeError):
        pretrain(dataclasses.replace(changed, data=dataclasses.replace(changed.data, length=32)), tmp_path)
    assert (tmp_path / "corpus" / "header.json").stat().st_mtime_ns == made
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 4
    shutil.rmtree(tmp_path / "tokenizer")
    shutil.rmtree(tmp_path / "corpus")
    with pytest.raises(RuntimeError):
        pretrain(changed, tmp_path)
    assert json.loads((tmp_path / "corpus" / "header.json").read_text())["longest"] == 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(initial_embeddings="counted", model=model_config("tiny", vocab_size=100)), "larger than model.hidden"),
        (dict(initial_attention="neighbours", model=model_config("tiny", hidden_size=6)), "to divide by 4"),
        (dict(model=model_config("tiny", attention="cudnn")), "model.attention=cudnn cannot be used here"),
        (dict(init_from="/nowhere/model"), "/nowhere/model"),
        (dict(batch_size=9, accumulate=3), None),
    ],
)
def test_what_can_be_checked_is_checked_before_the_text_is_read(
    changes, message, text_file, tmp_path, monkeypatch
) -> None:
    def read(*arguments, **settings):
        raise AssertionError("the text is read")

    monkeypatch.setattr("bert_jax.pretraining.run.open_tokenizer", read)
    with pytest.raises(UserError if message else AssertionError, match=message and re.escape(message)):
        pretrain(tiny_run(text_file, **changes), tmp_path)


DAMAGED_JSON = [
    b"[]",
    b"7",
    b"null",
    b"",
    b"{",
    b"[" * 100_000,
    b'{"a": NaN}',
    b"\xff\xfe{}",
    b"\x00" * 40,
    b'{"a":' * 9_999,
]


@pytest.mark.parametrize("content", DAMAGED_JSON, ids=range(len(DAMAGED_JSON)))
def test_damaged_files_of_a_workdir_are_answered_in_a_line(content, text_file, tmp_path) -> None:
    config = tiny_run(text_file)
    workdirs.register_run(config, tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    result = workdirs.RunResult({"validation": {"loss": 1.0}}, tmp_path / "model", {"training": 1.5})
    workdirs.finish(config, tmp_path, result)
    (tmp_path / "finished.json").write_bytes(content)
    assert workdirs.finished(config, tmp_path) is None
    (tmp_path / "config.json").write_bytes(content)
    assert workdirs.finished(config, tmp_path) is None
    with pytest.raises(UserError, match=r"^.*config.json is damaged: .*: remove that file if"):
        workdirs.register_run(config, tmp_path)
    with pytest.raises(UserError, match=r"^.*config.json is damaged: [^\n]*$"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("documents", "sentences", "objective", "words"),
    [
        (9, 90, "nsp", ["9 documents with 500 tokens are held out"]),
        (10, 90, "nsp", []),
        (10, 10, "nsp", ["every document has one sentence"]),
        (10, 10, "sop", ["every document has one sentence"]),
        (10, 10, "none", []),
    ],
)
def test_figures_that_mean_little_are_told(documents, sentences, objective, words):
    text = SimpleNamespace(num_documents=documents, num_sentences=sentences, num_tokens=500)
    config = PretrainingConfig(total_steps=1, data=DataConfig(source="text", objective=objective))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_text(config, text, text)
    assert [word in str(warning.message) for word, warning in zip(words, told, strict=True)] == [True] * len(words)


@pytest.mark.parametrize(("loss", "words"), [(7.0, "1.000 below"), (9.0, "1.000 above")])
def test_the_summary_says_on_which_side_of_the_word_frequencies_the_loss_is(loss, words):
    metrics = {"unigram_loss": 8.0, "mlm_loss": loss, "mlm_perplexity": 1.0, "mlm_accuracy": 0.5}
    assert f"{loss:.3f} nats, {words} " in summary(RunResult({"validation": metrics}, Path(), {}))
