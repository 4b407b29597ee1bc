"""The one training loop of the project. Read it from top to bottom."""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import TrainingConfig
from bert_jax.errors import Interrupted, UserError
from bert_jax.training.checkpoint import Checkpoints, Progress
from bert_jax.training.metrics import MetricsWriter, Reporter, add_sums, divided
from bert_jax.training.objective import Objective, Parameters
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.profile import Profiler
from bert_jax.training.sharding import batch_sharding, check_batch, make_mesh, put_batch, state_sharding
from bert_jax.training.step import TrainState, make_eval_step, make_init, make_train_step

HostBatch = dict[str, np.ndarray]
# A run of `total_minutes` fixes its number of steps once it knows its speed: after so many, or a tenth of the time.
CALIBRATION_STEPS = 50
PROVISIONAL_STEPS = 10_000  # what the schedule of such a run goes by until then


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

    # ---- The mesh; the state: a checkpoint, else the given parameters, else random ones ----
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, config.accumulate, mesh)
    optimizer = make_optimizer(config.optimizer)
    init = make_init(objective, optimizer, config.seed)
    shardings = state_sharding(mesh, jax.eval_shape(init))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    restored = checkpoints.restore(jax.eval_shape(init), shardings)
    state, progress = restored or (first_state(init, shardings, initial_params), Progress(vocabulary=data.vocabulary))
    total_steps = planned_steps(config, data, progress)
    step = first_step = int(state.step)
    elapsed = lambda: progress.seconds + time.monotonic() - began  # noqa: E731

    # ---- The steps, compiled once for each length of batches ----
    batches = (put_batch(batch, batch_sharding(mesh)) for batch in data.train(step))
    batch = next(batches)
    train_step = jax.jit(
        make_train_step(objective, optimizer, config), donate_argnums=0, out_shardings=(shardings, None)
    )
    train_step = StepByShape(train_step, mesh, state, batch)
    score = data.evaluate or compile_evaluation(objective, state.params, data.validation, mesh)

    # ---- Watching ----
    writer = MetricsWriter(workdir, resume_step=step, tensorboard=config.tensorboard)
    reporter = Reporter(writer, objective.losses, config.log_every, step, progress.sums)
    devices = f"{mesh.size} {jax.devices()[0].platform} device{'s' if mesh.size > 1 else ''}"
    reporter.say(f"ready to train on {devices} from step {step:,} after {time.monotonic() - began:.1f} s")

    # ---- The loop ----
    profiler = Profiler(workdir / "profile", profile)
    evaluation, best, loop_began = {}, Best(*progress.best), time.monotonic()
    if best.exhausts(config.patience):  # already before the restart
        total_steps = step
    with (
        contextlib.closing(reporter),
        contextlib.closing(checkpoints),
        contextlib.closing(profiler),
        stop_signals() as received,
    ):
        while step < (total_steps or math.inf):
            state, metrics = train_step(state, batch, np.int32(total_steps or PROVISIONAL_STEPS))
            positions = max(array.size for array in batch.values())  # B x L, padding too
            asked = time.monotonic()
            step, batch = step + 1, next(batches)
            reporter.add(step, metrics, positions, total_steps, waited=time.monotonic() - asked)
            if table := profiler.after(step - first_step, state, train_step.programs):
                reporter.say(table)

            if not total_steps and (step - first_step >= CALIBRATION_STEPS or elapsed() > 6 * config.total_minutes):
                with reporter.paused():
                    pace = (time.monotonic() - loop_began) / (step - first_step)
                    loop_began = time.monotonic()
                    score(state.params)
                    pace += (time.monotonic() - loop_began) / config.eval_every
                    total_steps = step + max(1, int((60 * config.total_minutes - elapsed()) / pace))

            evaluation_due = step == total_steps or step % config.eval_every == 0
            if evaluation_due:
                with reporter.paused():
                    evaluation = score(state.params)
                    reporter.evaluated(step, evaluation)
                    best = best.after(data.rank(evaluation))
                if best.exhausts(config.patience):
                    reporter.say(f"no better for {config.patience} evaluations: training stops")
                    total_steps = step
            if received or step == total_steps or step % config.checkpoint_every == 0:
                with reporter.paused():
                    progress = Progress(
                        elapsed(), total_steps, config.total_minutes, data.vocabulary, reporter.sums, best
                    )
                    began = time.monotonic()
                    checkpoints.save(step, state, progress, data.rank(evaluation) if evaluation_due else None)
            if received:
                raise Interrupted(step, received[0])
    return state, evaluation or score(state.params)


class Best(NamedTuple):
    """The highest rank so far, and how many evaluations have not reached it since."""

    rank: float = -math.inf
    evaluations_since: int = 0

    def after(self, rank: float) -> "Best":
        """With one more evaluation."""
        return Best(rank) if rank > self.rank else Best(self.rank, self.evaluations_since + 1)

    def exhausts(self, patience: int) -> bool:
        """Whether it is time to stop; never if `patience` is 0."""
        return 0 < patience <= self.evaluations_since


class StepByShape:
    """The jitted step, compiled ahead for the shape of a first batch, and for another when it comes."""

    def __init__(self, function: jax.stages.Wrapped, mesh: Mesh, state: TrainState, batch: HostBatch) -> None:
        self._function, self._mesh = function, mesh
        self._compiled: dict[tuple, jax.stages.Compiled] = {}
        self._for_shape(state, batch)

    def __call__(self, state: TrainState, batch: HostBatch, total_steps: np.int32) -> tuple:
        return self._for_shape(state, batch)(state, batch, total_steps)

    @property
    def programs(self) -> list[jax.stages.Compiled]:
        return list(self._compiled.values())

    def _for_shape(self, state: TrainState, batch: HostBatch) -> jax.stages.Compiled:
        shape = tuple(array.shape for array in batch.values())
        if shape not in self._compiled:
            with jax.set_mesh(self._mesh):
                self._compiled[shape] = self._function.lower(state, batch, np.int32(0)).compile()
        return self._compiled[shape]


def with_intervals(config: TrainingConfig, data: Data) -> TrainingConfig:
    """The config with numbers of steps where it says 0: an evaluation each epoch, a checkpoint each evaluation."""
    eval_every = config.eval_every or math.ceil(data.rows_per_epoch / config.batch_size)
    return dataclasses.replace(config, eval_every=eval_every, checkpoint_every=config.checkpoint_every or eval_every)


def planned_steps(config: TrainingConfig, data: Data, progress: Progress) -> int:
    """Steps of the run; 0 for `total_minutes`, as long as the speed is not known.

    Raises:
      UserError: the run so far had another vocabulary.
    """
    if progress.vocabulary != data.vocabulary:
        raise UserError(
            "the newest checkpoint was trained with another vocabulary than the one given now: give that one, or "
            "another --workdir"
        )
    if config.total_epochs:
        return max(1, round(config.total_epochs * data.rows_per_epoch / config.batch_size))
    if config.total_tokens:
        return max(1, round(config.total_tokens / (config.batch_size * data.tokens_per_row)))
    if config.total_minutes:
        return progress.total_steps if progress.total_minutes == config.total_minutes else 0
    return config.total_steps


def compile_evaluation(
    objective: Objective, params: Parameters, batches: Sequence[HostBatch], mesh: Mesh
) -> Callable[[Parameters], dict[str, float]]:
    """The function from parameters to the means over all of `batches`, which stay on the devices."""
    batches = [put_batch(batch, batch_sharding(mesh)) for batch in batches]
    with jax.set_mesh(mesh):
        eval_step = jax.jit(make_eval_step(objective)).lower(params, batches[0], np.int32(0)).compile()

    def score(params: Parameters) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        first_row = 0
        for batch in batches:
            add_sums(sums, jax.device_get(eval_step(params, batch, np.int32(first_row))))
            first_row += len(next(iter(batch.values())))
        return divided(sums, objective.losses)

    return score


def first_state(
    init: Callable[[], TrainState], shardings: TrainState, initial_params: Callable[[Parameters], Parameters] | None
) -> TrainState:
    """The state before the first step, laid out over the mesh; with the given parameters, if any."""
    state = jax.jit(init, out_shardings=shardings)()
    if initial_params is None:
        return state
    return state.replace(params=jax.device_put(initial_params(state.params), shardings.params))


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
