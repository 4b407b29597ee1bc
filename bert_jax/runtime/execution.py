"""Describes where a run computes: its platform, devices, mesh and compute type, asked for once and handed down.

Only what starts a run asks JAX where it is, by `Execution.here`. Everything below is given the answer, so a program for
a machine that is not here is compiled by giving it another one, made by `Execution.on`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from bert_jax.config import MeshConfig
from bert_jax.errors import UserError

BATCH_AXES = ("data",)  # the axes of the mesh over which the rows of a batch are divided
NO_MESH = Mesh(np.empty((), object), ())  # a mesh without devices: all is on the one that JAX takes


@dataclasses.dataclass(frozen=True)
class Execution:
    """Describes where and in which type a model computes; by default in float32 on one device, in the ways of a CPU.

    Attributes:
      dtype: the type of products and activations. Parameters, softmax, LayerNorm statistics and losses are float32.
      platform: the name that JAX gives it: cpu, gpu or tpu.
      compute_capability: the version of an NVIDIA GPU, such as 9.0; 0 elsewhere.
      mesh: the devices over which batches are divided, or `NO_MESH`.
      ahead_of_time: whether programs are compiled for a machine that is not here, so that JAX must not ask this one.
      process_count: the number of processes that compute together.
      process_index: the number of this one, from 0.
    """

    dtype: jnp.dtype = jnp.dtype("float32")
    platform: str = "cpu"
    compute_capability: float = 0.0
    mesh: Mesh = NO_MESH
    ahead_of_time: bool = False
    process_count: int = 1
    process_index: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))

    @classmethod
    def here(cls, compute_dtype: str = "auto", mesh: MeshConfig | None = None) -> "Execution":
        """Describes this process: all devices of all processes with a `mesh`, else the one that JAX takes.

        Args:
          compute_dtype: the compute type: float32, bfloat16, or auto, which is bfloat16 on GPU and TPU, float32 on CPU.
          mesh: the number of devices of each axis; None for one device.

        Raises:
          UserError: the axes do not multiply to the number of devices.
        """
        execution = cls.on(jax.devices(), compute_dtype, mesh)
        return dataclasses.replace(execution, process_count=jax.process_count(), process_index=jax.process_index())

    @classmethod
    def on(
        cls,
        devices: Sequence[Any],
        compute_dtype: str = "auto",
        mesh: MeshConfig | None = None,
        *,
        ahead_of_time: bool = False,
    ) -> "Execution":
        """Describes the given devices, which may be those of a topology that is not here; see `here`."""
        platform = devices[0].platform
        if compute_dtype == "auto":
            compute_dtype = "float32" if platform == "cpu" else "bfloat16"
        return cls(
            dtype=jnp.dtype(compute_dtype),
            platform=platform,
            compute_capability=float(getattr(devices[0], "compute_capability", None) or 0),
            mesh=make_mesh(mesh, devices) if mesh else NO_MESH,
            ahead_of_time=ahead_of_time,
        )


def make_mesh(config: MeshConfig, devices: Sequence[Any]) -> Mesh:
    """Lays the mesh over the devices.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    count = len(devices)
    size = count if config.data == -1 else config.data
    if size != count:
        raise UserError(f"mesh.data={config.data} does not match the {count} devices here: set it to -1 or {count}")
    return jax.make_mesh((size,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
