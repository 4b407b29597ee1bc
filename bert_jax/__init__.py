"""BERT in JAX and Flax, from raw text to predictions."""

import os
from typing import TYPE_CHECKING, Any

from bert_jax.errors import UserError

if TYPE_CHECKING:
    from bert_jax.inference.model import Model

__all__ = ["Model", "UserError", "load"]


def load(model: str | os.PathLike, dtype: str = "float32") -> "Model":
    """Loads a trained model, which then answers.

    Args:
      model: the workdir of a finished run, or a folder in Hugging Face layout or with Google's TensorFlow
        checkpoint.
      dtype: the type of the computation: "float32", or "bfloat16", which most devices do faster, to about two digits;
        "int8" is bfloat16 with the matrices kept in eight bits, a quarter of the device's memory.

    Returns:
      The model, with the methods of all heads that it has.

    Raises:
      UserError: nothing usable is there (the message says what was looked for), or the dtype is not known.
    """
    # Imported here and not above: worker processes import bert_jax.text, and so this file, and must not start JAX.
    from bert_jax.inference.model import Model
    from bert_jax.interop.pretrained import load_pretrained

    return Model(*load_pretrained(model), dtype)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # imported here: worker processes do without

        return version("bert_jax")
    if name == "Model":
        from bert_jax.inference.model import Model  # imported here, as in `load`

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
