"""Holds the result of a run, whatever it trains."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Holds the result of a finished run.

    Attributes:
      metrics: the numbers by name, for each split that was scored, such as `metrics["validation"]["loss"]`.
      model: the folder of the exported model.
      seconds: the wall time of each stage, in the process that finished the run.
    """

    metrics: dict[str, dict[str, float]]
    model: Path
    seconds: dict[str, float]


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Records the wall time of a stage in `seconds`."""
    began = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - began
