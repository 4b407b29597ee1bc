"""Reads Google's TensorFlow checkpoints of google-research/bert.

A folder holds ``bert_config.json``, ``bert_model.ckpt`` and ``vocab.txt``. TensorFlow reads them, and is needed for
nothing else: the extra `google`.
"""

import re
from pathlib import Path

import numpy as np

from bert_jax.config import ModelConfig, from_config_dict
from bert_jax.config.fields import names
from bert_jax.errors import UserError
from bert_jax.interop.layout import Pretrained, assemble, parts_in
from bert_jax.runtime.files import read_json

CONFIG_FILE = "bert_config.json"
INDEX = ".index"  # a checkpoint X is the files X.index and X.data-00000-of-00001, ...

# Where the names differ by more than their separators; what the released fine-tuning scripts write, too.
_NAMES = {
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
}
# What a bert_config.json holds: the architecture, less the two keys that are newer than it.
_FIELDS = tuple(
    name
    for name in names(ModelConfig, "weights", "regularization", "initialization")
    if name not in ("classifier_dropout", "layer_norm_eps")
)
# Of the Chinese and multilingual configs: sizes of the pooler that the released code never reads.
_UNREAD = ("directionality", "pooler_")


def find_checkpoint(directory: Path) -> Path | None:
    """Returns the checkpoint in a folder with a bert_config.json, without its suffix; None if there is none.

    Raises:
      UserError: several checkpoints are there.
    """
    if not (directory / CONFIG_FILE).is_file():
        return None
    checkpoints = sorted(path.with_suffix("") for path in directory.glob("*" + INDEX))
    if len(checkpoints) > 1:
        names = ", ".join(path.name for path in checkpoints)
        raise UserError(f"{directory} holds several checkpoints ({names}): keep one {INDEX} file there")
    return checkpoints[0] if checkpoints else None


def load(directory: Path, *, upcast: bool = False) -> Pretrained:
    """Reads body, pooler and whatever heads are there; the optimizer's variables are left out.

    "gelu" is read as the error function, as when these weights were trained; the released code has had the tanh formula
    since February 2019.

    Raises:
      UserError: TensorFlow is not installed; a file is missing or torn; tensors are missing, surplus or misshapen.
    """
    checkpoint = find_checkpoint(directory)
    if checkpoint is None:
        raise UserError(f"{directory} holds no checkpoint: looked for {CONFIG_FILE} and bert_model.ckpt{INDEX}")
    config = _read_config(directory / CONFIG_FILE)
    arrays = _read_variables(checkpoint)
    labels = len(arrays.get("classifier.bias", ()))
    parts = parts_in(checkpoint, set(arrays), "BertForSequenceClassification" if labels else "BertModel")
    params = assemble(checkpoint, arrays, parts, config, labels, upcast=upcast)
    return Pretrained(params, config, tuple(f"LABEL_{index}" for index in range(labels)))


def _read_config(file: Path) -> ModelConfig:
    settings = read_json(file)
    try:
        unknown = [key for key in settings if key not in _FIELDS and not key.startswith(_UNREAD)]
        if unknown:
            raise UserError(f"{unknown[0]} is not known")
        return from_config_dict(ModelConfig, {key: settings[key] for key in _FIELDS if key in settings})
    except UserError as error:
        raise UserError(f"{file}: {str(error).replace('model.', '')}") from error


def _read_variables(checkpoint: Path) -> dict[str, np.ndarray]:
    """Reads the variables under Hugging Face's names and in its shapes."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"{checkpoint} is a TensorFlow checkpoint, and TensorFlow is not installed: pip install tensorflow-cpu"
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(checkpoint))
        names = [name for name in reader.get_variable_to_shape_map() if _is_weight(name)]
        arrays = {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, IndexError, ValueError) as error:
        raise UserError(f"{checkpoint} cannot be read by TensorFlow: {error}") from error
    if any(name.endswith("/.ATTRIBUTES/VARIABLE_VALUE") for name in names):
        raise UserError(
            f"{checkpoint} is an object-based checkpoint of TensorFlow 2: only google-research/bert's is known"
        )
    # A dense layer's kernel is [in, out] here and [out, in] there.
    return {_huggingface_name(name): value.T if name.endswith("/kernel") else value for name, value in arrays.items()}


def _is_weight(name: str) -> bool:
    return name != "global_step" and not name.endswith(("/adam_m", "/adam_v"))


def _huggingface_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name)
    name = re.sub(r"/(kernel|gamma)$", "/weight", re.sub(r"/beta$", "/bias", name))
    return (name + "/weight" if name.endswith("_embeddings") else name).replace("/", ".")
