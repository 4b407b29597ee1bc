"""Reads and writes models in Hugging Face layout: ``config.json``, the weights and the tokenizer's files.

Weights are read by `weight_files`, and are written as safetensors.
"""

import collections
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from bert_jax.config import HeadSettings, ModelConfig, from_config_dict
from bert_jax.config.fields import names
from bert_jax.errors import UserError
from bert_jax.interop.layout import (
    ARCHITECTURES,
    LABELLED,
    TIED,
    Pretrained,
    assemble,
    disassemble,
    parts_in,
)
from bert_jax.interop.weight_files import WEIGHTS_FILE, WEIGHTS_FILES, read_weights, weights_file
from bert_jax.model.parameters import POOLER, part_names, without_pooler
from bert_jax.runtime.files import MARK, claim, made, read_json, refuse_foreign, temporary_folder
from bert_jax.text.tokenizer import Tokenizer

CONFIG_FILE = "config.json"

# Keys of config.json that change the mathematics in ways this project does not have, and the one value that it does.
# A file without the key has that value, by the defaults of transformers' BertConfig.
_FIXED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_EMPTY = {"pruned_heads": {}, "auto_map": None}  # the same, not written; auto_map names Python code of the file's own
# Fields of ModelConfig that say how to compute, not what.
_COMPUTATION_FIELDS = names(ModelConfig, "computation")
MOST_LABELS = 1_000_000
_SETTINGS_KEY = "bert_jax"  # holds the settings of a head; transformers passes over it
_PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


# ---- reading -------------------------------------------------------------------------------------


def has_weights(directory: Path) -> bool:
    """Says whether a folder holds weights that `load` reads."""
    return weights_file(directory) is not None


def load(directory: str | os.PathLike, *, upcast: bool = False) -> Pretrained:
    """Reads a folder in Hugging Face layout, of any of `ARCHITECTURES`.

    Args:
      directory: the folder with config.json and one of `WEIGHTS_FILES`.
      upcast: whether float16 and bfloat16 weights are read as well.

    Returns:
      The model, its layers unrolled (`layout.arrange_layers` stacks them).

    Raises:
      UserError: a file is missing or torn; the config asks for what this project does not have; tensors are missing,
        surplus or misshapen (all are listed), or not float32.
    """
    directory, config_file = Path(directory), Path(directory) / CONFIG_FILE
    settings = _read_settings(config_file)
    config = _read_architecture(config_file, settings)
    architecture = _architecture(config_file, settings)
    labels, problem_type = _labels(config_file, settings)
    file = weights_file(directory)
    if file is None:
        raise UserError(
            f"{directory / WEIGHTS_FILE} does not exist, nor does {' or '.join(WEIGHTS_FILES[1:])}: a model in Hugging "
            "Face layout has its weights there"
        )
    arrays = _canonical(file, read_weights(file))
    parts = parts_in(file, set(arrays), architecture)
    params = assemble(file, arrays, parts, config, len(labels), upcast=upcast)
    if not parts.intersection(LABELLED):
        labels, problem_type = (), ""
    if twice := [label for label, count in collections.Counter(labels).items() if count > 1]:
        raise UserError(
            f"{config_file}: two classes are called {twice[0]!r} in id2label: give each class a name of its own there"
        )
    return Pretrained(params, config, labels, problem_type, _head_settings(config_file, settings))


def _read_architecture(file: Path, settings: dict[str, Any]) -> ModelConfig:
    for key, value in (_FIXED | _EMPTY).items():
        given = settings.get(key)
        if given not in (None, value):
            raise UserError(f"{file}: {key} is {json.dumps(given)}, and only {json.dumps(value)} is supported")
    known = {field.name for field in dataclasses.fields(ModelConfig)}.difference(_COMPUTATION_FIELDS)
    try:
        return from_config_dict(ModelConfig, {key: value for key, value in settings.items() if key in known})
    except UserError as error:
        raise UserError(f"{file}: {str(error).replace('model.', '')}") from error


def _read_settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file} does not exist: a model in Hugging Face layout has its architecture there")
    return read_json(file)


def _architecture(file: Path, settings: dict[str, Any]) -> str | None:
    names = settings.get("architectures")
    if not names:
        return None
    if not isinstance(names, list) or names[0] not in list(ARCHITECTURES):
        raise UserError(
            f'{file}: architectures is {json.dumps(names)}, and only ["NAME"] is known, where NAME is one of '
            f"{', '.join(ARCHITECTURES)}; BertModel takes the body alone"
        )
    return names[0]


def _labels(file: Path, settings: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Returns the names of the classes, by transformers' rules where the file is silent, and the type of problem."""
    count = settings.get("num_labels", 2)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_LABELS:
        raise UserError(f"{file}: num_labels is {json.dumps(count)}, and a number from 1 to {MOST_LABELS:,} is wanted")
    names = settings.get("id2label") or {str(index): f"LABEL_{index}" for index in range(count)}
    try:
        labels = tuple(str(names[str(index)]) for index in range(len(names)))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: id2label must name the classes 0, 1, 2, ..., found {names!r:.200}") from error
    if None in names.values():
        raise UserError(f"{file}: a class is null in id2label: give each class a name of its own there")
    problem_type = settings.get("problem_type") or ""
    if problem_type not in ("", *_PROBLEM_TYPES):
        raise UserError(f"{file}: problem_type is {problem_type!r}, and only {', '.join(_PROBLEM_TYPES)} are known")
    return labels, problem_type


def _head_settings(file: Path, settings: dict[str, Any]) -> HeadSettings:
    try:
        return from_config_dict(HeadSettings, settings.get(_SETTINGS_KEY, {}), f"{_SETTINGS_KEY}.")
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{file}: {error}") from error


def _canonical(file: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames arrays to today's names: with "bert.", and LayerNorm's gamma and beta as weight and bias."""
    renamed = {}
    for name, value in arrays.items():
        new = f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
        if "LayerNorm." in new:
            new = new.replace(".gamma", ".weight").replace(".beta", ".bias")
        if new in renamed:
            raise UserError(f"{file} holds {new} twice, under an old and a new name")
        renamed[new] = value
    for second, first in TIED.items():
        if second in renamed and first not in renamed:  # saved under the second name alone
            renamed[first] = renamed.pop(second)
    return renamed


# ---- writing -------------------------------------------------------------------------------------


def save(directory: str | os.PathLike, model: Pretrained, tokenizer: Tokenizer) -> None:
    """Writes a model that ``transformers``' ``from_pretrained`` and `load` read, float32, bit for bit.

    Everything goes to a temporary folder beside `directory`, which is renamed at the end: a half-written model never
    looks finished. An older model in `directory` is replaced.

    Args:
      directory: the folder, which is absent, empty, or holds a model that `save` wrote; other files in it stay.
      model: the model, its layers unrolled or stacked.
      tokenizer: the tokenizer that the model was trained with.

    Raises:
      UserError: `directory` holds other files, or cannot be written; or no class of Hugging Face has these heads.
    """
    if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
        raise UserError(f"a folder is wanted to save the model in, not {directory!r}")
    directory = Path(directory).expanduser().resolve()
    model, architecture = _transformers_class(model)
    settings = _transformers_config(model, architecture, tokenizer)
    try:
        with temporary_folder(directory) as temporary:
            _save_tokenizer(temporary, model.config, tokenizer)
            (temporary / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")
            (temporary / WEIGHTS_FILE).touch()
            mode = (temporary / WEIGHTS_FILE).stat().st_mode
            claim(temporary, "model", {path.name for path in temporary.iterdir()} - {MARK}, known=True)
            _refuse_foreign_files(directory, {path.name for path in temporary.iterdir()})
            save_file(disassemble(model), temporary / WEIGHTS_FILE, metadata={"format": "pt"})
            (temporary / WEIGHTS_FILE).chmod(mode)  # safetensors makes it the user's alone
            _move_into_place(temporary, directory)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory}: the model cannot be written: {error}") from error


def _save_tokenizer(directory: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    tokenizer.save(directory)
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    # The limit is the model's: with a larger one, transformers' truncation=True would run past the position table.
    settings["model_max_length"] = config.max_position_embeddings
    file.write_text(json.dumps(settings, indent=2) + "\n")


def _transformers_class(model: Pretrained) -> tuple[Pretrained, str]:
    """Returns the model as one of transformers' classes has it, and that class; some have no pooler."""
    heads = part_names(model.params) - {POOLER}
    names = [name for name, parts in ARCHITECTURES.items() if set(parts) - {POOLER} == heads]
    if not names:
        raise UserError(f"no class of Hugging Face holds {' and '.join(sorted(heads))}: save one head of fine-tuning")
    if len(set(model.labels)) < len(model.labels):
        raise UserError(f"two labels have the same name: {', '.join(model.labels)}")
    if heads and POOLER not in ARCHITECTURES[names[0]]:
        model = dataclasses.replace(model, params=without_pooler(model.params))
    return model, names[0]


def _transformers_config(model: Pretrained, architecture: str, tokenizer: Tokenizer) -> dict[str, Any]:
    fields = {
        name: value for name, value in dataclasses.asdict(model.config).items() if name not in _COMPUTATION_FIELDS
    }
    settings = {
        "architectures": [architecture],
        **_FIXED,
        **fields,
        "pad_token_id": tokenizer.pad_id,
        "dtype": "float32",
    }
    if model.labels:
        settings["id2label"] = {str(index): label for index, label in enumerate(model.labels)}
        settings["label2id"] = {label: index for index, label in enumerate(model.labels)}
    if model.problem_type:
        settings["problem_type"] = model.problem_type
    if model.settings != HeadSettings():
        settings[_SETTINGS_KEY] = dataclasses.asdict(model.settings)
    return settings


def _refuse_foreign_files(directory: Path, written: set[str]) -> None:
    # Replacing a folder deletes what is in it: not the user's home because of a slip.
    known = bool(made(directory, "model")) or directory.name in made(directory.parent)
    foreign = sorted({path.name for path in directory.iterdir()} - written) if directory.exists() else []
    if foreign and not known:
        raise UserError(f"{directory}: holds {foreign[0]!r}, which is no part of a saved model: choose another folder")
    refuse_foreign(directory, "model", written - {MARK}, known=directory.name in made(directory.parent))


def _move_into_place(temporary: Path, directory: Path) -> None:
    if not directory.exists():
        temporary.rename(directory)
        return
    with temporary_folder(directory) as aside:
        ours = made(directory) | {path.name for path in temporary.iterdir()}
        directory.rename(aside / "old")
        for path in (aside / "old").iterdir():
            if path.name not in ours:  # a note of the user's, or of the file manager's
                path.rename(temporary / path.name)
        try:
            temporary.rename(directory)
        except OSError:
            (aside / "old").rename(directory)
            raise
