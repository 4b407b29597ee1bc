"""The suites on a single step: what is compiled, found again and held in memory is what their figures say."""

import contextlib
import dataclasses
import os
import sys

import jax
import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.jax_side import OPTIMIZER, JaxPretraining, JaxUpdate, Start, StepSetting
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import compile as compile_module
from bert_jax.benchmarks.suites import memory
from bert_jax.benchmarks.suites.compile import quickstart_starts, seconds_to_first_step
from bert_jax.benchmarks.suites.train import STEPS, full_batches
from bert_jax.benchmarks.torch_side import StepVariant, TorchPretraining
from bert_jax.config import SIZES, ModelConfig
from bert_jax.errors import UserError
from bert_jax.training.optimizer import decay_mask

pytestmark = pytest.mark.slow

LAYERS = (("scan_layers", True), ("remat", True), ("remat_saves", "products"))
SETTING = StepSetting("tiny", 4, 16, "float32", 100)


@pytest.fixture(autouse=True, scope="module")
def few_words_and_one_narrow_layer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "vocab_size", 100)
        patch.setitem(SIZES, "tiny", (1, 16, 2))
        yield


# ---- the real sides --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batches():
    return full_batches(100, 4, 16)[:2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tmp_path_factory.mktemp("start") / "model"


@pytest.fixture(scope="module")
def start(weights, batches):
    return Start(SETTING, batches, weights).metadata


@pytest.fixture
def programs(tmp_path, start):  # `start` compiles, and whether programs are kept is asked once
    """A folder for compiled programs, which JAX forgets afterwards."""
    compilation_cache.reset_cache()
    yield tmp_path / "programs"
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.mark.torch
def test_a_step_tells_its_time_and_memory_and_keeps_its_program(programs, weights, batches, start):
    step = JaxPretraining(SETTING, batches, weights, programs)
    leaves = jax.tree.leaves(jax.eval_shape(SETTING.objective().init, jax.random.key(0)))
    parameters = 4 * sum(leaf.size for leaf in leaves)
    held = step.metadata["bytes"]
    assert held["parameter_bytes"] == parameters
    assert held["optimizer_bytes"] == 2 * parameters + 4  # and the number of updates
    assert held["temporary_bytes"] > parameters  # the gradient at least
    assert set(step.metadata["figures"]) == {"first_seconds", "trace_seconds", "compile_seconds", "run_seconds"}
    assert len(list(programs.glob("jit_train_step-*"))) == 1
    assert step.metadata["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    step.run()
    assert step.state.step == 1 + len(batches)


@pytest.mark.torch
def test_every_setting_starts_with_the_same_loss(weights, batches, start):
    changed = dataclasses.replace(SETTING, layers=LAYERS, accumulate=2)
    step = JaxPretraining(changed, batches, weights)
    assert step.metadata["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    assert "layers" in step.state.params["bert"]["encoder"]


@pytest.mark.torch
def test_torch_compile_keeps_its_programs_where_it_is_told(tmp_path, weights, start, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")  # so that it is put back
    side = TorchPretraining(StepVariant("sdpa"), "float32", weights, start["masked"], tmp_path / "programs")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "programs")
    assert side.metadata["first_loss"] == pytest.approx(start["first_loss"], rel=1e-6)
    assert set(side.metadata["figures"]) == {"first_seconds"}


def test_settings_reach_the_model_and_the_loop():
    setting = dataclasses.replace(SETTING, layers=LAYERS, accumulate=2)
    model = setting.objective().model
    assert (model.scan_layers, model.remat, model.remat_saves, model.hidden_dropout_prob) == (True, True, "products", 0)
    assert (setting.training().accumulate, setting.training().batch_size) == (2, 4)


def test_the_update_alone_is_that_of_adamw():
    """Of a constant gradient, whose moments are itself and its square; too small to be clipped."""
    update = JaxUpdate(SETTING, 2)
    before = jax.device_get(update.params)
    update.run()
    for leaf, after, decayed in zip(*map(jax.tree.leaves, (before, update.params, decay_mask(before))), strict=True):
        for _ in range(2):
            leaf = leaf - 1e-4 * (1e-3 / (1e-3 + OPTIMIZER.eps) + OPTIMIZER.weight_decay * decayed * leaf)
        np.testing.assert_allclose(after, leaf, rtol=1e-5, atol=1e-8)


# ---- the suites, with sides that need no time ---------------------------------------------------------


BYTES = {"parameter_bytes": 1_000_000, "optimizer_bytes": 2_000_000, "temporary_bytes": 3_000_000}


class FakeStep:
    def __init__(self, setting, batches, start, programs=None):
        self.metadata = {"bytes": BYTES, "first_loss": 7.0}
        if programs:
            seconds = {"trace_seconds": 1.0, "compile_seconds": 0.5 if programs.exists() else 8.0, "run_seconds": 0.25}
            self.metadata["figures"] = {"first_seconds": sum(seconds.values()), **seconds}
            programs.mkdir(exist_ok=True, parents=True)
            assert " " not in programs.name  # a C++ compiler would take it for several

    def run(self):
        pass


class FakeUpdate(FakeStep):
    def __init__(self, setting, updates):
        super().__init__(setting, [], None)


class FakeTorch:
    def __init__(self, variant, dtype, start, batches, programs=None):
        if variant.compiled:
            raise ValueError("no C++ compiler\nand much more")
        self.metadata = {"figures": {"first_seconds": 3.0}, "first_loss": 7.0}

    def run(self):
        pass


def start_of(first_loss, folder):
    metadata = {"masked": [], "first_loss": first_loss}
    return lambda *_: contextlib.nullcontext((folder / "start" / "model", metadata))


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    for module in (compile_module, memory):
        monkeypatch.setattr(module, "start_of", start_of(7.0, tmp_path))
        monkeypatch.setattr(module, "JaxPretraining", FakeStep)
        monkeypatch.setattr(module, "TorchPretraining", FakeTorch)
    monkeypatch.setattr(harness, "started", in_this_process)
    monkeypatch.setattr(memory, "JaxUpdate", FakeUpdate)
    times = lambda sides, rounds: {name: [STEPS * (0.01 if name == "update" else 0.2)] for name in sides}  # noqa: E731
    monkeypatch.setattr(harness, "in_rounds", times)


def test_the_compile_suite(fakes, tmp_path, monkeypatch, capsys):
    starts = iter([{"first": 30.0, "second": 4.0}, {"first": 32.0, "second": 5.0}])
    monkeypatch.setattr(compile_module, "quickstart_starts", lambda source: next(starts))
    results = benchmark("compile", tmp_path, sizes=["tiny:4"], length=16, source="text", rounds=2)
    assert results.value("the quickstart, first process", "bert_jax", "seconds") == 31.0
    assert results.rounds("the quickstart, second process", "bert_jax", "seconds") == [4.0, 5.0]
    first, second = (f"tiny, 4 rows of 16, {which} process" for which in ("first", "second"))
    for name in ("bert_jax", "bert_jax, scan_layers"):  # the second process has the folder of the first, and no other
        assert results.rounds(first, name, "compile_seconds") == [8.0, 8.0]  # always anew
        assert results.rounds(second, name, "compile_seconds") == [0.5, 0.5]
    assert results.by_side(first, "seconds")["PyTorch sdpa, logits at masked"] == 3.0
    (left_out,) = results.left_out
    assert left_out["side"] == "PyTorch sdpa, logits at masked, compiled"
    assert left_out["reason"] == "no C++ compiler"
    assert Results.load(tmp_path / "benchmark" / "compile.json") == results
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  bert_jax  ")]
    assert [line[1] for line in lines] == ["9.25", "1.75", "31.0", "4.50"]


def test_the_memory_suite(fakes, tmp_path, capsys):
    results = benchmark("memory", tmp_path, sizes=["tiny:6"], length=16, dtype="auto", rounds=2)
    case = "tiny, 6 rows of 16"
    (left_out,) = results.left_out
    assert left_out == {"case": case, "side": "bert_jax, accumulate=4", "reason": "6 rows do not divide by it"}
    assert len(results.sides(case)) == len(memory.CHANGES) - 1 + len(memory.VARIANTS)
    assert results.value(case, "bert_jax", "temporary_bytes") == 3_000_000
    assert results.rounds(case, "bert_jax", "seconds") == pytest.approx([0.2, 0.2])
    assert results.value(case, "bert_jax", "tokens_per_second") == pytest.approx(6 * 16 / 0.2)
    assert results.rounds(case, "PyTorch eager, logits at masked", "peak_bytes") == [1e9, 1e9]
    assert results.value(f"{case}, the update of lamb", "bert_jax", "update_share") == pytest.approx(0.05)
    assert Results.load(tmp_path / "benchmark" / "memory.json") == results
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  bert_jax  ")]
    assert lines[0][1:] == ["0.200", "480", "0.00", "1,000", "1.00", "2.00", "3.00"]
    assert lines[1][1:] == ["5.00", "0.200", "0.0100"]


def test_the_memory_of_sides_that_start_unlike_is_not_compared(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "start_of", start_of(7.001, tmp_path))
    with pytest.raises(UserError, match="bert_jax does not start as"):
        benchmark("memory", tmp_path, sizes=["tiny:4"], length=16, dtype="auto", rounds=1)


# ---- the quickstart's command --------------------------------------------------------------------------

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
    monkeypatch.setattr(compile_module, "seconds_to_first_step", lambda *start: starts.append(start) or 1.0)
    assert quickstart_starts("texts/*.txt") == {"first": 1.0, "second": 1.0}
    (first, programs), (second, same_programs) = starts
    assert programs == same_programs
    assert first[:-1] == second[:-1]
    assert "--config.data.source=texts/*.txt" in first
    assert [each[-1] for each in (first, second)] == ["--config.total_steps=1", "--config.total_steps=2"]
