"""Schemes of tags: how the tags of words say where entities begin and end."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping

OUTSIDE = "O"
# The letters of each scheme besides O; of those that have all letters of some tags, the first names them. BIO is also
# called IOB2; IOB1 has its letters, and is read by the same rules.
_LETTERS = {"BIO": "BI", "IOE": "IE", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
_IN_BIOES = {"L": "E", "U": "S", "M": "I", "W": "S"}  # what other schemes call the same
# Shares of the tags, of those besides O, that a scheme must have: tags without an O are no entities unless nearly all
# of them fit (one-letter parts of speech do in part).
_ENOUGH, _ENOUGH_WITHOUT_OUTSIDE = 0.5, 0.9


@dataclasses.dataclass(frozen=True)
class TagScheme:
    """Reads tags of one scheme, in upper or lower case: O, a letter and a type ("B-PER"), or a bare letter.

    Attributes:
      name: BIO, IOE, BIOES, BILOU, BMES or BMEWO.
      separator: between letter and type.
      letter_first: "B-PER"; otherwise "PER-B".
      outside: what is no part of an entity; where there is no O, the one tag without a letter.
      others: tags that do not fit, which mark nothing.
    """

    name: str
    separator: str = "-"
    letter_first: bool = True
    outside: str = OUTSIDE
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tags: Iterable[str] | Mapping[str, int]) -> "TagScheme | None":
        """Returns the scheme that most of some tags are of; None if they mark no entities, as parts of speech do.

        Args:
          tags: the different ones, or how often each stands.
        """
        counts = {tag: tags[tag] for tag in tags} if isinstance(tags, Mapping) else dict.fromkeys(tags, 1)
        outside = next((tag for tag in counts if tag.upper() == OUTSIDE), "")
        inside = {tag: count for tag, count in counts.items() if tag.upper() != OUTSIDE}
        between = {char for tag in inside if len(tag) > 2 for char in (tag[1], tag[-2]) if not char.isalnum()}
        separators = ["-", *sorted(between - {"-"})]
        schemes = [cls(*form) for form in itertools.product(_LETTERS, separators, (True, False))]
        fitting = [sum(count for tag, count in inside.items() if scheme.fits(tag)) for scheme in schemes]
        most = max(fitting)
        scheme = schemes[fitting.index(most)]
        others = frozenset(tag for tag in inside if not scheme.fits(tag))
        typed = [count for tag, count in inside.items() if tag not in others and len(tag) > 1]
        if len(others) == 1 and not outside and len(typed) == len(inside) - 1 > 0:
            (other,) = others
            if inside[other] >= max(typed):
                return dataclasses.replace(scheme, outside=other)
        if not most or most < (_ENOUGH if outside else _ENOUGH_WITHOUT_OUTSIDE) * sum(inside.values()):
            return None
        return dataclasses.replace(scheme, others=others)

    def fits(self, tag: str) -> bool:
        """Tells whether it is a tag of the scheme."""
        return tag.upper() == self.outside.upper() or self._split(tag)[0] in _LETTERS[self.name]

    def read(self, tag: str) -> tuple[str, str]:
        """Returns the letter of BIOES that means the same, and the type ("_" of a bare letter, "" of O).

        Raises:
          ValueError: it is neither of the scheme nor among the others.
        """
        if tag.upper() == self.outside.upper() or tag in self.others:
            return OUTSIDE, ""
        if not self.fits(tag):
            raise ValueError(f"{tag!r} is no tag of {self}")
        letter, entity_type = self._split(tag)
        return _IN_BIOES.get(letter, letter), entity_type

    def typed(self, tag: str, entity_type: str) -> str:
        """Returns a tag of the scheme with another type."""
        return tag[:2] + entity_type if self.letter_first else entity_type + tag[-2:]

    def __str__(self) -> str:
        """Returns the name and the form, for messages: BILOU (B-, I-, L-, U-, O)."""
        end = self.separator
        forms = (f"{letter}{end}" if self.letter_first else f"{end}{letter}" for letter in _LETTERS[self.name])
        return f"{self.name} ({', '.join(forms)}, {self.outside})"

    def _split(self, tag: str) -> tuple[str, str]:
        """Returns the letter in upper case, and the type; "?" if the tag has another form."""
        if len(tag) < 2:
            return tag.upper() or "?", "_"
        letter, separator, entity_type = (
            (tag[0], tag[1], tag[2:]) if self.letter_first else (tag[-1], tag[-2], tag[:-2])
        )
        return (letter.upper(), entity_type or "_") if separator == self.separator else ("?", tag)


@functools.lru_cache
def scheme_of_labels(labels: tuple[str, ...]) -> TagScheme | None:
    """Returns the scheme of the labels of a model; None if they mark no entities."""
    return TagScheme.of(labels)


def measure(labels: tuple[str, ...]) -> str:
    """Says what of such tags is scored, and why."""
    scheme = scheme_of_labels(labels)
    if scheme is not None:
        others = f"; {', '.join(sorted(scheme.others))} mark none" if scheme.others else ""
        return f"tags are {scheme}: entities are scored{others}"
    has_outside = any(label.upper() == OUTSIDE for label in labels)
    prefixed = any(TagScheme.of([label, OUTSIDE]) for label in labels if len(label) > 1)
    reasons = [
        *([] if has_outside else ["no O"]),
        f"{'few' if prefixed else 'no'} prefixes such as B- and I-",
    ]
    return f"tags mark no entities ({', '.join(reasons)}): words are scored"
