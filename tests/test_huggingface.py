"""Weights in Hugging Face layout, against `transformers` itself; and what is refused."""

import dataclasses
import json
import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.model.encoder import Bert
from bert_jax.model.heads import BertForPreTraining
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

# float32 on both sides, sums in another order: a few 1e-7 per operation. Of the tensor's norm, and not to be loosened.
TOLERANCE = 1e-5

WORDS = ["the", "film", "was", "a", "good", "bad", "##ly", "##s", "actor", ".", ",", "cafe"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS, *(f"word{number}" for number in range(82))]
CONFIG = ModelConfig(
    vocab_size=99,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=40,
)


def random_params(config, seed=0):
    """Random everywhere, so that no bias or scale can hide at 0 or 1."""
    ids = jnp.zeros((1, 4), jnp.int32)
    init = BertForPreTraining(dataclasses.replace(config, scan_layers=False)).init
    shapes = jax.eval_shape(lambda key: init(key, ids, ids, ids, ids, ids[:, :1], ids), jax.random.key(0))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0.0, 0.2, leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def tokenizer():
    return Tokenizer.from_vocabulary(VOCABULARY)


@pytest.fixture
def saved(tmp_path, tokenizer):
    huggingface.save(tmp_path / "model", random_params(CONFIG), CONFIG, tokenizer)
    return tmp_path / "model"


def inputs():
    """Batch 3, length 17, padded to 17, 11 and 4 tokens, both token types."""
    rng = np.random.default_rng(1)
    inside = np.arange(17) < np.array([[17], [11], [4]])
    return {
        "input_ids": np.where(inside, rng.integers(5, 99, (3, 17)), 0),
        "token_type_ids": (np.arange(17) >= np.array([[9], [3], [2]])) & inside,
        "attention_mask": inside,
    }


def ours(params, config, batch):
    """Hidden states [layers + 1, B, L, D], pooled, MLM logits of every position, NSP logits."""
    shape = batch["input_ids"].shape
    positions = np.broadcast_to(np.arange(shape[1]), shape)
    arguments = batch["input_ids"], batch["token_type_ids"], positions, batch["attention_mask"], np.zeros((3, 1))
    arguments = [jnp.asarray(argument, jnp.int32) for argument in arguments]
    (_, pooled), state = Bert(config).apply({"params": params["bert"]}, *arguments, mutable=["intermediates"])
    state = state["intermediates"]
    layers = [state["encoder"][f"layer_{index}"]["hidden"][0] for index in range(config.num_hidden_layers)]
    hidden = np.stack([state["embedded"][0], *(layer.reshape(*shape, -1) for layer in layers)])
    mlm, nsp = BertForPreTraining(config).apply({"params": params}, *arguments, jnp.asarray(positions))
    return hidden, pooled[:, 0], mlm, nsp[:, 0]


def theirs(model, batch):
    """The same quantities from `transformers`."""
    tensors = {name: torch.tensor(value, dtype=torch.long) for name, value in batch.items()}
    with torch.no_grad():
        output = model.eval()(**tensors, output_hidden_states=True)
        pooled = model.bert(**tensors).pooler_output
    hidden = np.stack([state.numpy() for state in output.hidden_states])
    return hidden, pooled.numpy(), output.prediction_logits.numpy(), output.seq_relationship_logits.numpy()


def assert_same_numbers(params, config, model):
    batch = inputs()
    inside = batch["attention_mask"]
    got, want = ours(params, config, batch), theirs(model, batch)
    for name, one, other in zip(("hidden", "pooled", "mlm", "nsp"), got, want, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.shape == other.shape, name
        if name in ("hidden", "mlm"):  # padding sees padding here and everything there: nobody reads it
            one, other = one[..., inside, :], other[..., inside, :]
        assert np.linalg.norm(one - other) <= TOLERANCE * np.linalg.norm(other), name


def their_random_model(**changes):
    torch.manual_seed(0)
    fields = {name: value for name, value in dataclasses.asdict(CONFIG).items() if name not in ("scan_layers", "remat")}
    model = transformers.BertForPreTraining(transformers.BertConfig(**{**fields, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model


# ----------------------------------------------------------------------------------------------------------- both ways


def test_transformers_loads_what_we_save_without_a_word(saved, caplog):
    transformers.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        model, info = transformers.BertForPreTraining.from_pretrained(saved, output_loading_info=True)
    transformers.logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records] == []
    assert {name: list(value) for name, value in info.items() if value} == {}
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= info.keys()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.architectures == ["BertForPreTraining"]
    assert model.config.pad_token_id == 0
    for name, value in dataclasses.asdict(CONFIG).items():
        assert getattr(model.config, name, value) == value


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_same_numbers_as_transformers(tmp_path, tokenizer, hidden_act):
    config = dataclasses.replace(CONFIG, hidden_act=hidden_act, layer_norm_eps=1e-5)
    params = random_params(config)
    huggingface.save(tmp_path / "model", params, config, tokenizer)
    assert_same_numbers(params, config, transformers.BertForPreTraining.from_pretrained(tmp_path / "model"))


def test_we_load_what_transformers_saves(tmp_path):
    model = their_random_model(layer_norm_eps=1e-5)
    model.save_pretrained(tmp_path)
    params, config = huggingface.load(tmp_path)
    assert config == dataclasses.replace(CONFIG, layer_norm_eps=1e-5)
    assert_same_numbers(params, config, model)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_round_trip_is_bit_exact(tmp_path, tokenizer, scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    params = random_params(CONFIG)
    huggingface.save(tmp_path / "one", huggingface.arrange_layers(params, config), config, tokenizer)
    loaded, loaded_config = huggingface.load(tmp_path / "one")
    assert loaded_config == CONFIG  # how layers are computed is no part of a model
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    huggingface.save(tmp_path / "two", loaded, loaded_config, tokenizer)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_auto_tokenizer_gives_the_same_ids(saved, tokenizer):
    their = transformers.AutoTokenizer.from_pretrained(saved)
    texts = ["The film was goodly.", "A CAFÉ, actors [MASK] bad", "nothing known 東京", ""]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert their(text, add_special_tokens=False)["input_ids"] == ids
    pair = their("the film", "was good")
    assert pair["input_ids"] == [2, 5, 6, 3, 7, 9, 3]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert their.model_max_length == CONFIG.max_position_embeddings
    assert len(their("the " * 99, truncation=True)["input_ids"]) == CONFIG.max_position_embeddings


# ------------------------------------------------------------------------------------------------------------- writing


def test_a_model_replaces_an_older_one(saved, tokenizer):
    params = random_params(CONFIG, seed=5)
    huggingface.save(saved, params, CONFIG, tokenizer)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved)[0], params)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_failed_write_leaves_the_old_model_and_no_rubbish(saved, tokenizer, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "save_file", full)
    for directory in (saved, saved.parent / "new"):
        with pytest.raises(UserError, match="No space left on device"):
            huggingface.save(directory, random_params(CONFIG), CONFIG, tokenizer)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_folder_with_other_files_is_not_replaced(tmp_path, tokenizer):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        huggingface.save(tmp_path, random_params(CONFIG), CONFIG, tokenizer)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


# ----------------------------------------------------------------------------------------------------------- bad input


def change_config(directory, **changes):
    file = directory / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "swish"}, ["hidden_act", "swish"]),
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type", "relative_key", "absolute"]),
        ({"model_type": "roberta"}, ["model_type", "roberta"]),
        ({"model_type": None}, ["model_type"]),
        ({"is_decoder": True}, ["is_decoder"]),
        ({"tie_word_embeddings": False}, ["tie_word_embeddings"]),
        ({"hidden_size": "48"}, ["hidden_size", "'48'"]),
        ({"hidden_size": 50}, ["hidden_size=50"]),
    ],
)
def test_config_that_is_not_ours(saved, changes, words):
    change_config(saved, **changes)
    with pytest.raises(UserError) as error:
        huggingface.load(saved)
    for word in [str(saved / "config.json"), *words]:
        assert word in str(error.value)


def test_keys_that_do_not_matter_are_let_through(saved):
    change_config(saved, use_cache=True, transformers_version="3.0.0", gradient_checkpointing=False)
    assert huggingface.load(saved)[1] == CONFIG


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("bert.pooler.dense.bias"), ["missing bert.pooler.dense.bias"]),
        (lambda t: t.update({"classifier.weight": np.zeros((2, 48), np.float32)}), ["surplus classifier.weight"]),
        (
            lambda t: t.update({"cls.predictions.bias": np.zeros(98, np.float32)}),
            ["cls.predictions.bias is [98]", "wants [99]"],
        ),
        (
            lambda t: t.update({"bert.pooler.dense.bias": np.zeros(48, np.float16)}),
            ["bert.pooler.dense.bias is F16"],
        ),
        (
            lambda t: t.update({"cls.predictions.decoder.weight": np.zeros((99, 48), np.float32)}),
            ["cls.predictions.decoder.weight differs from bert.embeddings.word_embeddings.weight"],
        ),
        (
            lambda t: t.clear() or t.update(x=np.zeros(1, np.float32)),
            ["surplus x", "missing cls.seq_relationship.bias"],
        ),
    ],
)
def test_tensors_that_do_not_fit_are_listed(saved, change, words):
    tensors = load_file(saved / "model.safetensors")
    change(tensors)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError) as error:
        huggingface.load(saved)
    for word in [str(saved / "model.safetensors"), *words]:
        assert word in str(error.value)


def test_second_names_of_tied_tensors_are_let_through(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensors["bert.embeddings.position_ids"] = np.arange(40)[None]
    save_file(tensors, saved / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved)[0], random_params(CONFIG))


def test_a_config_for_another_depth(saved):
    change_config(saved, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"surplus bert\.encoder\.layer\.2\.attention"):
        huggingface.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_torn_and_missing_files(saved, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=name):
        huggingface.load(saved)
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name} does not exist"):
        huggingface.load(saved)
