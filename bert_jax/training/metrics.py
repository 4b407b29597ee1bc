"""Numbers on their way out: read from the device one interval late, averaged, written, shown."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from tqdm import tqdm

from bert_jax.errors import UserError
from bert_jax.training.objective import Mean


def add_sums(sums: dict[str, list[float]], metrics: dict[str, Mean]) -> None:
    """Adds one step's metrics to `sums` {name: [total, count]}, in Python's double precision."""
    for name, (total, count) in metrics.items():
        pair = sums.setdefault(name, [0.0, 0.0])
        pair[0] += float(total)
        pair[1] += float(count)


def divided(sums: dict[str, list[float]], losses: tuple[str, ...]) -> dict[str, float]:
    """The means, the `loss` (sum of the means that `losses` names), and the perplexity of a language model."""
    means = {name: total / count if count else 0.0 for name, (total, count) in sums.items()}
    means = {"loss": sum(means[name] for name in losses), **means}
    if "mlm_loss" in means:
        means["mlm_perplexity"] = math.exp(min(means["mlm_loss"], 700.0))
    return means


class MetricsWriter:
    """Appends to WORKDIR/metrics.jsonl and, if asked, to WORKDIR/tensorboard."""

    def __init__(self, workdir: Path, *, resume_step: int, tensorboard: bool) -> None:
        """Drops lines after `resume_step`, left by a run that was cut off after its last checkpoint."""
        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= resume_step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in kept))
            temporary.replace(path)
        self._file = path.open("a", buffering=1)
        self._summaries = None
        if tensorboard:
            from tensorboardX import SummaryWriter  # imports PyTorch, where it is installed: seconds

            self._summaries = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """One line of the file, one point of each curve."""
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        if self._summaries:
            for name, value in values.items():
                self._summaries.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        if self._summaries:
            self._summaries.close()


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf  # the torn last line of a killed run


class Reporter:
    """Collects the metrics of training steps and reports each interval of `log_every` steps.

    The metrics of an interval are read when the next one is complete: by then the device has long finished them, and
    neither side waits for the other.
    """

    def __init__(
        self,
        writer: MetricsWriter,
        losses: tuple[str, ...],
        log_every: int,
        step: int,
        sums: dict[str, list[float]],
    ) -> None:
        """`step` and `sums` (of the interval that it lies in) are where a resumed run goes on."""
        self._writer, self._losses = writer, losses
        self._log_every = log_every
        self._boundaries: dict[int, jax.Array] = {}  # last steps of intervals that the device may be working on
        self._finished: dict[int, float] = {}  # when it had done them
        self._unread: list[tuple[int, int, dict[str, Mean]]] = []
        self._reported_step = step
        self._seconds = 0.0  # of training within this interval, pauses left out
        self._steps = self._positions = 0
        self._waited = 0.0
        self._started = time.monotonic()
        self.sums = sums
        # Without a terminal, tqdm is silent and each interval prints a line.
        self._bar = tqdm(initial=step, unit="step", disable=None, file=sys.stdout, dynamic_ncols=True)

    def add(
        self, step: int, metrics: dict[str, Mean], positions: int, total_steps: int | None, waited: float = 0.0
    ) -> None:
        """Takes the metrics of a step that the device may still be working on.

        Args:
          step: its number.
          metrics: sums and counts.
          positions: B x L.
          total_steps: of the run, if known.
          waited: seconds that the loop waited for the batch that follows.
        """
        self._unread.append((step, positions, metrics))
        self._waited += waited
        self._bar.total = total_steps
        self._bar.update()
        # A device that queues few steps finishes an interval before the host asks for it: then it is seen here.
        for boundary, array in list(self._boundaries.items()):
            if array.is_ready():
                self._finished[boundary] = time.monotonic()
                del self._boundaries[boundary]
        if step % self._log_every == 0:
            self._boundaries[step] = next(iter(metrics.values())).total
            self._read(step - self._log_every)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Waits for the device and reads everything; the time inside does not count as training."""
        self._read(math.inf)
        self._seconds += time.monotonic() - self._started
        yield
        self._started = time.monotonic()

    def _read(self, last_step: float) -> None:
        ready = [each for each in self._unread if each[0] <= last_step]
        self._unread = self._unread[len(ready) :]
        for step, positions, metrics in jax.device_get(ready):
            add_sums(self.sums, metrics)
            self._steps += 1
            self._positions += positions
            broken = [name for name, (total, _) in self.sums.items() if not math.isfinite(total)]
            if broken:
                raise UserError(
                    f"{broken[0]} is not finite in steps {self._reported_step + 1:,} to {step:,}: lower "
                    "optimizer.learning_rate or raise schedule.warmup, check that optimizer.clip_norm is set, and look "
                    "at gradient_norm in metrics.jsonl; the checkpoints are from before"
                )
            if step % self._log_every == 0:
                self._report(step)

    def _report(self, step: int) -> None:
        self._boundaries.pop(step, None)
        finished = self._finished.pop(step, None) or time.monotonic()
        seconds = self._seconds + finished - self._started
        values = divided(self.sums, self._losses)
        values["tokens_per_second"] = self._positions / max(seconds, 1e-9)
        values["input_wait"] = min(1.0, self._waited / max(seconds, 1e-9))
        self._writer.write(step, "train", values)
        shown = f"loss {values['loss']:.3f}  {values['tokens_per_second']:,.0f} tokens/s"
        self._bar.set_postfix_str(shown, refresh=False)
        if self._bar.disable:
            left = ((self._bar.total or step) - step) * seconds / max(self._steps, 1)
            print(f"step {step:>7,}  {shown}  {tqdm.format_interval(left)} left", flush=True)
        self.sums, self._seconds, self._steps, self._positions, self._started = {}, 0.0, 0, 0, finished
        self._waited = 0.0
        self._reported_step = step

    def evaluated(self, step: int, values: dict[str, float]) -> None:
        """Writes and shows the metrics of an evaluation."""
        self._writer.write(step, "validation", values)
        self.say(f"step {step:>7,}  validation: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def say(self, text: str) -> None:
        """Prints a line without tearing the progress bar."""
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Ends the bar and the files."""
        self._bar.close()
        self._writer.close()
