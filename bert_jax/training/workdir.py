"""Keeps the config of a run in its folder, so that a resumed run is the same run, and its result at the end."""

import contextlib
import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import OptimizerConfig, ScheduleConfig, TrainingConfig, from_config_dict
from bert_jax.config.conversion import flattened
from bert_jax.config.fields import CHANGEABLE_ROLES, Section, names
from bert_jax.errors import NotFiniteError, UserError
from bert_jax.runtime.files import claim, parse_json, read_json, refuse_foreign, to_json, write_whole
from bert_jax.runtime.locks import locked
from bert_jax.training.result import RunResult

CONFIG_FILE = "config.json"  # written when a run begins
FINISHED_FILE = "finished.json"  # written at its end: the config, the metrics and the seconds
DIVERGED_FILE = "diverged.json"  # written when its numbers are no longer finite: why
METRICS_FILE = "metrics.jsonl"
# What a run of any kind, or of several seeds, may replace in its folder. Its tokenizer and corpus it only reads, once
# they are there: whoever makes them claims them.
NAMES = (
    *(CONFIG_FILE, FINISHED_FILE, DIVERGED_FILE, METRICS_FILE, "checkpoints", "tensorboard", "profile"),
    *("model", "scores.json", "predictions", "submission"),
)
PREPARED_FOLDERS = ("tokenizer", "corpus")  # what a run makes before its first step

Prepared = Callable[[Any], dict[str, Any]]  # from a config to all that `PREPARED_FOLDERS` follow from, by key


def changeable(section: type[Section]) -> tuple[str, ...]:
    """Returns the keys that may change when a run goes on: its length, how it is watched, and where it computes."""
    return names(section, *CHANGEABLE_ROLES)


@contextlib.contextmanager
def entered(
    config: TrainingConfig, workdir: Path, prepared: Prepared = lambda config: {}, *, alone: bool = True
) -> Iterator[Callable[[], None]]:
    """Has the folder for the one run in the block; see `register_run`.

    Args:
      config: the config of the run.
      workdir: its folder.
      prepared: as `register_run` takes it.
      alone: whether this process keeps others out; of several that compute together, one does.

    Yields:
      The function that raises UserError when the folder is no longer there, see `check_there`.

    Raises:
      UserError: another run is in the folder, or as `register_run`.
    """
    with contextlib.ExitStack() as stack:
        try:
            _check_kinds(workdir)
            refuse_foreign(workdir, "run", NAMES, known=_is_record(workdir / CONFIG_FILE))
            if alone:
                stack.enter_context(locked(workdir, "--workdir"))
        except OSError as error:
            raise UserError(f"cannot write to {workdir} ({error.strerror}): give another --workdir") from error
        register_run(config, workdir, prepared)
        yield functools.partial(check_there, workdir, os.stat(workdir))


def _check_kinds(workdir: Path) -> None:
    """Raises UserError for what has the name of a file of a run and is none, or of a folder: it would be in the way."""
    for name in (*NAMES, *PREPARED_FOLDERS):
        path, is_file = workdir / name, "." in name
        if path.exists() and not (path.is_file() if is_file else path.is_dir()):
            raise UserError(f"{path} is no {'file' if is_file else 'folder'}: move it away, or give another --workdir")


def check_there(folder: Path, opened: os.stat_result | None = None) -> None:
    """Raises UserError if a folder is gone, or is not the one that was opened: nothing should be written to another."""
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        found = None
    if found is None or not os.path.samestat(found, opened or found):
        raise UserError(
            f"{folder} was removed or replaced while the run was in it: nothing more of it is kept; run the same "
            "command to begin again"
        )


def register_run(config: TrainingConfig, workdir: Path, prepared: Prepared = lambda config: {}) -> None:
    """Makes the folder and writes WORKDIR/config.json, or checks that the run in it has the same config.

    Before its first checkpoint a run may go on with any other config of which `prepared` is the same; after it has
    diverged, with another optimizer and schedule, which is said.

    Raises:
      UserError: the folder cannot be written to, holds a run whose config differs (names each key), or files of others
        by the names of `NAMES`.
    """
    path = workdir / CONFIG_FILE
    try:
        claim(workdir, "run", NAMES, known=_is_record(path))
        trained = any(name.isdecimal() for name in _listed(workdir / "checkpoints"))
        folders = [workdir / name for name in PREPARED_FOLDERS if (workdir / name).exists()]
        if path.exists() and (trained or folders):
            recorded = _recorded_config(config, workdir, _read(path))
            if trained:
                _check_same_run(workdir, recorded, config)
            else:
                _check_same_preparation(folders, recorded, config, prepared)
        write_whole(path, to_json(dataclasses.asdict(config), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error.strerror}): give another --workdir") from error


def _listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except UserError as error:
        raise UserError(
            f"{error}: remove that file if the run in its folder has the config that is given now, or give another "
            "--workdir"
        ) from error


@contextlib.contextmanager
def divergence_noted(workdir: Path) -> Iterator[None]:
    """Notes in the folder that its run has diverged, so that it may go on with another optimizer.

    A checkpoint is put aside as STEP.diverged if its gradient is not finite: neither rate nor optimizer change that.
    """
    try:
        yield
    except NotFiniteError as error:
        dead_end = workdir / "checkpoints" / f"{error.dead_end}"
        if dead_end.exists():
            shutil.rmtree(dead_end.with_suffix(".diverged"), ignore_errors=True)
            dead_end.rename(dead_end.with_suffix(".diverged"))
            print(f"checkpoint {dead_end} leads there at any rate, and is put aside as {dead_end.name}.diverged")
        write_whole(workdir / DIVERGED_FILE, to_json({"error": str(error)}, indent=2) + "\n")
        raise


def finish(config: TrainingConfig, workdir: Path, result: RunResult) -> None:
    """Writes WORKDIR/finished.json, by which `finished` knows that a run is complete."""
    values = {"config": dataclasses.asdict(config), "metrics": result.metrics, "seconds": result.seconds}
    write_whole(workdir / FINISHED_FILE, to_json(values, indent=2) + "\n")
    (workdir / DIVERGED_FILE).unlink(missing_ok=True)


def finished(config: TrainingConfig, workdir: Path) -> RunResult | None:
    """Returns the result of the run in a folder if it has this config and is complete, else None.

    A run that was begun since in the same folder, such as a longer one, makes the result stale.
    """
    try:
        begun, record = (read_json(workdir / name) for name in (CONFIG_FILE, FINISHED_FILE))
        if any(_recorded_config(config, workdir, values) != config for values in (begun, record["config"])):
            return None
        return RunResult(record["metrics"], workdir / "model", record["seconds"])
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return None


def _is_record(path: Path) -> bool:
    """Says whether a config.json is that of a run; models have files of this name, too."""
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return "batch_size" in values and all(isinstance(values.get(name), dict) for name in ("optimizer", "schedule"))


def _recorded_config(config: TrainingConfig, workdir: Path, recorded: dict[str, Any]) -> TrainingConfig:
    """Returns the config of a run from its record; a key that an older version did not have was what its default is.

    Raises:
      UserError: runs of this kind and version do not have such a key, or not such a value.
    """
    try:
        return from_config_dict(type(config), recorded)
    except UserError as error:
        raise UserError(
            f"{workdir} holds a run of another kind or version ({error}): give another --workdir"
        ) from error


def _check_same_run(workdir: Path, recorded: TrainingConfig, config: TrainingConfig) -> None:
    changed = _changed(recorded, config)
    if (workdir / DIVERGED_FILE).exists():
        tuned = [key for key in changed if key.startswith((OptimizerConfig.path, ScheduleConfig.path))]
        for key in tuned:
            print(f"{changed.pop(key)} from here on: the run had diverged")
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config ({', '.join(changed.values())}): give another --workdir"
        )


def _check_same_preparation(
    folders: list[Path], recorded: TrainingConfig, config: TrainingConfig, prepared: Prepared
) -> None:
    before, now = prepared(recorded), prepared(config)
    differences = [text for key, text in _changed(recorded, config).items() if before.get(key) != now.get(key)]
    if not differences:
        return
    them = "them" if len(folders) > 1 else "it"
    raise UserError(
        f"{' and '.join(map(str, folders))} were made for another config ({', '.join(differences)}): remove {them} "
        f"to have {them} made anew, or give another --workdir"
    )


def _changed(recorded: TrainingConfig, config: TrainingConfig) -> dict[str, str]:
    """Returns the keys that another run has, each with what it was and is."""
    before, now = (flattened(dataclasses.asdict(values)) for values in (recorded, config))
    may_change = changeable(type(config))
    return {
        key: f"{key} was {before[key]!r} and is {now[key]!r}"
        for key in sorted(now)
        if before[key] != now[key] and key not in may_change
    }
