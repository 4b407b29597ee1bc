"""Does what every script does around its one call: readable errors, the flag --config, quiet libraries, a fast start.

Importing this module sets up the process (memory allocator, cache of compiled programs); scripts import it for that.
"""

from bert_jax.runtime import signals

signals.watch()  # first of all: the other imports take seconds

import itertools
import signal
import sys
import warnings
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bert_jax.runtime import streams
from bert_jax.config.conversion import AnySection, from_config_dict, locate, superseded_durations
from bert_jax.config.fields import Section
from bert_jax.config.reference import help_text
from bert_jax.errors import Interrupted, UserError
from bert_jax.runtime.machine import keep_memory, keep_programs
from bert_jax.runtime.memory import is_out_of_memory, told

# Here, before NumPy and JAX are imported: threads that start with them would have arenas of their own, and JAX reads
# its settings once.
keep_memory()
keep_programs()

flags.disclaim_key_flags()  # a flag that is defined here for a script is shown by the --help of that script


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and calls `main` with the rest of the command line.

    The process exits with status 1 and one line on standard error for what the user can mend, and with 128 + signal
    after SIGTERM, SIGINT, SIGHUP, and SIGPIPE: where standard output is for answers, and nobody reads them.
    """

    def guarded(arguments: list[str]) -> None:
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # in one line, without the code
        logging.set_verbosity(logging.FATAL)  # Orbax logs what it also raises; JAX and TFDS log much
        streams.outlast_readers()
        try:
            main(arguments)
            signals.check()
        except Interrupted as interrupt:
            print(interrupt, file=sys.stderr)
            sys.exit(128 + interrupt.number)
        except BaseException as error:
            if signals.received():  # which may have caused it
                signals.end(signals.received())
            if isinstance(error, BrokenPipeError) and streams.reader_is_gone():  # as of any filter, without a word
                sys.exit(128 + signal.SIGPIPE)
            if is_out_of_memory(error):
                sys.exit(f"error: {told(error, 'a smaller model or batch is wanted here, or a machine with more')}")
            if isinstance(error, UserError | OSError):
                sys.exit(f"error: {error}")
            raise
        finally:
            signals.unwatch()

    app.run(guarded, flags_parser=_parse_flags)


def define_config(section: type[Section], help_line: str) -> flags.FlagHolder[ConfigDict]:
    """Defines the required flag --config of a config file, whose help lists every key.

    Args:
      section: the section of which the file gives a config.
      help_line: the first line of the flag's help.
    """
    help_string = (
        f"{help_line}. Each key in it can be set on the command line. These are all, with the default that a key has "
        f"unless the file sets another, and the values that it may have:\n{help_text(section)}"
    )
    holder = config_flags.DEFINE_config_file("config", None, help_string)
    flags.mark_flag_as_required("config")
    return holder


def read_config(section: type[AnySection], holder: flags.FlagHolder[ConfigDict]) -> AnySection:
    """Makes the config of the file and of the keys set on the command line.

    A duration set on the command line takes the place of the one that the file sets.

    Raises:
      UserError: a value has the wrong type or is not allowed.
    """
    overrides = config_flags.get_override_values(flags.FLAGS[holder.name])
    return from_config_dict(section, holder.value.to_dict() | superseded_durations(section, overrides))


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
    """Returns the error for the first --config.KEY that the config file does not have."""
    plain = [arguments[0]]
    for argument, next_argument in itertools.pairwise([*arguments, ""]):
        if argument.startswith("--config=") or argument == "--config":
            plain += [argument] if "=" in argument else [argument, next_argument]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=plain)
    values(plain)
    for argument in arguments:
        if argument.startswith("--config."):
            try:
                locate(values.config, argument.removeprefix("--config.").partition("=")[0])
            except UserError as error:
                return error
    return None
