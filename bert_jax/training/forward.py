"""Runs a model without training it: a pure function over batches, whose rows are divided over a mesh.

Evaluation in pre-training and in fine-tuning and all predictions go through here.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.runtime import signals
from bert_jax.runtime.execution import BATCH_AXES
from bert_jax.runtime.memory import out_of_memory_told


class Forward:
    """Runs a pure function of parameters and a batch, compiled once for each shape; results come back to the host."""

    def __init__(self, function: Callable[[Any, Any], Any], mesh: Mesh) -> None:
        """Compiles nothing yet.

        Args:
          function: a function of parameters and a batch, a tree of arrays [B, ...] and of numbers [].
          mesh: the devices that it runs on.
        """
        self._function, self._mesh = jax.jit(function), mesh

    def __call__(self, params: Any, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the result of the function for each batch, as NumPy arrays."""
        params = put(params, self._mesh)
        for batch in batches:
            signals.check()
            with out_of_memory_told("lower batch_size, or max_length"):
                if self._mesh.size == 1:  # jax.jit brings the batch to the device of the parameters in less time
                    outputs = self._function(params, batch)
                else:
                    batch = put(batch, self._mesh, divide_rows=True)
                    with jax.set_mesh(self._mesh):
                        outputs = self._function(params, batch)
                outputs = jax.device_get(outputs)
            yield outputs


def put(arrays: Any, mesh: Mesh, *, divide_rows: bool = False) -> Any:
    """Brings a tree of NumPy arrays to the devices; arrays that are there already stay as they are.

    Args:
      arrays: the tree.
      mesh: the devices.
      divide_rows: whether to divide the first dimension over the devices, where it divides; all else is whole on each.
    """
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)

    def place(array: Any) -> jax.Array:
        if isinstance(array, jax.Array):
            return array
        divides = divide_rows and array.ndim and len(array) % shards == 0
        spec = PartitionSpec(BATCH_AXES) if divides else PartitionSpec()
        return jax.device_put(array, NamedSharding(mesh, spec))

    return jax.tree.map(place, arrays)


@functools.cache
def forward_of(mesh: Mesh, function: Callable[..., Any], *constants: Any, **settings: Any) -> Forward:
    """Returns the `Forward` of function(*constants, params, batch, **settings), the same one for the same arguments.

    So all splits of a task, all calls and all models of one architecture share their compiled programs.
    """
    return Forward(functools.partial(function, *constants, **settings), mesh)
