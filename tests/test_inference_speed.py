"""The comparison of inference: both sides make the same vectors of the same texts."""

import json
from pathlib import Path

import numpy as np
import pytest
from in_this_process import in_this_process
from random_model import random_model, tokenizer

from bert_jax.errors import UserError
from bert_jax.experiments import inference_speed as module
from bert_jax.experiments.benchmark import benchmark
from bert_jax.experiments.inference_speed import (
    IN_INT8,
    Exported,
    Ours,
    Theirs,
    Way,
    check_same_vectors,
    evenly_chosen,
)
from bert_jax.interop import huggingface, pretrained

TEXTS = [" ".join(["the film was good ."] * (1 + 7 * number % 5)) for number in range(10)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    huggingface.save(folder, random_model(architecture="BertForMaskedLM"), tokenizer())
    return str(folder)


@pytest.mark.parametrize("way", [Way(), Way("eager", by_length=False), Way(most_tokens=20)], ids=lambda way: way.name)
def test_both_sides_make_the_same_vectors(model, way):
    ours = Ours(model, "float32", TEXTS, 4)
    theirs = Theirs(way, Path(model), "float32", TEXTS, 4)
    np.testing.assert_allclose(theirs.facts["vectors"], ours.facts["vectors"], atol=1e-5)
    check_same_vectors(way.name, ours.facts["vectors"], theirs.facts["vectors"], "float32")
    with pytest.raises(UserError, match="does not give the vectors of bert_jax"):
        check_same_vectors(way.name, ours.facts["vectors"], theirs.facts["vectors"][::-1], "bfloat16")


def test_the_exported_program_makes_the_same_vectors(model, tmp_path):
    """Of a model with a head, the body's; from the file that is there."""
    folder = tmp_path / "model"
    huggingface.save(folder, *pretrained.read(model))
    ours, exported = Ours(folder, "float32", TEXTS, 4), Exported(folder, "bfloat16", TEXTS, 4)
    np.testing.assert_allclose(exported.facts["vectors"], ours.facts["vectors"], atol=1e-5)
    assert (tmp_path / "exported" / "model.stablehlo").is_file()


def test_the_inference_suite(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "WAYS", (Way(), Way("no_such_attention")))
    (tmp_path / "texts.txt").write_text("\n\n".join(f"{text} {number}" for number, text in enumerate(TEXTS)))
    settings = dict(source=str(tmp_path / "texts.txt"), texts=8, batch_size=4, dtype="auto", rounds=2)
    found = benchmark("inference", tmp_path, model, **settings)
    assert json.loads((tmp_path / "benchmark" / "inference.json").read_text())["ratio"] == found["ratio"]
    assert found["texts"] == 8
    assert list(found["seconds_a_step"]) == ["bert_jax", IN_INT8, Exported.name, Way().name]
    assert len(found["ratio_by_round"]) == 2
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
