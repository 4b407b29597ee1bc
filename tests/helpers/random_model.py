"""Models with random weights, for tests that compare numbers."""

import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.interop.layout import ARCHITECTURES, Pretrained, assemble, tensors_of
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = ["the", "film", "was", "a", "good", "bad", "##ly", "##s", "actor", ".", ",", "cafe"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS, *(f"word{number}" for number in range(82))]
CONFIG = ModelConfig(
    vocab_size=99,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=40,
)


def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocabulary(VOCABULARY)


def random_model(
    config: ModelConfig = CONFIG,
    architecture: str = "BertForPreTraining",
    labels: tuple[str, ...] = (),
    problem_type: str = "",
    seed: int = 0,
) -> Pretrained:
    """Random everywhere, so that no bias or scale can hide at 0 or 1; tables as small as BERT's, so that eps counts."""
    rng = np.random.default_rng(seed)
    parts = set(ARCHITECTURES[architecture]) | ({"pooler"} if architecture == "BertModel" else set())
    arrays = {}
    for tensor in tensors_of(parts, config, len(labels)):
        deviation = 0.02 if "_embeddings" in tensor.name else 0.2
        mean = float(tensor.name.endswith("LayerNorm.weight"))
        arrays[tensor.name] = rng.normal(mean, deviation, tensor.shape).astype(np.float32)
    params = assemble("random", arrays, parts, config, len(labels), upcast=False)
    return Pretrained(params, config, labels, problem_type)
