"""Reads the metrics of a run from the device one interval late, averages, writes and shows them."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from bert_jax.errors import NotFiniteError, UserError
from bert_jax.runtime.files import parse_json, to_json, write_whole
from bert_jax.training.objective import Mean, Objective
from bert_jax.training.tensorboard import TensorBoard
from bert_jax.training.workdir import METRICS_FILE, check_there

Sums = dict[str, list[float]]  # {name: [total, count]}


def add_sums(sums: Sums, metrics: dict[str, Mean]) -> None:
    """Adds the metrics of a step to `sums`, in Python's double precision."""
    for name, (total, count) in metrics.items():
        pair = sums.setdefault(name, [0.0, 0.0])
        pair[0] += float(total)
        pair[1] += float(count)


def means_of(sums: Sums, objective: Objective) -> dict[str, float]:
    """Returns the loss (the sum of the means that it consists of), the means, and the metrics derived from them."""
    means = {name: total / count if count else 0.0 for name, (total, count) in sums.items()}
    return {"loss": sum(means[name] for name in objective.losses), **means} | objective.derived(means)


def check_finite(values: dict[str, float], where: str, dead_end: int | None = None) -> None:
    """Raises NotFiniteError if one of the values is infinite or NaN."""
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise NotFiniteError(f"{broken[0]} is not finite {where}", dead_end)


def once(values: Mapping[str, float]) -> dict[str, float]:
    """Returns metrics without those that are the loss by another name."""
    loss = values.get("loss", math.nan)
    return {
        name: value for name, value in values.items() if name == "loss" or not math.isclose(value, loss, rel_tol=1e-6)
    }


def described(values: Mapping[str, float], form: str = ".4g") -> str:
    """Describes metrics in a line; a measure that is the loss stands there once."""
    return ", ".join(f"{name} {value:{form}}" for name, value in once(values).items())


# ---- files ---------------------------------------------------------------------------------------


class MetricsWriter:
    """Appends to WORKDIR/metrics.jsonl and, if `tensorboard` is set, to WORKDIR/tensorboard."""

    def __init__(self, workdir: Path, *, resume_step: int, tensorboard: bool) -> None:
        """Drops the lines after `resume_step`, left by a run that was cut off after its last checkpoint.

        Damaged lines are dropped and said; the last may be one that a killed run has not finished.
        """
        path = workdir / METRICS_FILE
        if path.exists():
            steps = [(_step(line), line) for line in path.read_bytes().split(b"\n") if line.strip()]
            damaged = [step for step, _ in steps[:-1]].count(None)
            if damaged:
                print(f"{path}: {damaged:,} lines are damaged and left out")
            # From step 0 a run is done anew, with its evaluation before the first step.
            kept = [line for step, line in steps if step is not None and 0 < resume_step >= step]
            write_whole(path, b"".join(line + b"\n" for line in kept))
        self._workdir, self._opened = workdir, os.stat(workdir)
        self._file = path.open("ab", buffering=0)
        self._unwritten = b""
        self._curves = TensorBoard(workdir / "tensorboard", first_step=resume_step + 1) if tensorboard else None

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes a line of the file, and a point of each curve.

        What a full disk does not take waits for the next line, or for `sync`.

        Raises:
          UserError: the workdir is gone.
        """
        self._unwritten += (to_json({"step": step, "split": split, **values}) + "\n").encode()
        with contextlib.suppress(OSError):
            self._write()
        if self._curves:
            self._curves.write(step, split, values)

    def sync(self) -> None:
        """Makes sure, before a checkpoint, that all lines are written and the workdir is still the one of the start.

        Raises:
          UserError: they cannot be, or it is not.
        """
        try:
            self._write()
        except OSError as error:
            raise UserError(
                f"{self._file.name} cannot be written ({error.strerror}): make room, and run the same command to go on "
                "from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Closes both."""
        self._file.close()
        if self._curves:
            self._curves.close()

    def _write(self) -> None:
        check_there(self._workdir, self._opened)
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


def _step(line: bytes) -> int | None:
    """Returns the step of a line, None for one that is damaged."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, KeyError):
        return None
    return step if isinstance(step, int) else None


# ---- console -------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Prints a line without tearing a progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


class Console:
    """Shows a progress bar on a terminal; elsewhere it prints a line for each interval."""

    def __init__(self, step: int) -> None:
        """Starts the bar after `step` finished steps."""
        self._bar = tqdm(initial=step, unit="step", disable=None, file=sys.stdout, dynamic_ncols=True)

    def advance(self, total_steps: int) -> None:
        """Counts one more step of a run of `total_steps`; 0 if that is not known."""
        self._bar.total = total_steps
        self._bar.update()

    def show(self, step: int, text: str, seconds_a_step: float) -> None:
        """Shows the numbers of an interval that ends with `step`."""
        self._bar.set_postfix_str(text, refresh=False)
        if self._bar.disable:
            left = ((self._bar.total or step) - step) * seconds_a_step
            print(f"step {step:>7,}  {text}  {tqdm.format_interval(left)} left", flush=True)

    def say(self, text: str) -> None:
        """Prints a line without tearing the progress bar."""
        say(text)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


# ---- intervals -----------------------------------------------------------------------------------


class Window:
    """Adds up the training steps since the last report.

    Attributes:
      sums: the sums of their metrics.
      steps: the number of steps.
      positions: the sum of their B x L.
    """

    def __init__(self, first_step: int, sums: Sums | None = None) -> None:
        """Begins with `first_step`, and with the `sums` that a resumed run has of the same interval."""
        self.sums: Sums = {} if sums is None else sums
        self.steps = self.positions = 0
        self._first_step = first_step

    def add(self, step: int, positions: int, metrics: dict[str, Mean]) -> None:
        """Adds a step.

        Raises:
          NotFiniteError: a metric is not finite.
        """
        add_sums(self.sums, metrics)
        self.steps += 1
        self.positions += positions
        totals = {name: total for name, (total, _) in self.sums.items()}
        check_finite(totals, f"in steps {self._first_step:,} to {step:,}", dead_end=step - 1)


class Clock:
    """Measures how long an interval of training takes, without pauses.

    The host queues steps ahead of the device, so an interval ends when the device is done with its last step.
    """

    def __init__(self) -> None:
        """Starts the first interval."""
        self._queued: dict[int, Any] = {}  # results of the last steps of intervals, which the device may be working on
        self._finished: dict[int, float] = {}  # the times at which it had done them
        self._seconds = 0.0  # before the last pause
        self._started = time.monotonic()

    def watch(self, step: int, result: jax.Array) -> None:
        """Registers that an interval ends with `step`, which gives `result`."""
        self._queued[step] = result

    def look(self) -> None:
        """Notes the time for each interval that the device has finished since the last look."""
        for step, result in list(self._queued.items()):
            if result.is_ready():
                self._finished[step] = time.monotonic()
                del self._queued[step]

    def pause(self) -> None:
        """Stops until `resume`."""
        self._seconds += time.monotonic() - self._started

    def resume(self) -> None:
        """Goes on after a pause."""
        self._started = time.monotonic()

    def end_interval(self, step: int) -> float:
        """Returns the seconds of the interval that ends with `step`, and starts the next."""
        self._queued.pop(step, None)
        finished = self._finished.pop(step, None) or time.monotonic()
        seconds = self._seconds + finished - self._started
        self._seconds, self._started = 0.0, finished
        return seconds


class Reporter:
    """Collects the metrics of training steps and reports each interval of `log_every` steps.

    The metrics of an interval are read when the next one is complete: by then the device has long finished them, and
    neither side waits for the other.
    """

    def __init__(self, writer: MetricsWriter, objective: Objective, log_every: int, step: int, sums: Sums) -> None:
        """Goes on after `step`, with the `sums` of the interval that it lies in."""
        self._writer, self._objective, self._log_every = writer, objective, log_every
        self._unread: list[tuple[int, int, dict[str, Mean]]] = []
        self._window = Window(step + 1, sums)
        self._first_step = step + 1
        self._clock = Clock()
        self._console = Console(step)
        self._waited = 0.0

    def add(self, step: int, metrics: dict[str, Mean], positions: int, total_steps: int, waited: float = 0.0) -> None:
        """Takes the metrics of a step that the device may still be working on.

        Args:
          step: the number of the step.
          metrics: the sums and counts.
          positions: the product B x L.
          total_steps: the steps of the run; 0 if they are not known.
          waited: the seconds that the loop waited for the next batch.
        """
        if step == self._first_step:
            self._say_first(metrics)
        self._unread.append((step, positions, metrics))
        self._waited += waited
        self._console.advance(total_steps)
        # A device that queues few steps finishes an interval before the host asks for it: then it is seen here.
        self._clock.look()
        if step % self._log_every == 0:
            self._clock.watch(step, next(iter(metrics.values())).total)
            self._read(step - self._log_every)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Waits for the device and reads everything; the time inside does not count as training."""
        self._read(math.inf)
        self._clock.pause()
        yield
        self._clock.resume()

    def state(self) -> Sums:
        """Returns the sums of the unfinished interval, with which a resumed run goes on."""
        return self._window.sums

    def evaluated(self, step: int, values: dict[str, float]) -> None:
        """Writes and shows the metrics of an evaluation.

        Raises:
          NotFiniteError: one is not finite.
        """
        check_finite(values, f"in the evaluation after step {step:,}")
        self._writer.write(step, "validation", values)
        self.say(f"step {step:>7,}  validation: " + described(values))

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.say(text)

    def sync(self) -> None:
        """Makes sure that all is written; see `MetricsWriter.sync`."""
        self._writer.sync()

    def close(self) -> None:
        """Ends the bar and the files."""
        self._console.close()
        self._writer.close()

    def _say_first(self, metrics: dict[str, Mean]) -> None:
        """Waits for the first step, and shows that there is training: the end of the interval may be far off."""
        sums: Sums = {}
        add_sums(sums, metrics)
        self.say(f"step {self._first_step:>7,}  loss {means_of(sums, self._objective)['loss']:.3f}")

    def _read(self, last_step: float) -> None:
        ready = [queued for queued in self._unread if queued[0] <= last_step]
        self._unread = self._unread[len(ready) :]
        for step, positions, metrics in jax.device_get(ready):
            self._window.add(step, positions, metrics)
            if step % self._log_every == 0:
                self._report(step)

    def _report(self, step: int) -> None:
        seconds, window = self._clock.end_interval(step), self._window
        values = means_of(window.sums, self._objective)
        values["tokens_per_second"] = window.positions / max(seconds, 1e-9)
        values["input_wait"] = min(1.0, self._waited / max(seconds, 1e-9))
        self._writer.write(step, "train", values)
        text = f"loss {values['loss']:.3f}  {values['tokens_per_second']:,.0f} tokens/s"
        self._console.show(step, text, seconds / max(window.steps, 1))
        self._window, self._waited = Window(step + 1), 0.0
