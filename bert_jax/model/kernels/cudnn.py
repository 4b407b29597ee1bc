"""Attention without the [L, L] matrices on NVIDIA GPUs, by cuDNN."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from bert_jax.model.kernels.kernel import AttentionSpec, Kernel
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

HOPPER = 9.0  # compute capability of the oldest GPUs on which cuDNN keeps several sequences of a row apart
LONGEST_HEAD = 128


def prepare(sequence_ids: jax.Array, max_sequences: int | None, pattern: AttentionPattern) -> tuple[jax.Array, ...]:
    """Returns where the sequences of each row are.

    Args:
      sequence_ids: int32 [B, L].
      max_sequences: K, the most sequences that a row has.
      pattern: full attention, see `obstacle`.

    Returns:
      With K = 1 the length of each row's sequence, int32 [B]. Otherwise lengths [B, K + 1] and starts [B, K + 2] of all
      sequences of a row, -1 behind the last. A row of L = 6 with the ids 1 1 1 2 0 0 has for K = 3 the lengths
      3 1 2 -1 and the starts 0 3 4 -1 -1.
    """
    del pattern
    assert max_sequences is not None  # see `obstacle`
    if max_sequences == 1:
        # A row of padding alone must attend to something, too.
        return (jnp.maximum((sequence_ids > 0).sum(axis=1), 1).astype(jnp.int32),)
    # Padding comes last, as a sequence of its own: cuDNN leaves what is in no sequence as it finds it, NaN or not.
    numbers = jnp.asarray([*range(1, max_sequences + 1), 0])
    lengths = (sequence_ids[:, :, None] == numbers).sum(axis=1)
    # Lengths of 0 go to the end; the others keep their order.
    lengths = jnp.take_along_axis(lengths, jnp.argsort(lengths == 0, axis=1, stable=True), axis=1)
    starts = jnp.cumsum(lengths, axis=1) - lengths
    lengths, starts = (jnp.where(lengths > 0, values, -1).astype(jnp.int32) for values in (lengths, starts))
    return lengths, jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, rows: tuple[jax.Array, ...], execution: Execution
) -> jax.Array:
    """Computes attention of [B, L, N, H] within the sequences that `prepare` found.

    JAX asks the machine on which it traces for cuDNN and for the GPU. With `execution.cudnn_version` a program is made
    for another machine, and the execution gives the answers in its place, in the forward pass of the gradient, too,
    which JAX may trace long after this function has returned.
    """
    if not execution.cudnn_version:
        return _attend(query, key, value, rows)

    @jax.custom_vjp
    def attend_elsewhere(*arguments: Any) -> Any:
        with _answers_of(execution):
            return _attend(*arguments)

    def forward(*arguments: Any) -> tuple[jax.Array, Any]:
        with _answers_of(execution):
            return jax.vjp(_attend, *arguments)

    attend_elsewhere.defvjp(forward, lambda pull_back, gradient: pull_back(gradient))
    return attend_elsewhere(query, key, value, rows)  # pyright: ignore[reportReturnType]


def _attend(query: jax.Array, key: jax.Array, value: jax.Array, rows: tuple[jax.Array, ...]) -> jax.Array:
    if len(rows) == 1:
        (lengths,) = rows  # nothing attends to padding
        return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="cudnn")
    # cuDNN's packed layout. As jax.nn has no way to it yet, this reaches into JAX (0.10 and 0.11).
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    lengths, starts = rows
    return dot_product_attention(  # pyright: ignore[reportReturnType] (it has no types)
        query,
        key,
        value,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=starts,
        kv_offsets=starts,
        scale=query.shape[-1] ** -0.5,
        mask_type=MaskType.PADDING,
    )


@contextlib.contextmanager
def _answers_of(execution: Execution) -> Iterator[None]:
    """Lets the execution say which cuDNN and which GPU there are, where JAX's binding would ask this machine."""
    from jax._src.cudnn import fused_attention_stablehlo as binding

    versions = SimpleNamespace(cudnn_get_version=lambda: execution.cudnn_version)
    is_at_least = lambda capability: execution.compute_capability >= float(capability)  # noqa: E731
    is_equal = lambda capability: execution.compute_capability == float(capability)  # noqa: E731
    with mock.patch.multiple(
        binding,
        cuda_versions=versions,
        check_compute_capability=is_at_least,
        is_cuda_compute_capability_equal=is_equal,
    ):
        yield


def obstacle(spec: AttentionSpec) -> str | None:
    """Says why cuDNN cannot do it on a GPU, or None if it can."""
    if spec.dropout:
        return "model.attention_probs_dropout_prob is not 0"
    if spec.pattern != AttentionPattern():
        return "it attends to whole sequences, neither causally nor within a window"
    if spec.execution.dtype == jnp.float32:
        return "it computes in bfloat16, not in float32"
    if spec.head_size % 8 or spec.head_size > LONGEST_HEAD:
        return f"a head of {spec.head_size} is no multiple of 8, or above {LONGEST_HEAD}"
    if spec.max_sequences is None:
        return "how many sequences a row has is not known"
    if spec.max_sequences > 1 and spec.execution.compute_capability < HOPPER:
        return "several sequences in a row want a Hopper GPU or newer"
    return None


CUDNN = Kernel("cudnn", "gpu", prepare, attend, obstacle)
