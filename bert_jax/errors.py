"""Defines the exceptions that are meant for the user's eyes, and finds the name that a user may have meant."""

import difflib
import re
import signal
from collections.abc import Iterable

NEAR = 0.7  # two names that are less alike than this are not taken for each other


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
        super().__init__(f"{signal.Signals(number).name}: {done}")
        self.number = number


def nearest(given: str, known: Iterable[str]) -> str:
    """Returns the name that is most like a misspelt one, or nothing if none is near.

    Case does not count. A name may have levels, as in ``optimizer.learning_rate``: it is also found by its last one, or
    by whole words of that, as in ``dropout`` for ``model.hidden_dropout_prob``.
    """
    likeness = {name: _likeness(given, name) for name in known}
    best = max(likeness, key=likeness.__getitem__, default="")
    return best if likeness.get(best) else ""


def did_you_mean(given: str, known: Iterable[str], form: str = "{}") -> str:
    """Returns the question that ends a message about a misspelt name; empty if no known one is near.

    Args:
      given: the misspelt name.
      known: the names that there are.
      form: how a name is shown, such as "--{}".
    """
    name = nearest(given, known)
    return f": did you mean {form.format(name)}?" if name else ""


def _likeness(given: str, name: str) -> float:
    """Returns how alike two names are, from 0 to 1; 0 below `NEAR`."""
    given, name = given.casefold(), name.casefold()
    last_given, last = (re.split("[.:/]", text)[-1] for text in (given, name))
    ratios = [difflib.SequenceMatcher(None, given, name).ratio()]
    ratios.append(0.98 * difflib.SequenceMatcher(None, last_given, last).ratio())
    if set(last_given.split("_")) <= set(last.split("_")):
        ratios.append(0.8)
    return max(ratios) if max(ratios) >= NEAR else 0
