"""Kernels of attention against the plain one: packed, padded, odd lengths, gradients; and which is taken when."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_model import CONFIG
from jax._src.cudnn import fused_attention_stablehlo

from bert_jax.config import DataConfig, ModelConfig, model_config
from bert_jax.errors import UserError
from bert_jax.model import encoder
from bert_jax.model.attention import HOMES, KERNELS, choose_kernel, scaled_dot_product_attention, sequence_mask
from bert_jax.model.encoder import Bert
from bert_jax.model.kernels import cudnn_attention, cudnn_rows, splash_attention
from bert_jax.pretraining.objective import PretrainingObjective

LENGTH, HEADS, HEAD = 128, 2, 64
ROWS = {
    "full": [[128], [128]],
    "padded": [[90], [1]],
    "packed": [[50, 40, 30], [64, 64], [3, 1, 1, 100], [128]],
    "odd lengths": [[17, 31, 5], [127], [1, 126], [7, 7, 7]],
    "an empty row": [[60, 60], []],
}


def ids_of(rows, length=LENGTH):
    """int32 [B, L] of rows of sequences with these lengths."""
    ids = np.zeros((len(rows), length), np.int32)
    for row, lengths in enumerate(rows):
        numbers = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        ids[row, : len(numbers)] = numbers
    return jnp.asarray(ids)


def arrays(rows, count, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), count)
    return [jax.random.normal(key, (rows, LENGTH, HEADS, HEAD), dtype) for key in keys]


def plain(query, key, value, ids):
    return scaled_dot_product_attention(query, key, value, sequence_mask(ids))[0]


# -------------------------------------------------------------------------------------------------------------- splash


def test_splash_is_plain_attention_within_sequences():
    rows = [row for rows in ROWS.values() for row in rows]
    ids = ids_of(rows)
    *inputs, weights = arrays(len(rows), 4)
    inside = ids[:, :, None, None] > 0
    weights = jnp.where(inside, weights, 0)

    def result(function):
        def total(*inputs):
            found = function(*inputs, ids)
            return (found * weights).sum(), found

        (_, found), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*inputs)
        return jnp.where(inside, found, 0), *gradients

    got, want = (result(each) for each in (functools.partial(splash_attention, interpret=True), plain))
    for name, one, other in zip(("output", "query", "key", "value"), got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, err_msg=name)


def test_splash_compiles_for_tpu_with_gradients():
    inputs = arrays(2, 3, jnp.bfloat16)
    ids = ids_of([[50, 40], [128]])
    step = jax.jit(jax.grad(lambda *inputs: splash_attention(*inputs, ids).astype(jnp.float32).sum(), (0, 1, 2)))
    text = step.trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") >= 2  # forward and backward


# --------------------------------------------------------------------------------------------------------------- cuDNN


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_cudnn_is_told_where_the_sequences_are(rows):
    """What its packed layout lets look at each other, position by position, is what the mask allows."""
    ids = ids_of(rows)
    lengths, starts = cudnn_rows(ids, 6)
    assert lengths.shape == (len(rows), 7)
    assert starts.shape == (len(rows), 8)
    allowed = np.zeros((len(rows), LENGTH, LENGTH), bool)
    for row in range(len(rows)):
        used = int((lengths[row] >= 0).sum())
        assert (lengths[row, used:] == -1).all()
        assert (starts[row, used:] == -1).all()
        for start, length in zip(starts[row, :used].tolist(), lengths[row, :used].tolist(), strict=True):
            allowed[row, start : start + length, start : start + length] = True
    np.testing.assert_array_equal(allowed, sequence_mask(ids)[:, 0])


def test_cudnn_is_told_the_lengths_of_single_sequences():
    (lengths,) = cudnn_rows(ids_of([[128], [90], [1], []]), 1)
    assert lengths.tolist() == [128, 90, 1, 1]
    assert lengths.dtype == jnp.int32


@pytest.mark.parametrize("most", [1, 4])
def test_cudnn_lowers_for_cuda_with_gradients(most, monkeypatch):
    class Versions:
        @staticmethod
        def cudnn_get_version():
            return 91_000

    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", Versions)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda capability: True)
    inputs, ids = arrays(2, 3, jnp.bfloat16), ids_of([[50, 40, 30], [64, 64]] if most > 1 else [[90], [128]])

    def total(*inputs):
        return cudnn_attention(*inputs, cudnn_rows(ids, most)).astype(jnp.float32).sum()

    text = jax.jit(jax.grad(total, (0, 1, 2))).trace(*inputs).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert "mask_type\\22: \\22PADDING" in text
    assert f"max_seg_per_batch\\22: {most + 1 if most > 1 else 1}" in text
    assert "ScaleBias" not in text  # no [L, L] bias
    assert f"{LENGTH}x{LENGTH}x" not in text.replace('"', "")


# ---------------------------------------------------------------------------------------------------------- on a device


@pytest.mark.skipif(jax.default_backend() not in HOMES.values(), reason="no GPU or TPU")
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_kernel_of_this_device_is_plain_attention_within_sequences(rows):
    """Padding, whose output nobody reads, gives no gradient either."""
    kernel = next(kernel for kernel, home in HOMES.items() if home == jax.default_backend())
    make_rows, attention = KERNELS[kernel]
    ids = ids_of(rows)
    *inputs, weights = arrays(len(rows), 4, jnp.bfloat16)
    weights = jnp.where(ids[:, :, None, None] > 0, weights, 0).astype(jnp.float32)

    def results(function, *inputs):
        found, pull = jax.vjp(function, *inputs)
        return (found * weights, *pull(weights.astype(found.dtype)))

    want = results(lambda *inputs: plain(*inputs, ids), *(each.astype(jnp.float32) for each in inputs))
    got = results(lambda *inputs: attention(*inputs, make_rows(ids, max(map(len, rows)))), *inputs)
    for name, one, other in zip(("output", "query", "key", "value"), got, want, strict=True):
        error = np.linalg.norm(np.asarray(one, np.float32) - other) / np.linalg.norm(other)
        assert error < 2**-6, name


# ---------------------------------------------------------------------------------------------------- which is taken


class Hopper:
    compute_capability = "9.0"


class Ampere:
    compute_capability = "8.0"


@pytest.mark.parametrize(
    ("platform", "device", "settings", "kernel", "why"),
    [
        ("cpu", None, {}, "plain", "no other on cpu"),
        ("gpu", Hopper, {}, "cudnn", ""),
        ("gpu", Hopper, {"most": None}, "plain", "not known"),
        ("gpu", Hopper, {"dropout": True}, "plain", "attention_probs_dropout_prob"),
        ("gpu", Hopper, {"dtype": jnp.float32}, "plain", "not in float32"),
        ("gpu", Ampere, {}, "plain", "Hopper"),
        ("gpu", Ampere, {"most": 1}, "cudnn", ""),
        ("tpu", None, {}, "splash", ""),
        ("tpu", None, {"most": None, "dtype": jnp.float32}, "splash", ""),
        ("tpu", None, {"length": 100}, "plain", "no multiple of 128"),
        ("tpu", None, {"length": 128}, "plain", "cost less"),
        ("tpu", None, {"dropout": True}, "plain", "attention_probs_dropout_prob"),
    ],
)
def test_auto_takes_what_the_device_has(platform, device, settings, kernel, why, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    arguments = {"dtype": jnp.bfloat16, "length": 512, "most": 8, "dropout": False} | settings
    found = choose_kernel(model_config("base"), **arguments)
    assert found[0] == kernel
    assert why in found[1]
    if kernel != "plain" or platform == "cpu":
        return
    named = dataclasses.replace(model_config("base"), attention={"gpu": "cudnn", "tpu": "splash"}[platform])
    with pytest.raises(UserError, match=f"cannot be used here: .*{why}"):
        choose_kernel(named, **arguments)


@pytest.mark.parametrize(("platform", "kernel"), [("gpu", "cudnn"), ("tpu", "splash")])
def test_parameters_are_drawn_whatever_kernel_is_configured(platform, kernel, monkeypatch):
    """By rows of eight tokens in float32, which no kernel but the plain one takes."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = dataclasses.replace(CONFIG, attention=kernel)
    objective = PretrainingObjective(config, DataConfig(), (0, 1, 2, 3, 4), 4, (False,) * config.vocab_size)
    want = dataclasses.replace(objective, model=dataclasses.replace(config, attention="plain"))
    shapes = [jax.eval_shape(each.init, jax.random.key(0)) for each in (objective, want)]
    assert shapes[0] == shapes[1]


def test_a_kernel_of_another_device_is_refused():
    config = dataclasses.replace(model_config("base"), attention="cudnn")
    with pytest.raises(UserError, match="it runs on gpu, and this is a cpu; set it to auto"):
        choose_kernel(config, jnp.bfloat16, 128, 1, dropout=False)
    assert (
        choose_kernel(dataclasses.replace(config, attention="plain"), jnp.bfloat16, 128, 1, dropout=False)[0] == "plain"
    )
    with pytest.raises(UserError, match=r"model\.attention='flash' is not known"):
        ModelConfig(attention="flash")


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_encoder_attends_with_the_kernel_and_gives_maps_with_the_plain_one(scan_layers, monkeypatch):
    """A kernel that ignored `sequence_ids` would not give the hidden states of the plain one."""
    config = dataclasses.replace(CONFIG, max_position_embeddings=LENGTH, scan_layers=scan_layers)
    rng = np.random.default_rng(0)
    ids = ids_of(ROWS["packed"])
    tokens = jnp.asarray(rng.integers(5, config.vocab_size, ids.shape), jnp.int32)
    inputs = tokens, jnp.zeros_like(ids), jnp.broadcast_to(jnp.arange(LENGTH), ids.shape), ids
    bert = Bert(config)
    params = bert.init(jax.random.key(0), *inputs)
    want, maps = bert.apply(params, *inputs, mutable=["intermediates"])
    calls = []

    def attend(*arguments):
        calls.append(arguments)
        return splash_attention(*arguments, interpret=True)

    monkeypatch.setitem(KERNELS, "splash", (KERNELS["splash"][0], attend))
    monkeypatch.setattr(encoder, "choose_kernel", lambda *_, **__: ("splash", ""))
    found = bert.apply(params, *inputs, most=4)
    assert len(calls) >= (1 if scan_layers else config.num_hidden_layers)
    inside = np.asarray(ids) > 0
    np.testing.assert_allclose(found[inside], want[inside], atol=1e-5)
    blind = bert.apply(params, *inputs[:3], jnp.ones_like(ids), most=4)
    assert np.abs(blind[inside] - want[inside]).max() > 1e-2

    calls.clear()
    again, maps_again = bert.apply(params, *inputs, most=4, mutable=["intermediates"])
    assert not calls
    np.testing.assert_array_equal(again, want)
    jax.tree.map(np.testing.assert_array_equal, maps_again, maps)
