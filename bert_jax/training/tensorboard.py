"""Writes the curves of a run for TensorBoard, as long as that goes."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

FLUSH_EVERY = 30.0  # seconds


class TensorBoard:
    """Appends points to the curves of a folder.

    It writes in the caller's thread: that of tensorboardX's SummaryWriter ends where the disk is full, and who would
    hand it more waits for ever. A disk that is full ends the curves, and not the run.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """Starts a file that goes on from `first_step`: what other files have from there on is hidden."""
        from tensorboardX.event_file_writer import EventsWriter  # imports PyTorch, where it is installed: seconds
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        self._flushed, self._writer = 0.0, None
        with self._lasting():
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            self._write(step=first_step, file_version="brain.Event:2")
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Adds a point to each curve."""
        if self._writer is None:
            return
        with self._lasting():
            for name, value in values.items():
                self._write(step=step, summary=self._scalar(f"{split}/{name}", value))
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._writer.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            with self._lasting():
                self._writer.close()

    def _write(self, **fields: object) -> None:
        assert self._writer is not None
        self._writer.write_event(self._event(wall_time=time.time(), **fields))

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            tqdm.write(f"TensorBoard's files cannot be written ({error.strerror}): training goes on without them")
