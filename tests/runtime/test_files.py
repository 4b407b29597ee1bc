"""A file is whole or not there, whatever writes it and however often at once; and nothing of others is replaced."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.runtime import files
from bert_jax.errors import UserError
from bert_jax.runtime.files import claim, made, refuse_foreign, temporary_folder, whole_file, write_whole


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


def test_a_temporary_name_follows_no_link_and_has_the_users_mode(tmp_path: Path, monkeypatch) -> None:
    """Whoever foresees the name gains nothing: neither a link nor a file that stands there is written to."""
    path, other = tmp_path / "file.txt", tmp_path / "other"
    other.write_text("untouched")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * 2 * count)
    with temporary_folder(tmp_path / "file.txt") as temporary:
        pass
    temporary.symlink_to(other)
    with pytest.raises(OSError, match=r"exists.*file\.txt"):
        write_whole(path, "new")
    assert other.read_text() == "untouched"
    before = os.umask(0o027)
    try:
        write_whole(path, "new")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "text"


def test_a_device_is_written_to_and_stays() -> None:
    with whole_file(Path("/dev/null")) as file:
        file.write("text")
    assert Path("/dev/null").is_char_device()


def test_what_a_killed_process_left_is_removed_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom bert_jax.runtime.files import temporary_folder, whole_file\n"
        "target = Path(sys.argv[1])\n"
        "with whole_file(target / 'file') as file, temporary_folder(target / 'folder') as folder:\n"
        "    (folder / 'part').write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(os.listdir(tmp_path)) == 2
    (tmp_path / ".file.123.tmp").write_text("of the user")
    files._remove_left_over.cache_clear()
    with whole_file(tmp_path / "file") as file:  # nor what this process writes itself
        files._remove_left_over.cache_clear()
        write_whole(tmp_path / "file", "inner")
        file.write("outer")
    with temporary_folder(tmp_path / "folder"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".file.123.tmp", "file"]
    assert (tmp_path / "file").read_text() == "outer"


def test_what_is_unfinished_can_be_removed(tmp_path: Path) -> None:
    with contextlib.suppress(OSError), temporary_folder(tmp_path / "folder") as folder:
        (folder / "part").write_text("half")
        with whole_file(tmp_path / "file"):
            files.remove_unfinished()
            assert os.listdir(tmp_path) == []


def test_what_others_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "notes.txt").write_text("of the user")
    with pytest.raises(UserError, match=r"train is there, was not made as part of a corpus by bert_jax"):
        refuse_foreign(tmp_path, "corpus", ["header.json", "train"])
    claim(tmp_path, "corpus", ["header.json"])
    (tmp_path / "header.json").write_text("{}")
    refuse_foreign(tmp_path, "corpus", ["header.json"])
    with pytest.raises(UserError, match="train is there"):
        claim(tmp_path, "corpus", ["header.json", "train"])
    assert made(tmp_path) == {"header.json"}
    claim(tmp_path, "corpus", ["train"], known=True)
    assert made(tmp_path) == {"header.json", "train"}


def test_what_another_command_made_is_refused_too(tmp_path: Path) -> None:
    claim(tmp_path, "tokenizer", ["vocab.txt"])
    claim(tmp_path, "model", ["vocab.txt", "config.json"])
    (tmp_path / "vocab.txt").write_text("a")
    with pytest.raises(UserError, match=r"vocab\.txt is there, was not made as part of a tokenizer"):
        claim(tmp_path, "tokenizer", ["vocab.txt"])
    assert made(tmp_path, "model") == made(tmp_path) == {"vocab.txt", "config.json"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"made": 3}', '{"made": {"a": 3, "b": [["c"]]}}', "[" * 100_000])
def test_a_damaged_mark_marks_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / files.MARK).write_text(content)
    assert made(tmp_path) == set()
