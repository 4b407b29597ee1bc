"""Google's TensorFlow checkpoints, from small ones that TensorFlow writes here under the released names."""

import builtins
import dataclasses
import json
import os
import string
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.random_model import CONFIG, VOCABULARY, random_model, tokenizer

import bert_jax
from bert_jax.errors import UserError
from bert_jax.interop import google, huggingface, pretrained
from bert_jax.interop.layout import disassemble

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]

# The names and shapes of the released checkpoints (google-research/bert, modeling.py and run_pretraining.py), written
# down here from their published lists: [in, out] kernels, [2, D] output weights. L stands for a layer.
RELEASED = {
    "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
    "bert/embeddings/position_embeddings": "bert.embeddings.position_embeddings.weight",
    "bert/embeddings/token_type_embeddings": "bert.embeddings.token_type_embeddings.weight",
    "bert/embeddings/LayerNorm/gamma": "bert.embeddings.LayerNorm.weight",
    "bert/embeddings/LayerNorm/beta": "bert.embeddings.LayerNorm.bias",
    "bert/encoder/layer_L/attention/self/query/kernel": "bert.encoder.layer.L.attention.self.query.weight",
    "bert/encoder/layer_L/attention/self/query/bias": "bert.encoder.layer.L.attention.self.query.bias",
    "bert/encoder/layer_L/attention/self/key/kernel": "bert.encoder.layer.L.attention.self.key.weight",
    "bert/encoder/layer_L/attention/self/key/bias": "bert.encoder.layer.L.attention.self.key.bias",
    "bert/encoder/layer_L/attention/self/value/kernel": "bert.encoder.layer.L.attention.self.value.weight",
    "bert/encoder/layer_L/attention/self/value/bias": "bert.encoder.layer.L.attention.self.value.bias",
    "bert/encoder/layer_L/attention/output/dense/kernel": "bert.encoder.layer.L.attention.output.dense.weight",
    "bert/encoder/layer_L/attention/output/dense/bias": "bert.encoder.layer.L.attention.output.dense.bias",
    "bert/encoder/layer_L/attention/output/LayerNorm/gamma": "bert.encoder.layer.L.attention.output.LayerNorm.weight",
    "bert/encoder/layer_L/attention/output/LayerNorm/beta": "bert.encoder.layer.L.attention.output.LayerNorm.bias",
    "bert/encoder/layer_L/intermediate/dense/kernel": "bert.encoder.layer.L.intermediate.dense.weight",
    "bert/encoder/layer_L/intermediate/dense/bias": "bert.encoder.layer.L.intermediate.dense.bias",
    "bert/encoder/layer_L/output/dense/kernel": "bert.encoder.layer.L.output.dense.weight",
    "bert/encoder/layer_L/output/dense/bias": "bert.encoder.layer.L.output.dense.bias",
    "bert/encoder/layer_L/output/LayerNorm/gamma": "bert.encoder.layer.L.output.LayerNorm.weight",
    "bert/encoder/layer_L/output/LayerNorm/beta": "bert.encoder.layer.L.output.LayerNorm.bias",
    "bert/pooler/dense/kernel": "bert.pooler.dense.weight",
    "bert/pooler/dense/bias": "bert.pooler.dense.bias",
    "cls/predictions/transform/dense/kernel": "cls.predictions.transform.dense.weight",
    "cls/predictions/transform/dense/bias": "cls.predictions.transform.dense.bias",
    "cls/predictions/transform/LayerNorm/gamma": "cls.predictions.transform.LayerNorm.weight",
    "cls/predictions/transform/LayerNorm/beta": "cls.predictions.transform.LayerNorm.bias",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
}
CLASSIFIER = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}
SQUAD = {"cls/squad/output_weights": "qa_outputs.weight", "cls/squad/output_bias": "qa_outputs.bias"}
THEIR_CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 48,
    "initializer_range": 0.02,
    "intermediate_size": 80,
    "max_position_embeddings": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 99,
}


def write_checkpoint(directory, model, names=RELEASED, vocabulary=VOCABULARY, **changes):
    """Writes the files of a release, with the optimizer's variables of a run that was stopped."""
    directory.mkdir()
    (directory / "bert_config.json").write_text(json.dumps(THEIR_CONFIG | changes))
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    arrays = disassemble(model)
    variables = {}
    for name, theirs in names.items():
        for layer in range(CONFIG.num_hidden_layers) if "layer_L" in name else [0]:
            value = arrays[theirs.replace("layer.L", f"layer.{layer}")]
            variables[name.replace("layer_L", f"layer_{layer}")] = value.T if name.endswith("kernel") else value
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in variables.items():
            tf.compat.v1.get_variable(name, initializer=value)
            tf.compat.v1.get_variable(f"{name}/adam_m", initializer=np.zeros_like(value))
            tf.compat.v1.get_variable(f"{name}/adam_v", initializer=np.zeros_like(value))
        tf.compat.v1.get_variable("global_step", initializer=np.int64(7))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(directory / "bert_model.ckpt"), write_meta_graph=False)
    (directory / "checkpoint").unlink()
    return directory


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("google") / "uncased", random_model())


@pytest.mark.slow
def test_every_weight_arrives(released):
    assert pretrained.resolve(released) == released
    model = pretrained.load_weights(released)
    assert model.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, model.params, random_model().params)


@pytest.mark.parametrize(
    ("architecture", "names", "labels"),
    [
        ("BertForSequenceClassification", CLASSIFIER, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ("BertForQuestionAnswering", SQUAD, ()),
    ],
)
def test_fine_tuned_heads(tmp_path, architecture, names, labels):
    """As run_classifier.py and run_squad.py leave them: no heads of pre-training."""
    model = random_model(architecture=architecture, labels=labels)
    held = {name: theirs for name, theirs in (RELEASED | names).items() if not theirs.startswith("cls.")}
    if "pooler" not in model.params["bert"]:  # run_squad.py leaves the pooler that it never trained
        body = {**model.params["bert"], "pooler": random_model().params["bert"]["pooler"]}
        model = dataclasses.replace(model, params={**model.params, "bert": body})
    loaded = pretrained.load_weights(write_checkpoint(tmp_path / "model", model, held))
    assert loaded.labels == labels
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)


@pytest.mark.slow
@pytest.mark.subprocess
def test_converted_from_the_command_line(released, tmp_path):
    command = [sys.executable, ROOT / "scripts/convert.py", f"--input={released}", f"--output={tmp_path / 'out'}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": ""})
    assert result.returncode == 0, result.stderr
    assert "body, masked_language_model, next_sentence, pooler" in result.stdout
    assert "99 vocabulary entries" in result.stdout
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(tmp_path / "out").params, random_model().params)
    assert bert_jax.load(str(tmp_path / "out")).tokenizer.hash == tokenizer().hash


@pytest.mark.slow
def test_whether_text_is_lower_cased_follows_from_the_vocabulary(released, tmp_path):
    """Nothing else in these folders says it."""
    assert bert_jax.load(str(released)).tokenizer.encode_batch(["The film"]) == [[5, 6]]
    capitals = [*string.ascii_uppercase, "The"]
    cased = [*VOCABULARY[: -len(capitals)], *capitals]
    model = bert_jax.load(str(write_checkpoint(tmp_path / "cased", random_model(), vocabulary=cased)))
    assert model.tokenizer.encode_batch(["The film", "the Film"]) == [[98, 6], [5, 1]]
    chinese = [*VOCABULARY[:-2], "<S>", "<T>"]  # as in the released vocabulary, of lower-cased text
    model = bert_jax.load(str(write_checkpoint(tmp_path / "chinese", random_model(), vocabulary=chinese)))
    assert model.tokenizer.encode_batch(["The film"]) == [[5, 6]]


# ---- bad input -----------------------------------------------------------------------------------


def copied(released, tmp_path):
    directory = tmp_path / "copy"
    directory.mkdir()
    for path in released.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "tanh"}, ["hidden_act", "tanh"]),
        ({"hidden_size": "48"}, ["hidden_size"]),
        ({"embedding_size": 128}, ["embedding_size is not known"]),  # ALBERT's
        ({"vocab_size": 100}, ["word_embeddings.weight is [99, 48], the config wants [100, 48]"]),
        ({"num_hidden_layers": 1}, ["surplus bert.encoder.layer.1.attention.output.LayerNorm.bias"]),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit(released, tmp_path, changes, words):
    directory = copied(released, tmp_path)
    (directory / "bert_config.json").write_text(json.dumps(THEIR_CONFIG | changes))
    with pytest.raises(UserError) as error:
        google.load(directory)
    for word in [str(directory), *words]:
        assert word in str(error.value)


@pytest.mark.slow
def test_keys_of_the_multilingual_configs_are_let_through(released, tmp_path):
    directory = copied(released, tmp_path)
    more = {"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12}
    (directory / "bert_config.json").write_text(json.dumps(THEIR_CONFIG | more))
    assert google.load(directory).config == CONFIG


@pytest.mark.slow
def test_torn_and_missing_files(released, tmp_path):
    directory = copied(released, tmp_path)
    weights = directory / "bert_model.ckpt.data-00000-of-00001"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"bert_model\.ckpt cannot be read by TensorFlow"):
        google.load(directory)
    (directory / "model.ckpt-7.index").write_bytes(b"")
    with pytest.raises(UserError, match=r"several checkpoints \(bert_model\.ckpt, model\.ckpt-7\)"):
        pretrained.resolve(directory)
    (directory / "model.ckpt-7.index").unlink()
    (directory / "bert_model.ckpt.index").unlink()
    with pytest.raises(UserError, match="holds no model"):
        pretrained.resolve(directory)
    (directory / "bert_model.ckpt.index").write_bytes(b"")
    for content in ("{", "[]", "3"):
        (directory / "bert_config.json").write_text(content)
        with pytest.raises(UserError, match=r"bert_config\.json is damaged"):
            google.load(directory)


def test_missing_weights_are_listed(tmp_path):
    names = {name: theirs for name, theirs in RELEASED.items() if "pooler/dense/bias" not in name}
    directory = write_checkpoint(tmp_path / "model", random_model(), names)
    with pytest.raises(UserError, match=r"missing bert\.pooler\.dense\.bias$"):
        google.load(directory)


@pytest.mark.slow
def test_without_tensorflow(released, monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorflow":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"TensorFlow is not installed: pip install tensorflow-cpu"):
        google.load(released)
