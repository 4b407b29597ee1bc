"""Kernels of attention against the plain one: packed, padded, odd lengths, gradients; and which is taken when."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_model import CONFIG

from bert_jax.config import DataConfig, ModelConfig, model_config
from bert_jax.errors import UserError
from bert_jax.model import encoder
from bert_jax.model.encoder import Bert
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import apply_and_collect
from bert_jax.model.kernels import cudnn, plain, splash
from bert_jax.model.kernels.choose import KERNELS, choose_kernel
from bert_jax.model.pattern import AttentionPattern
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.runtime.execution import Execution

LENGTH, HEADS, HEAD = 128, 2, 64
FULL = AttentionPattern()
HOPPER = Execution(jnp.bfloat16, "gpu", compute_capability=9.0)
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


def plain_attention(query, key, value, ids):
    return plain.scaled_dot_product_attention(query, key, value, FULL.mask(ids))[0]


# ---- splash --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_splash_is_plain_attention_within_sequences():
    rows = [row for rows in ROWS.values() for row in rows]
    ids = ids_of(rows)
    *inputs, weights = arrays(len(rows), 4)
    inside = ids[:, :, None, None] > 0
    weights = jnp.where(inside, weights, 0)

    def result(function):
        def total(*inputs):
            context = function(*inputs, ids)
            return (context * weights).sum(), context

        (_, context), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*inputs)
        return jnp.where(inside, context, 0), *gradients

    got, want = (
        result(function)
        for function in (
            functools.partial(splash.attend, execution=Execution(), interpret=True),
            plain_attention,
        )
    )
    for name, one, other in zip(("output", "query", "key", "value"), got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, err_msg=name)


def test_splash_compiles_for_tpu_with_gradients():
    inputs = arrays(2, 3, jnp.bfloat16)
    ids = ids_of([[50, 40], [128]])
    step = jax.jit(
        jax.grad(lambda *inputs: splash.attend(*inputs, ids, Execution()).astype(jnp.float32).sum(), (0, 1, 2))
    )
    text = step.trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") >= 2  # forward and backward


# ---- patterns ------------------------------------------------------------------------------------


def attention_by_hand(query, key, value, sequence_ids, pattern):
    """Each position by itself, over the positions that the pattern names one by one; float64."""
    result = np.zeros(query.shape)
    for row, ids in enumerate(sequence_ids.tolist()):
        for place, number in enumerate(ids):
            first = 0 if pattern.window is None else max(0, place - pattern.window)
            last = len(ids) - 1 if pattern.window is None else place + pattern.window
            last = place if pattern.causal else min(last, len(ids) - 1)
            others = [other for other in range(first, last + 1) if ids[other] == number]
            for head in range(query.shape[2]):
                scores = key[row, others, head] @ query[row, place, head] / np.sqrt(query.shape[-1])
                weights = np.exp(scores - scores.max())
                result[row, place, head] = weights / weights.sum() @ value[row, others, head]
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [FULL, AttentionPattern(causal=True), AttentionPattern(window=3), AttentionPattern(causal=True, window=5)],
    ids=str,
)
def test_the_plain_kernel_attends_in_any_pattern(pattern):
    """Without a gradient and with one, which are two formulas; packed rows with padding, and an empty one."""
    ids = ids_of([[7, 5, 3], [16], [1, 14], []], 16)
    query, key, value = (array[:, :16] for array in arrays(4, 3))
    want = attention_by_hand(*(np.asarray(array, np.float64) for array in (query, key, value)), ids, pattern)
    mask = plain.prepare(ids, 3, pattern)
    np.testing.assert_allclose(plain.attend(query, key, value, mask, Execution()), want, atol=2e-6)
    context, probabilities = plain.scaled_dot_product_attention(query, key, value, mask)
    np.testing.assert_allclose(context, want, atol=2e-6)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_causal_body_does_not_see_what_comes_later(scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    ids = ids_of([[9, 11], [20]], 20)
    tokens = jnp.asarray(np.random.default_rng(0).integers(5, config.vocab_size, ids.shape), jnp.int32)
    inputs = Inputs(tokens, jnp.zeros_like(ids), jnp.broadcast_to(jnp.arange(20), ids.shape), ids)
    changed = inputs.replace(input_ids=tokens.at[:, 6].add(1))
    for pattern, reach in ((AttentionPattern(causal=True), range(6, 20)), (AttentionPattern(window=1), range(4, 9))):
        bert = Bert(config, pattern=pattern)  # two layers of a window of one reach two places to either side
        params = bert.init(jax.random.key(0), inputs)
        before, after = (np.asarray(bert.apply(params, batch)) for batch in (inputs, changed))
        moved = np.abs(before - after).max(axis=-1) > 0
        assert moved[1].nonzero()[0].tolist() == list(reach)
        assert moved[0].nonzero()[0].tolist() == [place for place in reach if place < 9]


def test_a_window_below_zero_is_refused():
    with pytest.raises(UserError, match="window=-1: a position attends at least to itself"):
        AttentionPattern(window=-1)


# ---- cuDNN ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_cudnn_is_told_where_the_sequences_are(rows):
    """Its packed layout lets those positions look at each other that the mask allows."""
    ids = ids_of(rows)
    lengths, starts = cudnn.prepare(ids, 6, FULL)
    assert lengths.shape == (len(rows), 7)
    assert starts.shape == (len(rows), 8)
    allowed = np.zeros((len(rows), LENGTH, LENGTH), bool)
    for row in range(len(rows)):
        used = int((lengths[row] >= 0).sum())
        assert (lengths[row, used:] == -1).all()
        assert (starts[row, used:] == -1).all()
        for start, length in zip(starts[row, :used].tolist(), lengths[row, :used].tolist(), strict=True):
            allowed[row, start : start + length, start : start + length] = True
    np.testing.assert_array_equal(allowed, FULL.mask(ids)[:, 0])


def test_cudnn_is_told_the_lengths_of_single_sequences():
    (lengths,) = cudnn.prepare(ids_of([[128], [90], [1], []]), 1, FULL)
    assert lengths.tolist() == [128, 90, 1, 1]
    assert lengths.dtype == jnp.int32


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("max_sequences", [1, 4])
def test_cudnn_lowers_for_cuda_with_gradients(max_sequences, remat):
    """Here, where no cuDNN is; with `remat` JAX traces the forward pass of the gradient after the kernel returned."""
    inputs, ids = arrays(2, 3, jnp.bfloat16), ids_of([[50, 40, 30], [64, 64]] if max_sequences > 1 else [[90], [128]])
    there = dataclasses.replace(HOPPER, ahead_of_time=True)

    def total(*inputs):
        return cudnn.attend(*inputs, cudnn.prepare(ids, max_sequences, FULL), there).astype(jnp.float32).sum()

    total = jax.checkpoint(total) if remat else total
    text = jax.jit(jax.grad(total, (0, 1, 2))).trace(*inputs).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert "mask_type\\22: \\22PADDING" in text
    assert f"max_seg_per_batch\\22: {max_sequences + 1 if max_sequences > 1 else 1}" in text
    assert "ScaleBias" not in text  # no [L, L] bias
    assert f"{LENGTH}x{LENGTH}x" not in text.replace('"', "")


# ---- on a device ---------------------------------------------------------------------------------


@pytest.mark.device
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no GPU or TPU")
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_kernel_of_this_device_is_plain_attention_within_sequences(rows):
    """Padding, whose output nobody reads, gives no gradient either."""
    kernel = next(kernel for kernel in KERNELS.values() if kernel.platform == jax.default_backend())
    execution = Execution.here()
    ids = ids_of(rows)
    *inputs, weights = arrays(len(rows), 4, jnp.bfloat16)
    weights = jnp.where(ids[:, :, None, None] > 0, weights, 0).astype(jnp.float32)

    def results(function, *inputs):
        context, pull = jax.vjp(function, *inputs)
        return (context * weights, *pull(weights.astype(context.dtype)))

    want = results(lambda *inputs: plain_attention(*inputs, ids), *(array.astype(jnp.float32) for array in inputs))
    prepared = kernel.prepare(ids, max(map(len, rows)), FULL)
    got = results(lambda *inputs: kernel.attend(*inputs, prepared, execution), *inputs)
    for name, one, other in zip(("output", "query", "key", "value"), got, want, strict=True):
        error = np.linalg.norm(np.asarray(one, np.float32) - other) / np.linalg.norm(other)
        assert error < 2**-6, name


# ---- which is taken ------------------------------------------------------------------------------


CPU, TPU = Execution(jnp.bfloat16), Execution(jnp.bfloat16, "tpu")
AMPERE = dataclasses.replace(HOPPER, compute_capability=8.0)
CAUSAL, WINDOW = AttentionPattern(causal=True), AttentionPattern(window=64)


@pytest.mark.parametrize(
    ("execution", "settings", "kernel", "why"),
    [
        (CPU, {}, "plain", "no other on cpu"),
        (HOPPER, {}, "cudnn", ""),
        (HOPPER, {"max_sequences": None}, "plain", "not known"),
        (HOPPER, {"dropout": True}, "plain", "attention_probs_dropout_prob"),
        (dataclasses.replace(HOPPER, dtype=jnp.float32), {}, "plain", "not in float32"),
        (HOPPER, {"pattern": CAUSAL}, "plain", "neither causally nor within a window"),
        (HOPPER, {"pattern": WINDOW, "max_sequences": 1}, "plain", "neither causally nor within a window"),
        (AMPERE, {}, "plain", "Hopper"),
        (AMPERE, {"max_sequences": 1}, "cudnn", ""),
        (TPU, {}, "splash", ""),
        (dataclasses.replace(TPU, dtype=jnp.float32), {"max_sequences": None}, "splash", ""),
        (TPU, {"length": 100}, "plain", "no multiple of 128"),
        (TPU, {"length": 128}, "plain", "cost less"),
        (TPU, {"dropout": True}, "plain", "attention_probs_dropout_prob"),
        (TPU, {"pattern": CAUSAL}, "plain", "neither causally nor within a window"),
    ],
)
def test_auto_takes_what_the_device_has(execution, settings, kernel, why):
    arguments = {"execution": execution, "length": 512, "max_sequences": 8, "dropout": False} | settings
    chosen, reason = choose_kernel(model_config("base"), **arguments)
    assert chosen.name == kernel
    assert why in reason
    if kernel != "plain" or execution.platform == "cpu":
        return
    named = dataclasses.replace(model_config("base"), attention={"gpu": "cudnn", "tpu": "splash"}[execution.platform])
    with pytest.raises(UserError, match=f"cannot be used here: .*{why}"):
        choose_kernel(named, **arguments)


@pytest.mark.parametrize(("platform", "kernel"), [("gpu", "cudnn"), ("tpu", "splash")])
def test_parameters_are_drawn_whatever_kernel_is_configured(platform, kernel):
    """By rows of eight tokens in float32, which no kernel but the plain one takes."""
    config, execution = dataclasses.replace(CONFIG, attention=kernel), Execution(platform=platform)
    objective = PretrainingObjective(config, DataConfig(), (0, 1, 2, 3, 4), 4, (False,) * config.vocab_size, execution)
    want = dataclasses.replace(objective, model=dataclasses.replace(config, attention="plain"))
    shapes = [jax.eval_shape(one.init, jax.random.key(0)) for one in (objective, want)]
    assert shapes[0] == shapes[1]


def test_a_kernel_of_another_device_is_refused():
    config = dataclasses.replace(model_config("base"), attention="cudnn")
    with pytest.raises(UserError, match="it runs on gpu, and this is a cpu; set it to auto"):
        choose_kernel(config, CPU, 128, 1, dropout=False)
    plainly = dataclasses.replace(config, attention="plain")
    assert choose_kernel(plainly, CPU, 128, 1, dropout=False) == (plain.PLAIN, "as configured")
    with pytest.raises(UserError, match=r"model\.attention='flash' is not known"):
        ModelConfig(attention="flash")


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_encoder_attends_with_the_kernel_and_gives_maps_with_the_plain_one(scan_layers, monkeypatch):
    """A kernel that ignored `sequence_ids` would not give the hidden states of the plain one."""
    config = dataclasses.replace(CONFIG, max_position_embeddings=LENGTH, scan_layers=scan_layers)
    rng = np.random.default_rng(0)
    ids = ids_of(ROWS["packed"])
    tokens = jnp.asarray(rng.integers(5, config.vocab_size, ids.shape), jnp.int32)
    inputs = Inputs(tokens, jnp.zeros_like(ids), jnp.broadcast_to(jnp.arange(LENGTH), ids.shape), ids)
    bert = Bert(config)
    params = bert.init(jax.random.key(0), inputs)
    want, maps = apply_and_collect(bert, params["params"], inputs)
    calls = []

    def attend(*arguments):
        calls.append(arguments)
        return splash.attend(*arguments, interpret=True)

    kernel = dataclasses.replace(splash.SPLASH, attend=attend)
    monkeypatch.setattr(encoder, "choose_kernel", lambda *_, **__: (kernel, ""))
    hidden = bert.apply(params, inputs, max_sequences=4)
    assert len(calls) >= (1 if scan_layers else config.num_hidden_layers)
    inside = np.asarray(ids) > 0
    np.testing.assert_allclose(hidden[inside], want[inside], atol=1e-5)
    blind = bert.apply(params, inputs.replace(sequence_ids=jnp.ones_like(ids)), max_sequences=4)
    assert np.abs(blind[inside] - want[inside]).max() > 1e-2

    calls.clear()
    again, maps_again = apply_and_collect(bert, params["params"], inputs, max_sequences=4)
    assert not calls
    np.testing.assert_array_equal(again, want)
    jax.tree.map(np.testing.assert_array_equal, maps_again, maps)
