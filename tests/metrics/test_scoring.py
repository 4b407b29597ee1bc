"""Scores against the formulas written out and against seqeval's numbers, and what all scores have in common."""

import json
import math

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.metrics.classification import class_report, score_classes, score_multi_label, score_words, word_report
from bert_jax.metrics.entities import entity_report, get_entities, score_entities
from bert_jax.metrics.question_answering import score_answers
from bert_jax.metrics.regression import score_numbers
from bert_jax.metrics.tables import report_table

pytestmark = pytest.mark.filterwarnings("error")  # scikit-learn and scipy warn of what is 0/0; users need not see it
NAMES = ("negative", "neutral", "positive")


def is_plain(value) -> bool:
    if isinstance(value, dict):
        return all(type(name) is str and is_plain(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return type(value) in (int, float) and math.isfinite(value)


# Classification


def random_classification(classes: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(classes)
    labels = draw.integers(0, classes, 300)
    logits = draw.normal(size=(300, classes)) + 2 * np.eye(classes)[np.where(draw.random(300) < 0.4, labels, 0)]
    powers = np.exp(logits.astype(dtype))
    return labels, powers / powers.sum(axis=1, keepdims=True)


def written_out(labels: list[int], probabilities: list[list[float]], classes: int) -> dict[str, float]:
    """The definitions, in plain Python."""
    rows = range(len(labels))
    predicted = [max(range(classes), key=row.__getitem__) for row in probabilities]
    f1 = []
    for kind in range(classes):
        right = sum(labels[row] == predicted[row] == kind for row in rows)
        f1.append(2 * right / (labels.count(kind) + predicted.count(kind)))

    def covariance(first: list[int], second: list[int]) -> float:
        """Summed over the classes' indicators: what makes a Pearson correlation of two columns of classes."""
        total = sum(sum(first[row] == second[row] == kind for row in rows) for kind in range(classes)) / len(rows)
        return total - sum(first.count(kind) * second.count(kind) for kind in range(classes)) / len(rows) ** 2

    matthews = covariance(labels, predicted)
    matthews /= math.sqrt(covariance(labels, labels) * covariance(predicted, predicted))
    calibration = 0.0
    for number in range(15):
        inside = [row for row in rows if number / 15 < max(probabilities[row]) <= (number + 1) / 15]
        if inside:
            accuracy = sum(labels[row] == predicted[row] for row in inside) / len(inside)
            confidence = sum(max(probabilities[row]) for row in inside) / len(inside)
            calibration += len(inside) / len(rows) * abs(accuracy - confidence)
    return {
        "accuracy": sum(labels[row] == predicted[row] for row in rows) / len(rows),
        "f1": f1[1] if classes == 2 else sum(f1) / classes,
        "macro_f1": sum(f1) / classes,
        "matthews": matthews,
        "calibration_error": calibration,
        "cross_entropy": -sum(math.log(probabilities[row][labels[row]]) for row in rows) / len(rows),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classes_as_the_formulas_written_out(classes, dtype):
    labels, probabilities = random_classification(classes, dtype)
    wanted = written_out(labels.tolist(), probabilities.tolist(), classes)
    found = score_classes(labels, probabilities, tuple("abcdefg"[:classes]))
    assert found == pytest.approx(wanted)
    assert list(found) == list(wanted)


def test_f1_of_two_classes_is_that_of_class_1():
    # Class 1: 1 of 3 predictions right, 1 of 2 labels found. Class 0: 1 of 2, 1 of 3.
    found = score_classes([1, 1, 0, 0, 0], np.eye(2)[[1, 0, 1, 1, 0]], ("no", "yes"))
    assert found["f1"] == pytest.approx(2 / 5)
    assert found["macro_f1"] == pytest.approx((2 / 5 + 2 / 5) / 2)
    found = score_classes([1, 1, 1, 0], np.eye(2)[[1, 1, 0, 0]], ("no", "yes"))
    assert found["f1"] == pytest.approx(4 / 5)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_class_that_never_occurs_has_no_part_in_the_macro_average():
    found = score_classes([0, 0, 2], np.eye(4)[[0, 0, 2]], ("a", "b", "c", "d"))
    assert (found["f1"], found["macro_f1"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("confidences", "right", "error"),
    [
        ([1.0, 0.95], [False, True], (1.0 - 0.05) / 2),  # one bin, (14/15, 1]
        ([0.6, 0.65], [True, False], (0.4 + 0.65) / 2),  # two bins: 0.6 is the upper edge of the ninth
        ([0.61, 0.65], [True, False], abs(0.39 - 0.65) / 2),  # one
    ],
)
def test_calibration_bins_hold_their_upper_edge(confidences, right, error):
    probabilities = [[confidence, 1 - confidence] for confidence in confidences]
    labels = [0 if hit else 1 for hit in right]
    assert score_classes(labels, probabilities, ("a", "b"))["calibration_error"] == pytest.approx(error)


def test_scores_of_one_class_only():
    constant = {"accuracy": 1.0, "f1": 0.0, "macro_f1": 1.0, "matthews": 0.0, "calibration_error": 0.25}
    found = score_classes([0, 0], [[0.75, 0.25]] * 2, ("a", "b"))
    assert found == pytest.approx({**constant, "cross_entropy": -math.log(0.75)})
    assert score_classes([0, 1], [[0.75, 0.25]] * 2, ("a", "b"))["matthews"] == 0.0
    sure_and_wrong = score_classes([0, 1], [[1.0, 0.0]] * 2, ("a", "b"))
    assert 10 < sure_and_wrong["cross_entropy"] < 20  # not infinite


def test_class_report():
    labels, predicted = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    report = class_report(labels, np.eye(3)[predicted], NAMES)
    assert report["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert report["classes"] == {
        "negative": pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}),
        "neutral": pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}),
        "positive": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }
    report = class_report([0, 0, 0, 1], np.eye(3)[[0, 1, 2, 1]], NAMES)
    assert report["confusion_matrix"] == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert all(type(row["support"]) is int for row in class_report([1], np.eye(3)[[0]], NAMES)["classes"].values())
    assert report["classes"]["neutral"] == pytest.approx({"precision": 1 / 2, "recall": 1.0, "f1": 2 / 3, "support": 1})


def test_report_table():
    report = class_report([1, 0, 2, 2], np.eye(3)[[0, 0, 2, 1]], NAMES)
    assert report_table(report).splitlines() == [
        "            precision  recall      f1  support",
        "0 negative     0.5000  1.0000  0.6667        1",
        "1 neutral      0.0000  0.0000  0.0000        1",
        "2 positive     1.0000  0.5000  0.6667        2",
        "",
        "confusion matrix: a row for each label, a column for each predicted class",
        "            0  1  2",
        "0 negative  1  0  0",
        "1 neutral   1  0  0",
        "2 positive  0  1  1",
    ]
    tags = entity_report([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]])
    assert report_table(tags).splitlines() == [
        "     precision  recall      f1  support",
        "LOC     0.0000  0.0000  0.0000        1",
        "PER     1.0000  1.0000  1.0000        1",
    ]
    assert report_table(entity_report([["O"]], [["O"]])) == "  precision  recall      f1  support"


def test_a_confusion_matrix_too_wide_for_a_terminal_stays_out_of_the_table():
    names = tuple(f"intent {number}" for number in range(40))
    lines = report_table(class_report([3], np.eye(40)[[3]], names)).splitlines()
    assert lines[4] == "3 intent 3       1.0000  1.0000  1.0000        1"
    assert lines[41:] == ["", "(the confusion matrix of 40 classes is too wide to be shown)"]


# Several labels, numbers


def test_several_labels():
    labels = [[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]]
    probabilities = [[0.9, 0.1, 0.5], [0.2, 0.3, 0.1], [0.6, 0.7, 0.2], [0.51, 0.8, 0.1]]  # one half is not above
    # Right, predicted, there: 2, 3, 2 for the first class; 2, 2, 2; 0, 0, 1.
    wanted = {"micro_f1": 8 / 10, "macro_f1": (4 / 5 + 1 + 0) / 3, "subset_accuracy": 2 / 4}
    assert score_multi_label(labels, probabilities) == pytest.approx(wanted)
    nothing = {"micro_f1": 0.0, "macro_f1": 0.0, "subset_accuracy": 1.0}
    assert score_multi_label([[0, 0]], [[0.1, 0.2]]) == nothing


def average_ranks(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def pearson(first: list[float], second: list[float]) -> float:
    first, second = ([value - sum(side) / len(side) for value in side] for side in (first, second))
    product = sum(one * other for one, other in zip(first, second, strict=True))
    return product / math.sqrt(sum(one**2 for one in first) * sum(other**2 for other in second))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_as_the_formulas_written_out(dtype):
    draw = np.random.default_rng(0)
    targets = (draw.integers(0, 26, 120) / 5).astype(dtype)  # as STS-B: many are tied
    predictions = np.round(targets**2 + draw.normal(size=120), 1).astype(dtype)
    first, second = targets.tolist(), predictions.tolist()
    wanted = {"pearson": pearson(first, second), "spearman": pearson(average_ranks(first), average_ranks(second))}
    assert abs(wanted["pearson"] - wanted["spearman"]) > 0.01
    wanted["pearson_spearman"] = sum(wanted.values()) / 2
    wanted["mean_squared_error"] = sum((one - other) ** 2 for one, other in zip(first, second, strict=True)) / 120
    assert score_numbers(targets, predictions) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("targets", "predictions", "error"),
    [([1.0, 2.0, 3.0], [2.5] * 3, 11 / 12), ([2.5] * 3, [1.0, 2.0, 3.0], 11 / 12), ([1.0], [3.0], 4.0)],
)
def test_the_correlation_with_a_constant_is_zero(targets, predictions, error):
    wanted = {"pearson": 0.0, "spearman": 0.0, "pearson_spearman": 0.0, "mean_squared_error": error}
    assert score_numbers(targets, predictions) == pytest.approx(wanted)


# Tagging

# What the library seqeval 1.2.2 gave for these (precision_score, recall_score, f1_score, accuracy_score, with their
# defaults). It is no requirement of the tests, since its package does not build with today's setuptools. On all 11,110
# sequences of up to four out of ten tags, and on 35,398 random ones, its get_entities was equal to ours.
SEQEVAL = {
    "I- begins an entity": ("B-PER I-PER O", "I-PER I-PER O", 1, 1, 1, 2 / 3),
    "side by side": ("B-PER B-PER I-PER", "B-PER I-PER I-PER", 0, 0, 0, 2 / 3),
    "IOB1": ("I-PER I-PER B-PER O I-LOC", "B-PER I-PER B-PER O B-LOC", 1, 1, 1, 3 / 5),
    "another type goes on": ("B-PER I-LOC I-LOC O", "B-PER B-LOC I-LOC O", 1, 1, 1, 3 / 4),
    "the type comes back": ("B-PER I-LOC I-PER", "B-PER I-PER I-PER", 0, 0, 0, 2 / 3),
    "BIOES as BIO": ("B-PER I-PER E-PER S-LOC O", "B-PER I-PER I-PER B-LOC O", 1, 1, 1, 3 / 5),
    "E- after O and after E-": ("O E-PER E-PER O", "O S-PER S-PER O", 1, 1, 1, 1 / 2),
    "I- after S-": ("S-PER I-PER E-PER S-PER", "S-PER B-PER E-PER S-PER", 1, 1, 1, 3 / 4),
    "I- after E-": ("B-PER E-PER I-PER I-PER", "B-PER E-PER B-PER E-PER", 1, 1, 1, 1 / 2),
    "B- after I- and E-": ("B-PER I-PER B-PER E-PER", "B-PER E-PER B-PER I-PER", 1, 1, 1, 1 / 2),
    "E- of another type": ("B-PER E-LOC O", "B-PER S-LOC O", 1, 1, 1, 2 / 3),
    "over the end of a sentence": ("O B-PER / I-PER O", "O B-PER / B-PER O", 1, 1, 1, 3 / 4),
    "the place of another sentence": ("B-PER O / O O", "O O / B-PER O", 0, 0, 0, 1 / 2),
    "a wrong boundary": ("B-ORG I-ORG I-ORG O", "B-ORG I-ORG O O", 0, 0, 0, 3 / 4),
    "a wrong type": ("B-ORG I-ORG O B-LOC", "B-PER I-PER O B-LOC", 1 / 2, 1 / 2, 1 / 2, 1 / 2),
    "no type, a type with a dash": ("B I O B-A-B I-A-B", "I I O B-A-B I-B", 1 / 3, 1 / 2, 0.4, 3 / 5),
    "nothing predicted": ("B-PER O / O", "O O / O", 0, 0, 0, 2 / 3),
    "nothing there": ("O O / O", "B-PER O / B-LOC", 0, 0, 0, 1 / 3),
    "no entities at all": ("O O", "O O", 0, 0, 0, 1),
    "a sentence without tokens": ("B-PER / / O B-LOC", "B-PER / / O O", 1, 1 / 2, 2 / 3, 2 / 3),
}
LONG = ("B-PER I-PER O B-LOC / I-ORG O B-MISC I-MISC B-ORG", "B-PER O O B-LOC / B-ORG O I-MISC I-MISC O")


def sentences(text: str) -> list[list[str]]:
    return [sentence.split() for sentence in text.split("/")]


@pytest.mark.parametrize("name", SEQEVAL)
def test_tags_as_seqeval(name):
    tags, predicted, *wanted = SEQEVAL[name]
    found = score_entities(sentences(tags), sentences(predicted))
    assert found == pytest.approx(dict(zip(("precision", "recall", "f1", "accuracy"), wanted, strict=True)))


def test_tag_report():
    report = entity_report(*map(sentences, LONG))
    assert report == {
        "classes": {
            "LOC": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
            "MISC": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
            "ORG": pytest.approx({"precision": 1.0, "recall": 1 / 2, "f1": 2 / 3, "support": 2}),
            "PER": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        }
    }
    assert list(report["classes"]) == ["LOC", "MISC", "ORG", "PER"]


def test_entities_end_with_their_last_token():
    assert get_entities(["B-PER", "I-PER", "O", "B-LOC"]) == [("PER", 0, 1), ("LOC", 3, 3)]
    assert get_entities(["B", "I-PER"]) == [("_", 0, 0), ("PER", 1, 1)]
    assert get_entities([]) == []


# What every score has in common


def test_all_figures_are_plain_numbers():
    several = np.array([[0.2, 0.7], [0.6, 0.1]], np.float32)
    results = [
        score_classes(np.array([0, 1]), np.eye(2, dtype=np.float32), ("a", "b")),
        class_report(np.array([0, 1]), np.eye(2, dtype=np.float32), ("a", "b")),
        class_report([1], [[1.0, 0.0]], ("a", "b")),
        score_multi_label(np.eye(2), several),
        score_numbers(several[0], several[1]),
        score_entities(*map(sentences, LONG)),
        entity_report(*map(sentences, LONG)),
        score_answers({"q": "a", "r": "b"}, {"q": ["b"], "r": []}, dict(zip("qr", several[0], strict=True))),
    ]
    for result in results:
        assert is_plain(result), result
        assert json.loads(json.dumps(result, allow_nan=False)) == result


HALVES = [[0.5, 0.5]] * 3
QUESTION = {"q": ["x"]}
WRONG = [
    (
        lambda: score_classes([], np.zeros((0, 2)), ("a", "b")),
        r"nothing to score: there are no probabilities",
    ),
    (
        lambda: score_classes([0, 1], HALVES, ("a", "b")),
        r"probabilities are of shape \[3, 2\], but \[2, 2\]",
    ),
    (lambda: score_classes([0, 1, 1], HALVES, NAMES), r"shape \[3, 2\], but \[3, 3\]"),
    (
        lambda: score_classes([[0], [1], [1]], HALVES, ("a", "b")),
        r"labels are of shape \[3, 1\], but \[3\]",
    ),
    (
        lambda: score_classes([0, 2, -1], HALVES, ("a", "b")),
        r"labels\[1\] is 2, outside .* 0 to 1 \(2 of 3",
    ),
    (
        lambda: class_report([0, 0, -1], HALVES, ("a", "b")),
        r"labels\[2\] is -1, outside the classes 0 to 1",
    ),
    (lambda: score_classes([0.0, 1.0, 1.0], HALVES, ("a", "b")), r"labels are float64: wanted"),
    (
        lambda: score_classes([0, 0], [[1, 0], [0.5, math.nan]], ("a", "b")),
        r"probabilities\[1, 1\] is nan",
    ),
    (lambda: score_classes([0, 0], [[1, 0], [1.5, -0.5]], ("a", "b")), r"\[1, 1\] is -0.5, .* logits"),
    (
        lambda: score_classes([0, 0], [[1, 0], [1.5, 0.5]], ("a", "b")),
        r"\(axis=1\)\[1\] is 2.0, .* logits",
    ),
    (lambda: score_classes([0], [[1.0]], ("a",)), r"the classes are named a: wanted at least two"),
    (lambda: class_report([0], [[1, 0, 0]], ("a", "b", "a")), r"named a, b, a: .* a name of its own"),
    (lambda: score_multi_label([], []), r"nothing to score: there are no labels"),
    (
        lambda: score_multi_label([0, 1], [0.5, 0.5]),
        r"labels are of shape \[2\]: wanted \[rows, classes\]",
    ),
    (lambda: score_multi_label([[0], [1]], [[0.5], [0.5]]), r"\[2, 1\]: .* at least two classes"),
    (lambda: score_multi_label([[0, 1]], HALVES), r"probabilities are of shape \[3, 2\], but \[1, 2\]"),
    (lambda: score_multi_label([[0, 2]], [[0.5, 0.5]]), r"labels\[0, 1\] is 2.0, neither 0 nor 1"),
    (lambda: score_multi_label([[0, 1]], [[0.5, 1.5]]), r"probabilities\[0, 1\] is 1.5, no probability"),
    (lambda: score_multi_label([[0, 1]], [[-0.5, 1]]), r"probabilities\[0, 0\] is -0.5, no probability"),
    (lambda: score_numbers([], []), r"nothing to score: there are no targets"),
    (lambda: score_numbers([1.0], [1.0, 2.0]), r"predictions are of shape \[2\], but \[1\] was expected"),
    (lambda: score_numbers([[1.0]], [[1.0]]), r"targets are of shape \[1, 1\], but \[1\] was expected"),
    (
        lambda: score_numbers([1.0, math.nan], [1.0, 2.0]),
        r"targets\[1\] is nan, not a finite number \(1 of 2",
    ),
    (lambda: score_numbers([1.0, 2.0], [math.inf, 2.0]), r"predictions\[0\] is inf, not a finite number"),
    (lambda: score_entities([], []), r"nothing to score: none of the 0 sentences has a token"),
    (lambda: entity_report([[], []], [[], []]), r"nothing to score: none of the 2 sentences has a token"),
    (lambda: score_entities([["O"]], [["O"], ["O"]]), r"1 sentences have tags, but 2 have predicted ones"),
    (lambda: score_entities([["O"], ["O"]], [["O"], []]), r"sentence 1 has 1 tags, but 0 predicted ones"),
    (
        lambda: score_entities([["O"], ["O", "NN"]], [["O"], ["O"] * 2]),
        r"sentence 1 of the tags: token 1: 'NN'",
    ),
    (
        lambda: score_entities([["O"]], [["O-PER"]]),
        r"sentence 0 of the predicted tags: token 0: 'O-PER' is no tag of BIOES",
    ),
    (lambda: score_answers({}, {}), r"nothing to score: there are no questions"),
    (
        lambda: score_answers({"p": "x"}, QUESTION),
        r"question 'q' has no prediction: .* 1 were given",
    ),
    (
        lambda: score_answers({"q": "x"}, QUESTION, {}),
        r"question 'q' has no null score: .* 0 were given",
    ),
    (
        lambda: score_answers({"q": "x"}, QUESTION, {"q": math.nan}),
        r"question 'q' has the null score nan",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_what_cannot_be_scored_is_said(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_tags_that_mark_no_entities():
    """Parts of speech are scored by word."""
    tags, predicted = [["NOUN", "VERB"], ["DET", "NOUN", "X"]], [["NOUN", "NOUN"], ["DET", "NOUN", "VERB"]]
    # By hand: NOUN 2 of 3 and 2 of 2, DET 1 of 1, VERB 0 of 1 and 0 of 1, X none.
    assert score_words(tags, predicted) == pytest.approx({"accuracy": 0.6, "macro_f1": (0.8 + 1) / 4})
    report = word_report(tags, predicted)["classes"]
    assert report["NOUN"] == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2})
    assert list(report) == ["DET", "NOUN", "VERB", "X"]
