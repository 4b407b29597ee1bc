"""A run's folder: its config on record, so that a resumed run is the same run, and its result once it has finished."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax.config import TrainingConfig
from bert_jax.config.conversion import flattened
from bert_jax.config.fields import CHANGEABLE_ROLES, Section, keys, names
from bert_jax.errors import UserError
from bert_jax.runtime.files import write_whole
from bert_jax.training.result import RunResult

CONFIG_FILE = "config.json"  # written when a run begins
FINISHED_FILE = "finished.json"  # written at its end: the config, the metrics and the seconds
MADE = ("tokenizer", "corpus", "checkpoints")  # as long as none of these is there, any key may change


def changeable(section: type[Section]) -> tuple[str, ...]:
    """Returns the keys that may change when a run goes on: how long, how it is watched, where it runs."""
    return names(section, *CHANGEABLE_ROLES)


def claim(workdir: Path, config: TrainingConfig) -> None:
    """Makes the folder and writes WORKDIR/config.json, or checks that the run in it has the same config.

    Raises:
      UserError: the folder cannot be written to, or it holds a run whose config differs; names each key.
    """
    path = workdir / CONFIG_FILE
    values = dataclasses.asdict(config)
    try:
        if path.exists() and any((workdir / name).exists() for name in MADE):
            before = _with_defaults(config, json.loads(path.read_text()))
            _check_same_run(workdir, before, flattened(values), changeable(type(config)))
        write_whole(path, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error.strerror}): give another --workdir") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): give another --workdir") from error


def finish(workdir: Path, config: TrainingConfig, result: RunResult) -> None:
    """Writes WORKDIR/finished.json, by which `finished` knows that a run is complete."""
    values = {"config": dataclasses.asdict(config), "metrics": result.metrics, "seconds": result.seconds}
    write_whole(workdir / FINISHED_FILE, json.dumps(values, indent=2) + "\n")


def finished(workdir: Path, config: TrainingConfig) -> RunResult | None:
    """Returns the result of the run in a folder if it has this config and is complete, else None.

    A run that was begun since in the same folder, such as a longer one, makes the result stale.
    """
    try:
        begun, record = (json.loads((workdir / name).read_text()) for name in (CONFIG_FILE, FINISHED_FILE))
        configs = [_with_defaults(config, values) for values in (begun, record["config"])]
    except (OSError, ValueError, KeyError):
        return None
    if any(values != flattened(dataclasses.asdict(config)) for values in configs):
        return None
    return RunResult(record["metrics"], workdir / "model", record["seconds"])


def _with_defaults(config: TrainingConfig, recorded: dict[str, Any]) -> dict[str, Any]:
    """Returns recorded values by dotted key; a key that an older version did not have was what its default is."""
    return {key.name: key.default for key in keys(type(config))} | flattened(recorded)


def _check_same_run(workdir: Path, before: dict, now: dict, may_change: tuple[str, ...]) -> None:
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in may_change]
    if changed:
        differences = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise UserError(f"{workdir} holds a run with another config ({differences}): give another --workdir")
