"""Parses the command line of a script, and answers what is wrong in it in one line."""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from bert_jax.config.conversion import AnySection, check_key, flattened, overridden, set_to_a_value, value_of
from bert_jax.config.fields import Key, Section, keys
from bert_jax.config.files import config_file_values
from bert_jax.config.finetuning import FinetuningConfig
from bert_jax.config.pretraining import PretrainingConfig
from bert_jax.config.reference import help_text
from bert_jax.errors import UserError, did_you_mean

flags.disclaim_key_flags()  # a flag that is defined here for a script is shown by the --help of that script

_HELP = ("-h", "--h", "-help", "--help", "--helpshort", "--helpfull")
_REQUIRED = "must have a value other than None"  # in what absl says of a required flag that is not given
_SCRIPTS = {PretrainingConfig: "scripts/pretrain.py", FinetuningConfig: "scripts/finetune.py"}
_KEYS = "bert_jax.config"  # the module that the flags of config keys are said to be of: a script's --help has its own


class ConfigFlag(flags.Flag):
    """Is the flag --config of a config file of a section."""

    def __init__(self, section: type[Section], help_line: str) -> None:
        """Makes the flag."""
        super().__init__(flags.ArgumentParser(), None, "config", None, help_line)
        self.section = section


class _KeyParser(flags.ArgumentParser):
    """Reads the value of a config key."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def parse(self, argument: Any) -> Any:
        return value_of(self._key, argument)


def define_config(section: type[Section], help_line: str) -> flags.FlagHolder[str]:
    """Defines the required flag --config of a config file, and a flag --config.KEY for each key.

    Args:
      section: the section of which the file gives a config.
      help_line: the help of the flag.
    """
    holder = flags.DEFINE_flag(ConfigFlag(section, help_line))
    flags.mark_flag_as_required("config")
    for key in keys(section):
        flag = flags.Flag(_KeyParser(key), None, f"config.{key.name}", None, key.option.help, boolean=key.kind is bool)
        flags.DEFINE_flag(flag, module_name=_KEYS)
    return holder


def read_config(section: type[AnySection], holder: flags.FlagHolder[str]) -> AnySection:
    """Makes the config of the file and of the keys set on the command line.

    A duration set on the command line takes the place of the one that the file sets.

    Raises:
      UserError: the file cannot be read, or a value has the wrong type or is not allowed.
    """
    given = {key.name: flags.FLAGS[f"config.{key.name}"] for key in keys(section)}
    overrides = {name: flag.value for name, flag in given.items() if flag.present}
    values = config_file_values(holder.value)
    _check_file(section, holder.value, values)
    return overridden(section, values, overrides)


def _check_file(section: type[Section], file: str, values: dict[str, Any]) -> None:
    """Raises UserError for a key of a config file that the section does not have: perhaps another script's has it."""
    for key in flattened(values):
        try:
            check_key(section, key)
        except UserError as error:
            others = [
                script
                for other, script in _SCRIPTS.items()
                if flattened(values).keys() <= {k.name for k in keys(other)}
            ]
            raise UserError(f"{file} is a config of {others[0]}" if others else f"{file}: {error}") from error


def parse(arguments: list[str], positional: str) -> list[str]:
    """Parses the flags; --help and -h print the help and end the process.

    Args:
      arguments: the command line, the script's name first.
      positional: the name of the word that the script takes besides its flags; empty if it takes none.

    Returns:
      The script's name, and the words that belong to no flag.

    Raises:
      UserError: a flag is unknown or has a wrong value, a required one is missing, or a word is stray.
    """
    if asked := set(_HELP).intersection(arguments):
        _print_help(arguments, full="--helpfull" in asked)
        sys.exit(0)
    try:
        words = flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(error.flagname, (error.flagvalue or "").partition("=")[2]) from error
    except flags.Error as error:
        if stray := [word for word in arguments[1:] if re.match(r"[\w.]+=", word)]:  # the flag that is missing, perhaps
            raise _stray_word(stray[0], positional) from error
        raise _missing_flags() or UserError(f"{_wrong_value(str(error))} (see --help)") from error
    if missing := _missing_flags():  # given, and empty: as --workdir=$DIR is where DIR is not set
        raise missing
    for number, word in enumerate(words[1:]):
        if number >= bool(positional) or "=" in word:
            raise _stray_word(word, positional)
    return words


def _own_flags() -> list[str]:
    """Returns the names of the flags of the script, those of config keys too, and none of absl's own."""
    own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    return [flag.name for flag in (*own, *flags.FLAGS.flags_by_module_dict().get(_KEYS, ()))]


def _unknown_flag(name: str, value: str) -> UserError:
    """Returns the error for a flag that there is not; names the nearest."""
    config = flags.FLAGS["config"] if "config" in flags.FLAGS else None  # noqa: SIM401 (FLAGS has no get)
    if isinstance(config, ConfigFlag) and name.startswith("config."):
        key = name.removeprefix("config.")
        if error := set_to_a_value(config.section, key, value):
            return error
        try:
            check_key(config.section, key)
        except UserError as error:
            return error
    return UserError(f"flag --{name} is not known{did_you_mean(name, _own_flags(), '--{}')} (see --help)")


def _missing_flags() -> UserError | None:
    """Returns the error for all required flags that are not given or empty, with their help; None if there are none."""
    missing = []
    for name in _own_flags():
        flag = flags.FLAGS[name]
        required = any(_REQUIRED in validator.message and "Flag" in validator.message for validator in flag.validators)
        if required and flag.value in (None, ""):
            missing.append(f"--{name} is required: {flag.help}")
    return UserError("; ".join(missing) + " (see --help)") if missing else None


def _wrong_value(message: str) -> str:
    """Says what is wanted of a flag, from what absl says of its value."""
    found = re.match(r"flag --([\w.]+)=(.*?): ", message, re.DOTALL)
    if not found:
        return " ".join(message.split())
    name, value = found.groups()
    parser = flags.FLAGS[name].parser
    if isinstance(parser, flags.EnumParser):
        meant = did_you_mean(value, parser.enum_values)
        return f"--{name}={value} is not known{meant or ':'} There are {', '.join(filter(None, parser.enum_values))}"
    return f"--{name}={value}: {parser.syntactic_help or 'true or false'} is wanted"


def _stray_word(word: str, positional: str) -> UserError:
    """Returns the error for a word that belongs to no flag; names the flag that may be meant."""
    name, equals, value = word.lstrip("-\u2013\u2014").partition("=")
    meant = did_you_mean(name, _own_flags(), f"--{{}}{equals}{value}")
    takes = f"flags and one {positional}" if positional else "flags alone"
    return UserError(
        f"{word!r} is no flag{meant}"
        if meant
        else f"{word!r} belongs to no flag: the script takes {takes}; a value with a space or * stands in quotes "
        "(see --help)"
    )


def _print_help(arguments: list[str], *, full: bool) -> None:
    """Prints what the script does, its flags, and all config keys with the values of the config file, if one is given.

    Raises:
      UserError: the config file cannot be read.
    """
    app.usage(shorthelp=not full, writeto_stdout=True)
    config = flags.FLAGS["config"] if "config" in flags.FLAGS else None  # noqa: SIM401 (FLAGS has no get)
    if not isinstance(config, ConfigFlag):
        return
    with contextlib.suppress(flags.Error):  # a required flag may be missing here
        flags.FLAGS([word for word in arguments if word not in _HELP])
    values = flattened(config_file_values(config.value)) if config.value else {}
    whose = f"as {config.value} sets them" if values else "with the default that each has unless the file sets another"
    print(f"Keys of the config, {whose}, and the values that they may have:")
    print(help_text(config.section, values))


def describe(error: OSError) -> str:
    """Says in a line which file an error of the system is about, why, and the nearest file that exists."""
    if not isinstance(error.filename, str) or not error.strerror:
        return error.strerror or " ".join(str(error).split())
    path, meant = Path(error.filename), ""
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        meant = did_you_mean(str(path), (str(path.parent / name) for name in sorted(os.listdir(path.parent))))
    return f"{path}: {error.strerror.lower()}{meant}"
