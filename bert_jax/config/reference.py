"""Writes every config key with its default, its values and its help, for ``--help`` and for the docs."""

from collections.abc import Mapping
from typing import Any

from bert_jax.config.fields import Key, Section, keys


def help_text(section: type[Section], values: Mapping[str, Any] | None = None) -> str:
    """Returns a line for each key of a config, as the flag that sets it to the value that it has.

    Args:
      section: the section of the config.
      values: the values of a config file by dotted key; a key that is not among them has its default.
    """
    lines = []
    for key in keys(section):
        value = (values or {}).get(key.name, key.default)
        changed = "" if value == key.default else f"; default {key.default}"
        lines.append(f"--config.{key.name}={value} ({_values(key)}{changed}): {key.option.help}")
    return "\n".join(lines)


def _values(key: Key) -> str:
    return key.option.limits() if key.option.choices else ", ".join(filter(None, (_type(key), key.option.limits())))


def _type(key: Key) -> str:
    return getattr(key.kind, "__name__", str(key.kind))  # a union such as float | None has no name


def markdown_table(section: type[Section]) -> str:
    """Returns a table of a section's own keys: neither those of its base nor those of the sections in it."""
    inherited = {key.name for base in section.__bases__ for key in keys(base, section.path)}
    rows = ["| key | default | values | what it does |", "|---|---|---|---|"]
    for key in keys(section, section.path):
        if key.name in inherited or key.name.count(".") > section.path.count("."):
            continue
        default = f'"{key.default}"' if isinstance(key.default, str) else key.default
        cells = (f"`{key.name}`", f"`{default}`", _values(key), key.option.help)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
