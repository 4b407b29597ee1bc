"""Scores of answers against SQuAD's algorithm, told again in other words, and on hard cases worked out by hand.

Run once against the official scripts themselves, on 2,061 random sets of questions for 1.1 and 5,939 for 2.0 (4,000 of
them with null scores, many of which were equal), `score_answers` gave the same numbers to the last bit.
"""

import random
import re
import string

import pytest

from bert_jax.metrics import question_answering as scoring

ANSWERS = [  # prediction, answer, exact, F1
    ("The Eiffel Tower", "eiffel tower!", 1, 1),
    ("an apple a day", "apple day", 1, 1),
    ("theatre", "atre", 0, 0),  # "the" goes only as a word
    ("A-1", "a1", 1, 1),  # punctuation goes before articles: "a1", no article
    ("a.b", "b", 0, 0),
    ("U.S.", "us", 1, 1),
    ("rock 'n' roll", "rock n roll", 1, 1),
    ("it's", "its", 1, 1),
    ("  new \t york\n", "new york", 1, 1),
    ("new\u00a0york", "new york", 1, 1),
    ("CAFÉ", "café", 1, 1),
    ("cafe", "café", 0, 0),  # accents stay
    ("el año", "el ño", 0, 1 / 2),  # the a of a word is no article
    ("1914\u20131918", "1914-1918", 0, 0),  # a dash that is not ASCII stays
    ("“Nevermore”", "Nevermore", 0, 0),
    ("Warschau Straße", "straße", 0, 2 / 3),
    ("red red red", "red red", 0, 4 / 5),  # each word as often as in both
    ("red blue", "red red", 0, 1 / 2),
    ("blue red", "red blue", 0, 1),
    ("in 1066", "1066 AD in England", 0, 2 / 3),
    ("", "", 1, 1),
    ("the", "", 1, 1),
    ("", "Paris", 0, 0),
    ("Paris", "", 0, 0),
]


@pytest.mark.parametrize(("prediction", "answer", "exact", "f1"), ANSWERS)
def test_one_answer(prediction, answer, exact, f1):
    assert scoring.exact_match(prediction, answer) == exact
    assert scoring.answer_f1(prediction, answer) == pytest.approx(f1)
    assert scoring.answer_f1(answer, prediction) == pytest.approx(f1)


def test_normalize_answer():
    assert scoring.normalize_answer(" The  (U.S.) a-an AN\u00a0Army — of the “Union” ") == "us aan army — of “union”"
    assert scoring.normalize_answer("north—the—south") == "north— —south"


def plain_words(text: str) -> list[str]:
    """SQuAD's normalisation in other words: drop punctuation, then cut; articles touch no letter, digit or _."""
    kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
    for article in ("an", "the", "a"):
        kept = re.sub(rf"(?<!\w){article}(?!\w)", " ", kept)
    return kept.split()


def plain_points(prediction: str, answers: list[str], version: int) -> tuple[float, float]:
    """Exact match and F1 of one question.

    Both versions take the best over the right answers. 2.0 first drops the answers without words, and if none is left,
    the right answer is to give none: both scores are then 1 for a prediction without words, and 0 otherwise. 1.1 drops
    none, and has an F1 of 0 wherever no word is shared.
    """
    words, choices = plain_words(prediction), [plain_words(answer) for answer in answers]
    if version == 2:
        choices = [choice for choice in choices if choice]
        if not choices:
            return (1.0, 1.0) if not words else (0.0, 0.0)
    best = 0.0
    for choice in choices:
        left, shared = list(choice), 0
        for word in words:
            if word in left:
                left.remove(word)
                shared += 1
        best = max(best, 2 * shared / max(1, len(words) + len(choice)))
    return float(words in choices), best


def plain_scores(predictions: dict, references: dict, version: int) -> dict[str, float]:
    points = {question: plain_points(predictions[question], references[question], version) for question in references}
    groups = {"": list(references)}
    groups["HasAns_"] = [question for question in references if references[question]]
    groups["NoAns_"] = [question for question in references if not references[question]]
    scores = {}
    for prefix, questions in groups.items():
        for place, name in enumerate(("exact", "f1")):
            if questions:
                scores[prefix + name] = 100 * sum(points[question][place] for question in questions) / len(questions)
                scores[prefix + "total"] = len(questions)
    return scores


def random_questions(draw: random.Random, empty: bool) -> tuple[dict[str, str], dict[str, list[str]]]:
    pool = [
        "the",
        "A",
        "an",
        "!",
        "U.S.",
        "us",
        "Paris",
        "PARIS,",
        "café",
        "theatre",
        "-",
        "5",
        "$5",
        "x",
        "x",
        "—",
        "",
    ]
    text = lambda: " ".join(draw.choices(pool, k=draw.choice([0, 1, 1, 2, 3, 5])))  # noqa: E731
    counts = [0, 1, 1, 3] if empty else [1, 1, 3]
    references = {f"q{number}": [text() for _ in range(draw.choice(counts))] for number in range(12)}
    predictions = {
        question: draw.choice(answers) if answers and draw.random() < 0.5 else text()
        for question, answers in references.items()
    }
    return predictions, references


@pytest.mark.parametrize("seed", range(20))
def test_answers_as_the_algorithm_told_again(seed):
    draw = random.Random(seed)
    predictions, references = random_questions(draw, empty=False)
    assert scoring.score_answers(predictions, references) == pytest.approx(
        plain_scores(predictions, references, version=1)
    )
    predictions, references = random_questions(draw, empty=True)
    references["none"], predictions["none"], predictions["unasked"] = [], draw.choice(["", "x"]), "x"
    found = scoring.score_answers(predictions, references)
    assert found == pytest.approx(plain_scores(predictions, references, version=2))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_by_trying_each(seed):
    draw = random.Random(seed)
    text = lambda: " ".join(draw.choices(["red", "blue", "green"], k=draw.randint(1, 3)))  # noqa: E731
    references = {f"q{number}": [text() for _ in range(draw.choice([0, 1, 2]))] for number in range(12)}
    predictions = {question: draw.choice(["", text(), *references[question]]) for question in references}
    null_scores = {question: draw.uniform(-9, 9) for question in references}
    found = scoring.score_answers(predictions, references, {**null_scores, "unasked": 0.0})
    for place, name in enumerate(("exact", "f1")):
        results = {}
        for threshold in (0.0, *null_scores.values()):
            results[threshold] = 0.0
            for question, answers in references.items():
                answered = threshold and null_scores[question] <= threshold  # 0.0 stands for no answer at all
                kept = predictions[question] if answered else ""
                results[threshold] += 100 / 12 * plain_points(kept, answers, version=2)[place]
        assert found[f"best_{name}"] == pytest.approx(max(results.values()))
        assert results[found[f"best_{name}_thresh"]] == pytest.approx(max(results.values()))
    del found["best_exact"], found["best_exact_thresh"], found["best_f1"], found["best_f1_thresh"]
    assert found == pytest.approx(plain_scores(predictions, references, version=2))


def best(predictions: list[str], references: list[list[str]], null_scores: list[float]) -> tuple[float, ...]:
    found = scoring.score_answers(*(dict(enumerate(side)) for side in (predictions, references, null_scores)))
    return tuple(found[name] for name in ("best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"))


def test_the_best_threshold_as_the_official_script_has_it():
    # Of equal null scores, one question after the other, in the order of the null scores.
    assert best(["Paris", "x"], [["Paris"], []], [0.1, 0.1]) == (100.0, 0.1, 100.0, 0.1)
    assert best(["x", "Paris"], [[], ["Paris"]], [0.1, 0.1]) == (50.0, 0.0, 50.0, 0.0)
    found = scoring.score_answers({"a": "x", "b": "Paris"}, {"a": [], "b": ["Paris"]}, {"b": 0.1, "a": 0.1})
    assert (found["best_exact"], found["best_exact_thresh"]) == (100.0, 0.1)
    # A text without words is an answer: question 0 is lost once it is answered, although its own score is 1.
    assert best(["the", "Paris"], [[], ["Paris"]], [0.1, 0.2]) == (50.0, 0.0, 50.0, 0.0)
    # An F1 of 0.2 and one of 0.8 sum to a little more than 1, as the script rounds them.
    found = best(["x", "a1 b1 c1 d1", "a1 b1 c1 d1 e1"], [[], ["a1 1 2 3 4 5"], ["a1 b1 c1 d1 5"]], [-3, -2, -1])
    assert found == (100 / 3, 0.0, pytest.approx(100 / 3), -1.0)


def test_versions_of_squad_differ_on_answers_without_words():
    assert scoring.score_answers({"q": "a"}, {"q": ["The", "Paris"]})["exact"] == 100
    assert scoring.score_answers({"q": "a"}, {"q": ["The", "Paris"]})["f1"] == 0
    for more in ({"references": {"q": ["The", "Paris"], "none": []}}, {"null_scores": {"q": 0.5}}):
        arguments = {"predictions": {"q": "a", "none": "x"}, "references": {"q": ["The", "Paris"]}, **more}
        found = scoring.score_answers(**arguments)
        assert (found["HasAns_exact"], found["HasAns_f1"]) == (0, 0)
    found = scoring.score_answers({"q": "a", "none": "x"}, {"q": ["The"], "none": []})
    assert (found["HasAns_exact"], found["HasAns_f1"], found["HasAns_total"], found["NoAns_f1"]) == (100, 100, 1, 0)
