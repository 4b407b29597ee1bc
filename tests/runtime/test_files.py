"""A file is whole or not there, whatever writes it and however often at once."""

import os
from pathlib import Path

import pytest

from bert_jax.runtime.files import write_whole


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write_whole(path, "naïve")
    write_whole(path, "naïve\r\n")
    assert path.read_bytes() == "naïve\r\n".encode()
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, b"before")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_two_processes_write_one_file_without_meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process writes the same file in the moment between this one's write and its rename."""
    path = tmp_path / "file.txt"
    replace = os.replace

    def other_first(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write_whole(path, "a longer text of the other process")
        assert path.read_text() == "a longer text of the other process"
        replace(source, target)

    monkeypatch.setattr(os, "replace", other_first)
    write_whole(path, "this")
    assert path.read_text() == "this"
