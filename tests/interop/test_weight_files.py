"""Weights in shards are read whole or refused by the name of the file that is not as it should be."""

import json

import jax
import numpy as np
import pytest
from helpers.random_model import random_model, tokenizer
from safetensors.numpy import load_file, save_file

from bert_jax.errors import UserError
from bert_jax.interop import huggingface, pretrained

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def sharded(tmp_path):
    huggingface.save(tmp_path / "model", random_model(), tokenizer())
    folder = tmp_path / "model"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shard_of = {name: SHARDS[number % 2] for number, name in enumerate(sorted(tensors))}
    for shard in SHARDS:
        save_file({name: value for name, value in tensors.items() if shard_of[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    return folder


def test_shards_are_the_whole(sharded):
    assert pretrained.resolve(sharded) == sharded
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(sharded).params, random_model().params)


@pytest.mark.torch
def test_shards_of_pytorch_are_the_whole(sharded):
    import torch

    index = sharded / "model.safetensors.index.json"
    (sharded / "pytorch_model.bin.index.json").write_text(index.read_text().replace(".safetensors", ".bin"))
    index.unlink()
    shards = [sharded / shard.replace(".safetensors", ".bin") for shard in SHARDS]
    for shard in shards:
        tensors = load_file(shard.with_suffix(".safetensors"))
        torch.save({name: torch.tensor(value) for name, value in tensors.items()}, shard)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(sharded).params, random_model().params)
    torch.save({"other": torch.zeros(3)}, shards[1])
    with pytest.raises(UserError, match=rf"{shards[1].name} lacks \S+, which pytorch_model\.bin\.index\.json says"):
        huggingface.load(sharded)


def missing(folder):
    (folder / SHARDS[1]).unlink()


def torn(folder):
    content = (folder / SHARDS[1]).read_bytes()
    (folder / SHARDS[1]).write_bytes(content[: len(content) // 2])


def of_another_model(folder):
    save_file({"other": np.zeros(3, np.float32)}, folder / SHARDS[1])


def index_with(content):
    return lambda folder: (folder / "model.safetensors.index.json").write_text(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, rf"{SHARDS[1]} does not exist, which model\.safetensors\.index\.json names for"),
        (torn, rf"{SHARDS[1]} cannot be read as safetensors"),
        (of_another_model, rf"{SHARDS[1]} lacks \S+, which model\.safetensors\.index\.json says is there"),
        (index_with("{"), r"index\.json is damaged: it is not JSON"),
        (index_with("[]"), r"index\.json is damaged: it holds list"),
        (index_with("{}"), r"index\.json names no shards"),
        (index_with('{"weight_map": {"a": "../a.safetensors"}}'), "a file beside it is wanted"),
    ],
)
def test_shards_that_are_not_as_they_should_be(sharded, damage, words):
    damage(sharded)
    with pytest.raises(UserError, match=words):
        huggingface.load(sharded)
