"""More devices give the same numbers; a batch that does not divide over them is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DEVICES = 4
SCRIPT = """
import dataclasses, json, sys
from pathlib import Path
import jax
from bert_jax.errors import UserError
from bert_jax.training.loop import train
from test_loop import CONFIG, Toy, toy_data

workdir = Path(sys.argv[1])
state, evaluation = train(Toy(), CONFIG, workdir / "run", toy_data())
found = {"devices": jax.device_count(), "kernel": state.params["dense"]["kernel"].tolist(), "evaluation": evaluation}
for change in ({"batch_size": 6}, {"accumulate": 4}):
    try:
        train(Toy(), dataclasses.replace(CONFIG, **change), workdir / "bad", toy_data())
    except UserError as error:
        found.setdefault("errors", []).append(str(error))
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> dict:
    """The toy run of test_loop in a process with four virtual devices."""
    tests = Path(__file__).parent
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
        "PYTHONPATH": str(tests),
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("sharded"))]
    result = subprocess.run(command, env=environment, cwd=tests.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.split("FOUND")[1])


def test_four_devices_train_as_one(sharded, tmp_path) -> None:
    from test_loop import CONFIG, Toy, toy_data

    from bert_jax.training.loop import train

    state, evaluation = train(Toy(), CONFIG, tmp_path, toy_data())
    assert sharded["devices"] == DEVICES
    np.testing.assert_allclose(sharded["kernel"], state.params["dense"]["kernel"], rtol=1e-5)
    assert sharded["evaluation"] == pytest.approx(evaluation, rel=1e-5)


def test_rows_must_divide_over_the_devices(sharded) -> None:
    first, second = sharded["errors"]
    assert first == (
        "batch_size=6 with accumulate=1 gives micro-batches of 6 rows, which do not divide over 4 devices: "
        "choose a multiple of 4"
    )
    assert "batch_size=8 with accumulate=4" in second
    assert second.endswith("choose a multiple of 16")
