"""Attention without the [L, L] matrices: cuDNN on NVIDIA GPUs, splash on TPUs.

Each kernel has two functions. The first makes of `sequence_ids` what the second wants to know of the rows, once for all
layers; the second is attention itself, as `attention.scaled_dot_product_attention` has it, without dropout and
probabilities. Rows are as `pretraining.packing` and `finetuning.batches` lay them out: the sequences one behind the
other in the order of their numbers, padding (0) at the end.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from bert_jax.training.sharding import BATCH_AXES

LANES = 128  # splash takes rows of a multiple of so many tokens


def cudnn_rows(sequence_ids: jax.Array, most: int) -> tuple[jax.Array, ...]:
    """Of rows of one sequence each their lengths, int32 [B]; else lengths [B, K + 1] and starts [B, K + 2] of all.

    Args:
      sequence_ids: int32 [B, L].
      most: K, sequences of a row at most.
    """
    if most == 1:
        # A row of padding alone must look at something too.
        return (jnp.maximum((sequence_ids > 0).sum(axis=1), 1).astype(jnp.int32),)
    # Padding comes last, as a sequence of its own: cuDNN leaves what is in no sequence as it finds it, NaN or not.
    numbers = jnp.asarray([*range(1, most + 1), 0])
    lengths = (sequence_ids[:, :, None] == numbers).sum(axis=1)
    lengths = jnp.take_along_axis(lengths, jnp.argsort(lengths == 0, axis=1, stable=True), axis=1)
    starts = jnp.cumsum(lengths, axis=1) - lengths
    lengths, starts = (jnp.where(lengths > 0, each, -1).astype(jnp.int32) for each in (lengths, starts))
    return lengths, jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1)


def cudnn_attention(query: jax.Array, key: jax.Array, value: jax.Array, rows: tuple[jax.Array, ...]) -> jax.Array:
    """[B, L, N, H] thrice, and `cudnn_rows` -> [B, L, N, H].

    One sequence a row: nothing looks at padding. Several: cuDNN's packed layout, which wants a Hopper GPU or newer; as
    jax.nn has no way to it yet, this reaches into JAX (`q_offsets` and `kv_offsets`, jax 0.10 and 0.11).
    """
    if len(rows) == 1:
        (lengths,) = rows
        return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="cudnn")
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    lengths, starts = rows
    return dot_product_attention(
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


def splash_rows(sequence_ids: jax.Array, most: int) -> jax.Array:
    """The ids as they are: splash skips nothing, but keeps the sequences apart."""
    del most
    return sequence_ids


def splash_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, sequence_ids: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """[B, L, N, H] thrice, and int32 [B, L] -> [B, L, N, H]; each device has its rows of a batch to itself.

    With `interpret` it runs anywhere, slowly: for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads = query.shape[1], query.shape[2]
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((length, length))] * heads), interpret=interpret
    )

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, ids: jax.Array) -> jax.Array:
        return jax.vmap(kernel)(query, key, value, splash.SegmentIds(ids, ids))

    heads_first = [each.swapaxes(1, 2) for each in (query * query.shape[-1] ** -0.5, key, value)]
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:  # the compiler cannot divide a kernel
        rows = PartitionSpec(BATCH_AXES if len(query) % mesh.size == 0 else None)
        attend = jax.shard_map(attend, in_specs=rows, out_specs=rows, check_vma=False)
    return attend(*heads_first, sequence_ids).swapaxes(1, 2)
