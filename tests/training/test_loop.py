"""The loop on a toy task: exact resume, accumulation, signals, torn checkpoints, losses that are not finite."""

import dataclasses
import itertools
import json
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.runs import metric_lines
from helpers.toy import CONFIG, Toy, assert_same_bits, toy_batch, toy_data, train

from bert_jax.config import MeshConfig, OptimizerConfig, ScheduleConfig
from bert_jax.errors import Interrupted, UserError
from bert_jax.runtime.execution import Execution
from bert_jax.training.checkpoint import Progress
from bert_jax.training.duration import Duration, planned_steps
from bert_jax.training.loop import Data, log_interval, next_batch
from bert_jax.training.metrics import Clock, Reporter, described
from bert_jax.training.objective import Mean
from bert_jax.training.sharding import local_rows
from bert_jax.training.step import accumulated_gradients, stream_key


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_the_clock_leaves_pauses_out_and_ends_an_interval_when_the_device_does(monkeypatch) -> None:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("bert_jax.training.metrics.time", SimpleNamespace(monotonic=lambda: now.seconds))

    def at(seconds: float, action, *arguments):
        now.seconds = seconds
        return action(*arguments)

    clock = Clock()
    at(2, clock.pause)
    at(7, clock.resume)
    at(9, clock.watch, 4, SimpleNamespace(is_ready=lambda: now.seconds >= 10))
    at(9.5, clock.look)  # the device is not done
    at(10.5, clock.look)
    assert at(12, clock.end_interval, 4) == 2 + 3.5  # the host asks late
    assert at(13, clock.end_interval, 8) == 2.5  # nobody looked before


def test_a_task_derives_no_metrics_and_has_no_layers_unless_it_says_so() -> None:
    params = Toy().init(jax.random.key(0))
    assert Toy().derived({"fit_loss": 1.0}) == {}
    assert jax.tree.map(int, Toy().layer_depths(params)) == {"dense": {"kernel": -1, "bias": -1}}


def scripted(ranks: list[float], seen: list) -> Data:
    """Data whose evaluations give these ranks one after the other; `seen` gets what was evaluated."""

    def evaluate(params):
        seen.append(jax.device_get(params))
        return {"loss": 1.0, "score": ranks[len(seen) - 1]}

    return dataclasses.replace(toy_data(), evaluate=evaluate, rank=lambda evaluation: evaluation["score"])


@pytest.mark.slow
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


@pytest.mark.slow
def test_patience_counts_over_a_restart(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, eval_every=2, checkpoint_every=2, patience=3)
    data = scripted([0.5, 0.4, 0.3], [])
    with pytest.raises(Interrupted):
        train(Toy(), config, tmp_path, dataclasses.replace(data, train=toy_data(kill=(5, signal.SIGTERM)).train))
    state = train(Toy(), config, tmp_path, scripted([0.3, 0.2, 0.1, 0.6], [])).state
    assert int(state.step) == 8


@pytest.mark.slow
def test_checkpoints_are_the_newest_and_the_best(tmp_path) -> None:
    growing = OptimizerConfig(learning_rate=1.0, clip_norm=0.0)  # soon overshoots
    config = dataclasses.replace(CONFIG, checkpoint_every=2, eval_every=2, keep_checkpoints=2, optimizer=growing)
    train(Toy(), config, tmp_path, toy_data())
    losses = {line["step"]: line["loss"] for line in metric_lines(tmp_path) if line["split"] == "validation"}
    best = min(losses, key=losses.get)
    assert best < 18, "choose a toy whose best step is not among the newest"
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {18, 20, best}


@pytest.mark.slow
def test_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoints(tmp_path) -> None:
    with pytest.raises(UserError, match=r"is not finite in steps 9 to 1\d.*learning_rate.*gradient_norm"):
        train(Toy(), CONFIG, tmp_path, toy_data(bad_step=10))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["6"]


@pytest.mark.slow
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


def test_durations_become_steps() -> None:
    length = lambda **duration: planned_steps(  # noqa: E731
        dataclasses.replace(CONFIG, **{"total_steps": 0, **duration}), 40, 4, Progress()
    )
    assert length(total_steps=7) == 7
    assert length(total_epochs=3.0) == 15  # 40 rows an epoch, 8 a step
    assert length(total_tokens=3_200) == 100  # 8 rows of 4 tokens a step
    with pytest.raises(UserError, match="the run would have 5,000,000,000 steps, and the most is 2,147,483,647"):
        length(total_epochs=1e9)


def test_a_plan_of_very_many_minutes_has_no_more_steps_than_can_be_counted(monkeypatch) -> None:
    monkeypatch.setattr("bert_jax.training.duration.time", SimpleNamespace(monotonic=itertools.count(0, 1e-4).__next__))
    config = dataclasses.replace(CONFIG, total_steps=0, total_minutes=1e8)
    duration = Duration(config, 0, 0, 0.0)
    duration.fix(50, lambda: None)
    assert duration.total_steps == 2**31 - 1


@pytest.mark.slow
@pytest.mark.parametrize("duration", [{"total_epochs": 3.0}, {"total_tokens": 480}, {"total_minutes": 0.02}])
def test_a_warm_up_that_is_longer_than_the_run_is_refused(duration, tmp_path, monkeypatch) -> None:
    """By the clock of the test below, 0.02 minutes are fewer than 100 steps."""
    clock = SimpleNamespace(monotonic=(tick / 100 for tick in itertools.count()).__next__)
    monkeypatch.setattr("bert_jax.training.loop.time", clock)
    monkeypatch.setattr("bert_jax.training.duration.time", clock)
    monkeypatch.setattr("bert_jax.training.duration.CALIBRATION_STEPS", 5)
    config = dataclasses.replace(CONFIG, total_steps=0, **duration, schedule=ScheduleConfig(warmup=100))
    message = r"schedule.warmup=100 steps do not fit into a run of \d+ steps.*such as schedule.warmup=0.05"
    with pytest.raises(UserError, match=message):
        train(Toy(), config, tmp_path, toy_data())
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_minutes_fix_the_number_of_steps_and_resume_keeps_it(tmp_path, monkeypatch) -> None:
    """A clock that moves a hundredth of a second at each look."""
    clock = SimpleNamespace(monotonic=(tick / 100 for tick in itertools.count()).__next__)
    monkeypatch.setattr("bert_jax.training.loop.time", clock)
    monkeypatch.setattr("bert_jax.training.duration.time", clock)
    monkeypatch.setattr("bert_jax.training.duration.CALIBRATION_STEPS", 5)
    monkeypatch.setattr("bert_jax.training.duration.REVISED_BY", 9.0)  # without evaluations it would be fast
    config = dataclasses.replace(CONFIG, total_steps=0, total_minutes=0.02, log_every=500, checkpoint_every=10**6)
    with pytest.raises(Interrupted):
        train(Toy(), config, tmp_path, toy_data(kill=(8, signal.SIGINT)))
    folders = sorted((tmp_path / "checkpoints").glob("[0-9]"))
    planned, progress = (json.loads((folder / "progress" / "metadata").read_text()) for folder in folders)
    assert int(folders[0].name) < 8 == int(folders[1].name)
    assert planned["total_steps"] == progress["total_steps"] > 8  # saved with the plan, whatever comes after
    assert 0 < progress["seconds"] < 1.2
    fewer = dataclasses.replace(config, eval_every=10**6, checkpoint_every=10**6)
    state = train(Toy(), fewer, tmp_path, toy_data()).state
    assert int(state.step) == progress["total_steps"]
    more = dataclasses.replace(fewer, total_minutes=0.06)
    state = train(Toy(), more, tmp_path, toy_data()).state
    assert int(state.step) > progress["total_steps"]


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "expected"), [(1.0, 60), (0.5, 115), (2.0, 32), (1.05, 60)])
def test_a_plan_of_minutes_is_revised_half_way_through(seconds, expected, monkeypatch) -> None:
    """A step takes a second at first, and from the fifth on as many as `seconds`."""
    now = [0.0]
    monkeypatch.setattr("bert_jax.training.duration.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("bert_jax.training.duration.CALIBRATION_STEPS", 5)
    config = dataclasses.replace(CONFIG, total_steps=0, total_minutes=1.0, eval_every=10**9)
    duration = Duration(config, 0, 0, 0.0)
    step = 0
    while not duration.is_done(step):
        now[0] += 1.0 if step < 5 else seconds
        step += 1
        if duration.waits_for_speed(step):
            duration.fix(step, lambda: None)
    assert step == expected
    assert now[0] == pytest.approx(60, abs=3)


def test_checkpoint_of_other_data_is_refused_with_the_part_that_differs(tmp_path) -> None:
    data = dataclasses.replace(toy_data(), identity={"vocabulary": "ab12", "labels": "n" * 200 + "yes"})
    train(Toy(), dataclasses.replace(CONFIG, total_steps=2), tmp_path, data)
    changed = {"vocabulary": "ab12", "labels": "n" * 200 + "no", "corpus": "not recorded then"}
    wanted = r"2 was trained on other data than are given now: the labels was \.\.\.n{30}yes and is \.\.\.n{30}no: give"
    with pytest.raises(UserError, match=wanted):
        train(Toy(), CONFIG, tmp_path, dataclasses.replace(data, identity=changed))


@pytest.mark.slow
def test_checkpoint_of_a_former_version_goes_on_and_knows_its_vocabulary(tmp_path) -> None:
    train(Toy(), dataclasses.replace(CONFIG, total_steps=2), tmp_path, toy_data())
    file = tmp_path / "checkpoints" / "2" / "progress" / "metadata"
    record = json.loads(file.read_text())
    del record["identity"]
    (tmp_path / "checkpoints" / "2" / "checksums.json").unlink()
    file.write_text(json.dumps(record | {"vocabulary": "ab12"}))
    with pytest.raises(UserError, match="the vocabulary was ab12 and is cd34"):
        train(Toy(), CONFIG, tmp_path, dataclasses.replace(toy_data(), identity={"vocabulary": "cd34"}))
    same = dataclasses.replace(toy_data(), identity={"vocabulary": "ab12"})
    assert int(train(Toy(), CONFIG, tmp_path, same).state.step) == 20


@pytest.mark.slow
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
    assert {"6", "7.diverged"} <= {path.name for path in (tmp_path / "checkpoints").iterdir()}


def test_processes_share_the_rows_of_a_batch() -> None:
    rows = [local_rows(8, Execution(process_count=4, process_index=index)) for index in range(4)]
    assert rows == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert local_rows(8, Execution()) == slice(0, 8)


def test_mesh_and_batch_must_fit(tmp_path) -> None:
    with pytest.raises(UserError, match=r"mesh.data=3 does not match the 1 device"):
        train(Toy(), dataclasses.replace(CONFIG, mesh=MeshConfig(data=3)), tmp_path, toy_data())


@pytest.mark.slow
def test_progress_is_printed_without_a_terminal(straight, tmp_path, capsys) -> None:
    train(Toy(), dataclasses.replace(CONFIG, total_steps=8), tmp_path, toy_data())
    out = capsys.readouterr().out
    assert "ready to train on 1 cpu device from step 0" in out
    assert "step       1  loss " in out
    assert "step       4  loss " in out
    assert " tokens/s  00:0" in out
    assert "step       8  validation: loss " in out


def test_the_loss_stands_in_a_line_once() -> None:
    values = {"loss": 0.5, "cross_entropy": 0.5 + 1e-9, "accuracy": 0.75, "mlm_loss": 0.4}
    assert described(values) == "loss 0.5, accuracy 0.75, mlm_loss 0.4"
    assert described({"accuracy": 0.75}, ".4f") == "accuracy 0.7500"


@pytest.mark.parametrize(
    ("changes", "total_steps", "expected"),
    [
        (dict(log_every=0), 39, 3),
        (dict(log_every=0), 5, 1),
        (dict(log_every=0), 10_000, 50),
        (dict(log_every=7), 39, 7),
        (dict(log_every=0, total_steps=0, total_minutes=1.0), 39, 50),
    ],
)
def test_a_short_run_has_ten_lines_of_training(changes, total_steps, expected):
    assert log_interval(dataclasses.replace(CONFIG, **changes), total_steps) == expected
