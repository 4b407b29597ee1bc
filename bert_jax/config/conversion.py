"""Converts a config between its forms: dataclasses, ConfigDict, and values by dotted key."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict, config_dict

from bert_jax.config.fields import Key, Section, is_section, keys, names
from bert_jax.errors import UserError, did_you_mean

AnySection = TypeVar("AnySection", bound=Section)


def to_config_dict(config: Section) -> ConfigDict:
    """Returns a mutable ConfigDict with all keys of a section and no others, as a config file gives it."""
    values = ConfigDict(dataclasses.asdict(config))
    flat = flattened(dataclasses.asdict(config))
    # A flag is parsed by the type of the value that it replaces, and None has the type of no value.
    for key in keys(type(config)):
        if flat[key.name] is None:
            values.update_from_flattened_dict({key.name: config_dict.placeholder(_type_besides_none(key.kind))})
        elif typing.get_args(key.kind):  # of several types: whoever reads the values checks them
            values.update_from_flattened_dict({key.name: config_dict.FieldReference(flat[key.name], field_type=object)})
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
    return _section(cls, config, path, _known(cls, path))


def _section(cls: type[AnySection], config: Any, path: str, known: list[str]) -> AnySection:
    types = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    values = {}
    for key, value in dict(config).items():
        if key not in fields:
            raise unknown_key(f"{path}{key}", known)
        kind = types[key]
        if is_section(kind) and isinstance(value, (dict, ConfigDict)):
            values[key] = _section(kind, value, f"{path}{key}.", known)
        elif kind == tuple[str, ...]:
            if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
                raise UserError(f"config key {path}{key} wants a list of texts, got {value!r:.80}")
            values[key] = tuple(value)
        elif kind in (float, float | None) and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            values[key] = value
        elif is_section(kind):
            raise _wants_a_key(kind, f"{path}{key}", value)
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
    return overridden(type(config), dataclasses.asdict(config), overrides, config.asked)


def overridden(
    cls: type[AnySection], values: dict[str, Any], overrides: Mapping[str, Any], asked: frozenset[str] = frozenset()
) -> AnySection:
    """Makes a section of a nested dict, some values of which are replaced first, as in `with_overrides`.

    Args:
      cls: the section.
      values: the values of its keys; it is changed.
      overrides: the values by dotted key.
      asked: the keys that were set so before, see `Section`.

    Raises:
      UserError: as for `with_overrides`.
    """
    for key, value in (superseded_durations(cls, overrides) | dict(overrides)).items():
        check_key(cls, key)
        *path, name = key.split(".")
        section = values
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    config = from_config_dict(cls, values)
    object.__setattr__(config, "asked", asked.union(overrides))
    return config


def superseded_durations(section: type[Section], overrides: Mapping[str, Any]) -> dict[str, float]:
    """Returns a zero for each duration that is not among the overrides, if one that is not zero is."""
    durations = names(section, "run_length")
    if not any(overrides.get(name) for name in durations):
        return {}
    return {name: 0 for name in durations if name not in overrides}


def check_key(section: type[Section], key: str) -> None:
    """Raises UserError if a section has no such dotted key; names the nearest."""
    known = _known(section)
    if key in known:
        return
    value = next((name.name for name in keys(section) if key.startswith(f"{name.name}.")), "")
    if value:
        raise UserError(f"config key {value} is a value and has no keys: found {key}")
    raise unknown_key(key, known)


def unknown_key(key: str, known: list[str]) -> UserError:
    """Returns the error for a misspelt dotted key; it names the nearest of the known ones, if one is near."""
    return UserError(f"config key {key} is not known{did_you_mean(key, known)}")


def value_of(key: Key, text: str) -> Any:
    """Reads the value of a key as it stands on the command line.

    Raises:
      UserError: it has another type, or is not allowed.
    """
    kinds = typing.get_args(key.kind) or (key.kind,)
    if type(None) in kinds and text.lower() in ("none", ""):
        return None
    kind = _type_besides_none(key.kind) if len(kinds) > 1 else key.kind
    try:
        value = _READERS[kind](text)
    except ValueError:
        raise UserError(f"--config.{key.name}={text}: {_wanted(kind, text)}") from None
    key.option.check(key.name, value)
    return value


def set_to_a_value(section: type[Section], key: str, text: str) -> UserError | None:
    """Returns the error for a dotted key that is a section and is set to a text; None if it is none."""
    kind: Any = section
    for part in key.split("."):
        kind = typing.get_type_hints(kind).get(part) if is_section(kind) else None
    return _wants_a_key(kind, key, text) if is_section(kind) else None


_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_OTHER_TRUTH = {"yes": "true", "y": "true", "on": "true", "no": "false", "n": "false", "off": "false"}


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text.lower()]


_READERS: dict[type, Callable[[str], Any]] = {int: int, float: float, bool: _truth, str: str}


def _wanted(kind: type, text: str) -> str:
    """Says what a value that cannot be read should be."""
    if kind is bool:
        return "true or false is wanted" + did_you_mean(_OTHER_TRUTH.get(text.lower(), text), ("true", "false"))
    if kind is float:
        return "a number is wanted, such as 0.1 or 5e-5"
    try:
        whole = float(text).is_integer()
    except ValueError:
        whole = False
    return "a whole number is wanted" + (f": did you mean {int(float(text))}?" if whole else ", such as 16")


def _wants_a_key(kind: type[Section], path: str, value: Any) -> UserError:
    """Returns the error for a section that is set as if it were a key."""
    inside = [key for key in keys(kind) if "." not in key.name]
    chosen = next((key.name for key in inside if value in key.option.choices), "")
    example = f": did you mean {path}.{chosen}={value}?" if chosen else ""
    names_inside = ", ".join(key.name for key in inside)
    return UserError(f"config key {path}={value!r} sets no value: {path} is the section of {names_inside}{example}")


def _known(section: type[Section], path: str = "") -> list[str]:
    """Returns the dotted names of the keys of a section and of the sections in it."""
    found = [key.name for key in keys(section, path)]
    sections = {name.rpartition(".")[0] for name in found} - {"", path.rstrip(".")}
    return found + sorted(sections)


def flattened(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Returns the values of a nested dict by dotted key."""
    result = {}
    for key, value in values.items():
        result |= flattened(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return result
