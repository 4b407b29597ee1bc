"""Keeps the newest few checkpoints of a run and the best, with Orbax, which writes while training goes on."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Progress:
    """Says how far a run has come; a checkpoint holds it besides the state.

    Attributes:
      seconds: the wall time, in all processes of the run so far.
      total_steps: the steps of the run; 0 if they are not known yet.
      total_minutes: the duration that `total_steps` was planned for; 0 if it was not planned by time.
      vocabulary: the hash of the vocabulary, which says what the ids mean.
      sums: the sums of the metrics of the unfinished interval.
      best: the highest rank so far, and the evaluations since; empty before the first.
    """

    seconds: float = 0.0
    total_steps: int = 0
    total_minutes: float = 0.0
    vocabulary: str = ""
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best: Sequence[Any] = ()


class Checkpoints:
    """Writes and reads WORKDIR/checkpoints/STEP/{state,progress}."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        """Opens the folder, of which the newest `keep` checkpoints and the best are kept."""
        self.directory = directory
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
        )
        self.manager = ocp.CheckpointManager(directory.absolute(), options=options)

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
            self.manager.check_for_errors()
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
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"a checkpoint cannot be written to {self.directory}: {reason}; free some space, or make the "
                "folder writable, and run the same command to go on from the last whole one"
            ) from error

    def restore(self, abstract_state: Any, shardings: Any) -> tuple[Any, Progress] | None:
        """Reads the newest checkpoint that can be read, laid out by `shardings`; None if there is none at all.

        A torn checkpoint is reported, put aside as STEP.torn, and passed over for the one before.

        Raises:
          UserError: there are checkpoints, but none can be read.
        """
        laid_out = _laid_out(abstract_state, shardings)
        torn = []
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                result = self._read(step, laid_out)
            except Exception as error:  # Orbax raises many kinds for missing and damaged files
                reason = (str(error) or type(error).__name__).splitlines()[0][:200]
                print(f"checkpoint {self.directory / str(step)} cannot be read, trying the one before: {reason}")
                torn.append(step)
                continue
            for torn_step in torn:
                aside = self.directory / f"{torn_step}.torn"
                shutil.rmtree(aside, ignore_errors=True)  # of an earlier accident
                (self.directory / str(torn_step)).rename(aside)
            self.manager.reload()
            return result
        if torn:
            raise UserError(f"none of the checkpoints in {self.directory} can be read: move that folder away to start")
        return None

    def restore_best(self, abstract_state: Any, shardings: Any) -> Any:
        """Reads the state of the highest rank, or the newest if none has a rank, once all is written."""
        self.manager.wait_until_finished()
        best = self.manager.best_step()
        step = self.manager.latest_step() if best is None else best
        assert step is not None, "no checkpoint was written"
        return self._read(step, _laid_out(abstract_state, shardings))[0]

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, Progress]:
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore()),
        )
        return restored["state"], Progress(**restored["progress"])

    def close(self) -> None:
        """Waits until all is written, and closes the folder."""
        with self._writing():
            self.manager.wait_until_finished()
            self.manager.check_for_errors()
            self.manager.close()


def _laid_out(abstract_state: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract_state, shardings
    )
