"""Checkpoints are read back from folders of any name, whatever else lies there, and only if they are whole."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bert_jax.errors import UserError
from bert_jax.training.checkpoint import Checkpoints, Progress

STATE = {"step": jnp.zeros((), jnp.int32), "w": jnp.arange(8.0)}
SHARDINGS = jax.tree.map(lambda leaf: leaf.sharding, STATE)
ABSTRACT = jax.eval_shape(lambda: STATE)
# Orbax globs with the path, TensorStore reads some of it as a URL, and some is not UTF-8.
NAMES = ["run[lr=1e-3]", "[!a]", "a*b", "a?b", "a\\b", "a\\[b", "gs:", "a%20b#c", "a\udce9b", "weiß 北", "a\nb"]


def write(directory: Path, *steps: int, progress: Progress = Progress()) -> None:
    checkpoints = Checkpoints(directory, keep=9)
    for step in steps:
        state = {"step": STATE["step"] + step, "w": STATE["w"] + step}
        checkpoints.save(step, state, progress, float(step))
    checkpoints.close()


def newest(directory: Path) -> int:
    """Reads the newest checkpoint, and the best."""
    checkpoints = Checkpoints(directory, keep=9)
    found = checkpoints.restore(ABSTRACT, SHARDINGS)
    checkpoints.close()
    assert found is not None
    best = checkpoints.restore_best(ABSTRACT, SHARDINGS)
    for state in (found[0], best):
        assert state["w"].tolist() == [number + int(state["step"]) for number in range(8)]
    return int(found[0]["step"])


@pytest.mark.parametrize("name", NAMES)
def test_folders_of_any_name_are_read_back(name, tmp_path) -> None:
    write(tmp_path / name / "checkpoints", 1)
    assert newest(tmp_path / name / "checkpoints") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]  # and nowhere else


def test_a_folder_that_orbax_cannot_name_is_refused_where_there_is_no_other_path(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bert_jax.training.checkpoint.Path", lambda path: tmp_path / "absent")
    with pytest.raises(UserError, match=r"no checkpoint could be read from .*choose a name without"):
        Checkpoints(tmp_path / "a[b]", keep=1)


def test_two_folders_of_which_one_is_a_pattern_of_the_other_stay_apart(tmp_path) -> None:
    write(tmp_path / "aXb", 1)
    write(tmp_path / "a*b", 2)
    assert newest(tmp_path / "aXb") == 1
    assert newest(tmp_path / "a*b") == 2


def test_stray_files_do_no_harm(tmp_path) -> None:
    write(tmp_path, 1)
    (tmp_path / ".DS_Store").write_bytes(b"\x00\xff")
    (tmp_path / "7").write_text("a note")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "1" / ".DS_Store").touch()
    (tmp_path / "1" / "state" / "notes.txt").touch()
    assert newest(tmp_path) == 1
    assert (tmp_path / "7").read_text() == "a note"


def test_a_whole_checkpoint_that_does_not_fit_is_not_taken_for_a_torn_one(tmp_path) -> None:
    write(tmp_path, 1, 2)
    checkpoints = Checkpoints(tmp_path, keep=9)
    other = {**STATE, "w": jnp.arange(9.0)}
    with pytest.raises(UserError, match=r"2 is whole, but it does not fit this run \("):
        checkpoints.restore(jax.eval_shape(lambda: other), SHARDINGS)
    checkpoints.close()
    assert newest(tmp_path) == 2


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_flipped_bit_in_the_newest_or_in_a_small_file_of_another_puts_it_aside(tmp_path, capsys) -> None:
    write(tmp_path, 1, 2, 3, 4)
    flip(max((tmp_path / "4").rglob("d/*"), key=lambda path: path.stat().st_size))
    flip(tmp_path / "2" / "metrics" / "metrics")
    flip(tmp_path / "1" / "progress" / "metadata")
    assert newest(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"1.torn", "2.torn", "3", "4.torn"}
    assert capsys.readouterr().out.count("\n") == 3


def test_large_files_of_older_checkpoints_are_checked_when_they_are_read_or_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bert_jax.training.checkpoint._SMALL", 10)
    write(tmp_path, 1, 2)
    flip(max((tmp_path / "1").rglob("d/*"), key=lambda path: path.stat().st_size))
    assert newest(tmp_path) == 2
    Checkpoints(tmp_path, keep=9, verify=True).close()
    assert (tmp_path / "1.torn").exists()


def test_a_damaged_best_checkpoint_is_not_exported(tmp_path) -> None:
    write(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.close()
    flip(tmp_path / "1" / "state" / "manifest.ocdbt")
    with pytest.raises(UserError, match=r"the best checkpoint, .*1, is damaged \(manifest.ocdbt is not as it was"):
        checkpoints.restore_best(ABSTRACT, SHARDINGS)


def test_checksums_of_nothing_are_damaged(tmp_path) -> None:
    write(tmp_path, 1, 2)
    (tmp_path / "2" / "checksums.json").write_text("{}")
    assert newest(tmp_path) == 1


def test_the_only_checkpoint_is_read_unchecked_where_its_checksums_are_damaged(tmp_path, capsys) -> None:
    write(tmp_path, 1, 2)
    (tmp_path / "2" / "checksums.json").write_bytes(b"{")
    assert newest(tmp_path) == 1
    write(tmp_path / "other", 1, 2)
    (tmp_path / "other" / "2" / "state" / "manifest.ocdbt").unlink()
    (tmp_path / "other" / "1" / "checksums.json").write_text('{"a": 1}')
    capsys.readouterr()
    assert newest(tmp_path / "other") == 1
    said = capsys.readouterr().out.splitlines()
    assert "no checkpoint is whole: going on from 1 unchecked" in said[0]
    assert "2 is damaged and put aside" in said[1]
