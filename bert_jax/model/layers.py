"""Holds the small parts that all of the architecture shares: activations, initializer, products, LayerNorm, dropout."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from bert_jax.config import ModelConfig
from bert_jax.runtime.execution import Execution


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x Phi(x) by erf, as in the published BERT.

    `jax.nn.gelu` takes erfc, which costs XLA on CPU three times as much. The computation is in float32 whatever the
    compute type, for 1 + erf cancels where x is negative.
    """
    exact = x.astype(jnp.float32)
    return (0.5 * exact * (1 + jax.lax.erf(exact * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


def initializer(config: ModelConfig) -> nn.initializers.Initializer:
    """Returns a normal of deviation `initializer_range`, cut at two, as BERT draws every matrix and table."""
    return nn.initializers.truncated_normal(config.initializer_range)


def precision(dtype: jnp.dtype) -> jax.lax.Precision:
    """Returns the precision of products in `dtype`: float32 means float32, though GPUs and TPUs would round it."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def dense(
    config: ModelConfig, features: int, execution: Execution, name: str | None = None, *, dtype: jnp.dtype | None = None
) -> nn.Dense:
    """Makes the layer x @ kernel [in, features] + bias, initialized as BERT does.

    Args:
      config: the config of the model.
      features: the width of the output.
      execution: the place where the layer runs, and the type.
      name: the name of the layer; None where `setup` names it.
      dtype: the compute type, if it is not that of the execution.
    """
    dtype = execution.dtype if dtype is None else dtype
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=initializer(config),
        precision=precision(dtype),
        dot_general=_summed_in_float32 if execution.platform == "cpu" else None,
        name=name,
    )


def _summed_in_float32(left: jax.Array, right: jax.Array, *args: Any, **settings: Any) -> jax.Array:
    """Multiplies into float32: XLA on CPU is then twice as fast with bfloat16 as with float32, else no faster."""
    product = jax.lax.dot_general(left, right, *args, preferred_element_type=jnp.float32, **settings)
    return product.astype(left.dtype)


def product_in_float32(subscripts: str, left: Float[Array, "..."], right: Float[Array, "..."]) -> Float32[Array, "..."]:
    """Computes the einsum of two arrays of one type into float32; its gradient is computed in that type.

    As JAX derives it, the gradient of a bfloat16 product that gives float32 is a float32 product, at half the rate.
    """
    product = functools.partial(jnp.einsum, precision=precision(left.dtype))
    if left.dtype == jnp.float32:
        return product(subscripts, left, right)

    @jax.custom_vjp
    def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
        return product(subscripts, left, right, preferred_element_type=jnp.float32)

    def backward(factors: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, transposed = jax.vjp(functools.partial(product, subscripts), *factors)
        return transposed(gradient.astype(factors[0].dtype))

    multiply.defvjp(lambda left, right: (multiply(left, right), (left, right)), backward)
    return multiply(left, right)


def layer_norm(config: ModelConfig, dtype: jnp.dtype, name: str | None) -> nn.LayerNorm:
    """Makes a LayerNorm over D; mean and variance are in float32 whatever the compute type."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)


class Dropout(nn.Dropout):
    """Drops elements by a hash of their place, keyed anew at every call.

    On a CPU, numbers of JAX's own generator cost more than all of attention; this takes a dozen operations, which XLA
    fuses into what reads the result. The mask of an element depends on the key and its place alone, so it is the same
    however the array is spread over devices. The mixing is Wellons' `triple32` (hash-prospector, 2018).
    """

    @nn.compact
    def __call__(self, inputs: Float[Array, "*shape"], deterministic: bool | None = None) -> Float[Array, "*shape"]:
        """Sets a share `rate` of the elements to zero and divides the rest by 1 - rate; any shape."""
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        if deterministic or self.rate == 0:
            return inputs
        first, second = jax.random.bits(self.make_rng(self.rng_collection), (2,), jnp.uint32)
        place = jnp.uint32(0)
        for axis, size in enumerate(inputs.shape):
            place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, inputs.shape, axis)
        bits = place ^ first
        bits = (bits ^ (bits >> 17)) * jnp.uint32(0xED5AD4BB) + second
        bits = (bits ^ (bits >> 11)) * jnp.uint32(0xAC4C1B51)
        bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848BAB)
        bits = bits ^ (bits >> 14)
        return jnp.where(bits >= jnp.uint32(round(self.rate * 2**32)), inputs / (1 - self.rate), 0)
