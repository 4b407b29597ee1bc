"""What every script does around its one call: readable flag errors, one-line errors, quiet libraries, a fast start."""

import ctypes
import hashlib
import itertools
import multiprocessing
import os
import platform
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bert_jax.config import unknown_key
from bert_jax.errors import Interrupted, UserError

_MMAP_MAX = -4  # the numbers are those of glibc's malloc.h
_MALLOC_OPTIONS = {-8: 1, _MMAP_MAX: 0, -1: -1}  # one arena for all threads, no block from mmap, nothing given back


def keep_memory() -> None:
    """Lets glibc keep what is freed for the next allocation; elsewhere nothing happens.

    XLA on CPU allocates the temporaries of a program anew at each call. To get such large blocks from the system, page
    by page, and give them back, cost a seventh of a fine-tuning step. The threads of `tokenizers` would wait for each
    other at the one arena: a vocabulary took 9 s with two of them, and 6 s with one. Processes that a script starts do
    as they are told by whoever starts them.

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
    """The same for processors with the same instructions and as many cores for this process.

    On a CPU, JAX finds a program by neither: it would load one that uses instructions which are missing here, or one
    that was divided among fewer cores.
    """
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        described = ""
    instructions = re.search(r"^(flags|Features)\s*:.*$", described, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = (platform.machine(), instructions[0] if instructions else platform.processor(), cores)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


# Here, before NumPy and JAX are imported: threads that start with them would have arenas of their own, and JAX reads
# its settings once.
keep_memory()
keep_programs()


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and calls `main` with what is left of the command line.

    Exit status 1 with one line on standard error for what the user can mend; 128 + signal for an interrupt.
    """

    def guarded(arguments: list[str]) -> None:
        logging.set_verbosity(logging.FATAL)  # Orbax logs what it also raises; JAX and TFDS tell much
        signal.signal(signal.SIGTERM, _interrupt)  # ends as Ctrl-C does: tidily
        try:
            main(arguments)
        except (UserError, OSError) as error:
            sys.exit(f"error: {error}")
        except Interrupted as interrupt:
            print(interrupt, file=sys.stderr)
            sys.exit(128 + interrupt.number)
        except KeyboardInterrupt as interrupt:
            print("interrupted: nothing half-written is left; run the same command again", file=sys.stderr)
            sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))

    app.run(guarded, flags_parser=_parse_flags)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())} (see --help)")
    except UserError as error:  # from a config file
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except (AttributeError, KeyError) as error:
        # ml_collections' answer to a misspelt --config.KEY is a traceback without the nearest key's path.
        sys.exit(f"error: {_misspelt_key(arguments) or error}")


def _misspelt_key(arguments: list[str]) -> UserError | None:
    """The first --config.KEY that the config file does not have."""
    plain = [arguments[0]]
    for argument, following in itertools.pairwise([*arguments, ""]):
        if argument.startswith("--config=") or argument == "--config":
            plain += [argument] if "=" in argument else [argument, following]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=plain)
    values(plain)
    for argument in arguments:
        if not argument.startswith("--config."):
            continue
        keys = argument.removeprefix("--config.").partition("=")[0].split(".")
        node = values.config
        for depth, key in enumerate(keys):
            if not isinstance(node, ConfigDict):
                return UserError(f"config key {'.'.join(keys[:depth])} is a value and has no keys: found {argument}")
            if key not in node:
                return unknown_key(key, list(node.keys()), "".join(f"{above}." for above in keys[:depth]))
            node = node[key]
    return None
