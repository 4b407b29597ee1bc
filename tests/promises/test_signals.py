"""A signal or a full disk ends a pre-training run in order, with one line, and nothing written is lost."""

import os
import signal
import subprocess
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.runs import ROOT, pretraining_command, saved_state, tiny_run
from helpers.toy import CONFIG, Toy, toy_data, train

from bert_jax.errors import UserError
from bert_jax.pretraining.run import pretrain
from bert_jax.training import workdir as workdirs


@pytest.mark.slow
def test_full_disk_stops_the_run_before_it_writes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bert_jax.training.checkpoint.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"no checkpoint can be written to .* it needs 0 MB and 0 MB are free"):
        train(Toy(), CONFIG, tmp_path, toy_data())
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.subprocess
def test_sigterm_saves_says_so_and_exits(text_file, tmp_path) -> None:
    workdir = tmp_path / "run"
    command = [*pretraining_command(text_file, tmp_path, workdir), "--config.total_steps=100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (workdir / "checkpoints" / "4").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: saved after step" in errors
    step = int(errors.split("after step ")[1].split(";")[0].replace(",", ""))
    assert (workdir / "checkpoints" / str(step)).is_dir()


@pytest.mark.slow
@pytest.mark.subprocess
def test_full_disk_is_one_line_and_keeps_the_checkpoints(text_file, tmp_path) -> None:
    """The disk is as good as full: from here on, no file may grow beyond some kilobytes."""
    workdir = tmp_path / "run"
    command = pretraining_command(text_file, tmp_path, workdir)
    subprocess.run([*command, "--config.total_steps=4"], cwd=ROOT, check=True, capture_output=True)
    before = saved_state(workdir, 4)
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 4; exec "$@"', "bash", *command]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # which tests would share, torn
    result = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    # TensorStore's threads complain besides: before, behind, or in front on the same line.
    assert result.stderr.count("error: ") == 1
    assert "error: a checkpoint cannot be written to" in result.stderr
    jax.tree.map(np.testing.assert_array_equal, before, saved_state(workdir, 4))


def test_unwritable_workdir_is_one_line(text_file, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/run \(Not a directory\)"):
        pretrain(tiny_run(text_file), file / "run")


def test_read_only_workdir_is_one_line(text_file, tmp_path) -> None:
    tmp_path.chmod(0o555)
    user = os.geteuid()
    os.seteuid(user or 65534)  # nothing is read-only to root
    try:
        with pytest.raises(UserError, match=r"cannot write to .* \(Permission denied\): give another --workdir"):
            workdirs.register_run(tiny_run(text_file), tmp_path / "run")
    finally:
        os.seteuid(user)
