"""Makes the optimizer step and the evaluation step, as pure functions for `jax.jit`."""

import zlib
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from bert_jax.config import TrainingConfig
from bert_jax.training.objective import Batch, Mean, Objective, Parameters
from bert_jax.training.optimizer import learning_rate


@flax.struct.dataclass
class TrainState:
    """Holds all that a run carries from step to step; the keys follow from the seed and the step."""

    step: jax.Array  # int32 [], finished steps
    params: Parameters
    opt_state: optax.OptState


def stream_key(seed: int, stream: str, step: jax.Array | int = 0) -> jax.Array:
    """Returns the key of a named stream of randomness at a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode())), step)


def row_keys(key: jax.Array, batch: Batch, first_row: jax.Array | int = 0) -> jax.Array:
    """Returns keys [B], one for each row of a batch whose first row has the given number."""
    rows = len(next(iter(batch.values())))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first_row + jnp.arange(rows))


def make_init(objective: Objective, optimizer: optax.GradientTransformation, seed: int) -> Callable[[], TrainState]:
    """Returns the function that makes the state before the first step."""

    def init() -> TrainState:
        params = objective.init(stream_key(seed, "init"))
        return TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))

    return init


def make_train_step(
    objective: Objective, optimizer: optax.GradientTransformation, config: TrainingConfig
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, Mean]]]:
    """Returns the function (state, global batch, total_steps) -> (state, metrics as sums and counts)."""

    def train_step(state: TrainState, batch: Batch, total_steps: jax.Array) -> tuple[TrainState, dict[str, Mean]]:
        keys = row_keys(stream_key(config.seed, "prepare", state.step), batch)
        batch = objective.prepare(batch, keys, training=True)
        dropout_key = stream_key(config.seed, "dropout", state.step)
        gradients, metrics = accumulated_gradients(objective, state.params, batch, dropout_key, config.accumulate)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        rate = learning_rate(config.schedule, config.optimizer.learning_rate, state.step, total_steps)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        one = jnp.float32(1)
        metrics |= {"gradient_norm": Mean(optax.global_norm(gradients), one), "learning_rate": Mean(rate, one)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def accumulated_gradients(
    objective: Objective, params: Parameters, batch: Batch, dropout_key: jax.Array, micro_batches: int
) -> tuple[Any, dict[str, Mean]]:
    """Returns gradient and metrics of a prepared batch, computed on `micro_batches` parts of it one after the other.

    Each part's sums are divided by the counts of the whole batch, so the result is the gradient of the whole batch
    however unevenly the counts are spread.
    """

    def loss(params: Parameters, part: Batch, key: jax.Array, counts: dict | None) -> tuple[Any, dict]:
        metrics = objective.metrics(params, part, key)
        divisors = {name: metrics[name].count if counts is None else counts[name] for name in objective.losses}
        return sum(metrics[name].total / jnp.maximum(divisors[name], 1) for name in objective.losses), metrics

    gradient = jax.grad(loss, has_aux=True)
    if micro_batches == 1:
        return gradient(params, batch, dropout_key, None)

    # Row i goes to part i % micro_batches: the rows of a part stay spread over the devices as they were.
    parts = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)

    def part_counts(part: Batch) -> dict[str, jax.Array]:
        metrics = objective.metrics(params, part, None)  # XLA drops all of it but the counts
        return {name: metrics[name].count for name in objective.losses}

    counts = jax.tree.map(lambda x: x.sum(0), jax.lax.map(part_counts, parts))

    def add_part(sums: Any, indexed_part: Any) -> tuple[Any, None]:
        index, part = indexed_part
        result = gradient(params, part, jax.random.fold_in(dropout_key, index), counts)
        return jax.tree.map(jnp.add, sums, result), None

    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts), dropout_key, counts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums, _ = jax.lax.scan(add_part, zeros, (jnp.arange(micro_batches), parts))
    return sums


@jax.jit
def all_finite(state: TrainState) -> jax.Array:
    """Says whether all moments, and the squares of all parameters, which products take, are finite: bool []."""
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    numbers = [*map(jnp.square, jax.tree.leaves(state.params)), *moments]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in numbers]).all()


def make_eval_step(objective: Objective) -> Callable[[Parameters, Batch, jax.Array], dict[str, Mean]]:
    """Returns the function (params, global batch, number of its first row) -> metrics.

    A row's randomness follows from its number alone, so that runs of any seed and batch size are scored alike.
    """

    def eval_step(params: Parameters, batch: Batch, first_row: jax.Array) -> dict[str, Mean]:
        keys = row_keys(stream_key(0, "evaluate"), batch, first_row)
        return objective.metrics(params, objective.prepare(batch, keys, training=False), None)

    return eval_step
