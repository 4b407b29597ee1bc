"""Weights in Hugging Face layout, in and out: ``config.json``, ``model.safetensors`` and the tokenizer's files.

One table, `_MODULES`, pairs our names with theirs and serves both directions. No PyTorch is needed.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bert_jax.config import ModelConfig, from_config_dict
from bert_jax.errors import UserError
from bert_jax.text.tokenizer import Tokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

# Leaf names of each kind of module, ours and theirs. Their dense layers keep [out, in], ours [in, out].
_LEAVES = {
    "dense": (("kernel", "weight"), ("bias", "bias")),
    "norm": (("scale", "weight"), ("bias", "bias")),
    "table": (("embedding", "weight"),),
    "vector": (("bias", "bias"),),
}

# Ours, theirs, kind, and our shape in the letters of `_sizes`. `#` is the index of an encoder layer.
_MODULES = (
    ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings", "table", "VD"),
    ("bert/embeddings/position_embeddings", "bert.embeddings.position_embeddings", "table", "LD"),
    ("bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings", "table", "TD"),
    ("bert/embeddings/layer_norm", "bert.embeddings.LayerNorm", "norm", "D"),
    ("bert/encoder/layer_#/attention/query", "bert.encoder.layer.#.attention.self.query", "dense", "DD"),
    ("bert/encoder/layer_#/attention/key", "bert.encoder.layer.#.attention.self.key", "dense", "DD"),
    ("bert/encoder/layer_#/attention/value", "bert.encoder.layer.#.attention.self.value", "dense", "DD"),
    ("bert/encoder/layer_#/attention/output", "bert.encoder.layer.#.attention.output.dense", "dense", "DD"),
    ("bert/encoder/layer_#/attention_layer_norm", "bert.encoder.layer.#.attention.output.LayerNorm", "norm", "D"),
    ("bert/encoder/layer_#/feed_forward/inner", "bert.encoder.layer.#.intermediate.dense", "dense", "DF"),
    ("bert/encoder/layer_#/feed_forward/output", "bert.encoder.layer.#.output.dense", "dense", "FD"),
    ("bert/encoder/layer_#/output_layer_norm", "bert.encoder.layer.#.output.LayerNorm", "norm", "D"),
    ("bert/pooler/dense", "bert.pooler.dense", "dense", "DD"),
    ("masked_language_model/transform", "cls.predictions.transform.dense", "dense", "DD"),
    ("masked_language_model/layer_norm", "cls.predictions.transform.LayerNorm", "norm", "D"),
    ("masked_language_model", "cls.predictions", "vector", "V"),
    ("next_sentence", "cls.seq_relationship", "dense", "D2"),
)

# Second names of tied tensors, which some versions of transformers write besides the first.
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_BUFFERS = {"bert.embeddings.position_ids"}  # 0, 1, 2, ...: no weight, written by old versions

# Keys of config.json that change the mathematics in ways this project does not have, and the one value that it does.
# A file without the key has that value, by the defaults of transformers' BertConfig; only model_type must be there.
_FIXED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_OURS_ALONE = {"scan_layers", "remat"}  # fields of ModelConfig that say how to compute, not what


class _Tensor(NamedTuple):
    ours: tuple[str, ...]  # path in the tree of unrolled layers
    theirs: str
    shape: tuple[int, ...]  # theirs
    transposed: bool


def _tensors(config: ModelConfig) -> Iterator[_Tensor]:
    """Every tensor of ``BertForPreTraining``."""
    sizes = {
        "V": config.vocab_size,
        "L": config.max_position_embeddings,
        "T": config.type_vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "2": 2,
    }
    for ours, theirs, kind, letters in _MODULES:
        for index in range(config.num_hidden_layers) if "#" in ours else [0]:
            for our_leaf, their_leaf in _LEAVES[kind]:
                path = (*ours.replace("#", str(index)).split("/"), our_leaf)
                shape = tuple(sizes[letter] for letter in letters)
                if kind == "dense":
                    shape = shape[::-1] if our_leaf == "kernel" else shape[1:]
                name = f"{theirs.replace('#', str(index))}.{their_leaf}"
                yield _Tensor(path, name, shape, transposed=our_leaf == "kernel")


def arrange_layers(params: dict, config: ModelConfig) -> dict:
    """The same parameters with the encoder as `config.scan_layers` wants it: stacked under `layers`, or `layer_0`...

    The layers come out as NumPy arrays; a tree that is already as wanted comes back as it is.
    """
    encoder = params["bert"]["encoder"]
    if config.scan_layers == ("layers" in encoder):
        return params
    if config.scan_layers:
        layers = [encoder[f"layer_{index}"] for index in range(config.num_hidden_layers)]
        encoder = {"layers": _over_leaves(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *layers)}
    else:
        stack = _over_leaves(np.asarray, encoder["layers"])
        encoder = {
            f"layer_{index}": _over_leaves(lambda leaf, index=index: leaf[index], stack)
            for index in range(config.num_hidden_layers)
        }
    return {**params, "bert": {**params["bert"], "encoder": encoder}}


def _over_leaves(function: Any, *trees: Any) -> Any:
    if isinstance(trees[0], dict):
        return {key: _over_leaves(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def save(directory: str | os.PathLike, params: dict, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Writes a model that ``transformers``' ``from_pretrained`` and our `load` read, float32, bit for bit.

    Everything goes to a temporary folder beside `directory`, which is renamed at the end: a half-written model never
    looks finished. An older model in `directory` is replaced.

    Args:
      directory: a folder that is absent, empty, or holds a model that `save` wrote.
      params: the parameters of ``BertForPreTraining``, layers unrolled or stacked.
      config: their architecture.
      tokenizer: the one the model was trained with.

    Raises:
      UserError: `directory` holds other files, or cannot be written.
    """
    directory = Path(directory).absolute()
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had our number
        temporary.mkdir(parents=True)
        _save_tokenizer(temporary, config, tokenizer)
        (temporary / CONFIG_FILE).write_text(json.dumps(_their_config(config, tokenizer), indent=2) + "\n")
        (temporary / WEIGHTS_FILE).touch()
        _refuse_foreign_files(directory, {path.name for path in temporary.iterdir()})
        _write_weights(temporary / WEIGHTS_FILE, params, config)
        _move_into_place(temporary, directory)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory}: the model cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_tokenizer(directory: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    tokenizer.save(directory)
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    # The limit is the model's: with a larger one, transformers' truncation=True would run past the position table.
    settings["model_max_length"] = config.max_position_embeddings
    file.write_text(json.dumps(settings, indent=2) + "\n")


def _their_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in _OURS_ALONE}
    rest = {"pad_token_id": tokenizer.pad_id, "dtype": "float32"}
    return {"architectures": ["BertForPreTraining"], **_FIXED, **fields, **rest}


def _refuse_foreign_files(directory: Path, written: set[str]) -> None:
    # Replacing a folder deletes what is in it: not the user's home because of a slip.
    foreign = sorted({path.name for path in directory.iterdir()} - written) if directory.exists() else []
    if foreign:
        raise UserError(f"{directory}: holds {foreign[0]!r}, which is no part of a saved model: choose another folder")


def _write_weights(file: Path, params: dict, config: ModelConfig) -> None:
    params = arrange_layers(params, dataclasses.replace(config, scan_layers=False))
    tensors = {}
    for tensor in _tensors(config):
        leaf = params
        for key in tensor.ours:
            leaf = leaf[key]
        value = np.asarray(leaf, np.float32)
        # safetensors writes the memory as it lies, so a transposed view has to be laid out anew.
        tensors[tensor.theirs] = np.ascontiguousarray(value.T if tensor.transposed else value)
        assert tensors[tensor.theirs].shape == tensor.shape, tensor
    save_file(tensors, file, metadata={"format": "pt"})


def _move_into_place(temporary: Path, directory: Path) -> None:
    if not directory.exists():
        temporary.rename(directory)
        return
    old = temporary.with_suffix(".old")
    directory.rename(old)
    try:
        temporary.rename(directory)
    except OSError:
        old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find(model: str | os.PathLike) -> Path:
    """The folder with the weights of MODEL: a workdir of this project, or a folder in Hugging Face layout.

    Raises:
      UserError: says what was looked for.
    """
    path, weights = Path(model).expanduser(), WEIGHTS_FILE
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder: MODEL is a workdir of a finished run, or a folder in Hugging Face layout "
            f"({CONFIG_FILE}, {weights} and the tokenizer's files)"
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


def load(directory: str | os.PathLike) -> tuple[dict, ModelConfig]:
    """Reads a folder in the layout of ``BertForPreTraining``.

    Returns:
      The parameters as float32 NumPy arrays, layers unrolled (`arrange_layers` stacks them), and the architecture.

    Raises:
      UserError: a file is missing or torn; the config asks for what this project does not have; tensors are missing,
        surplus or misshapen (all are listed), or not float32.
    """
    directory = Path(directory)
    config = load_config(directory)
    file = directory / WEIGHTS_FILE
    if not file.is_file():
        raise UserError(f"{file} does not exist: a model in Hugging Face layout has its weights there")
    try:
        with safe_open(file, framework="numpy") as tensors:
            _check_tensors(file, tensors, config)
            _check_tied(file, tensors)
            params: dict = {}
            for tensor in _tensors(config):
                node = params
                for key in tensor.ours[:-1]:
                    node = node.setdefault(key, {})
                value = tensors.get_tensor(tensor.theirs)
                node[tensor.ours[-1]] = np.ascontiguousarray(value.T) if tensor.transposed else value
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as safetensors ({error}): copy or export it again") from error
    return params, config


def load_config(directory: str | os.PathLike) -> ModelConfig:
    """The architecture in DIRECTORY/config.json.

    Raises:
      UserError: names the file and the key that is wrong.
    """
    file = Path(directory) / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"{file} does not exist: a model in Hugging Face layout has its architecture there")
    try:
        theirs = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(theirs, dict):
        raise UserError(f"{file} is not a JSON object")
    for key, value in _FIXED.items():
        found = theirs.get(key, None if key == "model_type" else value)
        if found != value:
            raise UserError(f"{file}: {key} is {json.dumps(found)}, and only {json.dumps(value)} is supported")
    known = {field.name for field in dataclasses.fields(ModelConfig)} - _OURS_ALONE
    try:
        return from_config_dict(ModelConfig, {key: value for key, value in theirs.items() if key in known})
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _check_tensors(file: Path, tensors: Any, config: ModelConfig) -> None:
    expected = {tensor.theirs: tensor.shape for tensor in _tensors(config)}
    found = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (no mapping: has only keys())
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"surplus {name}" for name in sorted(found.keys() - expected.keys() - _TIED.keys() - _BUFFERS)]
    for name in expected.keys() & found.keys():
        shape, kind = tuple(found[name].get_shape()), found[name].get_dtype()
        if shape != expected[name]:
            problems.append(f"{name} is {list(shape)}, {CONFIG_FILE} wants {list(expected[name])}")
        elif kind != "F32":
            problems.append(f"{name} is {kind}, wanted F32")
    if problems:
        raise UserError(f"{file} does not hold BertForPreTraining: {'; '.join(sorted(problems))}")


def _check_tied(file: Path, tensors: Any) -> None:
    found = set(tensors.keys())
    for second, first in _TIED.items():
        if second in found and not np.array_equal(tensors.get_tensor(second), tensors.get_tensor(first)):
            raise UserError(f"{file}: {second} differs from {first}, and only a tied decoder is supported")
