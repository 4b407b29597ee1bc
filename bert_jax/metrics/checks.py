"""Checks of what is scored: every figure is computed from finite numbers of shapes that fit."""

import numpy as np
from numpy.typing import ArrayLike

from bert_jax.errors import UserError


def numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Returns `values` in float64.

    Raises:
      UserError: there are none, or one is not finite.
    """
    array = np.asarray(values, np.float64)
    if not array.size:
        raise UserError(f"nothing to score: there are no {name}")
    refuse(name, array, ~np.isfinite(array), "not a finite number")
    return array


def check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises a UserError if `values` are not of that shape."""
    if values.shape != shape:
        raise UserError(f"{name} are of shape {list(values.shape)}, but {list(shape)} was expected")


def refuse(name: str, values: np.ndarray, wrong: np.ndarray, reason: str) -> None:
    """Raises a UserError that names the first of `values` where `wrong` (bool, same shape) is True."""
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        raise UserError(f"{name}{place} is {values[tuple(place)]}, {reason} ({wrong.sum():,} of {wrong.size:,} wrong)")
