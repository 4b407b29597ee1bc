"""Reads the files that hold weights: safetensors, whole or in shards, and PyTorch's tensors."""

import json
from collections import defaultdict
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches NumPy the name "bfloat16")
import numpy as np
from safetensors import SafetensorError, safe_open

from bert_jax.errors import UserError
from bert_jax.runtime.files import read_json

WEIGHTS_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
INDEX_FILE, PICKLE_INDEX_FILE = (f"{name}.index.json" for name in (WEIGHTS_FILE, PICKLE_FILE))  # name shards


def weights_file(directory: Path) -> Path | None:
    """Returns the file in a folder that `read_weights` reads, or None."""
    return next((directory / name for name in _READERS if (directory / name).is_file()), None)


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file that `weights_file` gave, by their names in it.

    Raises:
      UserError: it is torn, damaged or incomplete, or holds something else; names the file.
    """
    return _READERS[file.name](file)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    with file.open("rb") as start:
        if start.read(24) == b"version https://git-lfs.":
            raise UserError(
                f"{file} is a pointer of Git LFS and not the weights: run `git lfs pull` where it was cloned"
            )
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (has only keys())
    except (OSError, SafetensorError, AttributeError, TypeError) as error:  # the last two: types NumPy does not know
        raise UserError(f"{file} cannot be read as safetensors ({error}): copy or export it again") from error


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index} names no shards: weight_map, an object with the file of each tensor, is wanted")
    names: dict[str, list[str]] = defaultdict(list)
    for name, shard in shards.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise UserError(f"{index}: the shard of {name} is {json.dumps(shard)}, and a file beside it is wanted")
        names[shard].append(name)
    arrays = {}
    for shard, wanted in names.items():
        file = index.with_name(shard)
        if not file.is_file():
            raise UserError(f"{file} does not exist, which {index.name} names for {wanted[0]}: copy all shards")
        found = (_read_safetensors if index.name == INDEX_FILE else _read_pickle)(file)
        if missing := [name for name in wanted if name not in found]:
            raise UserError(f"{file} lacks {missing[0]}, which {index.name} says is there: copy all shards again")
        arrays.update(found)
    return arrays


def _read_pickle(file: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{file} is a pickle, which needs PyTorch to be read: pip install torch") from error
    try:
        # Nothing but tensors is unpickled: a pickle could run any program.
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler stumbles over in a file that is something else
        raise UserError(
            f"{file} is not a file of PyTorch weights ({type(error).__name__}): it is torn, or holds more than "
            "tensors; copy it again, or save the model's state_dict as safetensors"
        ) from error
    if not isinstance(tensors, dict):
        raise UserError(f"{file} is not a file of PyTorch weights: it holds a {type(tensors).__name__}, not names")
    arrays = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(f"{file} is not a file of PyTorch weights: {name} is no tensor with a name")
        try:
            value = value.detach()
            is_bfloat16 = value.dtype == torch.bfloat16
            arrays[name] = value.view(torch.int16).numpy().view("bfloat16") if is_bfloat16 else value.numpy()
        except (TypeError, RuntimeError) as error:
            raise UserError(
                f"{file}: {name} is {value.dtype}, {value.layout}: a dense float32 tensor is wanted"
            ) from error
    return arrays


_READERS = {
    WEIGHTS_FILE: _read_safetensors,
    INDEX_FILE: _read_shards,
    PICKLE_FILE: _read_pickle,
    PICKLE_INDEX_FILE: _read_shards,
}
WEIGHTS_FILES = tuple(_READERS)
