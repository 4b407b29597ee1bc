"""A toy task for the training loop, and its data by step."""

import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import OptimizerConfig, TrainingConfig
from bert_jax.runtime.execution import Execution
from bert_jax.training import loop
from bert_jax.training.loop import Data
from bert_jax.training.objective import Mean, Objective

WIDTH = 4


class Toy(Objective):
    """Regression with missing targets (uneven counts) and dropout; a target of 1e30 overflows."""

    losses = ("fit_loss", "size_loss")

    def init(self, key):
        return {"dense": {"kernel": jax.random.normal(key, (WIDTH,)), "bias": jnp.zeros(())}}

    def prepare(self, batch, keys, *, training):
        noise = jax.vmap(lambda key: jax.random.normal(key, (WIDTH,)))(keys)
        return {**batch, "x": batch["x"] + 0.1 * noise}

    def metrics(self, params, batch, dropout_key):
        x = batch["x"]
        if dropout_key is not None:
            x = x * jax.random.bernoulli(dropout_key, 0.9, x.shape) / 0.9
        guess = x @ params["dense"]["kernel"] + params["dense"]["bias"]
        weight = (batch["y"] != 0).astype(jnp.float32)
        return {
            "fit_loss": Mean((weight * (guess - batch["y"]) ** 2).sum(), weight.sum()),
            "size_loss": Mean((guess**2).sum(), jnp.float32(len(guess))),
        }


def toy_batch(step: int, bad_step: int | None = None, rows: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    y = rng.standard_normal(rows).astype(np.float32) * (rng.random(rows) < 0.6)
    return {
        "x": rng.standard_normal((rows, WIDTH)).astype(np.float32),
        "y": np.full(rows, 1e30, np.float32) if step == bad_step else y,
    }


def toy_data(bad_step: int | None = None, kill: tuple[int, int] | None = None) -> Data:
    """Batches by step; before the batch of step `kill[0]`, the process sends itself signal `kill[1]`."""

    def stream(step: int) -> Iterator[dict[str, np.ndarray]]:
        while True:
            if kill and step == kill[0]:
                os.kill(os.getpid(), kill[1])
            yield toy_batch(step, bad_step)
            step += 1

    return Data(train=stream, validation=[toy_batch(10**6), toy_batch(10**6 + 1)], rows_per_epoch=40, tokens_per_row=4)


def train(objective, config, workdir, data, **settings):
    """Trains on all devices of this process."""
    return loop.train(objective, config, workdir, data, Execution.here(mesh=config.mesh).mesh, **settings)


CONFIG = TrainingConfig(
    seed=1,
    batch_size=8,
    total_steps=20,
    log_every=4,
    eval_every=10,
    checkpoint_every=6,
    tensorboard=False,
    optimizer=OptimizerConfig(learning_rate=0.05),
)


def assert_same_bits(first, second) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
