"""Keeps the config of a run in its folder, so that a resumed run is the same run, and its result at the end."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax.config import TrainingConfig, from_config_dict
from bert_jax.config.conversion import flattened
from bert_jax.config.fields import CHANGEABLE_ROLES, Section, names
from bert_jax.errors import UserError
from bert_jax.runtime.files import claim, parse_json, write_whole
from bert_jax.training.result import RunResult

CONFIG_FILE = "config.json"  # written when a run begins
FINISHED_FILE = "finished.json"  # written at its end: the config, the metrics and the seconds
METRICS_FILE = "metrics.jsonl"
# All that a run of any kind, or of several seeds, writes in its folder, the folders of seeds excepted.
NAMES = (
    *(CONFIG_FILE, FINISHED_FILE, METRICS_FILE, "tokenizer", "corpus", "checkpoints", "tensorboard", "profile"),
    *("model", "scores.json", "predictions", "submission"),
)
RUN_FOLDERS = ("tokenizer", "corpus", "checkpoints")  # as long as a run has none of these, any key may change


def changeable(section: type[Section]) -> tuple[str, ...]:
    """Returns the keys that may change when a run goes on: its length, how it is watched, and where it computes."""
    return names(section, *CHANGEABLE_ROLES)


def register_run(config: TrainingConfig, workdir: Path) -> None:
    """Makes the folder and writes WORKDIR/config.json, or checks that the run in it has the same config.

    Raises:
      UserError: the folder cannot be written to, holds a run whose config differs (names each key), or files of others
        by the names of `NAMES`.
    """
    path = workdir / CONFIG_FILE
    try:
        claim(workdir, NAMES, known=_is_record(path))
        if path.exists() and any((workdir / name).exists() for name in RUN_FOLDERS):
            _check_same_run(workdir, _recorded_config(config, workdir, json.loads(path.read_text())), config)
        write_whole(path, json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error.strerror}): give another --workdir") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): give another --workdir") from error


def finish(config: TrainingConfig, workdir: Path, result: RunResult) -> None:
    """Writes WORKDIR/finished.json, by which `finished` knows that a run is complete."""
    values = {"config": dataclasses.asdict(config), "metrics": result.metrics, "seconds": result.seconds}
    write_whole(workdir / FINISHED_FILE, json.dumps(values, indent=2) + "\n")


def finished(config: TrainingConfig, workdir: Path) -> RunResult | None:
    """Returns the result of the run in a folder if it has this config and is complete, else None.

    A run that was begun since in the same folder, such as a longer one, makes the result stale.
    """
    try:
        begun, record = (json.loads((workdir / name).read_text()) for name in (CONFIG_FILE, FINISHED_FILE))
        if any(_recorded_config(config, workdir, values) != config for values in (begun, record["config"])):
            return None
    except (OSError, ValueError, KeyError, UserError):
        return None
    return RunResult(record["metrics"], workdir / "model", record["seconds"])


def _is_record(path: Path) -> bool:
    """Says whether a config.json is that of a run; models have files of this name, too."""
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return {"batch_size", "optimizer", "schedule"} <= set(values)


def _recorded_config(config: TrainingConfig, workdir: Path, recorded: dict[str, Any]) -> TrainingConfig:
    """Returns the config of a run from its record; a key that an older version did not have was what its default is.

    Raises:
      UserError: this version does not have such a key, or not such a value.
    """
    try:
        return from_config_dict(type(config), recorded)
    except UserError as error:
        raise UserError(f"{workdir} holds a run of another version ({error}): give another --workdir") from error


def _check_same_run(workdir: Path, recorded: TrainingConfig, config: TrainingConfig) -> None:
    before, now = (flattened(dataclasses.asdict(values)) for values in (recorded, config))
    may_change = changeable(type(config))
    changed = [key for key in sorted(now) if before[key] != now[key] and key not in may_change]
    if changed:
        differences = ", ".join(f"{key} was {before[key]!r} and is {now[key]!r}" for key in changed)
        raise UserError(f"{workdir} holds a run with another config ({differences}): give another --workdir")
