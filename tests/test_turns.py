"""Sides in processes of their own."""

import functools
import multiprocessing
import os
import resource
import sys
import time
from typing import ClassVar

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.experiments.turns import SideError, in_turns, one_core, started


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
