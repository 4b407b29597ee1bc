"""Defines the flags of scripts that read text, from the config keys that say where it is and how it is cleaned."""

import dataclasses
from typing import Any

from absl import flags

from bert_jax.config import DataConfig, with_overrides
from bert_jax.config.fields import Key, keys
from bert_jax.text.sources import TextSource

_FIELDS = [field.name for field in dataclasses.fields(TextSource)]
KEYS = [key for key in keys(DataConfig) if key.name.partition(".")[0] in _FIELDS]


def _define(key: Key) -> flags.FlagHolder[Any]:
    """Defines the flag of a key: --letters is that of cleaning.letters."""
    name, option = key.name.rpartition(".")[-1], key.option
    if option.choices:
        return flags.DEFINE_enum(name, key.default, option.choices, option.help)
    if key.kind is bool:
        off = f"; --no{name} turns this off" if key.default else ""
        return flags.DEFINE_bool(name, key.default, option.help + off)
    if key.kind is int:
        return flags.DEFINE_integer(name, key.default, option.help, lower_bound=int(option.at_least))
    return flags.DEFINE_string(name, key.default or None, option.help)


_FLAGS = {key.name: _define(key) for key in KEYS}


def text_source() -> TextSource:
    """Returns the source that the flags describe."""
    values = {name: holder.value for name, holder in _FLAGS.items() if holder.value is not None}
    return TextSource.of(with_overrides(DataConfig(), values))
