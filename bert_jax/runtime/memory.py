"""Tells of memory that does not suffice: before a program runs where that is known, else in a line when it happens."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.errors import UserError

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an error is Python's, NumPy's or XLA's for memory that is not there."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error))


def told(error: BaseException, remedy: str) -> UserError:
    """Returns the line for people in place of such an error: what was asked for, and the remedy."""
    asked = re.search(r"allocat\w*\s+([\d.]+)\s*(bytes|[KMGTP]i?B)", str(error))
    size = ""
    if asked:
        size = f" ({_gigabytes(float(asked[1]))} were asked for)" if asked[2] == "bytes" else f" ({asked[0]})"
    return UserError(f"out of memory{size}: {remedy}")


@contextlib.contextmanager
def out_of_memory_told(remedy: str) -> Iterator[None]:
    """Raises UserError with the remedy in place of an error for memory that is not there."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise told(error, remedy) from error


def check_program(program: Any, devices: Any, rows: int, remedy: str) -> None:
    """Makes sure that a compiled program fits into the memory of its devices, as far as both are known.

    Args:
      program: a `jax.stages.Compiled`.
      devices: all that it runs on.
      rows: the rows that it computes at once, over all devices.
      remedy: what the user can do.

    Raises:
      UserError: it does not fit; says what it needs, what there is, and about how many rows would fit.
    """
    analysis, limit = program.memory_analysis(), device_memory(devices[0])
    if analysis is None or not limit:
        return
    on_host = devices[0].platform == "cpu"  # whose devices share one memory
    count = len(devices) if on_host else 1
    kept = count * (analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes)
    work = count * analysis.temp_size_in_bytes
    if kept + work <= limit:
        return
    fitting = int(rows * (limit - kept) / work) if work else 0
    fits = f"about {fitting:,} rows at once would fit" if fitting > 0 else "not even one row would fit"
    where = "this machine" if on_host else "each device"
    raise UserError(
        f"out of memory: a step with {rows:,} rows at once needs {_gigabytes(kept + work)} and {where} has "
        f"{_gigabytes(limit)}; {fits}: {remedy}"
    )


def device_memory(device: Any) -> int:
    """Returns the bytes that programs may use on a device, 0 if that is not known."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit", 0)
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    with contextlib.suppress(OSError, ValueError):  # no limit, or no such system
        sizes.append(int(_CGROUP.read_text()))
    return min(sizes, default=0)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
