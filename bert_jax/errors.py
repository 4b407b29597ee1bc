"""Defines the exceptions that are meant for the user's eyes."""

import signal


class UserError(Exception):
    """Reports what the user can mend: bad input, a misspelt key, a full disk.

    The message is one line: what is wrong, where (file, line, key), and what to do.
    Scripts print it without a traceback and exit with status 1.
    """


class NotFiniteError(UserError):
    """Reports that a run has diverged: a number of it is infinite or NaN.

    Attributes:
      dead_end: the number of steps after which the state gives such a gradient, so that no optimizer can go on from it;
        None if that is not known.
    """

    def __init__(self, what: str, dead_end: int | None = None) -> None:
        super().__init__(
            f"{what}: lower optimizer.learning_rate or raise schedule.warmup, check that optimizer.clip_norm is set, "
            "and look at gradient_norm in metrics.jsonl; the same command with such a change goes on from the last "
            "checkpoint before that"
        )
        self.dead_end = dead_end


class Interrupted(Exception):  # noqa: N818
    """Reports that signal `number` has stopped the work; its state is saved after `step`, None if it has none."""

    def __init__(self, step: int | None, number: int) -> None:
        done = "stopped" if step is None else f"saved after step {step:,}"
        super().__init__(f"{signal.Signals(number).name}: {done}; run the same command to go on")
        self.number = number
