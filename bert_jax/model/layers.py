"""The small parts that all of the architecture shares: activations, initialiser, products, LayerNorm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) by erf, as in the published BERT; `jax.nn.gelu` takes erfc, which costs XLA on CPU three times as much.

    In float32 whatever the compute type, for 1 + erf cancels where x is negative.
    """
    exact = x.astype(jnp.float32)
    return (0.5 * exact * (1 + jax.lax.erf(exact * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


def initializer(config: ModelConfig) -> nn.initializers.Initializer:
    """Normal of deviation `initializer_range`, cut at two deviations: BERT's for every matrix and table."""
    return nn.initializers.truncated_normal(config.initializer_range)


def precision(dtype: jnp.dtype) -> jax.lax.Precision:
    """Of products computed in `dtype`: float32 means float32, where GPUs and TPUs would round the factors."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def dense(config: ModelConfig, features: int, dtype: jnp.dtype, name: str | None) -> nn.Dense:
    """x @ kernel [in, features] + bias, initialised as BERT does."""
    return nn.Dense(features, dtype=dtype, kernel_init=initializer(config), precision=precision(dtype), name=name)


def layer_norm(config: ModelConfig, dtype: jnp.dtype, name: str | None) -> nn.LayerNorm:
    """LayerNorm over D; mean and variance in float32 whatever the compute type."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)
