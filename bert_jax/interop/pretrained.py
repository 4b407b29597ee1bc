"""Reads what the user calls MODEL, whoever wrote it."""

import os
from pathlib import Path

from bert_jax.errors import UserError
from bert_jax.interop import google, huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.text.tokenizer import Tokenizer

MODEL = (
    "MODEL is a workdir of a finished run, a folder in Hugging Face layout (config.json, model.safetensors and the "
    "tokenizer's files), or one with Google's TensorFlow checkpoint (bert_config.json, bert_model.ckpt, vocab.txt)"
)


def resolve(model: str | os.PathLike) -> Path:
    """Returns the folder with the weights of MODEL.

    Raises:
      UserError: says what was looked for.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        raise UserError(f"{path} is no folder (nothing is downloaded by name): {MODEL}")
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
    if (path / huggingface.CONFIG_FILE).is_file():
        sharded = "; sharded weights are not read" if any(path.glob("*.index.json")) else ""
        raise UserError(
            f"{path} has a {huggingface.CONFIG_FILE} and no weights: looked for {huggingface.WEIGHTS_FILE} and "
            f"{huggingface.PICKLE_FILE}{sharded}"
        )
    raise UserError(f"{path} holds no model: {MODEL}")


def load_weights(directory: Path, *, upcast: bool = False) -> Pretrained:
    """Reads the weights in a folder that `resolve` gave; see `huggingface.load` and `google.load`."""
    if huggingface.has_weights(directory) or not google.find_checkpoint(directory):
        return huggingface.load(directory, upcast=upcast)
    return google.load(directory, upcast=upcast)


def load_pretrained(model: str | os.PathLike, *, upcast: bool = False) -> tuple[Pretrained, Tokenizer]:
    """Reads weights and tokenizer of MODEL.

    Args:
      model: the path.
      upcast: whether float16 and bfloat16 weights are read as well.

    Raises:
      UserError: MODEL is none, its run has not finished, or its files do not fit each other.
    """
    directory = resolve(model)
    loaded, tokenizer = load_weights(directory, upcast=upcast), Tokenizer.load(directory)
    if tokenizer.vocab_size != loaded.config.vocab_size:
        raise UserError(
            f"{directory}: the vocabulary has {tokenizer.vocab_size} entries and the word embeddings "
            f"{loaded.config.vocab_size} (vocab_size): give the vocabulary that the model was trained with; if the "
            "embeddings were padded, append as many lines such as [unused1000] to vocab.txt"
        )
    return loaded, tokenizer
