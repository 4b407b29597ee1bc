"""The comparison of inference: both sides make the same vectors of the same texts."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.random_model import random_model, tokenizer

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.jax_side import JaxEmbedding
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import inference as module
from bert_jax.benchmarks.suites.inference import EXPORTED, IN_INT8, check_same_vectors, evenly_chosen, side_makers
from bert_jax.benchmarks.torch_side import EmbeddingVariant, TorchEmbedding
from bert_jax.errors import UserError
from bert_jax.interop import huggingface, pretrained

TEXTS = [" ".join(["the film was good ."] * (1 + 7 * number % 5)) for number in range(10)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    huggingface.save(folder, random_model(architecture="BertForMaskedLM"), tokenizer())
    return str(folder)


@pytest.fixture
def inference(model, tmp_path, monkeypatch):
    """Runs the suite on a few texts."""
    monkeypatch.setattr(harness, "started", in_this_process)
    monkeypatch.setattr(harness, "peak_flops", {"float32": 1e9, "bfloat16": 2e9}.get)
    (tmp_path / "texts.txt").write_text("\n\n".join(f"{text} {number}" for number, text in enumerate(TEXTS)))
    settings = dict(source=str(tmp_path / "texts.txt"), texts=8, batch_size=4, dtype="float32", rounds=1)
    return lambda model=model, **changes: benchmark("inference", tmp_path, model, **settings | changes)


VARIANTS = (EmbeddingVariant(), EmbeddingVariant("eager", by_length=False), EmbeddingVariant(max_tokens=20))


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_both_sides_make_the_same_vectors(model, variant):
    own = JaxEmbedding(Path(model), "float32", TEXTS, 4)
    peer = TorchEmbedding(variant, Path(model), "float32", TEXTS, 4)
    np.testing.assert_allclose(peer.metadata["vectors"], own.metadata["vectors"], atol=1e-5)
    check_same_vectors(variant.name, own.metadata["vectors"], peer.metadata["vectors"], {"float32"})
    with pytest.raises(UserError, match="does not give the vectors of bert_jax"):
        check_same_vectors("other", own.metadata["vectors"], peer.metadata["vectors"][::-1], {"float32", "bfloat16"})


@pytest.mark.slow
@pytest.mark.torch
def test_the_exported_program_makes_the_same_vectors(model, tmp_path):
    """Of a model with a head, the body's; it is the file that computes."""
    makes, dtypes = side_makers(tmp_path, *pretrained.load_pretrained(model), "bfloat16", TEXTS, 4)
    exported = makes[EXPORTED]()
    assert dtypes[EXPORTED] == "float32"
    own = JaxEmbedding(Path(model), "float32", TEXTS, 4)
    np.testing.assert_allclose(exported.metadata["vectors"], own.metadata["vectors"], atol=1e-5)
    program = exported.forward
    exported.forward = lambda *inputs: jax.tree.map(jnp.zeros_like, program(*inputs))
    assert not exported.run().any()


@pytest.mark.slow
@pytest.mark.torch
def test_in_int8_the_matrices_are_kept_in_eight_bits(model, tmp_path):
    makes, dtypes = side_makers(tmp_path, *pretrained.load_pretrained(model), "float32", TEXTS, 4)
    side = makes[IN_INT8]()
    assert dtypes[IN_INT8] == side.model.execution.dtype == "bfloat16"
    own = JaxEmbedding(Path(model), "float32", TEXTS, 4)
    assert side.metadata["figures"]["parameter_bytes"] < 0.5 * own.metadata["figures"]["parameter_bytes"]


@pytest.mark.slow
@pytest.mark.torch
def test_the_inference_suite(inference, tmp_path, monkeypatch, capsys):
    missing = EmbeddingVariant("no_such_attention")
    monkeypatch.setattr(module, "EMBEDDING_VARIANTS", {"cpu": (EmbeddingVariant(), missing)})
    results = inference(dtype="auto", rounds=2)
    assert Results.load(tmp_path / "benchmark" / "inference.json") == results
    (case,) = results.cases()
    assert case.startswith("8 texts of ")
    seconds = results.by_side(case, "seconds")
    assert list(seconds) == ["bert_jax", IN_INT8, EXPORTED, EmbeddingVariant().name]
    assert len(results.rounds(case, "bert_jax", "ratio")) == 2
    used = {name: share * seconds[name] for name, share in results.by_side(case, "utilization").items()}
    assert used[EXPORTED] == pytest.approx(used["bert_jax"])
    assert used[EXPORTED] == pytest.approx(2 * used[IN_INT8])  # each by the rate of its own type
    assert results.by_side(case, "parameter_bytes").keys() == {"bert_jax", IN_INT8}
    assert results.by_side(case, "first_seconds").keys() == seconds.keys()
    printed = capsys.readouterr().out
    assert "8 texts of" in printed
    assert f"{missing.name}: left out" in printed
    with pytest.raises(UserError, match="set --model"):
        inference("")
    with pytest.raises(UserError, match="--rounds=1 at least"):
        inference(rounds=0)


def test_texts_are_drawn_from_all_of_a_source(tmp_path):
    (tmp_path / "texts.txt").write_text("\n\n".join(f"text {number}" for number in range(10)))
    source = str(tmp_path / "texts.txt")
    assert evenly_chosen(source, 5) == ["text 0", "text 2", "text 4", "text 6", "text 8"]
    assert len(evenly_chosen(source, 10)) == 10
    with pytest.raises(UserError, match="has 10 texts: set --texts to no more"):
        evenly_chosen(source, 11)


class OfOtherVectors(TorchEmbedding):
    def run(self):
        return super().run() + 1


@pytest.mark.slow
@pytest.mark.torch
def test_a_side_that_gives_other_vectors_is_not_timed(inference, monkeypatch):
    monkeypatch.setattr(module, "TorchEmbedding", OfOtherVectors)
    with pytest.raises(UserError, match="does not give the vectors of bert_jax"):
        inference()


class OfCoarseMatrices(JaxEmbedding):
    def run(self):
        return super().run() * (2 if self.model.execution.dtype == "bfloat16" else 1)


@pytest.mark.slow
@pytest.mark.torch
def test_a_model_that_wants_more_than_eight_bits_loses_that_side_alone(inference, monkeypatch):
    monkeypatch.setattr(module, "EMBEDDING_VARIANTS", {"cpu": (EmbeddingVariant(),)})
    monkeypatch.setattr(module, "JaxEmbedding", OfCoarseMatrices)
    results = inference()
    assert results.sides(results.cases()[0]) == ["bert_jax", EXPORTED, EmbeddingVariant().name]
    (left_out,) = results.left_out
    assert left_out["side"] == IN_INT8
    assert "does not give the vectors of bert_jax" in left_out["reason"]
