"""The initial weights whose first heads look at the words beside each word."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.initial_weights import CONFIG, drawn

from bert_jax.config import PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.interop.layout import arrange_layers
from bert_jax.model.heads import BertForPreTraining
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import apply_and_collect
from bert_jax.pretraining.initialization.neighbours import OFFSETS, init_neighbour_heads
from bert_jax.pretraining.run import first_params

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("changes", [{}, {"num_attention_heads": 2, "initializer_range": 0.02}])
def test_each_head_of_the_first_layer_looks_where_it_should(changes):
    config = dataclasses.replace(CONFIG, **changes)
    params = init_neighbour_heads(drawn(config), config)
    rng = np.random.default_rng(0)
    ids = jnp.array(rng.integers(5, 200, (4, 64)), jnp.int32)
    places = jnp.broadcast_to(jnp.arange(64), (4, 64))
    ones = jnp.ones_like(ids)
    network, first = BertForPreTraining(config), ids[:, :1] * 0
    _, states = apply_and_collect(
        network, params, Inputs(ids, ones, places, ones), sequence_starts=first, masked_positions=first
    )
    attention = states.attentions[0]
    inside = np.arange(4, 60)
    for head, offset in enumerate(OFFSETS[: config.num_attention_heads]):
        there = np.asarray(attention)[:, head, inside, inside + offset]
        assert there.mean() > 0.5
        assert np.median(there) > 0.6


def test_the_rest_stays_as_drawn():
    before = drawn(CONFIG)
    after = init_neighbour_heads(before, CONFIG)
    changed = jax.tree_util.tree_map_with_path(
        lambda path, one, other: None if np.array_equal(one, other) else jax.tree_util.keystr(path), before, after
    )
    assert set(jax.tree.leaves(changed)) == {
        "['bert']['embeddings']['position_embeddings']['embedding']",
        "['bert']['encoder']['layer_0']['attention']['query']['kernel']",
        "['bert']['encoder']['layer_0']['attention']['key']['kernel']",
    }


def test_scanned_layers_start_the_same():
    config = PretrainingConfig(total_steps=1, initial_attention="neighbours", model=CONFIG)
    scanned = dataclasses.replace(config, model=dataclasses.replace(CONFIG, scan_layers=True))
    one = first_params(config, None, drawn(CONFIG))
    other = first_params(scanned, None, arrange_layers(drawn(CONFIG), scanned.model))
    jax.tree.map(np.testing.assert_array_equal, arrange_layers(one, scanned.model), other)


def test_what_cannot_be():
    with pytest.raises(UserError, match="initial_attention is for random weights"):
        PretrainingConfig(total_steps=1, initial_attention="neighbours", init_from="x")
    with pytest.raises(UserError, match="initial_attention"):
        PretrainingConfig(total_steps=1, initial_attention="left")
    odd = dataclasses.replace(CONFIG, hidden_size=30, num_attention_heads=2)
    with pytest.raises(UserError, match="hidden_size=30 to divide by 4"):
        init_neighbour_heads(drawn(odd), odd)
