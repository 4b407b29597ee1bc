"""A small network with random weights, and packed rows for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.model.encoder import Bert
from bert_jax.model.heads import (
    BertForPreTraining,
)
from bert_jax.model.inputs import Inputs
from bert_jax.runtime.execution import Execution

# float32 keeps 2^-24 = 6e-8 per operation; sums in another order over these widths and layers stay well below this.
TOLERANCE = 1e-5  # of the tensor's norm

CONFIG = ModelConfig(
    vocab_size=99,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=40,
)

# Two rows: sequences of 7, 5 and 9 tokens and 3 of padding; sequences of 11 and 13 tokens.
LENGTHS = [[7, 5, 9], [11, 13]]

WIDTH = 24


def assert_close(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= TOLERANCE * np.linalg.norm(expected)


def packed_batch(seed=0):
    """The arrays of `Inputs` and where the sequences start, for `LENGTHS`."""
    rng = np.random.default_rng(seed)
    batch = {
        "input_ids": rng.integers(1, CONFIG.vocab_size, (2, WIDTH)),
        "token_type_ids": rng.integers(0, 2, (2, WIDTH)),
        "position_ids": np.zeros((2, WIDTH), int),
        "sequence_ids": np.zeros((2, WIDTH), int),
        "sequence_starts": np.zeros((2, 3), int),
    }
    for row, start, length, number in spans():
        batch["sequence_ids"][row, start : start + length] = number + 1
        batch["position_ids"][row, start : start + length] = np.arange(length)
        batch["sequence_starts"][row, number] = start
    return {name: jnp.asarray(value, jnp.int32) for name, value in batch.items()}


def fresh_params(config, batch, execution=Execution()):
    starts = batch["sequence_starts"]
    init = jax.jit(BertForPreTraining(config, execution).init)
    return init(jax.random.key(0), Inputs.of_batch(batch), sequence_starts=starts, masked_positions=starts)["params"]


def spans():
    for row, lengths in enumerate(LENGTHS):
        for number, length in enumerate(lengths):
            yield row, sum(lengths[:number]), length, number


@functools.cache
def random_params():
    """Random everywhere, biases and LayerNorm scales included, so that no term can hide at 0 or 1."""
    leaves, tree = jax.tree.flatten(fresh_params(CONFIG, packed_batch()))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


@functools.partial(jax.jit, static_argnames=("config", "execution", "deterministic"))
def outputs(params, batch, config=CONFIG, execution=Execution(), **kwargs):
    """Hidden states, pooled states, MLM logits of every position, NSP logits."""
    everywhere = jnp.broadcast_to(jnp.arange(batch["input_ids"].shape[1]), batch["input_ids"].shape)
    body, starts = {"params": params["bert"]}, batch["sequence_starts"]
    hidden = Bert(config, execution).apply(body, Inputs.of_batch(batch), **kwargs)
    pooled = Bert(config, execution).apply(body, hidden, starts, method="pool")
    heads = BertForPreTraining(config, execution).apply(
        {"params": params}, Inputs.of_batch(batch), sequence_starts=starts, masked_positions=everywhere, **kwargs
    )
    return hidden, pooled, *heads
