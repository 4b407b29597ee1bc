"""From what the user calls MODEL to a model that answers."""

from pathlib import Path

from bert_jax.errors import UserError
from bert_jax.inference.predictor import Model
from bert_jax.interop import huggingface
from bert_jax.text.tokenizer import Tokenizer


def load(model: str) -> Model:
    """Loads MODEL: a workdir of this project (its finished export) or a folder in Hugging Face layout.

    Raises:
      UserError: MODEL is neither, its run has not finished, or its files do not fit each other.
    """
    directory = _find(Path(model))
    params, config = huggingface.load(directory)
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} entries, {huggingface.CONFIG_FILE} says "
            f"vocab_size={config.vocab_size}: they belong to different models"
        )
    return Model(params, config, tokenizer)


def _find(path: Path) -> Path:
    weights = huggingface.WEIGHTS_FILE
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder: MODEL is a workdir of a finished run, or a folder in Hugging Face layout "
            f"({huggingface.CONFIG_FILE}, {weights} and the tokenizer's files)"
        )
    for directory in (path, path / "model"):
        if (directory / weights).is_file():
            return directory
    if (path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file():
        raise UserError(
            f"{path} is the workdir of a run that has not finished: run the command that began it again with "
            f"--workdir={path}; it goes on from its last checkpoint and writes {path / 'model'} at its end"
        )
    raise UserError(
        f"{path} holds no model: looked for {weights} (a folder in Hugging Face layout) and for "
        f"{Path('model') / weights} (the workdir of a finished run)"
    )
