"""The weights of a small network for pre-training as they are drawn."""

import functools

import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.heads import BertForPreTraining
from bert_jax.model.inputs import Inputs

CONFIG = ModelConfig(
    vocab_size=200,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=64,
    initializer_range=0.05,
)


def drawn(config):
    ids = jnp.zeros((1, 8), jnp.int32)
    rest = dict(sequence_starts=ids[:, :1], masked_positions=ids[:, :1])
    init = jax.jit(functools.partial(BertForPreTraining(config).init, **rest))
    return init(jax.random.key(0), Inputs(ids, ids, ids, ids))["params"]
