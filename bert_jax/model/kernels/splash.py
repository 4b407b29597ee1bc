"""Attends without the [L, L] matrices on TPUs, by JAX's splash kernel."""

from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from bert_jax.model.kernels.kernel import AttentionSpec, Kernel
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import BATCH_AXES, Execution

LANES = 128  # it takes rows of a multiple of so many tokens


def prepare(sequence_ids: Int[Array, "B L"], max_sequences: int | None, pattern: AttentionPattern) -> Int[Array, "B L"]:
    """Returns the ids, int32 [B, L], as they are: splash skips nothing, but keeps the sequences apart."""
    del max_sequences, pattern
    return sequence_ids


def attend(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B L N H"],
    value: Float[Array, "B L N H"],
    sequence_ids: Int[Array, "B L"],
    execution: Execution,
    *,
    interpret: bool = False,
) -> Float[Array, "B L N H"]:
    """Computes attention of [B, L, N, H] within the sequences of int32 [B, L]; each device does its rows of the batch.

    With `interpret` it runs anywhere, slowly: for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads = query.shape[1], query.shape[2]
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((length, length))] * heads), interpret=interpret
    )

    def attend_rows(query: jax.Array, key: jax.Array, value: jax.Array, ids: jax.Array) -> Any:
        return jax.vmap(kernel)(query, key, value, splash.SegmentIds(ids, ids))

    heads_first = [array.swapaxes(1, 2) for array in (query * query.shape[-1] ** -0.5, key, value)]
    mesh = execution.mesh
    if mesh.size > 1:  # the compiler cannot divide a kernel
        rows = PartitionSpec(BATCH_AXES if len(query) % mesh.size == 0 else None)
        attend_rows = jax.shard_map(attend_rows, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    query, key, value = heads_first
    return attend_rows(query, key, value, sequence_ids).swapaxes(1, 2)


def obstacle(spec: AttentionSpec) -> str | None:
    """Says why splash cannot do it on a TPU, or None if it can."""
    if spec.dropout:
        return "model.attention_probs_dropout_prob is not 0"
    if spec.pattern != AttentionPattern():
        return "it attends to whole sequences, neither causally nor within a window"
    if spec.length % LANES:
        return f"{spec.length} tokens are no multiple of {LANES}"
    if spec.length <= LANES:
        return f"of {spec.length} tokens the matrices cost less"
    return None


SPLASH = Kernel("splash", "tpu", prepare, attend, obstacle)
