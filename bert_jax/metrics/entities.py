"""Entities that tags mark, and their scores, as conlleval and seqeval have them."""

from collections.abc import Sequence
from typing import Any

from bert_jax.errors import UserError
from bert_jax.metrics.tag_schemes import TagScheme

_BIOES = TagScheme("BIOES")


def get_entities(tags: Sequence[str], scheme: TagScheme = _BIOES) -> list[tuple[str, int, int]]:
    """Returns the entities of one sentence, read as conlleval does and as seqeval 1.2.2 does by default.

    BIO, IOB1, IOE and BIOES are all understood at once, the other schemes as BIOES with other letters, and nothing is
    malformed: an I- or E- that has no B- or I- of its type before it begins an entity.

    Args:
      tags: "O", or a letter and a type ("B-PER"); a bare "B" is of type "_".
      scheme: that they are of.

    Returns:
      (type, first token, last token) of each entity, in order.

    Raises:
      UserError: a tag of another scheme.
    """
    entities: list[tuple[str, int, int]] = []
    previous_prefix, previous_type = "O", ""
    for place, tag in enumerate(tags):
        try:
            prefix, entity_type = scheme.read(tag)
        except ValueError as error:
            raise UserError(f"token {place}: {error}") from error
        if prefix in ("I", "E") and previous_prefix in ("B", "I") and entity_type == previous_type:
            entities[-1] = (entity_type, entities[-1][1], place)
        elif prefix != "O":
            entities.append((entity_type, place, place))
        previous_prefix, previous_type = prefix, entity_type
    return entities


def score_entities(
    tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: TagScheme = _BIOES
) -> dict[str, float]:
    """Scores tags by entity: one counts if type, first and last token are right (see `get_entities`).

    Args:
      tags: of each token of each sentence.
      predicted: in the same shape.
      scheme: that they are of.

    Returns:
      `precision`, `recall` and `f1` over all entities of all sentences (seqeval's micro average), and `accuracy`, the
      share of tokens with the right tag.

    Raises:
      UserError: no tokens, sentences of different lengths, a tag of another scheme.
    """
    entities, guesses = _entities(tags, predicted, scheme)
    pairs = [pair for one, other in zip(tags, predicted, strict=True) for pair in zip(one, other, strict=True)]
    scores = _overlap(entities, guesses)
    del scores["support"]
    return scores | {"accuracy": sum(tag == guess for tag, guess in pairs) / len(pairs)}


def entity_report(
    tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: TagScheme = _BIOES
) -> dict[str, Any]:
    """Reports what became of each type of entity; arguments and errors are those of `score_entities`.

    Returns:
      "classes": {type: {"precision", "recall", "f1", "support"}}, support being the entities of that type in `tags`.
    """
    sides = _entities(tags, predicted, scheme)
    types = sorted({entity[1] for side in sides for entity in side})
    return {"classes": {name: _overlap(*({e for e in side if e[1] == name} for side in sides)) for name in types}}


def _entities(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: TagScheme) -> tuple[set, set]:
    """Returns (sentence, type, first token, last token) of all entities, right and predicted."""
    if len(tags) != len(predicted):
        raise UserError(f"{len(tags):,} sentences have tags, but {len(predicted):,} have predicted ones")
    for sentence, (one, other) in enumerate(zip(tags, predicted, strict=True)):
        if len(one) != len(other):
            raise UserError(f"sentence {sentence} has {len(one)} tags, but {len(other)} predicted ones")
    if not any(tags):
        raise UserError(f"nothing to score: none of the {len(tags):,} sentences has a token")
    sides: tuple[set, set] = (set(), set())
    for name, side, sentences in zip(("tags", "predicted tags"), sides, (tags, predicted), strict=True):
        for number, sentence in enumerate(sentences):
            try:
                side.update((number, *entity) for entity in get_entities(sentence, scheme))
            except UserError as error:
                raise UserError(f"sentence {number} of the {name}: {error}") from error
    return sides


def _overlap(entities: set, guesses: set) -> dict[str, float]:
    right = len(entities & guesses)
    return {
        "precision": right / max(1, len(guesses)),
        "recall": right / max(1, len(entities)),
        "f1": 2 * right / max(1, len(guesses) + len(entities)),
        "support": len(entities),
    }
