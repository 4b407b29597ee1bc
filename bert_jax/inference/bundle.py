"""From what the user calls MODEL to a model that answers."""

from bert_jax.errors import UserError
from bert_jax.inference.predictor import Model
from bert_jax.interop import pretrained
from bert_jax.interop.layout import Pretrained
from bert_jax.text.tokenizer import Tokenizer


def load(model: str) -> Model:
    """A model that answers; see `read`."""
    return Model(*read(model))


def read(model: str, *, upcast: bool = False) -> tuple[Pretrained, Tokenizer]:
    """Reads MODEL: a workdir of this project, a folder in Hugging Face layout, or Google's TensorFlow checkpoint.

    Args:
      model: a path.
      upcast: take float16 and bfloat16 weights as well.

    Raises:
      UserError: MODEL is none of them, its run has not finished, or its files do not fit each other.
    """
    directory = pretrained.find(model)
    loaded = pretrained.load(directory, upcast=upcast)
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size != loaded.config.vocab_size:
        raise UserError(
            f"{directory}: the vocabulary of the tokenizer has {tokenizer.vocab_size} entries and the word embeddings "
            f"{loaded.config.vocab_size} (vocab_size): they belong to different models, or one has been padded"
        )
    return loaded, tokenizer
