"""The pre-training step, compiled whole for an NVIDIA H100 and for TPUs v5e on a machine that has neither.

The compilers are wheels of `jax[cuda13]` and `jax[tpu]`. Without such devices they print errors whenever JAX starts,
so they are in no extra, and these tests are skipped where they are not installed. To run them with jax 0.10.2:

    pip install --no-deps --target=DIRECTORY jax-cuda13-pjrt==0.10.2 libtpu==0.0.42.1
    PYTHONPATH=DIRECTORY python -m pytest tests/experiments/test_ahead_of_time.py
"""

import dataclasses
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from bert_jax.benchmarks.jax_side import StepSetting
from bert_jax.config import MeshConfig
from bert_jax.runtime.execution import Execution
from bert_jax.training.loop import StepByShape
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import batch_sharding, state_sharding
from bert_jax.training.step import make_init, make_train_step

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

ROWS, LENGTH = 16, 256
SETTING = StepSetting("tiny", ROWS, LENGTH, "bfloat16", vocab_size=1000)
MODEL = SETTING.model()
LAYERS, HEADS, WIDTH = MODEL.num_hidden_layers, MODEL.num_attention_heads, MODEL.hidden_size
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  device_memory_size: 84978434048 memory_bandwidth: 3352320000000
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def execution_on(platform: str, chips: int) -> Execution:
    """Returns the place where the step is to run."""
    if platform == "gpu":
        topology = topologies.get_topology_desc("", "cuda", target_config=H100, topology="1x1x1")
    else:
        topology = topologies.get_topology_desc("v5e:2x2", "tpu")
    return Execution.on(topology.devices[:chips], SETTING.dtype, MeshConfig(), ahead_of_time=True)


def program(platform: str, chips: int, sequences: int) -> dict:
    """Describes the step as the loop compiles it for rows of so many sequences at most."""
    execution = execution_on(platform, chips)
    config, objective = SETTING.training(), dataclasses.replace(SETTING.objective(), execution=execution)
    optimizer = make_optimizer(config.optimizer)
    state = jax.eval_shape(make_init(objective, optimizer, 0))
    shardings = state_sharding(execution.mesh, state)
    on_mesh = lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)  # noqa: E731
    state = jax.tree.map(on_mesh, state, shardings)
    shapes = dict.fromkeys(("input_ids", "token_type_ids", "position_ids", "sequence_ids"), (ROWS, LENGTH))
    shapes |= {"next_sentence_labels": (ROWS, sequences)}
    whole = batch_sharding(execution.mesh)
    batch = {name: jax.ShapeDtypeStruct(shape, np.int32, sharding=whole) for name, shape in shapes.items()}
    step = make_train_step(objective, optimizer, config)
    (compiled,) = StepByShape(step, execution.mesh, shardings, state, batch).programs
    return {
        "text": compiled.as_text(),
        "reused": compiled.memory_analysis().alias_size_in_bytes,
        "state": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }


def compiled(platform: str, chips: int, sequences: int, folder: Path) -> dict:
    """`program` in a process of its own, for the compilers are loaded when JAX starts."""
    wheel = {"gpu": "jax-cuda13-pjrt", "tpu": "libtpu"}[platform]
    try:
        importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the compiler for a {platform} is not installed: {wheel}")
    code = (
        "import json, pathlib, sys; from experiments.test_ahead_of_time import program\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps(program(sys.argv[2], *map(int, sys.argv[3:]))))"
    )
    # Left to itself, libtpu may ask the cloud where it is, fills a folder in /tmp, and lets no second process load it.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_LOG_DIR": "disabled", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))  # relative to here, not to `folder`
    paths = os.pathsep.join(map(os.path.abspath, (Path(__file__).parents[1], *given)))
    environment = {**os.environ, **quiet, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", code, str(folder / "program.json"), platform, str(chips), str(sequences)]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "program.json").read_text())


def shapes_of(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, sizes.split(","))) for sizes in re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", text)]


def check_memory(made: dict, rows: int) -> None:
    """Checks that the new state takes the place of the old, and that no array has all scores [B, N, L, L]."""
    assert made["state"] <= made["reused"] < 1.01 * made["state"]  # a TPU pads
    scores = rows * HEADS * LENGTH**2
    shapes = set(shapes_of(made["text"]))
    assert not [shape for shape in shapes if shape.count(LENGTH) >= 2 and math.prod(shape) >= scores]


@pytest.mark.parametrize("sequences", [1, 4])
def test_the_step_on_an_h100(sequences, tmp_path):
    made = compiled("gpu", 1, sequences, tmp_path)
    calls = Counter(re.findall(r'custom_call_target="(__cudnn[^"]+)"', made["text"]))
    assert calls == {"__cudnn$fmhaSoftmax": LAYERS, "__cudnn$fmhaSoftmaxBackward": LAYERS}
    check_memory(made, ROWS)
    # XLA makes one product of query, key and value by itself, so the model need not.
    tokens, together = ROWS * LENGTH, 3 * WIDTH
    product = rf"bf16\[(?:{tokens},{together}|{together},{tokens})\]\S* (?:dot|custom-call)\("
    products = re.findall(product, made["text"])
    assert len(products) == LAYERS


@pytest.mark.parametrize("chips", [1, 4])
def test_the_step_on_tpus(chips, tmp_path):
    made = compiled("tpu", chips, 4, tmp_path)
    calls = re.findall(r"%splash_mha_([a-z]+)\S* = .*tpu_custom_call", made["text"])
    assert Counter(calls) == {"fwd": LAYERS, "dq": LAYERS, "dkv": LAYERS}
    check_memory(made, ROWS // chips)
    sums = [before for before, _ in re.findall(r"= (.*) (all-reduce|all-reduce-start)\(", made["text"])]
    summed = sum(math.prod(shape) for shape in shapes_of("".join(sums)))
    assert summed >= made["parameters"] if chips > 1 else not sums  # of every gradient
