"""Update rules and learning-rate schedules, as optax transformations that leave the learning rate to the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import OptimizerConfig, ScheduleConfig


class BertAdamState(NamedTuple):
    """First and second moments of the gradient."""

    mu: optax.Updates
    nu: optax.Updates


def scale_by_bert_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """m / (sqrt(v) + eps) without bias correction: the update of google-research/bert, `optimization.py`."""

    def init(params: optax.Params) -> BertAdamState:
        return BertAdamState(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(updates: optax.Updates, state: BertAdamState, params: Any = None) -> tuple[Any, BertAdamState]:
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), BertAdamState(mu, nu)

    return optax.GradientTransformation(init, update)


def decay_mask(params: optax.Params) -> Any:
    """True where weight decay acts: everything but biases and LayerNorm, as in BERT (embeddings are decayed)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, the update rule and decoupled weight decay. The step multiplies the result by -learning_rate.

    - `bert_adamw`: Devlin et al. 2018, appendix A.2; without bias correction as released, or with it.
    - `adamw`: Loshchilov & Hutter 2019 (always bias-corrected).
    - `lamb`: You et al. 2020, algorithm 2; biases and LayerNorm are exempt from decay and from the trust ratio.
    """
    if config.name == "bert_adamw" and not config.bias_correction:
        rule = scale_by_bert_adam(config.b1, config.b2, config.eps)
    else:
        rule = optax.scale_by_adam(config.b1, config.b2, config.eps)
    steps = [rule, optax.add_decayed_weights(config.weight_decay, mask=decay_mask)]
    if config.clip_norm:
        steps.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.name == "lamb":
        steps.append(optax.masked(optax.scale_by_trust_ratio(), decay_mask))
    return optax.chain(*steps)


def learning_rate(
    schedule: ScheduleConfig, peak: float, step: jax.Array | int, total_steps: jax.Array | int
) -> jax.Array:
    """Learning rate of the step that follows `step` finished ones; both counts may be traced.

    Linear and cosine fall from the end of the warm-up to `final` * peak at `total_steps`. `wsd` holds the peak and
    falls over the last `decay` share of the run with 1 - sqrt (Hägele et al. 2024, equation 2).
    """
    step, total = jnp.float32(step), jnp.float32(total_steps)
    warmup = schedule.warmup * total if schedule.warmup < 1 else jnp.float32(schedule.warmup)
    rise = jnp.minimum(1.0, (step + 1) / jnp.maximum(warmup, 1.0))
    start = total * (1 - schedule.decay) if schedule.name == "wsd" else warmup
    progress = jnp.clip((step - start) / jnp.maximum(total - start, 1.0), 0.0, 1.0)
    shape = {
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)),
        "wsd": 1 - jnp.sqrt(progress),
    }[schedule.name]
    return peak * rise * (schedule.final + (1 - schedule.final) * shape)
