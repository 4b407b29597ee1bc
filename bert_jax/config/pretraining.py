"""Declares the keys of a pre-training run."""

import dataclasses

from bert_jax.config.data import DataConfig
from bert_jax.config.fields import option
from bert_jax.config.model import ModelConfig
from bert_jax.config.training import TrainingConfig
from bert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    """Describes a pre-training run."""

    init_from: str = option(
        "", role="initialization", help="MODEL whose weights the run starts from; empty starts from random weights"
    )
    initial_attention: str = option(
        "random",
        choices=("random", "neighbours"),
        role="initialization",
        help="with neighbours, the first heads start out attending to the words beside each word",
    )
    initial_embeddings: str = option(
        "random",
        choices=("random", "counted"),
        role="initialization",
        help="with counted, word embeddings start out from which words stand near which in the corpus",
    )
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("initial_attention", "initial_embeddings"):
            if self.init_from and getattr(self, name) != "random":
                raise UserError(f"{name} is for random weights: with init_from, leave it at random")
