"""Trains any objective, in the one training loop of the project. Read it from top to bottom."""

import contextlib
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.runtime import signals
from bert_jax.config import TrainingConfig
from bert_jax.errors import Interrupted, NotFiniteError
from bert_jax.runtime.memory import check_program
from bert_jax.training.checkpoint import Checkpoints, Progress
from bert_jax.training.duration import PROVISIONAL_STEPS, Best, Duration, planned_steps
from bert_jax.training.forward import Forward, put
from bert_jax.training.metrics import MetricsWriter, Reporter, Sums, add_sums, means_of, say
from bert_jax.training.objective import Batch, Mean, Objective, Parameters
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.profile import Profiler
from bert_jax.training.sharding import (
    batch_sharding,
    check_batch,
    compiler_options,
    put_batch,
    state_sharding,
)
from bert_jax.training.step import TrainState, all_finite, make_eval_step, make_init, make_train_step
from bert_jax.training.workdir import divergence_noted

DEFAULT_LOG_EVERY = 50
HostBatch = dict[str, np.ndarray]
Evaluation = dict[str, float]


def lowest_loss(evaluation: Evaluation) -> float:
    """Ranks an evaluation by its loss: the lower, the better."""
    return -evaluation["loss"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Holds the data that the loop trains on and evaluates with.

    Attributes:
      train: the function from a number of finished steps to the endless batches (this process's rows) that follow.
      rows_per_epoch: the training rows of one pass over the data.
      tokens_per_row: the tokens L of the longest row.
      validation: the batches of every evaluation, scored by the objective's means.
      evaluate: the function from parameters to an evaluation, in place of `validation`.
      rank: the function from an evaluation to a number; the highest is the best.
      identity: what the data are, by part, such as {"vocabulary": hash}; a checkpoint in which a part differs is
        refused. The names of the parts and short values are shown to the user.
      evaluate_first: whether the weights that a run starts from are evaluated before its first step.
    """

    train: Callable[[int], Iterator[HostBatch]]
    rows_per_epoch: int
    tokens_per_row: int
    validation: Sequence[HostBatch] = ()
    evaluate: Callable[[Parameters], Evaluation] | None = None
    rank: Callable[[Evaluation], float] = lowest_loss
    identity: dict[str, str] = dataclasses.field(default_factory=dict)
    evaluate_first: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """Holds the result of training.

    Attributes:
      state: the state after the last step.
      evaluation: the evaluation of that state.
      best_params: the function that reads the parameters of the checkpoint with the highest rank (of the newest, if
        none was ranked).
    """

    state: TrainState
    evaluation: Evaluation
    best_params: Callable[[], Parameters]


def train(  # noqa: PLR0915 (it is read from top to bottom)
    objective: Objective,
    config: TrainingConfig,
    workdir: Path,
    data: Data,
    mesh: Mesh,
    initial_params: Callable[[Parameters], Parameters] | None = None,
    *,
    profile: bool = False,
    verify: bool = False,
) -> Trained:
    """Trains to the end, from the newest checkpoint in `workdir` if there is one.

    Args:
      objective: the task.
      config: the config of the run.
      workdir: the folder that gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
      data: the training and validation batches.
      mesh: the devices.
      initial_params: the function from random parameters to those that training starts from.
      profile: whether to trace a few steps into WORKDIR/profile and print which operations cost most.
      verify: whether to check every byte of all checkpoints, and not of the newest alone.

    Raises:
      UserError: the batch does not divide over the devices, the checkpoint is of other data, the warm-up is longer
        than the run, a metric is no longer finite, or a checkpoint cannot be written.
      Interrupted: on SIGINT, SIGTERM or SIGHUP, after saving.
    """
    began = time.monotonic()
    config = with_intervals(config, data)
    check_batch(config.batch_size, config.accumulate, mesh)

    # ---- restore ---------------------------------------------------------------------------------
    optimizer = make_optimizer(config.optimizer, objective.layer_depths)
    init = make_init(objective, optimizer, config.seed)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints, verify=verify)
    state, shardings, progress = first_state(init, initial_params, checkpoints, mesh, data.identity)
    step = int(state.step)
    best = Best(*progress.best)
    total_steps = planned_steps(config, data.rows_per_epoch, data.tokens_per_row, progress)

    # ---- compile ---------------------------------------------------------------------------------
    batches = (put_batch(batch, batch_sharding(mesh)) for batch in data.train(step))
    batch = next(batches)
    train_step = StepByShape(
        make_train_step(objective, optimizer, config), mesh, shardings, state, batch, memory_check(config, mesh)
    )
    score = data.evaluate or compile_evaluation(objective, state.params, data.validation, mesh)

    # ---- report ----------------------------------------------------------------------------------
    writer = MetricsWriter(workdir, resume_step=step, tensorboard=config.tensorboard)
    reporter = Reporter(writer, objective, log_interval(config, total_steps), step, progress.sums)
    profiler = Profiler(workdir / "profile", profile)
    reporter.say(f"ready to train on {describe_mesh(mesh)} from step {step:,} after {time.monotonic() - began:.1f} s")

    # ---- evaluate --------------------------------------------------------------------------------
    evaluation: Evaluation = {}

    def evaluate() -> float:
        """Scores the newest parameters and returns the rank; ends the run if patience is out."""
        nonlocal evaluation, best
        with reporter.paused():
            check_state(state, step)
            evaluation = score(state.params)
            reporter.evaluated(step, evaluation)
            rank = data.rank(evaluation)
            best = best.after(rank)
        if best.exhausts(config.patience):
            reporter.say(f"no better for {config.patience} evaluations: training stops")
            duration.stop(step)
        return rank

    # ---- train -----------------------------------------------------------------------------------
    duration = Duration(config, total_steps, step, began - progress.seconds)
    if best.exhausts(config.patience):  # already before the restart
        duration.stop(step)
    with (
        signals.held() as received,
        divergence_noted(workdir),
        contextlib.closing(reporter),
        contextlib.closing(checkpoints),
        contextlib.closing(profiler),
    ):
        if step == 0 and data.evaluate_first:
            with reporter.paused():
                reporter.evaluated(0, score(state.params))
        while not duration.is_done(step):
            state, metrics = train_step(state, batch, np.int32(duration.total_steps or PROVISIONAL_STEPS))
            positions = max(array.size for array in batch.values())  # B x L, padding too
            batch, waited = next_batch(batches, metrics)
            step += 1
            reporter.add(step, metrics, positions, duration.total_steps, waited)
            if table := profiler.after(step - duration.first_step, state, train_step.programs):
                reporter.say(table)
            planned = duration.waits_for_speed(step)  # a plan is saved at once: a resumed run keeps it
            if planned:
                with reporter.paused():
                    duration.fix(step, functools.partial(score, state.params))
            rank = None
            if duration.is_done(step) or step % config.eval_every == 0:
                rank = evaluate()
            stop = received()
            if stop or planned or duration.is_done(step) or step % config.checkpoint_every == 0:
                with reporter.paused():
                    check_state(state, step)
                    reporter.sync()
                    progress = Progress(
                        seconds=duration.elapsed(),
                        total_steps=duration.total_steps,
                        total_minutes=config.total_minutes,
                        identity=data.identity,
                        sums=reporter.state(),
                        best=best,
                    )
                    checkpoints.save(step, state, progress, rank)
            if stop:
                raise Interrupted(step, stop)

    # ---- result ----------------------------------------------------------------------------------
    def best_params() -> Parameters:
        return checkpoints.restore_best(jax.eval_shape(init), shardings).params

    return Trained(state, evaluation or score(state.params), best_params)


def first_state(
    init: Callable[[], TrainState],
    initial_params: Callable[[Parameters], Parameters] | None,
    checkpoints: Checkpoints,
    mesh: Mesh,
    identity: dict[str, str],
) -> tuple[TrainState, TrainState, Progress]:
    """Returns the first state: of the newest checkpoint, else with the given parameters, else with random ones.

    Returns:
      The state, its shardings, and how far the run has come.

    Raises:
      UserError: the checkpoint is of data of another identity, or none can be read.
    """
    shapes = jax.eval_shape(init)
    shardings = state_sharding(mesh, shapes)
    if restored := checkpoints.restore(shapes, shardings, identity):
        state, progress = restored
        return state, shardings, progress
    state = jax.jit(init, out_shardings=shardings)()
    if initial_params is not None:
        state = state.replace(params=jax.device_put(initial_params(state.params), shardings.params))
    return state, shardings, Progress(identity=identity)


def check_state(state: TrainState, step: int) -> None:
    """Raises NotFiniteError if the state after a step is not finite: it is neither scored nor saved.

    The gradient of a step tells of the state before it, so this is the one look at the last step of a run.
    """
    if not all_finite(state):
        raise NotFiniteError(f"a parameter, its square or a moment of it is not finite after step {step:,}")


def next_batch(batches: Iterator[Batch], metrics: dict[str, Mean]) -> tuple[Batch, float]:
    """Returns the next batch, and the seconds that the devices may have stood still for it.

    They have not while they are still at the step of the `metrics`.
    """
    began = time.monotonic()
    batch = next(batches)
    done = all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))
    return batch, time.monotonic() - began if done else 0.0


class StepByShape:
    """Runs the train step, compiled ahead for the shape of a first batch, and for another shape when it comes."""

    def __init__(
        self,
        step: Callable,
        mesh: Mesh,
        shardings: TrainState,
        state: TrainState,
        batch: Batch,
        check: Callable[[jax.stages.Compiled], None] = lambda program: None,
    ) -> None:
        options = compiler_options(mesh)
        self._function = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None), compiler_options=options)
        self._mesh, self._check = mesh, check
        self._compiled: dict[tuple, jax.stages.Compiled] = {}
        self._for_shape(state, batch)

    def __call__(self, state: TrainState, batch: Batch, total_steps: np.int32) -> tuple:
        """Runs a step with the program of the batch's shape."""
        return self._for_shape(state, batch)(state, batch, total_steps)

    @property
    def programs(self) -> list[jax.stages.Compiled]:
        """Returns the programs that were compiled so far."""
        return list(self._compiled.values())

    def _for_shape(self, state: TrainState, batch: Batch) -> jax.stages.Compiled:
        shape = tuple(array.shape for array in batch.values())
        if shape not in self._compiled:
            rows = " x ".join(map(str, max((array.shape for array in batch.values()), key=math.prod)))
            say(f"compiling the step for a batch of {rows} ...")
            began = time.monotonic()
            with jax.set_mesh(self._mesh):
                program = self._function.lower(state, batch, np.int32(0)).compile()
            say(f"compiled in {time.monotonic() - began:.1f} s")
            self._check(program)
            self._compiled[shape] = program
        return self._compiled[shape]


def memory_check(config: TrainingConfig, mesh: Mesh) -> Callable[[jax.stages.Compiled], None]:
    """Returns the function that raises UserError if a compiled step does not fit into the memory of the devices."""
    rows, devices = config.batch_size // config.accumulate, list(mesh.devices.flat)
    return functools.partial(check_program, devices=devices, rows=rows, remedy=memory_remedy(config))


def memory_remedy(config: TrainingConfig) -> str:
    """Returns what takes less memory, by the keys of the config."""
    length = "max_length" if hasattr(config, "max_length") else "data.length"
    return (
        f"lower batch_size={config.batch_size}, or keep it and raise accumulate={config.accumulate}; shorter rows "
        f"({length}) and model.remat=true take less, too"
    )


def log_interval(config: TrainingConfig, total_steps: int) -> int:
    """Returns the steps from one line of training metrics to the next; a short run has ten lines.

    The steps of a run of `total_minutes` are known late, and the interval stays one over all its processes.
    """
    usual = DEFAULT_LOG_EVERY if config.total_minutes else max(1, min(DEFAULT_LOG_EVERY, total_steps // 10))
    return config.log_every or usual


def with_intervals(config: TrainingConfig, data: Data) -> TrainingConfig:
    """Returns the config with intervals in place of 0: an evaluation each epoch, a checkpoint each evaluation."""
    eval_every = config.eval_every or math.ceil(data.rows_per_epoch / config.batch_size)
    return dataclasses.replace(config, eval_every=eval_every, checkpoint_every=config.checkpoint_every or eval_every)


def compile_evaluation(
    objective: Objective, params: Parameters, batches: Sequence[HostBatch], mesh: Mesh
) -> Callable[[Parameters], dict[str, float]]:
    """Returns the function from parameters to the means over all of `batches`, which stay on the devices."""
    eval_step = make_eval_step(objective)
    forward = Forward(lambda params, numbered: eval_step(params, *numbered), mesh)
    first_rows = itertools.accumulate((len(next(iter(batch.values()))) for batch in batches), initial=0)
    on_devices = [
        put((batch, np.int32(row)), mesh, divide_rows=True) for batch, row in zip(batches, first_rows, strict=False)
    ]
    next(forward(params, on_devices))  # compiles it now, and not within the training that is timed

    def score(params: Parameters) -> dict[str, float]:
        sums: Sums = {}
        for metrics in forward(params, on_devices):
            add_sums(sums, metrics)
        return means_of(sums, objective)

    return score


def describe_mesh(mesh: Mesh) -> str:
    """Describes the number and kind of the devices, and XLA's options for them, for people."""
    devices = f"{mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}"
    return " with ".join((devices, *compiler_options(mesh)))
