"""A run's folder: its config on record, so that a resumed run is the same run."""

import dataclasses
import json
from pathlib import Path

from bert_jax.config import TrainingConfig
from bert_jax.errors import UserError
from bert_jax.runtime.files import write_whole

# What may change when a run goes on: how long, how it is watched, where it runs. Anything else is another run.
CHANGEABLE = {
    "total_steps",
    "total_epochs",
    "total_tokens",
    "total_minutes",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "tensorboard",
    "mesh.data",
    "data.errors",
}
MADE = ("tokenizer", "corpus", "checkpoints")  # as long as none of these is there, any key may change


def claim(workdir: Path, config: TrainingConfig) -> None:
    """Makes the folder and writes WORKDIR/config.json, or checks that the run in it has the same config.

    Raises:
      UserError: the folder cannot be written to, or it holds a run whose config differs; names each key.
    """
    path = workdir / "config.json"
    values = dataclasses.asdict(config)
    try:
        if path.exists() and any((workdir / name).exists() for name in MADE):
            # A key that an older version did not have was what its default is.
            _check_same_run(workdir, _flat(_defaults(config)) | _flat(json.loads(path.read_text())), _flat(values))
        write_whole(path, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error.strerror}): give another --workdir") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): give another --workdir") from error


def _check_same_run(workdir: Path, before: dict, now: dict) -> None:
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in CHANGEABLE]
    if changed:
        differences = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise UserError(f"{workdir} holds a run with another config ({differences}): give another --workdir")


def _defaults(config: TrainingConfig) -> dict:
    found = {field.name: field.default for field in dataclasses.fields(config)}
    return {
        key: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value for key, value in found.items()
    }


def _flat(values: dict, prefix: str = "") -> dict:
    result = {}
    for key, value in values.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result
