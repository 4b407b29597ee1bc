"""Writes files that are whole or not there, and reads JSON that may be damaged."""

import json
import os
from pathlib import Path
from typing import Any

from bert_jax.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it has all of the content or is as it was; makes its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # of this process alone: others may write it, too
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one object of JSON.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: it cannot be read, or holds something else.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def parse_json(content: bytes) -> dict[str, Any]:
    """Returns the object of JSON in `content`.

    Raises:
      ValueError: it is not UTF-8, not JSON (NaN is not), nested too deep to be read, or no object; says so in a line.
    """
    try:
        value = json.loads(content.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__} and should hold an object of JSON")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")
