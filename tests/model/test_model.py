"""The architecture: sizes, independence of packed sequences, dropout, precision, stacked and unrolled layers."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.packed_rows import (
    CONFIG,
    TOLERANCE,
    WIDTH,
    assert_close,
    fresh_params,
    outputs,
    packed_batch,
    random_params,
)

from bert_jax.config import SIZES, model_config
from bert_jax.interop.layout import arrange_layers
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.encoder import Bert
from bert_jax.model.heads import (
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import apply_and_collect
from bert_jax.model.kernels.plain import scaled_dot_product_attention
from bert_jax.model.layers import product_in_float32
from bert_jax.runtime.execution import Execution

# ---- sizes, initial values -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def params():
    return random_params()


# Body, and body with both heads; bert_facts.md E1, from the published checkpoints.
COUNTS = [
    ("tiny", 30_522, 4_385_920, 4_433_468),
    ("mini", 30_522, 11_170_560, 11_267_900),
    ("small", 30_522, 28_763_648, 29_058_876),
    ("medium", 30_522, 41_373_184, 41_668_412),
    ("base", 30_522, 109_482_240, 110_106_428),
    ("base", 28_996, 108_310_272, 108_932_934),
    ("large", 30_522, 335_141_888, 336_226_108),
    ("large", 28_996, 333_579_264, 334_661_958),
]


@pytest.mark.parametrize(("size", "vocab_size", "body", "total"), COUNTS)
@pytest.mark.parametrize("scan_layers", [False, True])
def test_parameter_counts(size, vocab_size, body, total, scan_layers):
    config = model_config(size, vocab_size=vocab_size, scan_layers=scan_layers)
    shapes = jax.eval_shape(lambda: fresh_params(config, packed_batch()))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["bert"])) == body
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == total


def test_every_size_is_counted():
    assert {size for size, *_ in COUNTS} == set(SIZES)


@pytest.mark.slow
def test_initial_values():
    config = dataclasses.replace(CONFIG, hidden_size=64, intermediate_size=256)
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh_params(config, packed_batch())):
        kind = path[-1].key
        if kind in ("bias", "scale"):
            assert np.all(leaf == (kind == "scale")), path
        else:
            assert np.abs(leaf).max() <= 2 * config.initializer_range, path
            if leaf.size > 3_000:  # a normal cut at two deviations has 0.880 of the deviation
                assert np.std(leaf) == pytest.approx(0.880 * config.initializer_range, rel=0.05), path


# ---- scan and remat ------------------------------------------------------------------------------


@pytest.mark.slow
def test_scanned_layers_equal_unrolled_ones(params):
    scanned = dataclasses.replace(CONFIG, scan_layers=True)
    stacked = arrange_layers(params, scanned)
    for got, want in zip(outputs(stacked, packed_batch(), scanned), outputs(params, packed_batch()), strict=True):
        assert_close(got, want)
    back = arrange_layers(stacked, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {"probabilities", "inner"}),
        ({"remat": True, "remat_saves": "products"}, {"inner"}),
        ({"remat": True}, set()),
    ],
)
@pytest.mark.parametrize("scan_layers", [False, True])
def test_remat_keeps_what_it_says(changes, kept, scan_layers):
    config = dataclasses.replace(CONFIG, hidden_size=40, num_hidden_layers=1, scan_layers=scan_layers, **changes)
    batch = packed_batch()
    params = fresh_params(config, batch)
    rows, length = batch["input_ids"].shape
    shapes = {  # with a width of 40, no kernel is [T, F]
        "probabilities": (rows, config.num_attention_heads, length, length),
        "inner": (rows * length, config.intermediate_size),
    }
    _, pull = jax.vjp(lambda tree: outputs(tree, batch, config)[0], params)
    saved = [leaf.shape for leaf in jax.tree.leaves(pull)]  # of all layers, where they are scanned
    assert {name for name, shape in shapes.items() if shape in {leaf[-len(shape) :] for leaf in saved}} == kept


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("saves", ["products", "nothing"])
def test_remat_gives_the_same_gradients(params, saves, scan_layers):
    def gradients(remat):
        config = dataclasses.replace(CONFIG, scan_layers=scan_layers, remat=remat, remat_saves=saves)

        def loss(tree):
            rngs = {"dropout": jax.random.key(3)}
            *_, mlm, nsp = outputs(tree, packed_batch(), config, deterministic=False, rngs=rngs)
            return jnp.square(mlm).sum() + jnp.square(nsp).sum()

        return jax.jit(jax.grad(loss))(arrange_layers(params, config))

    got, want = (dict(jax.tree_util.tree_leaves_with_path(gradients(remat))) for remat in (True, False))
    whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in want.values()))
    for path, leaf in want.items():
        if [key.key for key in path[-2:]] == ["key", "bias"]:
            # A bias of the keys shifts all scores of a query alike, which softmax ignores: its gradient is rounding.
            assert max(np.linalg.norm(leaf), np.linalg.norm(got[path])) <= TOLERANCE * whole, path
        else:
            assert_close(got[path], leaf)


# ---- products ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_word_table_has_round_numbers_within_its_product_on_a_gpu(params):
    """128 rows, not 99; nothing of it is seen from outside."""
    config = dataclasses.replace(CONFIG, attention="plain")

    def traced(platform):
        execution = Execution(platform=platform)

        def loss(tree):  # here, for JAX keeps what it has traced by the function
            logits = outputs.__wrapped__(tree, packed_batch(), config, execution)
            return sum(jnp.square(head).sum() for head in logits), logits

        shapes = jax.eval_shape(functools.partial(fresh_params, config), packed_batch())
        compute = jax.jit(jax.value_and_grad(loss, has_aux=True))
        return shapes, "f32[128,48]" in str(jax.make_jaxpr(loss)(params)), compute(params)

    (on_cpu, cpu_pads, ((_, want), want_gradients)), (on_gpu, gpu_pads, ((_, got), gradients)) = map(
        traced, ("cpu", "gpu")
    )
    assert on_gpu == on_cpu
    assert gpu_pads
    assert not cpu_pads
    for one, other in zip(got, want, strict=True):
        assert_close(one, other)
    whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(want_gradients)))
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(want_gradients), strict=True):
        assert np.linalg.norm(one - other) <= TOLERANCE * max(np.linalg.norm(other), whole / 100)


@pytest.mark.slow
def test_the_gradient_of_a_bfloat16_product_is_one_of_bfloat16():
    keys = jax.random.split(jax.random.key(0), 3)
    exact = [jax.random.normal(key, shape) for key, shape in zip(keys, ((4, 6, 32), (99, 32), (4, 6, 99)), strict=True)]
    left, right = (array.astype(jnp.bfloat16) for array in exact[:2])

    def loss(left, right):
        product = product_in_float32("...d,vd->...v", left, right)
        assert product.dtype == jnp.float32
        return (product * exact[2]).sum()

    gradient = jax.grad(loss, (0, 1))
    products = [line for line in str(jax.make_jaxpr(gradient)(left, right)).splitlines() if " dot_general[" in line]
    assert len(products) >= 3
    assert sum(":f32[" in line for line in products) == 1  # the forward one
    for got, want in zip(gradient(left, right), gradient(*exact[:2]), strict=True):
        assert got.dtype == jnp.bfloat16
        assert np.linalg.norm(got.astype(jnp.float32) - want) < 2**-7 * np.linalg.norm(want)


# ---- dropout -------------------------------------------------------------------------------------


def dropout_calls(params, config, zeroed=None, **kwargs):
    """Every call of nn.Dropout as (path, input, output), and the outputs; the call numbered `zeroed` gives zeros."""
    calls = []

    def watch(next_function, args, kwargs, context):
        result = next_function(*args, **kwargs)
        if isinstance(context.module, nn.Dropout):
            result = jnp.zeros_like(result) if len(calls) == zeroed else result
            calls.append((context.module.path, np.asarray(args[0]), np.asarray(result)))
        return result

    with nn.intercept_methods(watch):
        result = Bert(config).apply({"params": params["bert"]}, Inputs.of_batch(packed_batch()), **kwargs)
    return calls, result


@pytest.mark.slow
def test_dropout_share_and_scale_at_every_place(params):
    config = dataclasses.replace(CONFIG, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2)
    counts: dict[tuple, list[int]] = {}
    for seed in range(3):
        rngs = {"dropout": jax.random.key(seed)}
        calls, _ = dropout_calls(params, config, deterministic=False, rngs=rngs)
        places = [path[0:2] for path, *_ in calls]
        layers = [("encoder", f"layer_{index}") for index in range(CONFIG.num_hidden_layers)]
        assert places == [("embeddings", "dropout"), *(layer for layer in layers for _ in range(3))]
        for number, (_, given, kept) in enumerate(calls):
            rate = 0.2 if given.ndim == 4 else 0.1
            live = given != 0
            np.testing.assert_allclose(kept[kept != 0], given[kept != 0] / (1 - rate), rtol=1e-6)
            count = counts.setdefault((number, rate), [0, 0])
            count[0] += int(np.sum(live & (kept == 0)))
            count[1] += int(np.sum(live))
    assert sum(rate == 0.2 for _, rate in counts) == CONFIG.num_hidden_layers  # attention probabilities
    for (number, rate), (dropped, total) in counts.items():
        deviation = np.sqrt(rate * (1 - rate) / total)
        assert abs(dropped / total - rate) < 5 * deviation, (number, dropped / total)


@pytest.mark.slow
def test_every_dropout_acts_on_the_result_and_draws_its_own_mask(params):
    rngs = {"dropout": jax.random.key(0)}
    calls, expected = dropout_calls(params, CONFIG, deterministic=False, rngs=rngs)
    for number in range(len(calls)):
        _, hidden = dropout_calls(params, CONFIG, zeroed=number, deterministic=False, rngs=rngs)
        assert not np.allclose(hidden, expected), number
    masks = [(kept == 0).ravel() for _, given, kept in calls if given.ndim < 4]
    for index, mask in enumerate(masks):
        for other in masks[:index]:
            assert abs(np.corrcoef(mask, other)[0, 1]) < 0.15


@pytest.mark.slow
def test_scanned_layers_draw_their_own_masks(params):
    config = dataclasses.replace(CONFIG, scan_layers=True)
    _, state = Bert(config).apply(
        {"params": arrange_layers(params, config)["bert"]},
        Inputs.of_batch(packed_batch()),
        deterministic=False,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        mutable=["intermediates"],
    )
    dropped = jax.tree.leaves(state["intermediates"]["encoder"]["layers"]["Dropout_0"])
    assert len(dropped) == 2  # both sub-layers
    for stack in dropped:
        masks = (np.asarray(stack) == 0).reshape(CONFIG.num_hidden_layers, -1)
        assert masks.mean() == pytest.approx(0.1, abs=0.02)
        assert np.abs(np.corrcoef(masks) - np.eye(len(masks))).max() < 0.15


@pytest.mark.slow
def test_dropout_is_off_when_deterministic_or_zero(params):
    batch = packed_batch()
    expected = outputs(params, batch)
    off = dataclasses.replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    got = outputs(params, batch, off, deterministic=False, rngs={"dropout": jax.random.key(0)})
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)  # not the same bits: without a gradient, attention is computed in another order
    on = outputs(params, batch, deterministic=False, rngs={"dropout": jax.random.key(0)})
    assert not np.allclose(on[0], expected[0])


# ---- precision, attention ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_bfloat16_compute_keeps_float32_parameters_and_logits(params, scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    batch = packed_batch()
    fresh = jax.eval_shape(lambda: fresh_params(config, batch, Execution(jnp.bfloat16)))
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}
    params = arrange_layers(params, config)
    hidden, pooled, mlm, nsp = outputs(params, batch, config, Execution(jnp.bfloat16))
    assert hidden.dtype == pooled.dtype == jnp.bfloat16
    assert mlm.dtype == nsp.dtype == jnp.float32
    for got, want in zip((hidden, pooled, mlm, nsp), outputs(params, batch, config), strict=True):
        error = np.linalg.norm(np.asarray(got, np.float32) - want) / np.linalg.norm(want)
        assert error < 0.03  # bfloat16 keeps 2^-9 per operation
    assert np.any(np.asarray(hidden, np.float32) != np.asarray(outputs(params, batch, config)[0]))


@pytest.mark.slow
def test_tables_sum_their_gradients_in_float32():
    """In bfloat16, 4,096 positions of one segment would add up to a sum that no longer moves."""
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, CONFIG.vocab_size, (128, 32)), jnp.int32)
    inputs = Inputs(ids, jnp.zeros_like(ids), jnp.broadcast_to(jnp.arange(32), ids.shape), jnp.ones_like(ids))
    weights = jnp.asarray(rng.normal(0.1, 1, (*ids.shape, CONFIG.hidden_size)), jnp.bfloat16)
    tables = Embeddings(CONFIG).init(jax.random.key(0), inputs, deterministic=True)

    def gradients(dtype):
        def loss(tables):
            embedded = Embeddings(CONFIG, Execution(dtype)).apply(tables, inputs, deterministic=True)
            return (embedded * weights).astype(jnp.float32).sum()

        return jax.grad(loss)(tables)["params"]

    got, want = gradients(jnp.bfloat16), gradients(jnp.float32)
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        error = np.linalg.norm(got[name]["embedding"] - want[name]["embedding"])
        assert error < 2**-7 * np.linalg.norm(want[name]["embedding"]), name


def test_attention_is_the_published_formula():
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, 5, 3, 4)), jnp.float32) for _ in range(3))
    mask = np.ones((2, 1, 5, 5), bool)
    mask[0, 0, :, 3:] = False
    got, probabilities = scaled_dot_product_attention(query, key, value, jnp.asarray(mask))
    for batch in range(2):
        for head in range(3):
            scores = np.asarray(query[batch, :, head], float) @ np.asarray(key[batch, :, head], float).T / np.sqrt(4)
            weights = np.exp(scores) * mask[batch, 0]
            weights /= weights.sum(axis=1, keepdims=True)
            assert_close(probabilities[batch, head], weights)
            assert_close(got[batch, :, head], weights @ np.asarray(value[batch, :, head], float))


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_hidden_states_and_attentions_on_request(params, scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    batch = packed_batch()
    body = arrange_layers(params, config)["bert"]
    hidden, intermediates = apply_and_collect(Bert(config), body, Inputs.of_batch(batch))
    layers, heads, width = CONFIG.num_hidden_layers, CONFIG.num_attention_heads, CONFIG.hidden_size
    probabilities = intermediates.attentions
    assert intermediates.embedded.shape == (2, WIDTH, width)
    assert intermediates.hidden.shape == (layers, 2, WIDTH, width)
    np.testing.assert_array_equal(intermediates.hidden[-1], hidden)
    assert probabilities.shape == (layers, 2, heads, WIDTH, WIDTH)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)
    ids = np.asarray(batch["sequence_ids"])
    across = ids[:, None, :, None] != ids[:, None, None, :]
    assert np.all(np.where(across, probabilities, 0) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Sequence", "Token", "Multiple"])
@pytest.mark.parametrize(("rate", "expected"), [(None, 0.3), (0.5, 0.5), (0.0, 0.0)])
def test_dropout_before_a_classifier(kind, rate, expected):
    """Behind all others: `classifier_dropout`, or that of the hidden states where it is not set."""
    config = dataclasses.replace(
        CONFIG, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0, classifier_dropout=rate
    )
    ids = jnp.ones((1, 2, 5) if kind == "Multiple" else (2, 5), jnp.int32)
    starts = {"sequence_starts": jnp.zeros((2, 1), jnp.int32)} if kind == "Sequence" else {}
    network = {
        "Sequence": BertForSequenceClassification(config, labels=3),
        "Token": BertForTokenClassification(config, labels=3),
        "Multiple": BertForMultipleChoice(config),
    }[kind]
    rates = []

    def watch(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            rates.append((context.module.rate, kwargs))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(watch):
        network.init(jax.random.key(0), Inputs(ids, ids * 0, ids * 0, ids), **starts)
    assert rates[-1] == (expected, {"deterministic": True})
    assert rates[0][0] == 0.3
