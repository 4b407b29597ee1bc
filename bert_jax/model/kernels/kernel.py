"""What a kernel of attention is, and what it may be asked for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """What a model wants of a kernel.

    Attributes:
      execution: where it runs.
      length: L.
      head_size: H.
      max_sequences: K, the most sequences that a row has; None if that is not known.
      dropout: whether probabilities are dropped.
      pattern: which positions attend to which.
    """

    execution: Execution
    length: int
    head_size: int
    max_sequences: int | None
    dropout: bool
    pattern: AttentionPattern


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One way to compute attention.

    Attributes:
      name: value of `model.attention`.
      platform: the one that it runs on; empty for any.
      prepare: makes of sequence_ids int32 [B, L], K and the pattern what `attend` needs to know of the rows, once for
        all layers.
      attend: gives [B, L, N, H] from query, key and value, [B, L, N, H] each, what `prepare` gave, and the execution.
      obstacle: says why the kernel cannot do what is asked on its platform, or None if it can.
    """

    name: str
    platform: str
    prepare: Callable[[jax.Array, int | None, AttentionPattern], Any]
    attend: Callable[[jax.Array, jax.Array, jax.Array, Any, Execution], jax.Array]
    obstacle: Callable[[AttentionSpec], str | None]
