"""Words of a text, their tags, and the entities that the tags make."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.metrics.entities import get_entities
from bert_jax.metrics.tag_schemes import TagScheme
from bert_jax.tasks.kinds.token_classification import Tags
from bert_jax.text.words import words


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
    """Holds the tagged words of a text, and its entities if the labels of the model mark any, as B- and I- do."""

    words: list[Word]
    entities: list[Entity]


def words_of(text: str | Sequence[str], whole: Collection[str] = ()) -> tuple[str, list[tuple[int, int]]]:
    """Returns a text, given whole or in words, and where its words stand in it; given words are joined by spaces.

    Args:
      text: the text, or its words.
      whole: words that a text is not cut in, see `bert_jax.text.words`.
    """
    if isinstance(text, str):
        return text, words(text, whole)
    stops = np.cumsum([len(word) + 1 for word in text]).tolist()
    return " ".join(text), [(stop - 1 - len(word), stop - 1) for word, stop in zip(text, stops, strict=True)]


def tagging_of(text: str, places: Sequence[tuple[int, int]], prediction: Tags, scheme: TagScheme | None) -> Tagging:
    """Returns the words and entities of a text from the tags of its words.

    Args:
      text: the text.
      places: [start, stop) of each word in it.
      prediction: the tags.
      scheme: of all labels of the model; None if they mark no entities.
    """
    tagged = [
        Word(text[start:stop], start, stop, tag, score)
        for (start, stop), tag, score in zip(places, *prediction, strict=True)
    ]
    if scheme is None:
        return Tagging(tagged, [])
    entities = []
    for label, first, last in get_entities(prediction.tags, scheme):
        start, stop = places[first][0], places[last][1]
        score = float(np.mean(prediction.scores[first : last + 1]))
        entities.append(Entity(label, text[start:stop], start, stop, score))
    return Tagging(tagged, entities)
