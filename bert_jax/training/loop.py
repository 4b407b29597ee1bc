"""The one training loop of the project. Read it from top to bottom."""

import contextlib
import dataclasses
import functools
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import TrainingConfig
from bert_jax.errors import Interrupted, UserError
from bert_jax.training.checkpoint import Checkpoints, Progress
from bert_jax.training.duration import PROVISIONAL_STEPS, Best, Plan, planned_steps
from bert_jax.training.forward import Forward, put
from bert_jax.training.metrics import MetricsWriter, Reporter, add_sums, divided
from bert_jax.training.objective import Batch, Mean, Objective, Parameters
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.profile import Profiler
from bert_jax.training.sharding import (
    batch_sharding,
    check_batch,
    compiler_options,
    make_mesh,
    put_batch,
    state_sharding,
)
from bert_jax.training.step import TrainState, make_eval_step, make_init, make_train_step

HostBatch = dict[str, np.ndarray]
Evaluation = dict[str, float]


def lowest_loss(evaluation: Evaluation) -> float:
    """Ranks an evaluation by its loss: the lower, the better."""
    return -evaluation["loss"]


@dataclasses.dataclass(frozen=True)
class Data:
    """What the loop feeds on.

    Attributes:
      train: from a number of finished steps, the batches (this process's rows) of the steps that follow, endless.
      rows_per_epoch: training rows of one pass over the data.
      tokens_per_row: L, the longest.
      validation: the same batches at every evaluation, scored by the objective's means.
      evaluate: in place of `validation`, the function from parameters to an evaluation.
      rank: of an evaluation; the highest is the best.
      vocabulary: names what the ids mean; a checkpoint of another vocabulary is refused.
    """

    train: Callable[[int], Iterator[HostBatch]]
    rows_per_epoch: int
    tokens_per_row: int
    validation: Sequence[HostBatch] = ()
    evaluate: Callable[[Parameters], Evaluation] | None = None
    rank: Callable[[Evaluation], float] = lowest_loss
    vocabulary: str = ""


def train(
    objective: Objective,
    config: TrainingConfig,
    workdir: Path,
    data: Data,
    initial_params: Callable[[Parameters], Parameters] | None = None,
    *,
    profile: bool = False,
) -> tuple[TrainState, Evaluation]:
    """Trains to the end, from the newest checkpoint in `workdir` if there is one.

    Args:
      objective: the task.
      config: of the run.
      workdir: gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
      data: training and validation batches.
      initial_params: gives the parameters to start from, in place of the random ones that it is given.
      profile: traces a few steps into WORKDIR/profile and says which operations cost most.

    Returns:
      The last state, and its evaluation.

    Raises:
      UserError: the batch does not divide over the devices, the checkpoint is of another vocabulary, a metric is no
        longer finite, or a checkpoint cannot be written.
      Interrupted: on SIGINT or SIGTERM, after saving.
    """
    began = time.monotonic()
    config = with_intervals(config, data)
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, config.accumulate, mesh)
    optimizer = make_optimizer(config.optimizer)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    init = make_init(objective, optimizer, config.seed)
    state, shardings, progress = starting_point(init, initial_params, checkpoints, mesh, data.vocabulary)
    step, best = int(state.step), Best(*progress.best)

    batches = (put_batch(batch, batch_sharding(mesh)) for batch in data.train(step))
    batch = next(batches)
    train_step = StepByShape(make_train_step(objective, optimizer, config), mesh, shardings, state, batch)
    score = data.evaluate or compile_evaluation(objective, state.params, data.validation, mesh)

    writer = MetricsWriter(workdir, resume_step=step, tensorboard=config.tensorboard)
    reporter = Reporter(writer, objective.losses, config.log_every, step, progress.sums)
    profiler = Profiler(workdir / "profile", profile)
    reporter.say(f"ready to train on {described(mesh)} from step {step:,} after {time.monotonic() - began:.1f} s")

    planned = planned_steps(config, data.rows_per_epoch, data.tokens_per_row, progress)
    plan, evaluation = Plan(config, planned, step, began - progress.seconds), {}
    if best.exhausts(config.patience):  # already before the restart
        plan.total_steps = step
    with (
        contextlib.closing(reporter),
        contextlib.closing(checkpoints),
        contextlib.closing(profiler),
        stop_signals() as received,
    ):
        while not plan.is_done(step):
            state, metrics = train_step(state, batch, np.int32(plan.total_steps or PROVISIONAL_STEPS))
            positions = max(array.size for array in batch.values())  # B x L, padding too
            batch, waited = following(batches, metrics)
            step += 1
            reporter.add(step, metrics, positions, plan.total_steps, waited)
            if table := profiler.after(step - plan.first_step, state, train_step.programs):
                reporter.say(table)
            if plan.waits_for_speed(step):
                with reporter.paused():
                    plan.fix(step, functools.partial(score, state.params))
            evaluation_due = plan.is_done(step) or step % config.eval_every == 0
            if evaluation_due:
                with reporter.paused():
                    evaluation = score(state.params)
                    reporter.evaluated(step, evaluation)
                    best = best.after(data.rank(evaluation))
                if best.exhausts(config.patience):
                    reporter.say(f"no better for {config.patience} evaluations: training stops")
                    plan.total_steps = step
            if received or plan.is_done(step) or step % config.checkpoint_every == 0:
                with reporter.paused():
                    progress = Progress(
                        plan.elapsed(), plan.total_steps, config.total_minutes, data.vocabulary, reporter.sums, best
                    )
                    checkpoints.save(step, state, progress, data.rank(evaluation) if evaluation_due else None)
            if received:
                raise Interrupted(step, received[0])
    return state, evaluation or score(state.params)


def starting_point(
    init: Callable[[], TrainState],
    initial_params: Callable[[Parameters], Parameters] | None,
    checkpoints: Checkpoints,
    mesh: Mesh,
    vocabulary: str,
) -> tuple[TrainState, TrainState, Progress]:
    """The state of the newest checkpoint, else with the given parameters, else with random ones.

    Returns:
      The state, its shardings, and how far the run has come.

    Raises:
      UserError: the checkpoint is of another vocabulary, or none can be read.
    """
    shapes = jax.eval_shape(init)
    shardings = state_sharding(mesh, shapes)
    if restored := checkpoints.restore(shapes, shardings):
        state, progress = restored
        if progress.vocabulary != vocabulary:
            raise UserError(
                "the newest checkpoint was trained with another vocabulary than the one given now: give that one, or "
                "another --workdir"
            )
        return state, shardings, progress
    state = jax.jit(init, out_shardings=shardings)()
    if initial_params is not None:
        state = state.replace(params=jax.device_put(initial_params(state.params), shardings.params))
    return state, shardings, Progress(vocabulary=vocabulary)


def following(batches: Iterator[Batch], metrics: dict[str, Mean]) -> tuple[Batch, float]:
    """The next batch, and the seconds that the devices may have stood still for it.

    They have not while they are still at the step of the `metrics`.
    """
    asked = time.monotonic()
    batch = next(batches)
    done = all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))
    return batch, time.monotonic() - asked if done else 0.0


class StepByShape:
    """The step, compiled ahead for the shape of a first batch, and for another when it comes."""

    def __init__(self, step: Callable, mesh: Mesh, shardings: TrainState, state: TrainState, batch: Batch) -> None:
        options = compiler_options(mesh)
        self._function = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None), compiler_options=options)
        self._mesh = mesh
        self._compiled: dict[tuple, jax.stages.Compiled] = {}
        self._for_shape(state, batch)

    def __call__(self, state: TrainState, batch: Batch, total_steps: np.int32) -> tuple:
        return self._for_shape(state, batch)(state, batch, total_steps)

    @property
    def programs(self) -> list[jax.stages.Compiled]:
        return list(self._compiled.values())

    def _for_shape(self, state: TrainState, batch: Batch) -> jax.stages.Compiled:
        shape = tuple(array.shape for array in batch.values())
        if shape not in self._compiled:
            with jax.set_mesh(self._mesh):
                self._compiled[shape] = self._function.lower(state, batch, np.int32(0)).compile()
        return self._compiled[shape]


def with_intervals(config: TrainingConfig, data: Data) -> TrainingConfig:
    """The config with numbers of steps where it says 0: an evaluation each epoch, a checkpoint each evaluation."""
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
        sums: dict[str, list[float]] = {}
        for metrics in forward(params, on_devices):
            add_sums(sums, metrics)
        return divided(sums, objective.losses)

    return score


def described(mesh: Mesh) -> str:
    """How many devices of which kind, and what XLA is told for them, for people."""
    devices = f"{mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}"
    return " with ".join((devices, *compiler_options(mesh)))


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM are put into; the second of either ends the process at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
