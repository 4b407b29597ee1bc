"""BERT in JAX and Flax, from raw text to predictions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert_jax.inference.predictor import Model


def load(model: str) -> "Model":
    """A trained model that answers: MODEL is a workdir of this project, a folder in Hugging Face layout or one
    with Google's TensorFlow checkpoint.

    Raises:
      UserError: nothing usable is there; the message says what was looked for.
    """
    # Imported here and not above: worker processes import bert_jax.text, and so this file, and must not start JAX.
    from bert_jax.inference.predictor import Model
    from bert_jax.interop.pretrained import read

    return Model(*read(model))
