"""A disk that is full, or a folder that is gone, ends a run with one line, or does not end it; nothing saved is lost.

`pytest tests/promises/test_full_disk.py --trials=50` fills the disk at 50 places of a run with TensorBoard.
"""

import dataclasses
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.runs import ROOT, metric_lines, pretraining_command, saved_state
from helpers.toy import CONFIG, Toy, assert_same_bits, toy_batch, toy_data, train
from tensorboardX.event_file_writer import EventsWriter

from bert_jax.errors import UserError
from bert_jax.training.metrics import MetricsWriter


class FullDisk:
    """A file on a disk that takes so many bytes more."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room, self.name = file, room, file.name

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def close(self) -> None:
        self.file.close()


def test_lines_wait_for_room_and_a_checkpoint_waits_for_the_lines(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, resume_step=0, tensorboard=False)
    writer._file = FullDisk(writer._file, room=10)
    writer.write(1, "train", {"loss": 1.0})
    writer.write(2, "train", {"loss": 2.0})
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written \(No space left on device\): make room"):
        writer.sync()
    writer._file.room = 10**6
    writer.sync()
    writer.close()
    assert metric_lines(tmp_path) == [{"step": step, "split": "train", "loss": float(step)} for step in (1, 2)]


@pytest.mark.slow
def test_a_run_whose_metrics_cannot_be_written_ends_and_goes_on(straight, tmp_path, monkeypatch) -> None:
    workdir, state, _ = straight
    with monkeypatch.context() as patch:
        plain = MetricsWriter.__init__

        def opened(self, *arguments, **settings) -> None:
            plain(self, *arguments, **settings)
            self._file = FullDisk(self._file, room=500)

        patch.setattr(MetricsWriter, "__init__", opened)
        with pytest.raises(UserError, match="go on from the last checkpoint"):
            train(Toy(), CONFIG, tmp_path, toy_data())
    assert_same_bits(train(Toy(), CONFIG, tmp_path, toy_data()).state, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


def test_a_disk_without_room_for_curves_has_the_run_without_them(straight, tmp_path, monkeypatch, capsys) -> None:
    written = []

    def write_event(self, event) -> None:
        written.append(event)
        if len(written) > 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", write_event)
    config = dataclasses.replace(CONFIG, tensorboard=True)
    assert_same_bits(train(Toy(), config, tmp_path, toy_data()).state, straight[1])
    said = "TensorBoard's files cannot be written (No space left on device): training goes on without them"
    assert capsys.readouterr().out.count(said) == 1
    assert len(written) == 6


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_workdir_that_is_gone_is_noticed_and_not_made_again(tmp_path, how) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    data = toy_data()

    def stream(step: int):
        while True:
            if step == 9:
                while not (workdir / "checkpoints" / "6").exists():
                    time.sleep(0.01)  # else Orbax makes its folder again, as its thread comes to write
                workdir.rename(tmp_path / "moved")
                if how == "replaced":
                    workdir.mkdir()
            yield toy_batch(step)
            step += 1

    with pytest.raises(UserError, match=rf"{workdir}\S* was removed or replaced while the run was in it"):
        train(Toy(), CONFIG, workdir, dataclasses.replace(data, train=stream))
    assert not workdir.exists() or not list(workdir.iterdir())


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_disk_that_is_full_at_any_place_costs_nothing_saved(finished, text_file, tmp_path, trials) -> None:
    """No file may grow beyond a limit, which stands for the disk; then there is room, and the run goes on."""
    if not trials:
        pytest.skip("a campaign: pytest --trials=10; the suite has one such trial in test_signals.py")
    straight, _ = finished
    workdir = tmp_path / "run"
    command = [*pretraining_command(text_file, tmp_path, workdir), "--config.tensorboard=True"]
    random.seed(time.time_ns())
    for _ in range(trials):
        limit = random.randint(1, 100)  # kB: from the first file to the largest
        limited = ["bash", "-c", f'trap "" XFSZ; ulimit -f {limit}; exec "$@"', "bash", *command]
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # which tests would share, torn
        full = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert full.returncode in (0, 1), (limit, full.stderr)
        assert "Traceback" not in full.stderr, (limit, full.stderr)
        assert full.returncode == 0 or full.stderr.count("error: ") == 1, (limit, full.stderr)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (limit, done.stderr)
        assert metric_lines(workdir) == metric_lines(straight)
        jax.tree.map(np.testing.assert_array_equal, saved_state(workdir, 40), saved_state(straight, 40))
        shutil.rmtree(workdir)
