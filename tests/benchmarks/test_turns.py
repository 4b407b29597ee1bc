"""Sides in processes of their own."""

import contextlib
import functools
import multiprocessing
import os
import resource
import sys
import time
from typing import ClassVar

import numpy as np
import pytest

from bert_jax.benchmarks.turns import SideError, in_turns, one_core, started
from bert_jax.errors import UserError


class Writer:
    """Writes a line at each turn."""

    def __init__(self, path, name, mebibytes):
        self.path, self.name = path, name
        self.kept = np.ones(mebibytes << 20, np.uint8)
        self.facts = {"process": os.getpid()}

    def turn(self, which=""):
        with self.path.open("a") as file:
            file.write(self.name + which)
        time.sleep(0.01)


class Allocator:
    """Writes how many pages of memory the system had to give it for a large array."""

    facts: ClassVar = {}

    def __init__(self, path):
        self.path = path

    def turn(self):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(25_000_000)  # 200 MB
        with self.path.open("a") as file:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, file=file)


class Parent:
    """Its work is done by a process of its own."""

    facts: ClassVar = {}

    def turn(self):
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,), daemon=True)
        process.start()
        process.join()


class OnDevice:
    facts: ClassVar = {}

    def device_peak_bytes(self):
        return 12


class Failing:
    facts: ClassVar = {}

    def turn(self):
        raise ValueError("out of memory")


def fails(error):
    raise error


def ends():
    os._exit(3)


def test_turns_follow_each_other_and_the_first_round_is_not_counted(tmp_path):
    path = tmp_path / "turns"
    with (
        started(functools.partial(Writer, path, "a", 1)) as a,
        started(functools.partial(Writer, path, "b", 200)) as b,
    ):
        times = in_turns({"a": a, "b": b}, rounds=2)
        assert b.peak_bytes() - a.peak_bytes() > 150 << 20
        in_turns({"a": a, "b": b}, 1, "1")
    assert path.read_text() == "ababab" + "a1b1a1b1"
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}
    assert min(times["a"]) > 0.01
    processes = {each.facts["process"] for each in (a, b)}
    assert len(processes | {os.getpid()}) == 3
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_side_keeps_its_memory_from_turn_to_turn(tmp_path):
    with started(functools.partial(Allocator, tmp_path / "faults")) as side:
        in_turns({"a": side}, rounds=2)
    first, *later = [int(line) for line in (tmp_path / "faults").read_text().split()]
    assert max(later) < 0.1 * first


def test_a_side_may_start_processes():
    with started(Parent) as side:
        assert side.turn() > 0


def test_the_peak_is_that_of_the_device_where_the_side_knows_it():
    with started(OnDevice) as side:
        assert side.peak_bytes() == 12


def test_a_turn_that_fails_says_why():
    with started(Failing) as side, pytest.raises(SideError, match=r"^ValueError: out of memory$"):
        side.turn()


def test_a_side_of_theirs_that_fails_is_ended_and_the_others_go_on(tmp_path):
    def started_all():
        makes = (functools.partial(Writer, tmp_path / "turns", "a", 1), Failing)
        return [stack.enter_context(started(make)) for make in makes]

    with contextlib.ExitStack() as stack:
        good, bad = started_all()
        left_out = {}
        times = in_turns({"ours": good, "theirs": bad}, 2, left_out=left_out)
        assert {name: len(each) for name, each in times.items()} == {"ours": 2}
        assert left_out == {"theirs": "ValueError: out of memory"}
    with contextlib.ExitStack() as stack:
        good, bad = started_all()
        with pytest.raises(SideError, match="out of memory"):
            in_turns({"ours": bad, "theirs": good}, 2, left_out={})
        with pytest.raises(SideError, match="out of memory"):
            in_turns({"ours": good, "theirs": bad}, 2)


class Environment:
    """Tells what malloc and `tokenizers` are told."""

    def __init__(self):
        self.facts = {name: os.environ.get(name) for name in ("GLIBC_TUNABLES", "TOKENIZERS_PARALLELISM")}


def test_a_side_that_wants_its_own_arenas_has_them(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    before = dict(os.environ)
    with started(Environment) as keeping, started(Environment, keep_memory=False) as plain:
        assert keeping.facts["GLIBC_TUNABLES"].startswith("glibc.malloc.check=0:glibc.malloc.arena_max=1:")
        assert keeping.facts["TOKENIZERS_PARALLELISM"] == "false"
        assert plain.facts == {"GLIBC_TUNABLES": "glibc.malloc.check=0", "TOKENIZERS_PARALLELISM": None}
    assert dict(os.environ) == before


def test_one_core():
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (functools.partial(fails, UserError("torch is needed")), UserError, "^torch is needed$"),
        (functools.partial(fails, ValueError("no such kernel")), SideError, "^ValueError: no such kernel$"),
        (ends, SideError, "ended with status 3"),
    ],
)
def test_a_side_that_cannot_start_says_why(make, error, message):
    with pytest.raises(error, match=message), started(make):
        pass
