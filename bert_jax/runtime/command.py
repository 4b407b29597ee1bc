"""What every script does around its one call: readable flag errors, one-line errors, quiet libraries, a fast start."""

import itertools
import signal
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from bert_jax.config import unknown_key
from bert_jax.errors import Interrupted, UserError
from bert_jax.runtime.machine import keep_memory, keep_programs

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
