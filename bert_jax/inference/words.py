"""Words of a text, their tags, and the entities that the tags make."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.metrics.entities import get_entities, marks_entities
from bert_jax.tasks.kinds.token_classification import Tags

# Letters and digits, with single marks between them (U.S, 1,000, well-known); every other mark is a word, and so is
# the genitive 's: as the words of CoNLL-2003 are.
_WORD = re.compile(r"'s\b|\w+(?:(?!'s\b)[^\w\s]\w+)*|[^\w\s]")


class Word(NamedTuple):
    """Holds a word with its tag."""

    text: str
    start: int  # [start, stop) in characters of the text
    stop: int
    tag: str
    score: float  # probability of the tag


class Entity(NamedTuple):
    """Holds words that are one entity."""

    label: str
    text: str
    start: int  # [start, stop) in characters of the text
    stop: int
    score: float  # mean probability of the tags of its words


class Tagging(NamedTuple):
    """Holds the tagged words of a text, and its entities if the tags mark any, as B- and I- do."""

    words: list[Word]
    entities: list[Entity]


def words_of(text: str | Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Returns a text, given whole or in words, and where its words stand in it; given words are joined by spaces."""
    if isinstance(text, str):
        return text, [match.span() for match in _WORD.finditer(text)]
    stops = np.cumsum([len(word) + 1 for word in text]).tolist()
    return " ".join(text), [(stop - 1 - len(word), stop - 1) for word, stop in zip(text, stops, strict=True)]


def tagging_of(text: str, places: Sequence[tuple[int, int]], prediction: Tags) -> Tagging:
    """Returns the words and entities of a text from the tags of its words."""
    words = [
        Word(text[start:stop], start, stop, tag, score)
        for (start, stop), tag, score in zip(places, *prediction, strict=True)
    ]
    if not marks_entities(prediction.tags):
        return Tagging(words, [])
    entities = []
    for label, first, last in get_entities(prediction.tags):
        start, stop = places[first][0], places[last][1]
        score = float(np.mean(prediction.scores[first : last + 1]))
        entities.append(Entity(label, text[start:stop], start, stop, score))
    return Tagging(words, entities)
