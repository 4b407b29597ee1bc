"""Orbax checkpoints of a run: the newest few and the best, written while training goes on."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax.errors import UserError


class Checkpoints:
    """WORKDIR/checkpoints/STEP/{state,progress}."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        self.directory = directory
        options = ocp.CheckpointManagerOptions(
            best_fn=lambda metrics: metrics["loss"],
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(n=keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: -metrics["loss"], n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )
        self.manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: Any, progress: dict, loss: float | None) -> None:
        """Starts writing `state` (a tree of arrays) and `progress` (JSON); `loss`, if known, ranks the checkpoint."""
        if step in self.manager.all_steps():
            return
        self.manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)),
            metrics=None if loss is None else {"loss": loss},
        )

    def restore(self, abstract_state: Any, shardings: Any) -> tuple[Any, dict] | None:
        """The newest checkpoint that can be read, laid out by `shardings`; None if there is none at all.

        A torn checkpoint is reported, put aside as STEP.torn, and passed over for the one before.

        Raises:
          UserError: there are checkpoints, but none can be read.
        """
        laid_out = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract_state, shardings
        )
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
                (self.directory / str(torn_step)).rename(self.directory / f"{torn_step}.torn")
            self.manager.reload()
            return result
        if torn:
            raise UserError(f"none of the checkpoints in {self.directory} can be read: move that folder away to start")
        return None

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore()),
        )
        return restored["state"], restored["progress"]

    def close(self) -> None:
        """Waits until all is written."""
        self.manager.wait_until_finished()
        self.manager.close()
