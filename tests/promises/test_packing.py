"""Packed equals alone: a sequence of a packed row gives the states, logits and gradients that it gives by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.packed_rows import CONFIG, WIDTH, assert_close, outputs, packed_batch, random_params, spans

from bert_jax.interop.layout import arrange_layers
from bert_jax.model.encoder import Bert
from bert_jax.model.inputs import Inputs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def params():
    return random_params()


@pytest.mark.parametrize("scan_layers", [False, True])
def test_packed_equals_alone(params, scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    params = arrange_layers(params, config)
    batch = packed_batch()
    hidden, pooled, mlm, nsp = outputs(params, batch, config)
    for row, start, length, number in spans():
        cut = slice(start, start + length)
        alone = {name: value[row : row + 1, cut] for name, value in batch.items() if name != "sequence_starts"}
        alone |= {"sequence_ids": jnp.ones((1, length), jnp.int32), "sequence_starts": jnp.zeros((1, 1), jnp.int32)}
        alone_hidden, alone_pooled, alone_mlm, alone_nsp = outputs(params, alone, config)
        assert_close(hidden[row, cut], alone_hidden[0])
        assert_close(mlm[row, cut], alone_mlm[0])
        assert_close(pooled[row, number], alone_pooled[0, 0])
        assert_close(nsp[row, number], alone_nsp[0, 0])


def test_a_sequence_does_not_see_its_neighbours(params):
    batch = packed_batch()
    changed = batch | {
        "input_ids": batch["input_ids"].at[0, 7:12].set(5),
        "token_type_ids": batch["token_type_ids"].at[0, 7:12].set(1),
    }
    others = np.ones((2, WIDTH), bool)
    others[0, 7:12] = False
    before, after = outputs(params, batch), outputs(params, changed)
    for index in (0, 2):  # hidden states, MLM logits
        np.testing.assert_array_equal(before[index][others], after[index][others])
        assert not np.array_equal(before[index][0, 7:12], after[index][0, 7:12])
    np.testing.assert_array_equal(before[1][0, [0, 2]], after[1][0, [0, 2]])


def test_padding_has_no_influence(params):
    batch = packed_batch()
    inside = np.asarray(batch["sequence_ids"]) > 0
    expected = outputs(params, batch)

    noise = {name: jnp.where(inside, batch[name], 1) for name in ("input_ids", "token_type_ids", "position_ids")}
    for got, want in zip(outputs(params, batch | noise)[::2], expected[::2], strict=True):
        np.testing.assert_array_equal(got[inside], want[inside])

    wider = {
        name: value if name == "sequence_starts" else jnp.pad(value, ((0, 0), (0, 9))) for name, value in batch.items()
    }
    got = outputs(params, wider)
    assert_close(got[0][:, :WIDTH][inside], expected[0][inside])
    assert_close(got[1], expected[1])
    assert all(np.isfinite(tensor).all() for tensor in got)


def test_gradients_do_not_cross_sequences(params):
    batch = packed_batch()

    def of_first(table):
        tree = {**params, "bert": {**params["bert"]}}
        tree["bert"]["embeddings"] = {**params["bert"]["embeddings"], "word_embeddings": {"embedding": table}}
        hidden = Bert(CONFIG).apply({"params": tree["bert"]}, Inputs.of_batch(batch))
        return jnp.square(hidden[0, :7]).sum()

    gradient = jax.grad(of_first)(params["bert"]["embeddings"]["word_embeddings"]["embedding"])
    touched = set(np.flatnonzero(np.abs(gradient).sum(axis=1)))
    assert touched == set(np.asarray(batch["input_ids"])[0, :7].tolist())
