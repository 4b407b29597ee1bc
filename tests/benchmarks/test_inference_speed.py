"""The comparison of inference: both sides make the same vectors of the same texts."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.random_model import random_model, tokenizer

from bert_jax.benchmarks import inference_speed as module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.inference_speed import (
    EXPORTED,
    IN_INT8,
    Ours,
    Theirs,
    Way,
    check_same_vectors,
    evenly_chosen,
    prepared,
)
from bert_jax.errors import UserError
from bert_jax.interop import huggingface

TEXTS = [" ".join(["the film was good ."] * (1 + 7 * number % 5)) for number in range(10)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    huggingface.save(folder, random_model(architecture="BertForMaskedLM"), tokenizer())
    return str(folder)


@pytest.mark.parametrize("way", [Way(), Way("eager", by_length=False), Way(most_tokens=20)], ids=lambda way: way.name)
def test_both_sides_make_the_same_vectors(model, way):
    ours = Ours(Path(model), "float32", TEXTS, 4)
    theirs = Theirs(way, Path(model), "float32", TEXTS, 4)
    np.testing.assert_allclose(theirs.facts["vectors"], ours.facts["vectors"], atol=1e-5)
    check_same_vectors(way.name, ours.facts["vectors"], theirs.facts["vectors"], {"float32"})
    with pytest.raises(UserError, match="does not give the vectors of bert_jax"):
        check_same_vectors(way.name, ours.facts["vectors"], theirs.facts["vectors"][::-1], {"float32", "bfloat16"})


def test_the_exported_program_makes_the_same_vectors(model, tmp_path):
    """Of a model with a head, the body's; it is the file that computes."""
    make, dtype = prepared(tmp_path, model, "bfloat16", TEXTS, 4)[EXPORTED]
    exported = make()
    assert dtype == "float32"
    ours = Ours(Path(model), "float32", TEXTS, 4)
    np.testing.assert_allclose(exported.facts["vectors"], ours.facts["vectors"], atol=1e-5)
    program = exported.forward
    exported.forward = lambda *inputs: jax.tree.map(jnp.zeros_like, program(*inputs))
    assert not exported.turn().any()


def test_in_int8_the_matrices_are_kept_in_eight_bits(model, tmp_path):
    make, dtype = prepared(tmp_path, model, "float32", TEXTS, 4)[IN_INT8]
    side = make()
    assert dtype == side.model.dtype == "bfloat16"
    assert side.facts["parameter_bytes"] < 0.5 * Ours(Path(model), "float32", TEXTS, 4).facts["parameter_bytes"]


def test_the_inference_suite(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "WAYS", {"cpu": (Way(), Way("no_such_attention"))})
    monkeypatch.setattr(module, "peak_flops", {"float32": 1e9, "bfloat16": 2e9}.get)
    (tmp_path / "texts.txt").write_text("\n\n".join(f"{text} {number}" for number, text in enumerate(TEXTS)))
    settings = dict(source=str(tmp_path / "texts.txt"), texts=8, batch_size=4, dtype="auto", rounds=2)
    found = benchmark("inference", tmp_path, model, **settings)
    assert json.loads((tmp_path / "benchmark" / "inference.json").read_text())["ratio"] == found["ratio"]
    assert found["texts"] == 8
    assert list(found["seconds_a_step"]) == ["bert_jax", IN_INT8, EXPORTED, Way().name]
    assert len(found["ratio_by_round"]) == 2
    used = {name: found["utilisation"][name] * found["seconds_a_step"][name] for name in found["utilisation"]}
    assert used[EXPORTED] == pytest.approx(used["bert_jax"])
    assert used[EXPORTED] == pytest.approx(2 * used[IN_INT8])  # each by the rate of its own type
    printed = capsys.readouterr().out
    assert "8 texts of" in printed
    assert f"{Way('no_such_attention').name}: left out" in printed
    with pytest.raises(UserError, match="set --model"):
        benchmark("inference", tmp_path, **settings)
    with pytest.raises(UserError, match="--rounds=1 at least"):
        benchmark("inference", tmp_path, model, **settings | {"rounds": 0})


def test_texts_are_drawn_from_all_of_a_source(tmp_path):
    (tmp_path / "texts.txt").write_text("\n\n".join(f"text {number}" for number in range(10)))
    source = str(tmp_path / "texts.txt")
    assert evenly_chosen(source, 5) == ["text 0", "text 2", "text 4", "text 6", "text 8"]
    assert len(evenly_chosen(source, 10)) == 10
    with pytest.raises(UserError, match="has 10 texts: set --texts to no more"):
        evenly_chosen(source, 11)


class OfOtherVectors(Theirs):
    def turn(self):
        return super().turn() + 1


def test_a_side_that_gives_other_vectors_is_not_timed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "Theirs", OfOtherVectors)
    (tmp_path / "texts.txt").write_text("\n\n".join(f"{text} {number}" for number, text in enumerate(TEXTS)))
    settings = dict(source=str(tmp_path / "texts.txt"), texts=8, batch_size=4, dtype="float32", rounds=1)
    with pytest.raises(UserError, match="does not give the vectors of bert_jax"):
        benchmark("inference", tmp_path, model, **settings)


class OfCoarseMatrices(Ours):
    def turn(self):
        return super().turn() * (2 if self.model.dtype == "bfloat16" else 1)


def test_a_model_that_wants_more_than_eight_bits_loses_that_side_alone(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "WAYS", {"cpu": (Way(),)})
    monkeypatch.setattr(module, "Ours", OfCoarseMatrices)
    (tmp_path / "texts.txt").write_text("\n\n".join(f"{text} {number}" for number, text in enumerate(TEXTS)))
    settings = dict(source=str(tmp_path / "texts.txt"), texts=8, batch_size=4, dtype="float32", rounds=1)
    found = benchmark("inference", tmp_path, model, **settings)
    assert list(found["seconds_a_step"]) == ["bert_jax", EXPORTED, Way().name]
    assert "does not give the vectors of bert_jax" in found["left_out"][IN_INT8]
