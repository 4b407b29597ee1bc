"""Resume is exact: a run that is stopped, killed or finds a torn checkpoint goes on to the same bits."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.runs import ROOT, metric_lines, pretraining_command, saved_state
from helpers.toy import CONFIG, Toy, assert_same_bits, toy_data, train

from bert_jax.config import OptimizerConfig
from bert_jax.errors import Interrupted, UserError

pytestmark = pytest.mark.slow


def test_interrupted_run_goes_on_to_the_same_bits(straight, tmp_path) -> None:
    workdir, state, _ = straight
    for kill in ((7, signal.SIGINT), (13, signal.SIGTERM)):
        with pytest.raises(Interrupted, match=r"^SIG\w+: saved after step \d+$"):
            train(Toy(), CONFIG, tmp_path, toy_data(kill=kill))
    resumed = train(Toy(), CONFIG, tmp_path, toy_data()).state
    assert_same_bits(resumed, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


@pytest.mark.subprocess
def test_killed_run_goes_on_to_the_same_bits(straight, tmp_path) -> None:
    """SIGKILL in a process of its own: nothing is saved on the way out."""
    workdir, state, _ = straight
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nfrom helpers.toy import CONFIG, Toy, toy_data, train\n"
        f"train(Toy(), CONFIG, Path({str(tmp_path)!r}), toy_data(kill=(17, {int(signal.SIGKILL)})))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = train(Toy(), CONFIG, tmp_path, toy_data()).state
    assert_same_bits(resumed, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


def test_a_bfloat16_first_moment_goes_on_to_the_same_bits(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.05, mu_dtype="bfloat16"))
    straight = train(Toy(), config, tmp_path / "straight", toy_data()).state
    with pytest.raises(Interrupted):
        train(Toy(), config, tmp_path / "cut", toy_data(kill=(9, signal.SIGTERM)))
    resumed = train(Toy(), config, tmp_path / "cut", toy_data()).state
    assert_same_bits(resumed, straight)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(resumed.opt_state)} == {"bfloat16", "float32"}


def tear(checkpoint: Path) -> None:
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("former", [False, True])
def test_torn_newest_checkpoint_falls_back_to_the_one_before(former, straight, tmp_path, capsys) -> None:
    """A former version wrote no checksums: there, Orbax has to find out."""
    workdir, state, _ = straight
    with pytest.raises(Interrupted):
        train(Toy(), CONFIG, tmp_path, toy_data(kill=(15, signal.SIGINT)))
    if former:
        (tmp_path / "checkpoints" / "15" / "checksums.json").unlink()
    tear(tmp_path / "checkpoints" / "15")
    capsys.readouterr()
    resumed = train(Toy(), CONFIG, tmp_path, toy_data()).state
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("checkpoint")]
    assert len(said) == 1
    assert "15 is damaged and put aside as 15.torn: " in said[0]
    assert_same_bits(resumed, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


def test_no_readable_checkpoint_is_an_error(tmp_path) -> None:
    with pytest.raises(Interrupted):
        train(Toy(), CONFIG, tmp_path, toy_data(kill=(3, signal.SIGINT)))
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        tear(checkpoint)
    with pytest.raises(UserError, match="none of the checkpoints"):
        train(Toy(), CONFIG, tmp_path, toy_data())


def test_finished_run_trains_and_writes_nothing_more(straight) -> None:
    workdir, state, evaluation = straight
    before = metric_lines(workdir)
    again = train(Toy(), CONFIG, workdir, toy_data())
    assert_same_bits(again.state, state)
    assert again.evaluation == evaluation
    assert metric_lines(workdir) == before


@pytest.mark.subprocess
def test_sigkill_and_restart_give_the_same_bits(finished, text_file, tmp_path) -> None:
    straight, _ = finished
    workdir = tmp_path / "killed"
    command = pretraining_command(text_file, tmp_path, workdir)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not (workdir / "checkpoints" / "4").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (workdir / "model").exists(), process.stderr.read().decode()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert metric_lines(workdir) == metric_lines(straight)
    first, second = saved_state(workdir, 40), saved_state(straight, 40)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    weights = [(path / "model" / "model.safetensors").read_bytes() for path in (workdir, straight)]
    assert weights[0] == weights[1]
