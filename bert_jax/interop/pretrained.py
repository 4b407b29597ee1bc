"""Reads what the user calls MODEL, whoever wrote it."""

import dataclasses
import os
import warnings
from pathlib import Path

from bert_jax.errors import UserError
from bert_jax.interop import google, huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.model.parameters import body, embeddings, with_body
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizer_files import file_of

MOST_PADDING = 1_024  # rows of the word embeddings without a token; more are a vocabulary of another model

MODEL = (
    "MODEL is a workdir of a finished run, a folder in Hugging Face layout (config.json, model.safetensors and the "
    "tokenizer's files), or one with Google's TensorFlow checkpoint (bert_config.json, bert_model.ckpt, vocab.txt)"
)


def resolve(model: str | os.PathLike) -> Path:
    """Returns the folder with the weights of MODEL.

    Raises:
      UserError: says what was looked for.
    """
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        raise UserError(f"no MODEL is given, but {model!r}: {MODEL}")
    path = Path(model).expanduser()
    if not path.is_dir():
        what = "a file and no folder" if path.is_file() else "no folder (nothing is downloaded by name)"
        raise UserError(f"{path} is {what}: {MODEL}")
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
        raise UserError(
            f"{path} has a {huggingface.CONFIG_FILE} and no weights: looked for {', '.join(huggingface.WEIGHTS_FILES)}"
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
    check_vocabulary(directory, loaded, tokenizer)
    return loaded, tokenizer


def check_vocabulary(directory: Path, model: Pretrained, tokenizer: Tokenizer) -> None:
    """Says how many ids of the embeddings have no token: as many tables are padded, to a multiple of 8 or 64.

    Raises:
      UserError: a token has an id that the embeddings do not have, or so many ids have no token that the vocabulary is
        that of another model.
    """
    file, rows = file_of(directory), model.config.vocab_size
    sizes = f"{file} has ids up to {tokenizer.vocab_size - 1:,}, and the word embeddings of {directory} {rows:,} rows"
    if tokenizer.vocab_size > rows or rows - tokenizer.vocab_size >= MOST_PADDING:
        raise UserError(f"{sizes} (vocab_size): give the vocabulary that the model was trained with")
    if tokenizer.vocab_size < rows:
        warnings.warn(f"{sizes}: ids without a token are taken for padding, and never predicted", stacklevel=3)


def without_padding(model: Pretrained, tokenizer: Tokenizer) -> Pretrained:
    """Returns the model with as many word embeddings as the vocabulary has ids, for pre-training on all of them."""
    size, params = tokenizer.vocab_size, model.params
    tables = embeddings(params)
    word_embeddings = {"embedding": tables["word_embeddings"]["embedding"][:size]}
    params = with_body(params, {**body(params), "embeddings": {**tables, "word_embeddings": word_embeddings}})
    if head := params.get("masked_language_model"):
        params["masked_language_model"] = {**head, "bias": head["bias"][:size]}
    return dataclasses.replace(model, params=params, config=dataclasses.replace(model.config, vocab_size=size))
