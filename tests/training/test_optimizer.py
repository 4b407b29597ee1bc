"""Update rules and schedules against plain restatements in float64."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import OptimizerConfig, ScheduleConfig
from bert_jax.model.depths import layer_depths
from bert_jax.training.optimizer import decay_mask, learning_rate, make_optimizer

SHAPES = {
    "dense": {"kernel": (5, 3), "bias": (3,)},
    "norm": {"scale": (3,), "bias": (3,)},
    "table": {"embedding": (7, 3)},
}


def draw(seed: int, scale: float = 1.0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        module: {name: scale * rng.standard_normal(shape).astype(np.float32) for name, shape in leaves.items()}
        for module, leaves in SHAPES.items()
    }


def reference(
    config: OptimizerConfig, params: dict, gradients: list[dict], rate: float, stored_mu: Callable = np.asarray
) -> dict:
    """The rules written out: Devlin et al.'s released code, Loshchilov & Hutter 2019, You et al. 2020."""
    flat = lambda tree: {  # noqa: E731
        (module, name): np.asarray(leaf, np.float64) for module, leaves in tree.items() for name, leaf in leaves.items()
    }
    params = flat(params)
    m = {key: np.zeros_like(value) for key, value in params.items()}
    v = {key: np.zeros_like(value) for key, value in params.items()}
    for t, gradient in enumerate(map(flat, gradients), 1):
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        shrink = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        for key, g in gradient.items():
            g = g * shrink
            m[key] = config.b1 * m[key] + (1 - config.b1) * g
            v[key] = config.b2 * v[key] + (1 - config.b2) * g**2
            corrected = config.name != "bert_adamw" or config.bias_correction
            m_hat = m[key] / (1 - config.b1**t) if corrected else m[key]
            v_hat = v[key] / (1 - config.b2**t) if corrected else v[key]
            update = m_hat / (np.sqrt(v_hat) + config.eps)
            decayed = key[1] in ("kernel", "embedding")
            if decayed:
                update = update + config.weight_decay * params[key]
            if config.name == "lamb" and decayed:
                update = update * np.linalg.norm(params[key]) / np.linalg.norm(update)
            params[key] = params[key] - rate * update
            m[key] = stored_mu(m[key])
    return params


GRADIENTS, RATE = [draw(seed, scale=0.3 * seed) for seed in range(1, 8)], 0.01


def trained(config: OptimizerConfig) -> dict:
    """The parameters after a step of ours with each of `GRADIENTS`."""
    optimizer, ours = make_optimizer(config), jax.tree.map(jnp.asarray, draw(0))
    state = optimizer.init(ours)
    for gradient in GRADIENTS:
        updates, state = optimizer.update(gradient, state, ours)
        ours = jax.tree.map(lambda p, u: p - RATE * u, ours, updates)
    return ours


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(name="bert_adamw"),
        OptimizerConfig(name="bert_adamw", bias_correction=True),
        OptimizerConfig(name="bert_adamw", clip_norm=0.0, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1),
        OptimizerConfig(name="adamw", b2=0.98),
        OptimizerConfig(name="lamb", weight_decay=0.05),
    ],
    ids=lambda config: f"{config.name}-{config.bias_correction}-{config.clip_norm}",
)
def test_update_rule_equals_the_written_out_one(config: OptimizerConfig) -> None:
    ours = trained(config)
    for (module, name), expected in reference(config, draw(0), GRADIENTS, RATE).items():
        np.testing.assert_allclose(ours[module][name], expected, rtol=2e-5, atol=2e-6, err_msg=f"{module}/{name}")


def bfloat16(value: np.ndarray) -> np.ndarray:
    """Rounded to 8 bits, to the nearest, as bfloat16 keeps it; in float64."""
    fraction, exponent = np.frexp(value)
    return np.ldexp(np.round(fraction * 2**8), exponent - 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"bias_correction": True}, {"name": "adamw"}, {"name": "lamb"}], ids=lambda changes: str(changes)
)
def test_a_bfloat16_first_moment_is_rounded_and_nothing_else(changes: dict) -> None:
    """Against the rule in float64 whose first moment alone is rounded after each step."""
    config = OptimizerConfig(mu_dtype="bfloat16", **changes)
    ours = trained(config)
    rounded = reference(config, draw(0), GRADIENTS, RATE, stored_mu=bfloat16)
    exact = reference(config, draw(0), GRADIENTS, RATE)
    for (module, name), expected in rounded.items():
        np.testing.assert_allclose(ours[module][name], expected, rtol=2e-5, atol=2e-6, err_msg=f"{module}/{name}")
    assert max(np.abs(rounded[key] - exact[key]).max() for key in rounded) > 1e-5  # the rounding shows


@pytest.mark.parametrize("name", ["bert_adamw", "adamw", "lamb"])
def test_a_bfloat16_first_moment_takes_half_the_bytes(name: str) -> None:
    def nbytes(mu_dtype: str) -> list[int]:
        state = make_optimizer(OptimizerConfig(name=name, mu_dtype=mu_dtype)).init(SHAPES_AS_ARRAYS)
        moments = next(
            each for each in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(each, "mu")
        )
        return [sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (moments.mu, moments.nu)]

    mu, nu = nbytes("float32")
    assert nbytes("bfloat16") == [mu / 2, nu]


def test_decay_spares_biases_and_layer_norm_only() -> None:
    assert decay_mask(SHAPES_AS_ARRAYS) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "table": {"embedding": True},
    }


SHAPES_AS_ARRAYS = draw(0)


def rates(schedule: ScheduleConfig, total: int = 100) -> np.ndarray:
    return np.array([learning_rate(schedule, 2.0, step, total) for step in range(total)])


def test_linear_schedule_rises_over_the_warmup_and_falls_to_zero() -> None:
    got = rates(ScheduleConfig("linear", warmup=0.1))
    np.testing.assert_allclose(got[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(got[10:], 2.0 * (1 - np.arange(90) / 90), rtol=1e-5)
    assert float(learning_rate(ScheduleConfig("linear"), 2.0, 100, 100)) == 0.0


def test_warmup_from_one_counts_steps() -> None:
    np.testing.assert_allclose(rates(ScheduleConfig(warmup=20.0))[:20], 2.0 * np.arange(1, 21) / 20, rtol=1e-6)


def test_cosine_schedule() -> None:
    got = rates(ScheduleConfig("cosine", warmup=0.1, final=0.1))
    expected = 2.0 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * np.arange(90) / 90)))
    np.testing.assert_allclose(got[10:], expected, rtol=1e-5)


def test_warmup_stable_decay_holds_then_falls_with_the_square_root() -> None:
    got = rates(ScheduleConfig("wsd", warmup=0.1, decay=0.2))
    np.testing.assert_allclose(got[10:81], 2.0, rtol=1e-6)
    np.testing.assert_allclose(got[80:], 2.0 * (1 - np.sqrt(np.arange(20) / 20)), rtol=1e-5, atol=1e-6)


def tree_of_layers(stacked: bool) -> dict:
    """Embeddings, three layers, pooler and a head, all ones."""
    one = np.ones((2, 2), np.float32)
    layers = {"layers": {"kernel": np.ones((3, 2, 2), np.float32)}}
    if not stacked:
        layers = {f"layer_{index}": {"kernel": one} for index in range(3)}
    return {
        "bert": {"embeddings": {"kernel": one}, "encoder": layers, "pooler": {"kernel": one}},
        "head": {"kernel": one},
    }


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    ("config", "embeddings", "layers", "top"),
    [
        (dict(layer_decay=0.5), 1 / 16, [1 / 8, 1 / 4, 1 / 2], 1.0),
        (dict(frozen_layers=0), 0.0, [1.0, 1.0, 1.0], 1.0),
        (dict(frozen_layers=2, layer_decay=0.5), 0.0, [0.0, 0.0, 1 / 2], 1.0),
        (dict(frozen_layers=9), 0.0, [0.0, 0.0, 0.0], 1.0),
    ],
    ids=str,
)
def test_layers_learn_at_their_own_rates(stacked, config, embeddings, layers, top) -> None:
    """Against the same update without; weight decay included, nothing clipped."""
    params = tree_of_layers(stacked)
    gradients = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    updates = []
    for changes in ({}, config):
        optimizer = make_optimizer(OptimizerConfig(clip_norm=0.0, weight_decay=0.1, **changes), layer_depths)
        updates.append(optimizer.update(gradients, optimizer.init(params), params)[0])
    shares = jax.tree.map(lambda one, other: np.asarray(other / one), *updates)
    body = shares["bert"]
    np.testing.assert_allclose(body["embeddings"]["kernel"], embeddings, rtol=1e-6)
    for index, expected in enumerate(layers):
        found = body["encoder"]["layers"]["kernel"][index] if stacked else body["encoder"][f"layer_{index}"]["kernel"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for found in (body["pooler"]["kernel"], shares["head"]["kernel"]):
        np.testing.assert_allclose(found, top, rtol=1e-6)


def test_rates_by_layer_need_the_depths_of_the_layers() -> None:
    with pytest.raises(ValueError, match="layer_decay and frozen_layers need layer_depths"):
        make_optimizer(OptimizerConfig(layer_decay=0.9))


def test_what_is_frozen_is_not_counted_by_the_clipping() -> None:
    params = tree_of_layers(False)
    gradients = jax.tree.map(np.zeros_like, params)
    gradients["bert"]["embeddings"]["kernel"] = np.full((2, 2), 1e6, np.float32)
    gradients["head"]["kernel"] = np.full((2, 2), 1e-5, np.float32)
    optimizer = make_optimizer(OptimizerConfig(frozen_layers=3, weight_decay=0.0), layer_depths)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert float(updates["head"]["kernel"][0, 0]) > 0.1  # clipped by the large one it would be 1e-11 before eps
