"""The suites on a single step: what is compiled, found again and held in memory is what their figures say."""

import dataclasses
import json
import os
import sys

import jax
import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.benchmarks import compile_speed, memory
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.compile_speed import quickstart_starts, seconds_to_first_step
from bert_jax.benchmarks.our_step import OPTIMIZER, Start, Step, StepSetting, Update
from bert_jax.benchmarks.their_step import Theirs, Way
from bert_jax.benchmarks.training_speed import STEPS, full_batches
from bert_jax.config import SIZES, ModelConfig
from bert_jax.errors import UserError
from bert_jax.training.optimizer import decay_mask

SETTING = StepSetting("tiny", 4, 16, "float32", 100)


@pytest.fixture(autouse=True, scope="module")
def few_words_and_one_narrow_layer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "vocab_size", 100)
        patch.setitem(SIZES, "tiny", (1, 16, 2))
        yield


# --- the real sides


@pytest.fixture(scope="module")
def batches():
    return full_batches(100, 4, 16)[:2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tmp_path_factory.mktemp("start") / "model"


@pytest.fixture(scope="module")
def start(weights, batches):
    return Start(SETTING, batches, weights).facts


@pytest.fixture
def programs(tmp_path, start):  # `start` compiles, and whether programs are kept is asked once
    """A folder for compiled programs, which JAX forgets afterwards."""
    compilation_cache.reset_cache()
    yield tmp_path / "programs"
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def test_a_step_tells_its_time_and_memory_and_keeps_its_program(programs, weights, batches, start):
    step = Step(SETTING, batches, weights, programs)
    leaves = jax.tree.leaves(jax.eval_shape(SETTING.objective().init, jax.random.key(0)))
    parameters = 4 * sum(leaf.size for leaf in leaves)
    held = step.facts["bytes"]
    assert held["parameters"] == parameters
    assert held["optimizer_state"] == 2 * parameters + 4  # and the number of updates
    assert held["temporaries"] > parameters  # the gradient at least
    assert set(step.facts["first_step"]) == {"trace", "compile", "run"}
    assert len(list(programs.glob("jit_train_step-*"))) == 1
    assert step.facts["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    step.turn()
    assert step.state.step == 1 + len(batches)


def test_every_setting_starts_with_the_same_loss(weights, batches, start):
    changed = dataclasses.replace(SETTING, scan_layers=True, remat=True, remat_saves="products", accumulate=2)
    step = Step(changed, batches, weights)
    assert step.facts["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    assert "layers" in step.state.params["bert"]["encoder"]


def test_torch_compile_keeps_its_programs_where_it_is_told(tmp_path, weights, start, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")  # so that it is put back
    theirs = Theirs(Way("sdpa"), "float32", weights, start["masked"], tmp_path / "programs")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "programs")
    assert theirs.facts["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    assert set(theirs.facts["first_step"]) == {"step"}


def test_settings_reach_the_model_and_the_loop():
    setting = dataclasses.replace(SETTING, scan_layers=True, remat=True, remat_saves="products", accumulate=2)
    model = setting.objective().model
    assert (model.scan_layers, model.remat, model.remat_saves, model.hidden_dropout_prob) == (True, True, "products", 0)
    assert (setting.training().accumulate, setting.training().batch_size) == (2, 4)


def test_the_update_alone_is_that_of_adamw():
    """Of a constant gradient, whose moments are itself and its square; too small to be clipped."""
    update = Update(SETTING, 2)
    before = jax.device_get(update.params)
    update.turn()
    for leaf, after, decayed in zip(*map(jax.tree.leaves, (before, update.params, decay_mask(before))), strict=True):
        for _ in range(2):
            leaf = leaf - 1e-4 * (1e-3 / (1e-3 + OPTIMIZER.eps) + OPTIMIZER.weight_decay * decayed * leaf)
        np.testing.assert_allclose(after, leaf, rtol=1e-5, atol=1e-8)


# --- the suites, with sides that need no time


BYTES = {"parameters": 1_000_000, "optimizer_state": 2_000_000, "temporaries": 3_000_000}


class FakeStep:
    def __init__(self, setting, batches, start, programs=None):
        self.facts = {"bytes": BYTES, "first_loss": 7.0}
        if programs:
            self.facts["first_step"] = {"trace": 1.0, "compile": 0.5 if programs.exists() else 8.0, "run": 0.25}
            programs.mkdir(exist_ok=True)
            assert " " not in programs.name  # a C++ compiler would take it for several

    def turn(self):
        pass


class FakeUpdate(FakeStep):
    def __init__(self, setting, updates):
        super().__init__(setting, [], None)


class FakeTheirs:
    def __init__(self, way, dtype, start, batches, programs=None):
        if way.compiled:
            raise ValueError("no C++ compiler\nand much more")
        self.facts = {"first_step": {"step": 3.0}, "first_loss": 7.0}

    def turn(self):
        pass


@pytest.fixture
def fakes(monkeypatch):
    for module in (compile_speed, memory):
        monkeypatch.setattr(module, "started", in_this_process)
        monkeypatch.setattr(module, "start_in", lambda folder, setting, batches: {"masked": batches, "first_loss": 7.0})
        monkeypatch.setattr(module, "Step", FakeStep)
        monkeypatch.setattr(module, "Theirs", FakeTheirs)
    monkeypatch.setattr(memory, "Update", FakeUpdate)
    turns = lambda sides, rounds: {name: [STEPS * (0.01 if name == "update" else 0.2)] for name in sides}  # noqa: E731
    monkeypatch.setattr(memory, "in_turns", turns)


def test_the_compile_suite(fakes, tmp_path, monkeypatch, capsys):
    starts = iter([{"first": 30.0, "second": 4.0}, {"first": 32.0, "second": 5.0}])
    monkeypatch.setattr(compile_speed, "quickstart_starts", lambda source: next(starts))
    figures = benchmark("compile", tmp_path, sizes=["tiny:4"], length=16, source="text", rounds=2)
    assert figures["quickstart"] == {"first": 31.0, "second": 4.5}
    assert figures["quickstart_of_rounds"] == {"first": [30.0, 32.0], "second": [4.0, 5.0]}
    found = figures["first_step"]["tiny"]
    for name in ("bert_jax", "bert_jax, scan_layers"):  # the second process has the folder of the first, and no other
        assert [each["compile"] for each in found["seconds"][name].values()] == [8.0, 0.5]
        assert [start["first"]["compile"] for start in found["seconds_of_rounds"][name]] == [8.0, 8.0]  # always anew
    assert found["left_out"] == {"PyTorch sdpa, logits at masked, compiled": "no C++ compiler"}
    assert json.loads((tmp_path / "benchmark" / "compile.json").read_text())["first_step"]["tiny"] == found
    ours = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  bert_jax  "))
    assert ours.split()[1:3] == ["9.2", "1.8"]


def test_the_memory_suite(fakes, tmp_path, capsys):
    figures = benchmark("memory", tmp_path, sizes=["tiny:6"], length=16, dtype="auto", rounds=2)
    found = figures["needs"]["tiny"]
    assert found["left_out"] == {"bert_jax, accumulate=4": "6 rows do not divide by it"}
    assert len(found["sides"]) == len(memory.CHANGES) - 1 + len(memory.WAYS)
    plain = found["sides"]["bert_jax"]
    assert plain["bytes"]["temporaries"] == 3_000_000
    assert plain["seconds_of_turns"] == pytest.approx([0.2, 0.2])
    assert plain["seconds_a_step"] == pytest.approx(0.2)
    assert plain["tokens_per_second"] == pytest.approx(6 * 16 / 0.2)
    assert figures["update"]["tiny"]["lamb"]["share"] == pytest.approx(0.05)
    assert json.loads((tmp_path / "benchmark" / "memory.json").read_text())["needs"]["tiny"] == found
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("  bert_jax  ")).split()[1:5] == [
        "1.0",
        "2.0",
        "3.0",
        "1,000",
    ]
    assert "5.0%  (5.0% to 5.0%)" in next(line for line in lines if line.startswith("tiny, adamw"))


def test_the_memory_of_sides_that_start_unlike_is_not_compared(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "start_in", lambda *_: {"masked": [], "first_loss": 7.001})
    with pytest.raises(UserError, match="bert_jax does not start as"):
        benchmark("memory", tmp_path, sizes=["tiny:4"], length=16, dtype="auto", rounds=1)


# --- the quickstart's command

TALKS = "import os, time; print('ready'); time.sleep(0.3); print('step 1', flush=True); print(os.environ['WORD']); "


def test_a_command_is_timed_to_its_first_step_and_waited_for(tmp_path):
    end = f"time.sleep(0.3); open({str(tmp_path / 'end')!r}, 'w')"
    assert seconds_to_first_step([sys.executable, "-c", TALKS + end], {"WORD": "done"}) > 0.3
    assert (tmp_path / "end").exists()
    with pytest.raises(UserError, match="ended with status 3: no space"):
        seconds_to_first_step([sys.executable, "-c", TALKS + "raise SystemExit(3)"], {"WORD": "no space"})
    with pytest.raises(UserError, match="ended with status 0"):
        seconds_to_first_step([sys.executable, "-c", ""], {})


def test_the_second_start_of_the_quickstart_goes_on_with_the_first(monkeypatch):
    starts = []
    monkeypatch.setattr(compile_speed, "seconds_to_first_step", lambda *start: starts.append(start) or 1.0)
    assert quickstart_starts("texts/*.txt") == {"first": 1.0, "second": 1.0}
    (first, programs), (second, same_programs) = starts
    assert programs == same_programs
    assert first[:-1] == second[:-1]
    assert "--config.data.source=texts/*.txt" in first
    assert [each[-1] for each in (first, second)] == ["--config.total_steps=1", "--config.total_steps=2"]
