"""Says where arrays live on the mesh: one table from parameter names to mesh axes."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.errors import UserError
from bert_jax.runtime.execution import BATCH_AXES, Execution

# The first pattern found in a parameter's path (such as "encoder/layer_0/attention/query/kernel") decides; optimizer
# moments carry the same path and so the same layout. Nothing but the data axis exists yet: all is replicated.
PARAMETER_RULES: tuple[tuple[str, PartitionSpec], ...] = ((r"", PartitionSpec()),)


def compiler_options(mesh: Mesh) -> dict[str, bool]:
    """Returns XLA's options for a training step.

    On several GPUs it is to sum gradients while it computes the next ones; on TPUs it does so by itself.
    """
    several_gpus = mesh.size > 1 and mesh.devices.flat[0].platform == "gpu"
    return {"xla_gpu_enable_latency_hiding_scheduler": True} if several_gpus else {}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that divides rows over the batch axes; the other dimensions stay whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_sharding(mesh: Mesh, state: Any) -> Any:
    """Returns the sharding of each leaf of a train state by `PARAMETER_RULES`."""

    def leaf_sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next(spec for pattern, spec in PARAMETER_RULES if re.search(pattern, name))
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(leaf_sharding, state)


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError if the rows of a micro-batch do not divide over the mesh."""
    shards = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    if batch_size // accumulate % shards:
        raise UserError(
            f"batch_size={batch_size} with accumulate={accumulate} gives micro-batches of {batch_size // accumulate} "
            f"rows, which do not divide over {shards} devices: choose a multiple of {shards * accumulate}"
        )


def local_rows(batch_size: int, execution: Execution) -> slice:
    """Returns the rows of the global batch that this process loads."""
    share = batch_size // execution.process_count
    return slice(execution.process_index * share, (execution.process_index + 1) * share)


def put_batch(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Makes global arrays of which this process's rows are its shards."""
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}
