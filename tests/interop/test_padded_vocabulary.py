"""Word embeddings with more rows than the vocabulary has ids: read as `transformers` does, and never predicted."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers
from helpers.random_model import CONFIG, VOCABULARY, random_model, tokenizer
from safetensors.numpy import load_file, save_file

import bert_jax
from bert_jax.errors import UserError
from bert_jax.inference.model import Model
from bert_jax.interop import huggingface, pretrained
from bert_jax.text.tokenizer import Tokenizer

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*ids without a token")]
PADDING = 7
TEXT = "the film [MASK] good"


@pytest.fixture
def padded(tmp_path):
    """The 99 rows of the random model, 92 of which have a token; the others are the likeliest, if they are let."""
    model = random_model(CONFIG)
    model.params["masked_language_model"]["bias"][-PADDING:] = 50
    huggingface.save(tmp_path / "model", model, Tokenizer.from_vocabulary(VOCABULARY[:-PADDING]))
    return tmp_path / "model"


def test_states_and_logits_are_those_of_transformers(padded):
    network = transformers.BertForMaskedLM.from_pretrained(padded).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(padded)(TEXT, return_tensors="pt")
    model = bert_jax.load(padded)
    with torch.no_grad():
        output = network(**inputs, output_hidden_states=True)
    np.testing.assert_allclose(
        model.encode([TEXT]).hidden[0], output.hidden_states[-1][0].numpy(), rtol=1e-5, atol=2e-5
    )
    logits = output.logits[0, int((inputs["input_ids"][0] == model.tokenizer.mask_id).nonzero())]
    assert int(logits.argmax()) >= len(VOCABULARY) - PADDING  # the test would be idle without
    expected = torch.softmax(logits[:-PADDING], -1).topk(5)
    (found,) = model.fill_mask(TEXT, top_k=5)
    assert [VOCABULARY[index] for index in expected.indices] == [each.token for each in found]
    np.testing.assert_allclose([each.score for each in found], expected.values.numpy(), rtol=2e-4)


def test_every_token_and_no_other_is_offered(padded):
    (found,) = bert_jax.load(padded).fill_mask(TEXT, top_k=1_000)
    assert sorted(each.token for each in found) == sorted(VOCABULARY[:-PADDING])
    assert sum(each.score for each in found) == pytest.approx(1, abs=1e-5)


def test_the_file_is_written_again_as_it_was(padded, tmp_path):
    with pytest.warns(UserWarning, match=r"tokenizer\.json has ids up to 91, .* 99 rows: ids without a token"):
        model = bert_jax.load(padded)
    model.save(tmp_path / "again")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (padded / name).read_bytes()


def test_pre_training_goes_on_without_the_padding(padded):
    loaded, words = pretrained.load_pretrained(padded)
    cut = pretrained.without_padding(loaded, words)
    assert cut.config.vocab_size == len(VOCABULARY) - PADDING
    whole, shorter = Model(loaded, words), Model(cut, words)
    np.testing.assert_array_equal(whole.encode([TEXT]).hidden, shorter.encode([TEXT]).hidden)
    for first, second in zip(whole.fill_mask(TEXT)[0], shorter.fill_mask(TEXT)[0], strict=True):
        assert first.token == second.token
        assert first.score == pytest.approx(second.score, rel=1e-5)


def test_no_padding_changes_nothing():
    model = random_model()
    jax.tree.map(np.testing.assert_array_equal, pretrained.without_padding(model, tokenizer()).params, model.params)


@pytest.mark.parametrize("lone", ["cls.predictions.decoder.bias", "cls.predictions.decoder.weight"])
def test_a_tied_tensor_under_its_second_name_alone(padded, lone):
    first = {"bias": "cls.predictions.bias", "weight": "bert.embeddings.word_embeddings.weight"}[lone.rsplit(".")[-1]]
    expected = huggingface.load(padded)
    tensors = load_file(padded / "model.safetensors")
    tensors[lone] = tensors.pop(first)
    save_file(tensors, padded / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(padded).params, expected.params)


def test_a_vocabulary_of_another_model_is_refused(padded):
    huggingface.save(padded, random_model(dataclasses.replace(CONFIG, vocab_size=2_000)), tokenizer())
    with pytest.raises(UserError, match=r"ids up to 98, .* 2,000 rows \(vocab_size\)"):
        bert_jax.load(padded)
