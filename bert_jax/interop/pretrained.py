"""From what the user calls MODEL to weights, whoever wrote them."""

import os
from pathlib import Path

from bert_jax.errors import UserError
from bert_jax.interop import google, huggingface
from bert_jax.interop.layout import Pretrained

MODEL = (
    "MODEL is a workdir of a finished run, a folder in Hugging Face layout (config.json, model.safetensors and the "
    "tokenizer's files), or one with Google's TensorFlow checkpoint (bert_config.json, bert_model.ckpt, vocab.txt)"
)


def find(model: str | os.PathLike) -> Path:
    """The folder with the weights of MODEL.

    Raises:
      UserError: says what was looked for.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        raise UserError(f"{path} is no folder: {MODEL}")
    for directory in (path, path / "model"):
        if huggingface.has_weights(directory):
            return directory
    if google.find_checkpoint(path):
        return path
    if (path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file():
        raise UserError(
            f"{path} is the workdir of a run that has not finished: run the command that began it again with "
            f"--workdir={path}; it goes on from its last checkpoint and writes {path / 'model'} at its end"
        )
    raise UserError(f"{path} holds no model: {MODEL}")


def load(directory: Path, *, upcast: bool = False) -> Pretrained:
    """Reads the weights in a folder that `find` found; see `huggingface.load` and `google.load`."""
    if huggingface.has_weights(directory) or not google.find_checkpoint(directory):
        return huggingface.load(directory, upcast=upcast)
    return google.load(directory)
