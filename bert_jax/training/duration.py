"""Finds the number of steps of a run, in whatever way its length is given, and when it stops before."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from bert_jax.config import TrainingConfig
from bert_jax.config.training import MOST_STEPS
from bert_jax.errors import UserError
from bert_jax.training.checkpoint import Progress

# A run of `total_minutes` fixes its number of steps once it knows its speed: after this many, or a tenth of the time.
CALIBRATION_STEPS = 50
PROVISIONAL_STEPS = 10_000  # what the schedule of such a run assumes until then
REVISED_BY = 0.1  # half way through, its steps change if that is off by more than this share


class Duration:
    """Knows how long a run goes on; it is made right before the first step of this process.

    Attributes:
      first_step: the number of steps that were finished before.
      total_steps: the steps of the run; 0 until the speed of a run of `total_minutes` is known.
    """

    def __init__(self, config: TrainingConfig, total_steps: int, step: int, began: float) -> None:
        """Starts the clock.

        Args:
          config: the config of the run.
          total_steps: the steps of the run, as `planned_steps` gives them.
          step: the number of finished steps.
          began: the time on the monotonic clock when the run began, less the seconds that it had in other processes.
        """
        self.first_step, self.total_steps = step, total_steps
        self._config, self._began = config, began
        self._pace_step, self._pace_began = step, time.monotonic()

    def elapsed(self) -> float:
        """Returns the seconds of wall time, in all processes of the run so far."""
        return time.monotonic() - self._began

    def is_done(self, step: int) -> bool:
        """Says whether the run is over after `step` steps."""
        return 0 < self.total_steps <= step

    def stop(self, step: int) -> None:
        """Makes `step` the last step of the run."""
        self.total_steps = step

    def waits_for_speed(self, step: int) -> bool:
        """Says whether the time has come to call `fix`: once the speed is known, and half way through."""
        if not self._config.total_minutes:
            return False
        if self.total_steps:
            return step == self.total_steps // 2 and step > self._pace_step
        return step - self.first_step >= CALIBRATION_STEPS or self.elapsed() > 6 * self._config.total_minutes

    def fix(self, step: int, evaluate: Callable[[], object]) -> None:
        """Fixes the steps of a run of `total_minutes` by the pace so far and the time that an evaluation takes.

        Half way through they are revised, if the machine has turned faster or slower since. The checkpoints keep them.

        Raises:
          UserError: the warm-up is longer than the run.
        """
        pace = (time.monotonic() - self._pace_began) / (step - self._pace_step)
        planned = self.total_steps
        if not planned:
            began = time.monotonic()
            evaluate()
            pace += (time.monotonic() - began) / self._config.eval_every
        left = 60 * self._config.total_minutes - self.elapsed()
        total_steps = min(step + max(1, int(left / pace)), MOST_STEPS)
        if planned and abs(total_steps - planned) <= REVISED_BY * planned:
            return
        try:
            self._config.schedule.check_fits(total_steps)
        except UserError:
            if planned:  # a run under way is not ended for its plan
                return
            raise
        self.total_steps = total_steps
        self._pace_step, self._pace_began = step, time.monotonic()


def planned_steps(config: TrainingConfig, rows_per_epoch: int, tokens_per_row: int, progress: Progress) -> int:
    """Returns the steps of the run; 0 for `total_minutes`, as long as the speed is not known.

    Raises:
      UserError: the warm-up is longer than the run, or there are more steps than can be counted.
    """
    steps = config.total_steps
    if config.total_epochs:
        steps = max(1, round(config.total_epochs * rows_per_epoch / config.batch_size))
    elif config.total_tokens:
        steps = max(1, round(config.total_tokens / (config.batch_size * tokens_per_row)))
    elif config.total_minutes:
        steps = progress.total_steps if progress.total_minutes == config.total_minutes else 0
    if steps > MOST_STEPS:
        raise UserError(f"the run would have {steps:,} steps, and the most is {MOST_STEPS:,}: set a shorter duration")
    if steps:
        config.schedule.check_fits(steps)
    return steps


class Best(NamedTuple):
    """Holds the highest rank so far, and how many evaluations have not reached it since."""

    rank: float = -math.inf
    evaluations_since: int = 0

    def after(self, rank: float) -> "Best":
        """Returns the best after one more evaluation."""
        return Best(rank) if rank > self.rank else Best(self.rank, self.evaluations_since + 1)

    def exhausts(self, patience: int) -> bool:
        """Says whether it is time to stop; never if `patience` is 0."""
        return 0 < patience <= self.evaluations_since
