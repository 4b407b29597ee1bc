"""Draws validation examples from those of training, where a user has one file."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.kinds.base import Kind

Strata = dict[tuple[str, ...], list[list[int]]]  # groups of examples of equal content, by the labels in them
_SHOWN = 10  # strata whose counts are told


def held_out(kind: Kind, examples: Sequence[Any], share: float, seed: int, source: str) -> tuple[list[Any], list[Any]]:
    """Splits examples in two, of which each keeps their order.

    Examples of equal content stay together, the shares of labels (or of sets of them) are alike on both sides as far as
    that goes, and every label stays in training. Prints how many are held out.

    Args:
      kind: of the examples.
      examples: of training.
      share: of them that is held out, in (0, 1).
      seed: draws them; the same seed draws the same.
      source: where they were read from, for messages.

    Returns:
      Those to train on, and those held out.

    Raises:
      UserError: there are too few for that.
    """
    names = [frozenset(kind.names_in(example)) for example in examples]
    same = defaultdict(list)
    for number, example in enumerate(examples):
        same[_plain(kind.content(example))].append(number)
    strata: Strata = defaultdict(list)
    for group in same.values():
        strata[tuple(sorted(names[group[0]]))].append(group)
    chosen = _drawn(strata, names, share, seed)
    if not 0 < len(chosen) < len(examples):
        raise UserError(
            f"{source}: none of {len(examples):,} examples can be held out for data.validation={share:g} so that every "
            "label stays in training: set a larger share, or name a file"
        )
    what = f"{len(chosen):,} of {len(examples):,} examples of {source} are held out, drawn by seed {seed}"
    print(f"validation: {what}{_counts(chosen, strata)}")
    parts = ([each for number, each in enumerate(examples) if (number in chosen) is side] for side in (False, True))
    return next(parts), next(parts)


def _drawn(strata: Strata, names: Sequence[Collection[str]], share: float, seed: int) -> set[int]:
    """Draws groups of examples from each stratum; what one cannot give, the next makes up for within its share."""
    left = Counter(name for each in names for name in each)
    random = np.random.default_rng([seed, 1])
    chosen: set[int] = set()
    due = 0.0
    for stratum in sorted(strata):
        size = sum(map(len, strata[stratum]))
        due += share * size
        most = min(len(chosen) + math.ceil(share * size), math.floor(due + 0.5))
        for place in random.permutation(len(strata[stratum])):
            group = strata[stratum][place]
            taken = Counter(name for number in group for name in names[number])
            if len(chosen) + len(group) <= most and all(left[name] > count for name, count in taken.items()):
                chosen.update(group)
                left -= taken
    return chosen


def _plain(content: Any) -> Any:
    """Returns a text without the case and the spaces that make no difference, and so the texts of a tuple."""
    if isinstance(content, tuple):
        return tuple(map(_plain, content))
    return " ".join(content.casefold().split()) if isinstance(content, str) else content


def _counts(chosen: set[int], strata: Strata) -> str:
    """Tells how many are held out of each stratum, if there are several and not many."""
    counts = {
        " ".join(stratum) or "none": sum(number in chosen for group in groups for number in group)
        for stratum, groups in sorted(strata.items())
    }
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f" ({shown})" if 1 < len(counts) <= _SHOWN else ""
