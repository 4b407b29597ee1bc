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

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.harness import (
    SideError,
    check_same_loss,
    compare,
    in_rounds,
    measure,
    one_core,
    started,
    time_limit,
)
from bert_jax.benchmarks.record import Results
from bert_jax.errors import UserError


class Writer:
    """Writes a line in each round."""

    def __init__(self, path, name, mebibytes):
        self.path, self.name = path, name
        self.kept = np.ones(mebibytes << 20, np.uint8)
        self.metadata = {"process": os.getpid()}

    def run(self, which=""):
        with self.path.open("a") as file:
            file.write(self.name + which)
        time.sleep(0.01)


class Allocator:
    """Writes how many pages of memory the system had to give it for a large array."""

    metadata: ClassVar = {}

    def __init__(self, path):
        self.path = path

    def run(self):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(25_000_000)  # 200 MB
        with self.path.open("a") as file:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, file=file)


class Parent:
    """Its work is done by a process of its own."""

    metadata: ClassVar = {}

    def run(self):
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,), daemon=True)
        process.start()
        process.join()


class OnDevice:
    metadata: ClassVar = {}

    def device_peak_bytes(self):
        return 12


class Failing:
    metadata: ClassVar = {}

    def run(self):
        raise ValueError("out of memory")


def fails(error):
    raise error


def ends():
    os._exit(3)


@pytest.mark.slow
@pytest.mark.subprocess
def test_sides_run_one_after_the_other_and_the_first_round_is_not_counted(tmp_path):
    path = tmp_path / "rounds"
    with (
        started(functools.partial(Writer, path, "a", 1)) as a,
        started(functools.partial(Writer, path, "b", 200)) as b,
    ):
        times = in_rounds({"a": a, "b": b}, rounds=2)
        assert b.peak_bytes() - a.peak_bytes() > 150 << 20
        in_rounds({"a": a, "b": b}, 1, "1")
    assert path.read_text() == "ababab" + "a1b1a1b1"
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}
    assert min(times["a"]) > 0.01
    processes = {each.metadata["process"] for each in (a, b)}
    assert len(processes | {os.getpid()}) == 3
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_side_keeps_its_memory_from_round_to_round(tmp_path):
    with started(functools.partial(Allocator, tmp_path / "faults")) as side:
        in_rounds({"a": side}, rounds=2)
    first, *later = [int(line) for line in (tmp_path / "faults").read_text().split()]
    assert max(later) < 0.1 * first


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_side_may_start_processes():
    with started(Parent) as side:
        assert side.run() > 0


def test_the_peak_is_that_of_the_device_where_the_side_knows_it():
    with started(OnDevice) as side:
        assert side.peak_bytes() == 12


@pytest.mark.slow
def test_a_side_that_fails_says_why():
    with started(Failing) as side, pytest.raises(SideError, match=r"^ValueError: out of memory$"):
        side.run()


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_side_that_fails_after_the_first_is_ended_and_the_others_go_on(tmp_path):
    def started_all():
        makes = (functools.partial(Writer, tmp_path / "rounds", "a", 1), Failing)
        return [stack.enter_context(started(make)) for make in makes]

    with contextlib.ExitStack() as stack:
        good, bad = started_all()
        left_out = {}
        times = in_rounds({"first": good, "other": bad}, 2, leave_out=left_out.__setitem__)
        assert {name: len(each) for name, each in times.items()} == {"first": 2}
        assert {name: str(error) for name, error in left_out.items()} == {"other": "ValueError: out of memory"}
    with contextlib.ExitStack() as stack:
        good, bad = started_all()
        with pytest.raises(SideError, match="out of memory"):
            in_rounds({"first": bad, "other": good}, 2, leave_out=left_out.__setitem__)
        with pytest.raises(SideError, match="out of memory"):
            in_rounds({"first": good, "other": bad}, 2)


class Environment:
    """Reports the environment of malloc and `tokenizers`."""

    def __init__(self):
        self.metadata = {name: os.environ.get(name) for name in ("GLIBC_TUNABLES", "TOKENIZERS_PARALLELISM")}


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_side_that_wants_its_own_arenas_has_them(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    before = dict(os.environ)
    with started(Environment) as keeping, started(Environment, keep_memory=False) as plain:
        assert keeping.metadata["GLIBC_TUNABLES"].startswith("glibc.malloc.check=0:glibc.malloc.arena_max=1:")
        assert keeping.metadata["TOKENIZERS_PARALLELISM"] == "false"
        assert plain.metadata == {"GLIBC_TUNABLES": "glibc.malloc.check=0", "TOKENIZERS_PARALLELISM": None}
    assert dict(os.environ) == before


def test_one_core():
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.slow
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


# ---- figures -------------------------------------------------------------------------------------


class Told:
    """A process of a side whose seconds are given."""

    def __init__(self, seconds, metadata=None):
        self.seconds, self.metadata, self.closed = iter([99.0, *seconds]), metadata or {}, False

    def run(self, *which):
        return next(self.seconds)

    def peak_bytes(self):
        return None if self.closed else 12

    def close(self):
        self.closed = True


def test_figures_of_a_comparison():
    results = Results("s", "t", "tokens_per_second")
    sides = {"bert_jax": Told([2.0, 4.0, 2.0]), "a": Told([4.0, 4.0, 4.0]), "b": Told([2.0, 2.0, 6.0])}
    amounts = {"bert_jax": 100, "a": 300, "b": 50}
    ideal = {"bert_jax": 0.25, "a": 0.5, "b": 0.5}
    assert measure(results, "c", sides, 3, steps=2, amounts=amounts, ideal=ideal) == ["bert_jax", "a", "b"]
    assert results.by_side("c", "seconds") == {"bert_jax": 1.0, "a": 2.0, "b": 1.0}
    assert results.by_side("c", "tokens_per_second") == {"bert_jax": 100, "a": 150, "b": 50}
    assert results.value("c", "bert_jax", "ratio") == pytest.approx(100 / 150)
    assert results.rounds("c", "bert_jax", "ratio") == pytest.approx([4 / 2 / 3, 4 / 4 / 3, 4 / 2 / 3])
    assert results.by_side("c", "utilization") == {"bert_jax": 0.25, "a": 0.25, "b": 0.5}
    assert results.value("c", "bert_jax", "spread") == 1.0
    assert results.rounds("c", "b", "seconds") == [1.0, 1.0, 3.0]
    assert results.by_side("c", "peak_bytes") == dict.fromkeys(sides, 12)


def test_another_rate_and_no_rate():
    results = Results("s", "t", "seconds")
    sides = {"bert_jax": Told([2.0]), "a": Told([4.0])}
    measure(results, "c", sides, 1, amounts={"bert_jax": 10.0, "a": 10.0}, rate="megabytes_per_second")
    assert results.by_side("c", "megabytes_per_second") == {"bert_jax": 5.0, "a": 2.5}
    measure(results, "d", {"bert_jax": Told([2.0]), "a": Told([4.0])}, 1)
    assert results.metrics("d") == ["seconds", "spread", "ratio", "peak_bytes"]
    assert results.value("d", "bert_jax", "ratio") == 2.0
    measure(results, "e", {"bert_jax": Told([2.0]), "bert_jax, other": Told([1.0])}, 1)
    assert "ratio" not in results.metrics("e")  # there is nobody else


def refuse(name, metadata):
    """Refuses one side for good, and leaves another out."""
    if metadata.get("wrong"):
        raise metadata["wrong"]


@pytest.fixture
def at_once(monkeypatch):
    """Sides in place of processes."""
    monkeypatch.setattr(harness, "started", lambda make, **_: contextlib.nullcontext(make()))


def missing():
    raise SideError("no such kernel\nand more")


def test_sides_that_cannot_start_or_do_something_else(at_once):
    results = Results("s", "t", "seconds")
    first = lambda: Told([2.0], {"figures": {"first_seconds": 5.0}, "tokens": 10})  # noqa: E731
    makes = {"first": first, "missing": missing, "last": lambda: Told([4.0], {"tokens": 30})}
    makes["coarse"] = lambda: Told([], {"wrong": SideError("eight bits are too few")})
    assert list(compare(results, "c", makes, 1, refuse, amount="tokens")) == ["first", "last"]
    assert results.left_out == [
        {"case": "c", "side": "missing", "reason": "no such kernel"},
        {"case": "c", "side": "coarse", "reason": "eight bits are too few"},
    ]
    assert results.by_side("c", "first_seconds") == {"first": 5.0}
    assert results.by_side("c", "tokens_per_second") == {"first": 5.0, "last": 7.5}
    with pytest.raises(SideError, match="no such kernel"):
        compare(results, "c", {"first": missing}, 1)
    other = {"first": first, "other": lambda: Told([], {"wrong": UserError("another loss")})}
    with pytest.raises(UserError, match="another loss"):
        compare(results, "c", other, 1, refuse)


def test_without_time_one_round_and_one_peer_are_left(at_once):
    results = Results("s", "t", "seconds")
    makes = {name: lambda: Told([1.0, 2.0, 3.0]) for name in ("bert_jax", "a", "b")}
    with time_limit(0.0):
        assert list(compare(results, "c", makes, 3)) == ["bert_jax", "a"]
    assert results.rounds("c", "a", "seconds") == [1.0]
    assert results.left_out == [{"case": "c", "side": "b", "reason": "no time was left"}]
    assert list(compare(results, "d", makes, 3)) == list(makes)
    assert results.rounds("d", "b", "seconds") == [1.0, 2.0, 3.0]


def test_another_start_is_refused():
    check_same_loss("x", 7.0, 7.0 + 1e-5, "float32")
    with pytest.raises(UserError, match="x does not start as bert_jax does"):
        check_same_loss("x", 7.0, 7.001, "float32")
    with pytest.raises(UserError, match="does not start"):
        check_same_loss("x", float("nan"), 7.0, "bfloat16")
