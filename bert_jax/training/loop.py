"""The one training loop of the project. Read it from top to bottom."""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from bert_jax.config import TrainingConfig
from bert_jax.errors import Interrupted
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.metrics import MetricsWriter, Reporter, add_sums, divided
from bert_jax.training.objective import Objective, Parameters
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import batch_sharding, check_batch, make_mesh, put_batch, state_sharding
from bert_jax.training.step import TrainState, make_eval_step, make_init, make_train_step

HostBatch = dict[str, np.ndarray]
CALIBRATION_STEPS = 50  # after which a run of `total_minutes` knows its speed and fixes its number of steps
PROVISIONAL_STEPS = 10_000  # what the schedule of such a run goes by until then


@dataclasses.dataclass(frozen=True)
class Data:
    """What the loop feeds on.

    Attributes:
      train: from a number of finished steps, the batches (this process's rows) of the steps that follow, endless.
      validation: the same batches at every evaluation.
      rows_per_epoch: training rows of one pass over the data.
      tokens_per_row: L.
    """

    train: Callable[[int], Iterator[HostBatch]]
    validation: Sequence[HostBatch]
    rows_per_epoch: int
    tokens_per_row: int


def train(
    objective: Objective, config: TrainingConfig, workdir: Path, data: Data, params: Parameters | None = None
) -> tuple[TrainState, dict[str, float]]:
    """Trains to the end, from the newest checkpoint in `workdir` if there is one.

    Args:
      objective: the task.
      config: of the run.
      workdir: gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
      data: training and validation batches.
      params: to start from, in place of random ones.

    Returns:
      The last state, and the metrics of the last evaluation.

    Raises:
      UserError: the batch does not divide over the devices, or the loss is no longer finite.
      Interrupted: on SIGINT or SIGTERM, after saving.
    """
    began = time.monotonic()

    # ---- The mesh; the state: a checkpoint, else the given parameters, else random ones ----
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, config.accumulate, mesh)
    rows = batch_sharding(mesh)
    optimizer = make_optimizer(config.optimizer)
    init = make_init(objective, optimizer, config.seed)
    shardings = state_sharding(mesh, jax.eval_shape(init))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    restored = checkpoints.restore(jax.eval_shape(init), shardings)
    state = restored[0] if restored else first_state(init, shardings, params)
    progress = restored[1] if restored else {"seconds": 0.0, "total_steps": 0, "sums": {}}
    step, total_steps = int(state.step), planned_steps(config, data) or progress["total_steps"]
    elapsed = lambda: progress["seconds"] + time.monotonic() - began  # noqa: E731

    # ---- The two steps, compiled ahead: a batch of another shape is an error, never a second compilation ----
    batches = (put_batch(batch, rows) for batch in data.train(step))
    batch = next(batches)
    train_step = jax.jit(
        make_train_step(objective, optimizer, config), donate_argnums=0, out_shardings=(shardings, None)
    )
    train_step = train_step.lower(state, batch, np.int32(0)).compile()
    validation = [put_batch(batch, rows) for batch in data.validation]
    eval_step = (
        jax.jit(make_eval_step(objective, config.seed)).lower(state.params, validation[0], np.int32(0)).compile()
    )

    # ---- Watching ----
    writer = MetricsWriter(workdir, resume_step=step, tensorboard=config.tensorboard)
    tokens_per_step = config.batch_size * data.tokens_per_row
    reporter = Reporter(writer, objective.losses, config.log_every, tokens_per_step, step, progress["sums"])
    devices = f"{mesh.size} {jax.devices()[0].platform} device{'s' if mesh.size > 1 else ''}"
    reporter.say(f"ready to train on {devices} from step {step:,} after {time.monotonic() - began:.1f} s")

    def evaluate() -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for number, batch in enumerate(validation):
            add_sums(sums, jax.device_get(eval_step(state.params, batch, np.int32(number))))
        values = divided(sums, objective.losses)
        writer.write(step, "validation", values)
        reporter.say(f"step {step:>7,}  validation: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
        return values

    # ---- The loop ----
    first_step, loop_began, evaluation = step, time.monotonic(), {}
    with contextlib.closing(reporter), contextlib.closing(checkpoints), stop_signals() as received:
        while step < (total_steps or math.inf):
            state, metrics = train_step(state, batch, np.int32(total_steps or PROVISIONAL_STEPS))
            step, batch = step + 1, next(batches)
            reporter.add(step, metrics, total_steps)

            if not total_steps and step >= CALIBRATION_STEPS:
                with reporter.paused():
                    pace = (time.monotonic() - loop_began) / (step - first_step)
                    evaluation_began = time.monotonic()
                    evaluate()
                    pace += (time.monotonic() - evaluation_began) / config.eval_every
                    total_steps = step + max(1, int((60 * config.total_minutes - elapsed()) / pace))

            evaluation_due = step == total_steps or step % config.eval_every == 0
            if evaluation_due:
                with reporter.paused():
                    evaluation = evaluate()
            if received or step == total_steps or step % config.checkpoint_every == 0:
                with reporter.paused():
                    progress = {"seconds": elapsed(), "total_steps": total_steps, "sums": reporter.sums}
                    began = time.monotonic()
                    checkpoints.save(step, state, progress, evaluation["loss"] if evaluation_due else None)
            if received:
                raise Interrupted(step, received[0])
        evaluation = evaluation or evaluate()
    return state, evaluation


def first_state(init: Callable[[], TrainState], shardings: TrainState, params: Parameters | None) -> TrainState:
    """The state before the first step, laid out over the mesh; with the given parameters, if any."""
    state = jax.jit(init, out_shardings=shardings)()
    return state if params is None else state.replace(params=jax.device_put(params, shardings.params))


def planned_steps(config: TrainingConfig, data: Data) -> int:
    """Steps of the run; 0 for `total_minutes`, where the speed must be known first."""
    if config.total_epochs:
        return max(1, round(config.total_epochs * data.rows_per_epoch / config.batch_size))
    if config.total_tokens:
        return max(1, round(config.total_tokens / (config.batch_size * data.tokens_per_row)))
    return config.total_steps


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
