"""Entities drawn at random, written in each scheme and form, and read again; what is of no scheme is said."""

import random

import pytest

from bert_jax.metrics.entities import entity_report, get_entities, score_entities
from bert_jax.metrics.tag_schemes import TagScheme, measure

# The letters of an entity of one word, and of the first, the middle and the last of several; IOB1 has B only where an
# entity touches another of its type, so it is written by itself.
SCHEMES = {"BIO": "BBII", "BIOES": "SBIE", "BILOU": "UBIL", "BMES": "SBME", "BMEWO": "WBME", "IOE": "EIIE"}
FORMS = {
    "B-PER": "{letter}-{type}",
    "B_PER": "{letter}_{type}",
    "B/PER": "{letter}/{type}",
    "B:PER": "{letter}:{type}",
    "B.PER": "{letter}.{type}",
    "B\u2010PER": "{letter}\u2010{type}",
    "PER-B": "{type}-{letter}",
}
TYPES = ("PER", "LOC", "A-B", "S_O")


def random_entities(draw: random.Random, length: int) -> list[tuple[str, int, int]]:
    entities, place = [], 0
    while (place := place + draw.choice([0, 1, 1, 2])) < length:
        last = min(length - 1, place + draw.choice([0, 0, 1, 2, 3]))
        entities.append((draw.choice(TYPES), place, last))
        place = last + 1
    return entities


def written(entities, length: int, letters: str, form: str, lower: bool = False) -> list[str]:
    tags = ["o" if lower else "O"] * length
    single, first, middle, last = letters.lower() if lower else letters
    for name, start, stop in entities:
        inside = [first, *[middle] * (stop - start - 1), last] if stop > start else [single]
        for place, letter in enumerate(inside, start):
            tags[place] = form.format(letter=letter, type=name)
    return tags


def drawn(draw: random.Random, count: int = 60) -> list[list[tuple[str, int, int]]]:
    return [random_entities(draw, 9) for _ in range(count)]


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", SCHEMES)
def test_entities_come_back_from_every_scheme(name, form, lower):
    draw = random.Random(f"{name} {form}")
    right, guessed = drawn(draw), drawn(draw)
    guessed = [draw.choice([one, other]) for one, other in zip(right, guessed, strict=True)]
    tags, predicted = ([written(each, 9, SCHEMES[name], form, lower) for each in side] for side in (right, guessed))
    labels = tuple(sorted({tag for side in (tags, predicted) for sentence in side for tag in sentence}))
    scheme = TagScheme.of(labels)
    assert (scheme.name, scheme.others) == (name, frozenset())
    assert measure(labels).startswith(f"tags are {name} (")
    assert measure(labels).endswith("): entities are scored")
    assert [get_entities(sentence, scheme) for sentence in tags] == right
    hits = sum(len(set(one) & set(other)) for one, other in zip(right, guessed, strict=True))
    there, found = sum(map(len, right)), sum(map(len, guessed))
    scores = score_entities(tags, predicted, scheme)
    wanted = {"precision": hits / found, "recall": hits / there, "f1": 2 * hits / (found + there)}
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted)
    assert set(entity_report(tags, predicted, scheme)["classes"]) == set(TYPES)


def test_bare_letters_have_one_type():
    scheme = TagScheme.of(["B", "M", "E", "S"])  # of Chinese word segmentation, where every character is in a word
    assert scheme.name == "BMES"
    assert get_entities(list("BESBME"), scheme) == [("_", 0, 1), ("_", 2, 2), ("_", 3, 5)]
    assert TagScheme.of(["B", "I", "O"]).name == "BIO"


def test_iob1():
    scheme = TagScheme.of(["I-PER", "B-PER", "O"])
    assert get_entities(["I-PER", "I-PER", "B-PER", "O", "I-PER"], scheme) == [
        ("PER", 0, 1),
        ("PER", 2, 2),
        ("PER", 4, 4),
    ]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (("NN", "VB", "DT"), "no O, no prefixes such as B- and I-"),
        (("O", "PER", "LOC"), "no prefixes such as B- and I-"),
        (("S", "M", "L"), "no O, no prefixes such as B- and I-"),  # sizes
        (("A", "B", "E", "N", "R", "S", "V"), "no O, no prefixes such as B- and I-"),  # parts of speech
        (("NN", "VB", "DT", "IN", "B-PER"), "no O, few prefixes such as B- and I-"),
        (("0", "1", "2"), "no O, no prefixes such as B- and I-"),
        (("N", "O", "S", "^", "Z", "L", "M", "V", "A", "R", "!", "D"), "no prefixes such as B- and I-"),  # of tweets
    ],
)
def test_tags_that_mark_no_entities(labels, reason):
    assert TagScheme.of(labels) is None
    assert measure(labels) == f"tags mark no entities ({reason}): words are scored"


def test_labels_that_do_not_fit_mark_nothing():
    """As those that some published models have for what is no word."""
    labels = ("O", "B-PER", "I-PER", "X", "[CLS]")
    scheme = TagScheme.of(labels)
    assert get_entities(["[CLS]", "B-PER", "X", "I-PER", "O"], scheme) == [("PER", 1, 1), ("PER", 3, 3)]
    assert measure(labels).endswith("entities are scored; X, [CLS] mark none")
    with pytest.raises(ValueError, match="'Y' is no tag of BIO"):
        scheme.read("Y")


def test_one_tag_without_a_letter_is_what_is_outside():
    for outside in ("OTHER", "_", "NONE", "0"):
        scheme = TagScheme.of({"B-PER": 90, outside: 900, "I-PER": 30})
        assert (scheme.outside, scheme.others) == (outside, frozenset())
        assert get_entities(["B-PER", "I-PER", outside, "I-PER"], scheme) == [("PER", 0, 1), ("PER", 3, 3)]
    assert measure(("B-PER", "I-PER", "_")) == "tags are BIO (B-, I-, _): entities are scored"
    # A rare one is a stray.
    assert TagScheme.of({"B-PER": 90, "I-PER": 30, "PER": 1}).others == {"PER"}
    assert TagScheme.of({"S": 50, "B": 30, "E": 30, "Q": 1}).others == {"Q"}


def test_the_scheme_of_most_tags_counts():
    assert TagScheme.of({"O": 9000, "B-PER": 900, "I-PER": 400, "PER": 1, "B_PER": 1}).others == {"PER", "B_PER"}
    assert TagScheme.of({"O": 9000, "B-PER": 1, "PER": 300}) is None
