"""Converts a config between its forms: dataclasses, ConfigDict, and values by dotted key."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict, config_dict

from bert_jax.config.fields import Section, is_section, keys, names
from bert_jax.errors import UserError

AnySection = TypeVar("AnySection", bound=Section)


def to_config_dict(config: Section) -> ConfigDict:
    """Returns a mutable ConfigDict with all keys of a section and no others, as a config file gives it."""
    values = ConfigDict(dataclasses.asdict(config))
    flat = flattened(dataclasses.asdict(config))
    # A flag is parsed by the type of the value that it replaces, and None has the type of no value.
    unset = [key for key in keys(type(config)) if flat[key.name] is None]
    values.update_from_flattened_dict(
        {key.name: config_dict.placeholder(_type_besides_none(key.kind)) for key in unset}
    )
    return values


def _type_besides_none(annotation: Any) -> type:
    return next(option for option in typing.get_args(annotation) if option is not type(None))


def from_config_dict(cls: type[AnySection], config: Any, path: str = "") -> AnySection:
    """Makes a section of a ConfigDict or dict.

    Args:
      cls: the section, a dataclass of config keys.
      config: the values of its keys; a key that is left out has its default. Sections in it may be of `cls`'s types.
      path: the name of the section in the whole config, such as "model."; for messages.

    Raises:
      UserError: a key is unknown (names the nearest), or a value has the wrong type or is not allowed.
    """
    fields = [field.name for field in dataclasses.fields(cls)]
    types = typing.get_type_hints(cls)
    values = {}
    for key, value in dict(config).items():
        if key not in fields:
            raise unknown_key(key, fields, path)
        kind = types[key]
        if is_section(kind) and isinstance(value, (dict, ConfigDict)):
            values[key] = from_config_dict(kind, value, f"{path}{key}.")
        elif kind == tuple[str, ...]:
            if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
                raise UserError(f"config key {path}{key} wants a list of texts, got {value!r:.80}")
            values[key] = tuple(value)
        elif kind in (float, float | None) and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            values[key] = value
        else:
            raise UserError(f"config key {path}{key} wants {getattr(kind, '__name__', kind)}, got {value!r}")
    return cls(**values)


def with_overrides(config: AnySection, overrides: Mapping[str, Any]) -> AnySection:
    """Returns the config with other values, as in ``{"optimizer.learning_rate": 3e-5, "total_steps": 60}``.

    A duration among the overrides takes the place of the one that the config has.

    Args:
      config: the config or section to start from; it stays as it is.
      overrides: the values by dotted key; the value of a whole section is an object of its dataclass.

    Raises:
      UserError: a key is unknown (names the nearest), or a value has the wrong type or is not allowed.
    """
    values = dataclasses.asdict(config)
    for key, value in (superseded_durations(type(config), overrides) | dict(overrides)).items():
        section, name = locate(values, key)
        section[name] = value
    return from_config_dict(type(config), values)


def superseded_durations(section: type[Section], overrides: Mapping[str, Any]) -> dict[str, float]:
    """Returns a zero for each duration that is not among the overrides, if one that is not zero is."""
    durations = names(section, "run_length")
    if not any(overrides.get(name) for name in durations):
        return {}
    return {name: 0 for name in durations if name not in overrides}


def locate(values: Any, key: str) -> tuple[Any, str]:
    """Finds a dotted key in a nested dict or ConfigDict.

    Returns:
      The innermost dict, and the name of the key in it.

    Raises:
      UserError: there is no such key; names the nearest.
    """
    parts = key.split(".")
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth])
        if not isinstance(values, (dict, ConfigDict)):
            raise UserError(f"config key {path} is a value and has no keys: found {key}")
        if part not in values:
            raise unknown_key(part, list(values), f"{path}." if path else "")
        if depth < len(parts) - 1:
            values = values[part]
    return values, parts[-1]


def unknown_key(key: str, known: list[str], path: str = "") -> UserError:
    """Returns the error for a misspelt key; it names the nearest of the known ones.

    Args:
      key: the misspelt key.
      known: the keys of its section.
      path: the name of the section in the whole config, such as "model.".
    """
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return UserError(f"config key {path}{key} is not known: did you mean {path}{nearest}?")


def flattened(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Returns the values of a nested dict by dotted key."""
    result = {}
    for key, value in values.items():
        result |= flattened(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return result
