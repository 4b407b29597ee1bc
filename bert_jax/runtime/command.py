"""Does what every script does around its one call: readable errors, the flag --config, quiet libraries, a fast start.

Importing this module sets up the process (memory allocator, cache of compiled programs); scripts import it for that.
"""

from bert_jax.runtime import signals, streams

streams.open_closed()  # first of all: the other imports take seconds
signals.watch()

import functools
import signal
import sys
import warnings
from collections.abc import Callable

from absl import app, logging

from bert_jax.runtime import command_line
from bert_jax.errors import Interrupted, UserError
from bert_jax.runtime.command_line import define_config, read_config
from bert_jax.runtime.machine import keep_memory, keep_programs
from bert_jax.runtime.memory import is_out_of_memory, told

# Here, before NumPy and JAX are imported: threads that start with them would have arenas of their own, and JAX reads
# its settings once.
keep_memory()
keep_programs()

__all__ = ["define_config", "read_config", "run"]


def run(main: Callable[[list[str]], None], positional: str = "", *, resumes: bool = False) -> None:
    """Parses the flags and calls `main` with the rest of the command line.

    The process exits with status 1 and one line on standard error for what the user can mend, and with 128 + signal
    after SIGTERM, SIGINT, SIGHUP, and SIGPIPE: where standard output is for answers, and nobody reads them.

    Args:
      main: the function that does the script's work.
      positional: the name of the one word that the script takes besides its flags; empty if it takes none.
      resumes: whether the same command goes on after a signal; otherwise it begins anew.
    """
    advice = f"; run the same command to {'go on' if resumes else 'begin anew'}"
    signals.advise(advice)

    def guarded(arguments: list[str]) -> None:
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # in one line, without the code
        logging.set_verbosity(logging.FATAL)  # Orbax logs what it also raises; JAX and TFDS log much
        try:
            main(arguments)
            signals.check()
        except Interrupted as interrupt:
            print(f"{interrupt}{advice}", file=sys.stderr)
            sys.exit(128 + interrupt.number)
        except BaseException as error:
            if signals.received():  # which may have caused it
                signals.end(signals.received())
            if isinstance(error, BrokenPipeError) and streams.reader_is_gone():  # as of any filter, without a word
                sys.exit(128 + signal.SIGPIPE)
            if is_out_of_memory(error):
                sys.exit(f"error: {told(error, 'a smaller model or batch is wanted here, or a machine with more')}")
            if isinstance(error, UserError):
                sys.exit(f"error: {error}")
            if isinstance(error, OSError):
                sys.exit(f"error: {command_line.describe(error)}")
            raise
        finally:
            signals.unwatch()

    streams.outlast_readers()
    app.run(guarded, flags_parser=functools.partial(_parse, positional))


def _parse(positional: str, arguments: list[str]) -> list[str]:
    try:
        return command_line.parse(arguments, positional)
    except UserError as error:
        sys.exit(f"error: {error}")
