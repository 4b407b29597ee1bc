"""Declares config keys: each with its default, its role in a run, the values that it may have, and its help.

Everything else that must know the keys asks here: the checks, ``--help``, the tables of docs/configuration.md, and
the lists of keys that shape weights, that a resumed run may change, or that a file of Hugging Face's holds.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, TypeGuard

from bert_jax.errors import UserError, did_you_mean

ROLES = {
    "weights": "The weights of a model have their shape or their meaning by it.",
    "regularization": "It acts in training only; a model may be trained further with another value.",
    "initialization": "It says what a run starts from.",
    "computation": "It says how the same function is computed: how fast, and in how much memory.",
    "precision": "It says in which number format a run computes.",
    "run_length": "It says how long a run goes on.",
    "monitoring": "It says what is watched and kept of a run.",
    "devices": "It says on which devices a run computes.",
    "data": "It says what a run learns from.",
    "bad_input": "It says what happens to input that is damaged.",
    "optimization": "It says how weights are updated.",
    "task": "It says what is learned, and how it is scored.",
}
# A run may go on with other values of these; any other key makes it another run.
CHANGEABLE_ROLES = ("run_length", "monitoring", "devices", "bad_input")

_OPTION = "option"  # the key of an `Option` in a field's metadata


@dataclasses.dataclass(frozen=True)
class Option:
    """Says what a config key is for and which values it may have.

    Attributes:
      role: the role in a run, one of `ROLES`.
      help: the effect of the key, in a sentence without its full stop.
      at_least: the smallest number allowed.
      at_most: the largest number allowed.
      choices: the texts allowed; empty for any.
    """

    role: str
    help: str
    at_least: float = -math.inf
    at_most: float = math.inf
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r} is not known: choose one of {', '.join(ROLES)}")

    def limits(self) -> str:
        """Returns the values that are allowed, in words; empty if all are."""
        if self.choices:
            *first, last = (choice or '""' for choice in self.choices)
            return f"{', '.join(first)} or {last}"
        if self.at_least == -math.inf:
            return ""
        if self.at_most == math.inf:
            return f"at least {self.at_least}"
        return f"between {self.at_least} and {self.at_most}"

    def check(self, key: str, value: Any) -> None:
        """Raises UserError if `value` is not allowed for `key`; None is the business of its type."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            meant = did_you_mean(str(value), [choice for choice in self.choices if choice])
            raise UserError(f"{key}={value!r} is not known: choose {self.limits()}{meant.replace(':', ';')}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value} is out of range: it must be {self.limits() or 'finite'}")
        if not self.choices and self.limits() and not self.at_least <= value <= self.at_most:
            raise UserError(f"{key}={value} is out of range: it must be {self.limits()}")


def option(
    default: Any,
    *,
    role: str,
    help: str,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declares a config key; see `Option` for the arguments.

    Returns:
      A field of a dataclass. It is typed as Any, so that ``hidden_size: int = option(768, ...)`` is correct.
    """
    return dataclasses.field(default=default, metadata={_OPTION: Option(role, help, at_least, at_most, choices)})


@dataclasses.dataclass(frozen=True)
class Section:
    """Is the base of the dataclasses of config keys, and checks the keys when an object is made.

    Attributes:
      path: the name of the section in a whole config, such as "model."; for messages.
      asked: the dotted keys that were set over what a config or its file had: what is asked for may be a default.
    """

    path: ClassVar[str] = ""
    asked: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Raises UserError for a key whose value its option does not allow."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Section):
                _option_of(field).check(f"{self.path}{field.name}", value)


def is_section(kind: Any) -> TypeGuard[type[Section]]:
    """Says whether the type of a field is that of a section."""
    return isinstance(kind, type) and issubclass(kind, Section)


class Key(NamedTuple):
    """Describes a key of a whole config."""

    name: str  # dotted, such as "model.hidden_size"
    kind: Any  # its type, such as int or float | None
    default: Any
    option: Option


def keys(section: type[Section], path: str = "") -> Iterator[Key]:
    """Yields the keys of a section, and of the sections in it, in their order."""
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if is_section(kinds[field.name]):
            yield from keys(kinds[field.name], f"{path}{field.name}.")
        else:
            yield Key(f"{path}{field.name}", kinds[field.name], field.default, _option_of(field))


@functools.cache
def names(section: type[Section], *roles: str) -> tuple[str, ...]:
    """Returns the names of the keys that have one of the roles."""
    return tuple(key.name for key in keys(section) if key.option.role in roles)


def _option_of(field: dataclasses.Field) -> Option:
    if _OPTION not in field.metadata:
        raise TypeError(f"config key {field.name} has no role and no help: declare it with option()")
    return field.metadata[_OPTION]
