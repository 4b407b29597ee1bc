"""A folder has one process at a time, whatever ends it, and says which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.errors import UserError
from bert_jax.runtime.locks import LOCK, locked

HOLD = "import sys; from pathlib import Path; from bert_jax.runtime.locks import locked\n"
HOLD += "with locked(Path(sys.argv[1]), '--workdir'):\n    print('in', flush=True)\n    sys.stdin.read()\n"


@pytest.mark.subprocess
def test_a_folder_is_refused_as_long_as_another_process_has_it(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    with pytest.raises(UserError, match=rf"in use by process {other.pid} on .* since .*give another --workdir"):
        locked(tmp_path, "--workdir").__enter__()
    other.kill()
    other.communicate()
    assert os.listdir(tmp_path) == [LOCK]
    with locked(tmp_path, "--workdir"):  # what a killed process leaves keeps nobody out
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_is_refused_within_one_process_too(tmp_path: Path) -> None:
    with locked(tmp_path / "new", "--output"), pytest.raises(UserError, match="in use by process"):
        locked(tmp_path / "new", "--output").__enter__()
    with locked(tmp_path / "new", "--output"):
        pass


def test_a_disk_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path, "--workdir"), locked(tmp_path, "--workdir"):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of the user")
    (tmp_path / LOCK).symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        locked(tmp_path, "--workdir").__enter__()
    assert (tmp_path / "other").read_text() == "of the user"
