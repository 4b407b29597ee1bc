"""Attends without the [L, L] matrices on NVIDIA GPUs, by cuDNN."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.model.kernels.kernel import AttentionSpec, Kernel
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

HOPPER = 9.0  # compute capability of the oldest GPUs on which cuDNN keeps several sequences of a row apart
LONGEST_HEAD = 128

Rows = tuple[Int[Array, " B"]] | tuple[Int[Array, "B K1"], Int[Array, "B K2"]]  # see `prepare`


def prepare(sequence_ids: Int[Array, "B L"], max_sequences: int | None, pattern: AttentionPattern) -> Rows:
    """Returns where the sequences of each row are.

    Args:
      sequence_ids: the sequence of each token, int32 [B, L].
      max_sequences: K, the most sequences that a row has.
      pattern: the rule of attention; full, see `obstacle`.

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
    query: Float[Array, "B L N H"],
    key: Float[Array, "B L N H"],
    value: Float[Array, "B L N H"],
    rows: Rows,
    execution: Execution,
) -> Float[Array, "B L N H"]:
    """Computes attention of [B, L, N, H] within the sequences that `prepare` describes."""
    if execution.ahead_of_time:
        return _attend_elsewhere(query, key, value, rows)
    if len(rows) == 1:
        (lengths,) = rows  # nothing attends to padding
        return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="cudnn")
    # cuDNN's packed layout. As jax.nn has no way to it yet, this reaches into JAX (0.10 and 0.11).
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    lengths, starts = rows
    return dot_product_attention(  # pyright: ignore[reportReturnType]
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


def _attend_elsewhere(query: jax.Array, key: jax.Array, value: jax.Array, rows: Rows) -> jax.Array:
    """Computes what `attend` does in a program for a machine that is not here.

    JAX's functions ask the machine on which they trace for its cuDNN and its GPU. The operations below them do not, so
    this takes those (of JAX 0.10 and 0.11) and puts them together in the same way.
    """
    from jax._src.cudnn import fused_attention_stablehlo as binding

    unused = jnp.zeros(0, query.dtype)
    if len(rows) == 1:
        batch, length = query.shape[:2]
        places = (jnp.full((batch,), length, jnp.int32), *rows, unused, unused)
    else:
        lengths, starts = rows
        places = (lengths, lengths, starts, starts)
    settings = {
        "scale": query.shape[-1] ** -0.5,
        "seed": 42,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),  # no bias
        "mask_type": binding.MaskType.PADDING,
        "layout": binding.AttentionLayout.BTNH.value,
        "sliding_window_length": None,
    }

    @jax.custom_vjp
    def operation(*arguments: jax.Array) -> jax.Array:
        return binding._dot_product_attention_fwd_p_wrapper.bind(*arguments, **settings, is_training=False)[0]

    def forward(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        outputs = binding._dot_product_attention_fwd_p_wrapper.bind(*arguments, **settings, is_training=True)
        output, statistics = outputs
        return output, (*arguments, statistics, output)

    def backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array | None, ...]:
        gradients = binding._dot_product_attention_bwd_p_wrapper.bind(*saved, gradient, **settings)
        return (*gradients, *[None] * (len(saved) - 2 - len(gradients)))

    operation.defvjp(forward, backward)
    return operation(query, key, value, unused, *places, unused, unused)  # pyright: ignore[reportReturnType]


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
