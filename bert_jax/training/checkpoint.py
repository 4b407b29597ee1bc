"""Keeps the newest few checkpoints of a run and the best, with Orbax, which writes while training goes on."""

import contextlib
import dataclasses
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax.runtime import checksums
from bert_jax.errors import UserError
from bert_jax.runtime.files import read_json
from bert_jax.training.workdir import check_there

_SHOWN = 80  # characters of a part of an identity that a message shows
_SMALL = 1 << 20  # bytes of a file that is checked whether or not it is going to be read
# Orbax takes a path for a pattern (epath's glob), and TensorStore a backslash for a slash and ":/" for another store.
_SPECIAL = re.compile(r"[\[\]*?\\]|:/|[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Progress:
    """Says how far a run has come; a checkpoint holds it besides the state.

    Attributes:
      seconds: the wall time, in all processes of the run so far.
      total_steps: the steps of the run; 0 if they are not known yet.
      total_minutes: the duration that `total_steps` was planned for; 0 if it was not planned by time.
      identity: what the data are, by part, such as the hash of the vocabulary, which says what the ids mean;
        an empty text is unknown.
      sums: the sums of the metrics of the unfinished interval.
      best: the highest rank so far, and the evaluations since; empty before the first.
    """

    seconds: float = 0.0
    total_steps: int = 0
    total_minutes: float = 0.0
    identity: dict[str, str] = dataclasses.field(default_factory=dict)
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best: Sequence[Any] = ()

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Progress":
        """Makes it of what a checkpoint holds; a former version kept the vocabulary alone of the identity."""
        if former := record.pop("vocabulary", ""):
            record["identity"] = {"vocabulary": former}
        return cls(**record)

    def check_identity(self, identity: dict[str, str], checkpoint: Path) -> None:
        """Raises UserError where a part of the identity differs; one that is unknown on a side is not compared."""
        changed = [
            f"the {part} {_difference(was, identity[part])}"
            for part, was in self.identity.items()
            if was and identity.get(part) and was != identity[part]
        ]
        if changed:
            raise UserError(
                f"checkpoint {checkpoint} was trained on other data than are given now: {'; '.join(changed)}: give "
                "the former again to go on, or another --workdir to start anew"
            )


def _difference(was: str, now: str) -> str:
    """Shows where two long texts part."""
    pairs = enumerate(zip(was, now, strict=False))
    same = next((at for at, pair in pairs if pair[0] != pair[1]), min(len(was), len(now)))
    start = max(0, same - 30) if max(len(was), len(now)) > _SHOWN else 0
    cut = [
        f"{'...' * (start > 0)}{text[start : start + _SHOWN]}{'...' * (len(text) > start + _SHOWN)}"
        for text in (was, now)
    ]
    return f"was {cut[0]} and is {cut[1]}"


class Checkpoints:
    """Writes and reads WORKDIR/checkpoints/STEP/{state,progress,metrics}, with a checksums.json of their files.

    Attributes:
      directory: the folder WORKDIR/checkpoints.
      manager: Orbax's, which finds only whole checkpoints in it.
    """

    def __init__(self, directory: Path, *, keep: int, verify: bool = False) -> None:
        """Opens the folder, of which the newest `keep` checkpoints and the best are kept.

        A damaged checkpoint is reported and put aside as STEP.torn; where none is whole, one may be read of which the
        checksums alone are damaged. The newest is checked byte by byte, as it is read
        anyway, and of the others all but the content of large files.

        Args:
          directory: the folder.
          keep: the number of checkpoints to keep.
          verify: whether to check all of them byte by byte.

        Raises:
          UserError: there are checkpoints, but none is whole; or the name of the folder is beyond Orbax.
        """
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        if ocp.multihost.is_primary_host(0):
            self._put_damaged_aside(verify)
        ocp.multihost.sync_global_processes("damaged checkpoints are put aside")
        self._saving = 0  # the step of the checkpoint that is being written
        self._opened = contextlib.ExitStack()
        options = ocp.CheckpointManagerOptions(
            best_fn=lambda metrics: metrics["rank"],
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(n=keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["rank"], n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        self.manager = ocp.CheckpointManager(self._opened.enter_context(_plain_path(directory)), options=options)

    # ---- damage ----------------------------------------------------------------------------------

    def _put_damaged_aside(self, verify: bool) -> None:
        damaged: dict[int, str] = {}
        steps = sorted(
            (int(path.name) for path in self.directory.iterdir() if path.name.isdecimal() and path.is_dir()),
            reverse=True,
        )
        for step in steps:
            newest_whole = len(damaged) == steps.index(step)
            if reason := self._damage(step, largest=math.inf if verify or newest_whole else _SMALL):
                damaged[step] = reason
        if damaged and len(damaged) == len(steps):
            folders = {step: self.directory / str(step) for step in steps}
            readable = [step for step in steps if not (checksums.readable(folders[step]) or _unreadable(folders[step]))]
            if not readable:
                raise UserError(
                    f"none of the checkpoints in {self.directory} can be read ({steps[0]}: {damaged[steps[0]]}): move "
                    "that folder away to start anew"
                )
            reason = damaged.pop(readable[0])
            print(f"no checkpoint is whole: going on from {readable[0]} unchecked, if it can be read: {reason}")
        for step, reason in damaged.items():
            self._put_aside(step, reason)

    def _damage(self, step: int, largest: float) -> str | None:
        folder = self.directory / str(step)
        return _unreadable(folder) or checksums.damage(folder, largest)

    def _put_aside(self, step: int, reason: str) -> None:
        print(f"checkpoint {self.directory / str(step)} is damaged and put aside as {step}.torn: {reason[:200]}")
        aside = self.directory / f"{step}.torn"
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier accident
        (self.directory / str(step)).rename(aside)

    def _write_checksums(self) -> None:
        """Adds the checksums to a checkpoint that is all written, before Orbax gives it its name."""
        if ocp.multihost.is_primary_host(0):
            prefix = f"{self._saving}.orbax-checkpoint-tmp"
            checksums.write(next(path for path in self.directory.iterdir() if path.name.startswith(prefix)))

    # ---- writing ---------------------------------------------------------------------------------

    def save(self, step: int, state: Any, progress: Progress, rank: float | None) -> None:
        """Starts to write `state` (a tree of arrays) and `progress`; the checkpoint of the highest `rank` is kept.

        Raises:
          UserError: this checkpoint, or the one before, cannot be written.
        """
        if step in self.manager.all_steps():
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise UserError(
                f"no checkpoint can be written to {self.directory}: it needs {needed / 1e6:,.0f} MB and "
                f"{free / 1e6:,.0f} MB are free; make room, and run the same command to go on from the last one"
            )
        # asdict copies: the loop goes on changing the sums while they are written.
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(dataclasses.asdict(progress))
        )
        with self._writing():
            self.manager.wait_until_finished()
            self.manager.check_for_errors()
            self._saving = step
            self.manager.save(
                step,
                args=items,
                metrics=None if rank is None else {"rank": rank},
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # TensorStore reports a full disk as a ValueError
            check_there(self.directory)
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"a checkpoint cannot be written to {self.directory}: {reason}; free some space, or make the "
                "folder writable, and run the same command to go on from the last whole one"
            ) from error

    # ---- reading ---------------------------------------------------------------------------------

    def restore(
        self, abstract_state: Any, shardings: Any, identity: dict[str, str] | None = None
    ) -> tuple[Any, Progress] | None:
        """Reads the newest checkpoint, laid out by `shardings`; None if there is none at all.

        A former version's, which has no checksums, is passed over for the one before if it cannot be read.

        Raises:
          UserError: there are checkpoints, but none can be read, or they are of data of another `identity`.
        """
        laid_out = _laid_out(abstract_state, shardings)
        reasons: dict[int, str] = {}
        for step in sorted(self.manager.all_steps(), reverse=True):
            folder = self.directory / str(step)
            try:
                # The progress first: a state for other labels has another shape, and is not torn.
                progress = self._progress(step)
                progress.check_identity(identity or {}, folder)
                result = self._state(step, laid_out), progress
            except UserError:
                raise
            except Exception as error:  # Orbax raises many kinds for missing and damaged files
                reasons[step] = (str(error) or type(error).__name__).splitlines()[0][:200]
                if not checksums.readable(folder):
                    continue
                state, same_moments = self._of_other_optimizer(step, laid_out)
                if state is None:
                    raise UserError(
                        f"checkpoint {folder} is whole, but it does not fit this run ({reasons[step]}): give another "
                        "--workdir"
                    ) from error
                if not same_moments:
                    print("the optimizer has other moments from here on: they begin anew")
                return state, progress
            for unreadable, reason in reasons.items():
                self._put_aside(unreadable, reason)
            if reasons:
                self.manager.reload()
            return result
        if reasons:
            raise UserError(f"none of the checkpoints in {self.directory} can be read: move that folder away to start")
        return None

    def restore_best(self, abstract_state: Any, shardings: Any) -> Any:
        """Reads the state of the highest rank, or the newest if none has a rank; to be called after `close`.

        Raises:
          UserError: it is damaged.
        """
        best = self.manager.best_step()
        step = self.manager.latest_step() if best is None else best
        assert step is not None, "no checkpoint was written"
        reason = self._damage(step, largest=math.inf)
        if reason and checksums.readable(self.directory / str(step)):
            raise UserError(
                f"the best checkpoint, {self.directory / str(step)}, is damaged ({reason}): move it away, and run the "
                "same command to take the best of the others"
            )
        return self._of_other_optimizer(step, _laid_out(abstract_state, shardings))[0]

    def _state(self, step: int, abstract_state: Any) -> Any:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        return self.manager.restore(step, args=args)["state"]

    def _of_other_optimizer(self, step: int, laid_out: Any) -> tuple[Any, bool]:
        """Reads a state that perhaps another optimizer has left, as it may in a run that has diverged.

        Returns:
          The state, None if its parameters are others; and whether the optimizers have the same moments, which begin
          anew at 0 if not.
        """
        wanted = _by_name(laid_out)
        a_sharding = next(iter(wanted.values())).sharding
        with _plain_path(self.directory) as directory, ocp.StandardCheckpointer() as reader:
            tree = reader.metadata(directory / str(step) / "state").item_metadata.tree
            stored = _by_name(tree)
            kept = {name for name, leaf in wanted.items() if name in stored and stored[name].shape == leaf.shape}
            if any(name[0] != "opt_state" for name in wanted.keys() - kept):
                return None, False
            target = [
                wanted[name] if name in kept else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=a_sharding)
                for name, leaf in stored.items()
            ]
            target = jax.tree.unflatten(jax.tree.structure(tree), target)
            found = _by_name(reader.restore(directory / str(step) / "state", target))
        same_moments = kept == wanted.keys() == stored.keys()
        if not same_moments:
            kept = {name for name in kept if name[0] != "opt_state"}
        leaves = [
            found[name] if name in kept else jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
            for name, leaf in wanted.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(laid_out), leaves), same_moments

    def _progress(self, step: int) -> Progress:
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return Progress.of_record(self.manager.restore(step, args=args)["progress"])

    def close(self) -> None:
        """Waits until all is written, and closes the folder."""
        with self._writing():
            self.manager.wait_until_finished()
            self.manager.check_for_errors()
            self.manager.close()
            self._opened.close()


def _unreadable(checkpoint: Path) -> str | None:
    """Says which of the files is damaged that Orbax reads unasked, in a folder without checksums too."""
    for file in (checkpoint / "_CHECKPOINT_METADATA", checkpoint / "metrics" / "metrics"):
        try:
            float(read_json(file).get("rank", 0))
        except FileNotFoundError:  # Orbax does without
            continue
        except UserError as error:
            return str(error)
        except (TypeError, ValueError):
            return f"{file.name} holds no number"
    return None


def _laid_out(abstract_state: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract_state, shardings
    )


def _by_name(state: Any) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of a state by the names that lead to them, without the place in the chain of an optimizer."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/").split("/") for path, _ in leaves]
    names = [(*path[:1], *(name for name in path[1:2] if not name.isdecimal()), *path[2:]) for path in paths]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


@contextlib.contextmanager
def _plain_path(directory: Path) -> Iterator[Path]:
    """Gives a path of a folder that Orbax and TensorStore can use, whatever the folder's name.

    Raises:
      UserError: there is none on this system.
    """
    path = directory.absolute()
    if not _SPECIAL.search(str(path)):
        yield path
        return
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        raise UserError(f"no checkpoint could be read from {path}: choose a name without [ ] * ? : and backslash")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptors / str(descriptor)
    finally:
        os.close(descriptor)
