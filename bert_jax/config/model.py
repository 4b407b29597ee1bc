"""Declares the keys of a model, and holds the published sizes."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from bert_jax.config.fields import Section, option
from bert_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """Describes an architecture, in the names of Hugging Face's ``BertConfig``."""

    path: ClassVar[str] = "model."

    vocab_size: int = option(
        30_522, at_least=1, at_most=10_000_000, role="weights", help="entries of the vocabulary, V"
    )
    hidden_size: int = option(768, at_least=1, at_most=65_536, role="weights", help="width of the model, D")
    num_hidden_layers: int = option(12, at_least=1, at_most=1_000, role="weights", help="layers of the encoder")
    num_attention_heads: int = option(
        12,
        at_least=1,
        at_most=65_536,
        role="weights",
        help="attention heads of a layer, N; hidden_size must divide by it",
    )
    intermediate_size: int = option(
        3_072, at_least=1, at_most=1_000_000, role="weights", help="width of the feed-forward layers, F"
    )
    hidden_act: str = option(
        "gelu",
        choices=("gelu", "gelu_new", "relu"),
        role="weights",
        help="activation of the feed-forward layers; gelu is exact, gelu_new its approximation by tanh",
    )
    hidden_dropout_prob: float = option(
        0.1, at_least=0, at_most=0.99, role="regularization", help="dropout behind each dense layer and the embeddings"
    )
    attention_probs_dropout_prob: float = option(
        0.1,
        at_least=0,
        at_most=0.99,
        role="regularization",
        help="dropout of attention weights; the fast attention kernels need 0",
    )
    classifier_dropout: float | None = option(
        None,
        at_least=0,
        at_most=0.99,
        role="regularization",
        help="dropout before the last layer of a classifier; None takes hidden_dropout_prob",
    )
    max_position_embeddings: int = option(
        512,
        at_least=1,
        at_most=1_000_000,
        role="weights",
        help="rows of the position table: the longest input in tokens",
    )
    type_vocab_size: int = option(
        2, at_least=1, at_most=1_000_000, role="weights", help="rows of the token type table (sentence A and B)"
    )
    initializer_range: float = option(
        0.02, at_least=0, at_most=1, role="initialization", help="standard deviation of random weights"
    )
    layer_norm_eps: float = option(
        1e-12, at_least=0, at_most=1, role="weights", help="number added to the variance in LayerNorm"
    )
    scan_layers: bool = option(
        False,
        role="computation",
        help="compile one layer instead of num_hidden_layers of them: it compiles faster and may run slower",
    )
    attention: str = option(
        "auto",
        choices=("auto", "plain", "cudnn", "splash"),
        role="computation",
        help="attention kernel: cudnn is for NVIDIA GPUs, splash for TPUs, auto takes the fastest that fits",
    )
    remat: bool = option(
        False,
        role="computation",
        help="recompute each layer in the backward pass: less memory for a third more work; on a CPU it acts only "
        "with scan_layers",
    )
    remat_saves: str = option(
        "nothing",
        choices=("nothing", "products"),
        role="computation",
        help="what remat keeps besides the input of a layer: products keeps those of the dense layers",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size={self.hidden_size} does not divide by "
                f"model.num_attention_heads={self.num_attention_heads}"
            )


def overruled(wanted: ModelConfig, found: ModelConfig, names: Iterable[str], asked: Collection[str]) -> list[str]:
    """Returns which keys a user has set to something else than a model has that brings its own architecture.

    Args:
      wanted: what the config says; a default in it says nothing unless it was asked for.
      found: the architecture of the model.
      names: the keys that are compared.
      asked: the dotted keys that were asked for, as `Section.asked`.
    """
    return [
        name
        for name in names
        if getattr(wanted, name) != getattr(found, name)
        and (getattr(wanted, name) != getattr(ModelConfig(), name) or ModelConfig.path + name in asked)
    ]


# Layers, width and heads of the published sizes (Devlin et al. 2018, table 1; Turc et al. 2019, table 2).
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1_024, 16),
}


def model_config(size: str, **overrides: Any) -> ModelConfig:
    """Returns the config of a published size.

    Args:
      size: the name of the size, a key of `SIZES`.
      **overrides: the fields of `ModelConfig` that replace those of the size.

    Raises:
      UserError: there is no such size.
    """
    if size not in SIZES:
        meant = did_you_mean(size, SIZES) or ":"
        raise UserError(f"model size {size!r} is not known{meant} There are {', '.join(SIZES)}")
    layers, width, heads = SIZES[size]
    shape = dict(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width)
    return ModelConfig(**{**shape, **overrides})
