"""From what the user calls MODEL to a model that answers."""

from bert_jax.errors import UserError
from bert_jax.inference.predictor import Model
from bert_jax.interop import huggingface
from bert_jax.text.tokenizer import Tokenizer


def load(model: str) -> Model:
    """Loads MODEL: a workdir of this project (its finished export) or a folder in Hugging Face layout.

    Raises:
      UserError: MODEL is neither, its run has not finished, or its files do not fit each other.
    """
    directory = huggingface.find(model)
    params, config = huggingface.load(directory)
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} entries, {huggingface.CONFIG_FILE} says "
            f"vocab_size={config.vocab_size}: they belong to different models"
        )
    return Model(params, config, tokenizer)
