"""BERT in JAX and Flax, from raw text to predictions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert_jax.inference.model import Model


def load(model: str, dtype: str = "float32") -> "Model":
    """A trained model that answers.

    Args:
      model: MODEL, a workdir of this project, a folder in Hugging Face layout or one with Google's TensorFlow
        checkpoint.
      dtype: in which it computes: "float32", or "bfloat16", which most devices do faster, to about two digits; "int8"
        is bfloat16 with the matrices kept in eight bits, a quarter of the device's memory.

    Raises:
      UserError: nothing usable is there, the message says what was looked for; or another dtype.
    """
    # Imported here and not above: worker processes import bert_jax.text, and so this file, and must not start JAX.
    from bert_jax.inference.model import Model
    from bert_jax.interop.pretrained import load_pretrained

    return Model(*load_pretrained(model), dtype)
