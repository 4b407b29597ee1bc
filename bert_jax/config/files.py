"""Reads config files: Python files whose function get_config returns the values of a config."""

import inspect
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bert_jax.errors import UserError, did_you_mean


def config_file_values(file: str) -> dict[str, Any]:
    """Returns the values that a config file gives, as a nested dict; the file is Python that is run.

    Args:
      file: the path and, behind a colon, the argument of its get_config, as in "configs/finetune/glue.py:mrpc".

    Raises:
      UserError: there is no such file, it fails, or it takes no such argument.
    """
    path, _, argument = (file, "", "") if Path(file).is_file() else file.partition(":")
    if not Path(path).is_file():
        raise UserError(f"there is no config file {path}{_similar_file(path)}")
    get_config = _call(path, lambda: runpy.run_path(path)).get("get_config")
    if not callable(get_config):
        raise UserError(f"{path} is no config file: it has no function get_config, as those in configs/ have")
    if argument and not inspect.signature(get_config).parameters:
        raise UserError(f"{path} takes no argument: leave out :{argument}")
    values = _call(path, lambda: get_config(*[argument] if argument else []))
    if not isinstance(values, ConfigDict | Mapping):
        raise UserError(f"{path}: get_config returns {type(values).__name__}, and not a ConfigDict")
    return values.to_dict() if isinstance(values, ConfigDict) else dict(values)


def _call(path: str, function: Any) -> Any:
    """Calls what runs code of the config file; what fails in it is reported with the file's line."""
    try:
        return function()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # of any kind: it is the user's code
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        place = f"{path}, line {lines[-1]}" if lines else path
        reason = " ".join(str(error).split())
        raise UserError(f"{place}: {type(error).__name__}: {reason}") from error


def _similar_file(path: str) -> str:
    """Returns the question whether a file beside it, or one of configs/, was meant."""
    files = [*Path(path).parent.glob("*.py"), *Path("configs").glob("*/*.py")]
    return did_you_mean(path.removesuffix(".py"), (file.as_posix().removesuffix(".py") for file in files), "{}.py")
