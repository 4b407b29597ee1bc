"""Sets up what the machine gives to a process: cores, memory that is kept, and programs that are found compiled."""

import ctypes
import hashlib
import multiprocessing
import os
import platform
import re
import sys
from pathlib import Path


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_MMAP_MAX = -4  # the numbers are those of glibc's malloc.h
_MALLOC_OPTIONS = {-8: 1, _MMAP_MAX: 0, -1: -1}  # one arena for all threads, no block from mmap, nothing given back


def keep_memory() -> None:
    """Lets glibc keep what is freed for the next allocation; elsewhere nothing happens.

    XLA on CPU allocates the temporaries of a program anew at each call. To get such large blocks from the system, page
    by page, and give them back, cost a seventh of a fine-tuning step. The threads of `tokenizers` would wait for each
    other at the one arena: a vocabulary took 9 s with two of them, and 6 s with one. Processes that a script starts
    are left to whoever starts them.

    The price is memory. With GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432 blocks above
    32 MB come from mmap, in huge pages, and go back: half the memory, and a step that takes 4 to 10 % longer.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if not mallopt or multiprocessing.current_process().name != "MainProcess":  # spawned ones import the script, too
        return
    by_mmap = "glibc.malloc.mmap" in os.environ.get("GLIBC_TUNABLES", "")
    for option, value in _MALLOC_OPTIONS.items():
        if option != _MMAP_MAX or not by_mmap:
            mallopt(option, value)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def keep_programs() -> None:
    """Lets JAX keep the programs that it compiles, so that the next start of the same run need not compile them.

    They are in ~/.cache/bert_jax/programs (or under XDG_CACHE_HOME), which may be deleted at any time.
    JAX_COMPILATION_CACHE_DIR names another folder; JAX_ENABLE_COMPILATION_CACHE=false turns this off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    folder = home / "bert_jax" / "programs" / machine_name()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):  # else JAX would warn at each program
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        # On many Intel processors XLA 0.10 takes a tuning hint for a missing instruction, and says so at each program.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def machine_name() -> str:
    """Returns a name shared by processors with the same instructions and as many cores for this process.

    On a CPU, JAX finds a program by neither: it would load one that uses instructions which are missing here, or one
    that was divided among fewer cores.
    """
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        processor = ""
    instructions = re.search(r"^(flags|Features)\s*:.*$", processor, re.MULTILINE)
    properties = (platform.machine(), instructions[0] if instructions else platform.processor(), cores())
    return hashlib.sha256(repr(properties).encode()).hexdigest()[:16]
