"""Defines what a kernel of attention is, and what it may be asked for."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, Int

from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

Heads = Float[Array, "B L N H"]


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """Describes what a model wants of a kernel.

    Attributes:
      execution: the place where it runs.
      length: L, the tokens of a row.
      head_size: H, the width of a head.
      max_sequences: K, the most sequences that a row has; None if that is not known.
      dropout: whether probabilities are dropped.
      pattern: the rule of which positions attend to which.
    """

    execution: Execution
    length: int
    head_size: int
    max_sequences: int | None
    dropout: bool
    pattern: AttentionPattern


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Holds one way to compute attention.

    Attributes:
      name: the value of `model.attention`.
      platform: the platform that it runs on; empty for any.
      prepare: the function that makes of sequence_ids int32 [B, L], K and the pattern what `attend` needs to know of
        the rows, once for all layers.
      attend: the function that gives [B, L, N, H] from query, key and value, [B, L, N, H] each, what `prepare` gave,
        and the execution.
      obstacle: the function that says why the kernel cannot do what is asked on its platform, or None if it can.
      gives_probabilities: whether the formula with dropout and with the probabilities as a second result,
        `plain.scaled_dot_product_attention`, takes what `prepare` gives.
    """

    name: str
    platform: str
    prepare: Callable[[Int[Array, "B L"], int | None, AttentionPattern], Any]
    attend: Callable[[Heads, Heads, Heads, Any, Execution], Heads]
    obstacle: Callable[[AttentionSpec], str | None]
    gives_probabilities: bool = False
