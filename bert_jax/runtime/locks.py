"""Keeps a folder to one process at a time."""

import contextlib
import datetime
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from bert_jax.errors import UserError

LOCK = ".bert_jax.lock"


@contextlib.contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Makes a folder if need be, and has it alone.

    The system gives the lock back however the process ends. On network disks it holds between machines where their
    file system passes it on, as NFS does; where a disk knows no locks, nothing is kept.

    Args:
      folder: the folder.
      flag: what names another folder, such as --workdir.

    Raises:
      UserError: another process has it; says which.
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _locked_file(path, flag)
    try:
        since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
        line = f"process {os.getpid()} on {socket.gethostname()} since {since} ({' '.join(sys.argv[:1])})\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, line.encode(), 0)
        yield
    finally:
        if _is_same(path, descriptor):  # before it is given back: who waits for the old one sees that it is gone
            path.unlink()
        os.close(descriptor)


def _locked_file(path: Path, flag: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise UserError(f"{path.parent} is in use by {holder}: wait for its end, or give another {flag}") from error
        except OSError:  # a disk without locks
            return descriptor
        if _is_same(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder has removed it meanwhile


def _is_same(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    return False
