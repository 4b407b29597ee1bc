"""The loop on a toy task: exact resume, accumulation, signals, torn checkpoints, losses that are not finite."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.runs import metric_lines

from bert_jax.config import MeshConfig, OptimizerConfig, TrainingConfig
from bert_jax.errors import Interrupted, UserError
from bert_jax.runtime.execution import Execution
from bert_jax.training import loop
from bert_jax.training.checkpoint import Progress
from bert_jax.training.duration import planned_steps
from bert_jax.training.loop import Data, next_batch
from bert_jax.training.metrics import Reporter
from bert_jax.training.objective import Mean, Objective
from bert_jax.training.step import accumulated_gradients, stream_key

WIDTH = 4


class Toy(Objective):
    """Regression with missing targets (uneven counts) and dropout; a target of 1e30 overflows."""

    losses = ("fit_loss", "size_loss")

    def init(self, key):
        return {"dense": {"kernel": jax.random.normal(key, (WIDTH,)), "bias": jnp.zeros(())}}

    def prepare(self, batch, keys, *, training):
        noise = jax.vmap(lambda key: jax.random.normal(key, (WIDTH,)))(keys)
        return {**batch, "x": batch["x"] + 0.1 * noise}

    def metrics(self, params, batch, dropout_key):
        x = batch["x"]
        if dropout_key is not None:
            x = x * jax.random.bernoulli(dropout_key, 0.9, x.shape) / 0.9
        guess = x @ params["dense"]["kernel"] + params["dense"]["bias"]
        weight = (batch["y"] != 0).astype(jnp.float32)
        return {
            "fit_loss": Mean((weight * (guess - batch["y"]) ** 2).sum(), weight.sum()),
            "size_loss": Mean((guess**2).sum(), jnp.float32(len(guess))),
        }


def toy_batch(step: int, bad_step: int | None = None, rows: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    y = rng.standard_normal(rows).astype(np.float32) * (rng.random(rows) < 0.6)
    return {
        "x": rng.standard_normal((rows, WIDTH)).astype(np.float32),
        "y": np.full(rows, 1e30, np.float32) if step == bad_step else y,
    }


def train(objective, config, workdir, data, **settings):
    """Trains on all devices of this process."""
    return loop.train(objective, config, workdir, data, Execution.here(mesh=config.mesh).mesh, **settings)


def toy_data(bad_step: int | None = None, kill: tuple[int, int] | None = None) -> Data:
    """Batches by step; before the batch of step `kill[0]`, the process sends itself signal `kill[1]`."""

    def stream(step: int) -> Iterator[dict[str, np.ndarray]]:
        while True:
            if kill and step == kill[0]:
                os.kill(os.getpid(), kill[1])
            yield toy_batch(step, bad_step)
            step += 1

    return Data(train=stream, validation=[toy_batch(10**6), toy_batch(10**6 + 1)], rows_per_epoch=40, tokens_per_row=4)


CONFIG = TrainingConfig(
    seed=1,
    batch_size=8,
    total_steps=20,
    log_every=4,
    eval_every=10,
    checkpoint_every=6,
    tensorboard=False,
    optimizer=OptimizerConfig(learning_rate=0.05),
)


def assert_same_bits(first, second) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    trained = train(Toy(), CONFIG, workdir, toy_data())
    return workdir, trained.state, trained.evaluation


def test_metrics_file_has_each_interval_and_each_evaluation(straight) -> None:
    workdir, _, evaluation = straight
    found = metric_lines(workdir)
    assert [(line["step"], line["split"]) for line in found] == [
        *[(4, "train"), (8, "train"), (10, "validation")],
        *[(12, "train"), (16, "train"), (20, "train"), (20, "validation")],
    ]
    last = found[-1]
    assert last["loss"] == pytest.approx(last["fit_loss"] + last["size_loss"])
    assert last["fit_loss"] == evaluation["fit_loss"]
    speeds = [json.loads(line).get("tokens_per_second") for line in (workdir / "metrics.jsonl").open()]
    assert speeds[0] > 0


def test_time_that_the_loop_waits_for_batches_is_reported(tmp_path) -> None:
    def slow(step: int) -> Iterator[dict[str, np.ndarray]]:
        for batch in toy_data().train(step):
            time.sleep(0.02)
            yield batch

    config = dataclasses.replace(CONFIG, total_steps=8)
    train(Toy(), config, tmp_path, dataclasses.replace(toy_data(), train=slow))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [0.5 < line["input_wait"] <= 1 for line in lines if line["split"] == "train"] == [True, True]


def test_a_batch_that_comes_while_the_device_computes_is_not_waited_for() -> None:
    class Leaf:
        def __init__(self, ready: bool) -> None:
            self.is_ready = lambda: ready

    def late() -> Iterator[dict]:
        while True:
            time.sleep(0.01)
            yield {}

    done, busy = ({"loss": Mean(Leaf(True), Leaf(ready))} for ready in (True, False))
    assert next_batch(late(), done)[1] >= 0.01
    assert next_batch(late(), busy)[1] == 0


def test_metrics_are_read_an_interval_late(monkeypatch) -> None:
    """The host asks for an interval only when the next one is complete; a pause asks for everything."""
    asked: list[int] = []
    monkeypatch.setattr(
        "bert_jax.training.metrics.jax.device_get", lambda ready: asked.extend(step for step, *_ in ready) or ready
    )
    written: list[int] = []
    writer = SimpleNamespace(write=lambda step, split, values: written.append(step))
    objective = SimpleNamespace(losses=("a",), derived=lambda means: {})
    reporter = Reporter(writer, objective, log_every=4, step=0, sums={})
    for step in range(1, 11):
        reporter.add(step, {"a": Mean(jnp.float32(step), jnp.float32(1))}, 8, 20)
        assert asked == list(range(1, max(0, step - step % 4 - 4) + 1))
    with reporter.paused():
        assert asked == list(range(1, 11))
    assert written == [4, 8]
    assert reporter.state() == {"a": [9.0 + 10.0, 2.0]}


def scripted(ranks: list[float], seen: list) -> Data:
    """Data whose evaluations give these ranks one after the other; `seen` gets what was evaluated."""

    def evaluate(params):
        seen.append(jax.device_get(params))
        return {"loss": 1.0, "score": ranks[len(seen) - 1]}

    return dataclasses.replace(toy_data(), evaluate=evaluate, rank=lambda evaluation: evaluation["score"])


def test_training_stops_when_patience_is_out_and_the_best_is_kept(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, eval_every=2, checkpoint_every=2, patience=2, keep_checkpoints=1)
    seen: list = []
    trained = train(Toy(), config, tmp_path, scripted([0.1, 0.5, 0.4, 0.3, 0.9], seen))
    assert int(trained.state.step) == 8
    assert trained.evaluation["score"] == 0.3
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "8"}
    assert_same_bits(trained.best_params(), seen[1])
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "8"}
    again = train(Toy(), config, tmp_path, scripted([0.9] * 5, []))  # it had stopped for good
    assert int(again.state.step) == 8
    assert_same_bits(again.best_params(), seen[1])


def test_patience_counts_over_a_restart(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, eval_every=2, checkpoint_every=2, patience=3)
    data = scripted([0.5, 0.4, 0.3], [])
    with pytest.raises(Interrupted):
        train(Toy(), config, tmp_path, dataclasses.replace(data, train=toy_data(kill=(5, signal.SIGTERM)).train))
    state = train(Toy(), config, tmp_path, scripted([0.3, 0.2, 0.1, 0.6], [])).state
    assert int(state.step) == 8


def test_batches_of_several_lengths_compile_once_each(tmp_path) -> None:
    traced: list = []

    class Watched(Toy):
        def metrics(self, params, batch, dropout_key):
            traced.append(len(batch["y"]))
            return super().metrics(params, batch, dropout_key)

    stream = lambda step: (toy_batch(number, rows=8 + number % 3) for number in itertools.count(step))  # noqa: E731
    train(Watched(), CONFIG, tmp_path, dataclasses.replace(toy_data(), train=stream))
    assert sorted(traced) == [8, 8, 9, 10]  # three steps and the evaluation


def test_interrupted_run_goes_on_to_the_same_bits(straight, tmp_path) -> None:
    workdir, state, _ = straight
    for kill in ((7, signal.SIGINT), (13, signal.SIGTERM)):
        with pytest.raises(Interrupted, match="run the same command"):
            train(Toy(), CONFIG, tmp_path, toy_data(kill=kill))
    resumed = train(Toy(), CONFIG, tmp_path, toy_data()).state
    assert_same_bits(resumed, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


def test_killed_run_goes_on_to_the_same_bits(straight, tmp_path) -> None:
    """SIGKILL in a process of its own: nothing is saved on the way out."""
    workdir, state, _ = straight
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nfrom training.test_loop import CONFIG, Toy, toy_data, train\n"
        f"train(Toy(), CONFIG, Path({str(tmp_path)!r}), toy_data(kill=(17, {int(signal.SIGKILL)})))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = train(Toy(), CONFIG, tmp_path, toy_data()).state
    assert_same_bits(resumed, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


def test_a_bfloat16_first_moment_goes_on_to_the_same_bits(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.05, mu_dtype="bfloat16"))
    straight = train(Toy(), config, tmp_path / "straight", toy_data()).state
    with pytest.raises(Interrupted):
        train(Toy(), config, tmp_path / "cut", toy_data(kill=(9, signal.SIGTERM)))
    resumed = train(Toy(), config, tmp_path / "cut", toy_data()).state
    assert_same_bits(resumed, straight)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(resumed.opt_state)} == {"bfloat16", "float32"}


def test_checkpoints_are_the_newest_and_the_best(tmp_path) -> None:
    growing = OptimizerConfig(learning_rate=1.0, clip_norm=0.0)  # soon overshoots
    config = dataclasses.replace(CONFIG, checkpoint_every=2, eval_every=2, keep_checkpoints=2, optimizer=growing)
    train(Toy(), config, tmp_path, toy_data())
    losses = {line["step"]: line["loss"] for line in metric_lines(tmp_path) if line["split"] == "validation"}
    best = min(losses, key=losses.get)
    assert best < 18, "choose a toy whose best step is not among the newest"
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {18, 20, best}


def tear(checkpoint: Path) -> None:
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_torn_newest_checkpoint_falls_back_to_the_one_before(straight, tmp_path, capsys) -> None:
    workdir, state, _ = straight
    with pytest.raises(Interrupted):
        train(Toy(), CONFIG, tmp_path, toy_data(kill=(15, signal.SIGINT)))
    tear(tmp_path / "checkpoints" / "15")
    resumed = train(Toy(), CONFIG, tmp_path, toy_data()).state
    assert "15 cannot be read, trying the one before" in capsys.readouterr().out
    assert_same_bits(resumed, state)
    assert metric_lines(tmp_path) == metric_lines(workdir)


def test_no_readable_checkpoint_is_an_error(tmp_path) -> None:
    with pytest.raises(Interrupted):
        train(Toy(), CONFIG, tmp_path, toy_data(kill=(3, signal.SIGINT)))
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        tear(checkpoint)
    with pytest.raises(UserError, match="none of the checkpoints"):
        train(Toy(), CONFIG, tmp_path, toy_data())


def test_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoints(tmp_path) -> None:
    with pytest.raises(UserError, match=r"is not finite in steps 9 to 1\d.*learning_rate.*gradient_norm"):
        train(Toy(), CONFIG, tmp_path, toy_data(bad_step=10))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["6"]


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulation_equals_the_large_batch(micro_batches: int) -> None:
    class NoDropout(Toy):
        def metrics(self, params, batch, dropout_key):
            return super().metrics(params, batch, None)

    params = Toy().init(stream_key(0, "init"))
    batch = jax.tree.map(jnp.asarray, toy_batch(5))
    counts = np.asarray(batch["y"] != 0).reshape(-1, micro_batches).sum(0)
    assert len(set(counts.tolist())) > 1, "choose a batch whose parts have uneven counts"
    whole = accumulated_gradients(NoDropout(), params, batch, stream_key(0, "dropout"), 1)
    parts = accumulated_gradients(NoDropout(), params, batch, stream_key(0, "dropout"), micro_batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, parts)


def test_full_disk_stops_the_run_before_it_writes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bert_jax.training.checkpoint.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"no checkpoint can be written to .* it needs 0 MB and 0 MB are free"):
        train(Toy(), CONFIG, tmp_path, toy_data())
    assert not list((tmp_path / "checkpoints").iterdir())


def test_durations_become_steps() -> None:
    length = lambda **duration: planned_steps(  # noqa: E731
        dataclasses.replace(CONFIG, **{"total_steps": 0, **duration}), 40, 4, Progress()
    )
    assert length(total_steps=7) == 7
    assert length(total_epochs=3.0) == 15  # 40 rows an epoch, 8 a step
    assert length(total_tokens=3_200) == 100  # 8 rows of 4 tokens a step


def test_minutes_fix_the_number_of_steps_and_resume_keeps_it(tmp_path, monkeypatch) -> None:
    """A clock that moves a hundredth of a second at each look."""
    clock = SimpleNamespace(monotonic=(tick / 100 for tick in itertools.count()).__next__)
    monkeypatch.setattr("bert_jax.training.loop.time", clock)
    monkeypatch.setattr("bert_jax.training.duration.time", clock)
    monkeypatch.setattr("bert_jax.training.duration.CALIBRATION_STEPS", 5)
    config = dataclasses.replace(CONFIG, total_steps=0, total_minutes=0.02, log_every=500)
    with pytest.raises(Interrupted):
        train(Toy(), config, tmp_path, toy_data(kill=(8, signal.SIGINT)))
    progress = json.loads((tmp_path / "checkpoints" / "8" / "progress" / "metadata").read_text())
    assert progress["total_steps"] > 8
    assert 0 < progress["seconds"] < 1.2
    fewer = dataclasses.replace(config, eval_every=10**6, checkpoint_every=10**6)
    state = train(Toy(), fewer, tmp_path, toy_data()).state
    assert int(state.step) == progress["total_steps"]
    more = dataclasses.replace(fewer, total_minutes=0.06)
    state = train(Toy(), more, tmp_path, toy_data()).state
    assert int(state.step) > progress["total_steps"]


def test_checkpoint_of_another_vocabulary_is_refused(tmp_path) -> None:
    data = dataclasses.replace(toy_data(), vocabulary="a")
    train(Toy(), dataclasses.replace(CONFIG, total_steps=2), tmp_path, data)
    with pytest.raises(UserError, match="another vocabulary"):
        train(Toy(), CONFIG, tmp_path, dataclasses.replace(data, vocabulary="b"))


def test_finished_run_trains_and_writes_nothing_more(straight) -> None:
    workdir, state, evaluation = straight
    before = metric_lines(workdir)
    again = train(Toy(), CONFIG, workdir, toy_data())
    assert_same_bits(again.state, state)
    assert again.evaluation == evaluation
    assert metric_lines(workdir) == before


def test_gradient_that_is_not_finite_spares_the_checkpoints(tmp_path) -> None:
    """The loss is finite, its gradient is not: the square root of zero."""

    class Sharp(Toy):
        def metrics(self, params, batch, dropout_key):
            sharp = (batch["x"][0, 0] > 1e20).astype(jnp.float32)
            zero = params["dense"]["bias"] - jax.lax.stop_gradient(params["dense"]["bias"])
            edge = jnp.sqrt(sharp * zero + 1 - sharp)
            found = super().metrics(params, {**batch, "x": jnp.clip(batch["x"], -9, 9)}, dropout_key)
            return {**found, "size_loss": Mean(found["size_loss"].total + edge, found["size_loss"].count)}

    def stream(step: int):
        for batch in toy_data().train(step):
            batch["x"] = np.full_like(batch["x"], 1e30) if step == 7 else batch["x"]
            step += 1
            yield batch

    config = dataclasses.replace(CONFIG, checkpoint_every=1, log_every=1)
    with pytest.raises(UserError, match="gradient_norm is not finite in steps 8 to 8"):
        train(Sharp(), config, tmp_path, dataclasses.replace(toy_data(), train=stream))
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == 7


def test_mesh_and_batch_must_fit(tmp_path) -> None:
    with pytest.raises(UserError, match=r"mesh.data=3 does not match the 1 device"):
        train(Toy(), dataclasses.replace(CONFIG, mesh=MeshConfig(data=3)), tmp_path, toy_data())


def test_progress_is_printed_without_a_terminal(straight, tmp_path, capsys) -> None:
    train(Toy(), dataclasses.replace(CONFIG, total_steps=8), tmp_path, toy_data())
    out = capsys.readouterr().out
    assert "ready to train on 1 cpu device from step 0" in out
    assert "step       4  loss " in out
    assert " tokens/s  00:0" in out
    assert "step       8  validation: loss " in out
