"""Scores of classes: one for each text or word, or any number of them.

Every figure is a plain Python number and none is NaN, so that all of it goes into JSON. Where a ratio is 0/0 (the
precision of a class that was never predicted, the correlation with a constant) the figure is 0.0, as for a model that
earns nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sklearn.metrics
from numpy.typing import ArrayLike

from bert_jax.errors import UserError
from bert_jax.metrics.checks import check_shape, numbers, refuse

_NOTHING: Any = 0.0  # the value of 0/0; scikit-learn's annotation knows its words only
_CALIBRATION_BINS = 15  # Guo et al. 2017, table 1


def score_classes(labels: ArrayLike, probabilities: ArrayLike, names: tuple[str, ...]) -> dict[str, float]:
    """Scores a classification with one label a row; the likeliest class is the predicted one.

    Args:
      labels: int [N], each in [0, C).
      probabilities: float [N, C], rows that sum to one.
      names: of the C classes.

    Returns:
      accuracy; `f1` of class 1 where C is 2, as GLUE has it, otherwise `macro_f1`, which is the mean over the classes
      that were labels or predictions; `matthews`; `calibration_error`, the expected calibration error over 15 bins of
      equal width (Guo et al. 2017, equation 3); `cross_entropy` in nats, with probabilities of at least 2e-16.

    Raises:
      UserError: nothing to score, shapes that do not fit, a label outside [0, C), rows that are no probabilities.
    """
    labels, probabilities, predicted = _classes(labels, probabilities, names)
    average = "binary" if len(names) == 2 else "macro"
    varied = np.ptp(labels) > 0 and np.ptp(predicted) > 0  # otherwise it is 0, and scikit-learn may warn
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(labels, predicted)),
        "f1": float(sklearn.metrics.f1_score(labels, predicted, average=average, zero_division=_NOTHING)),
        "macro_f1": float(sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=_NOTHING)),
        "matthews": float(sklearn.metrics.matthews_corrcoef(labels, predicted)) if varied else 0.0,
        "calibration_error": _calibration_error(predicted == labels, probabilities.max(axis=1)),
        "cross_entropy": float(sklearn.metrics.log_loss(labels, probabilities, labels=np.arange(len(names)))),
    }


def class_report(labels: ArrayLike, probabilities: ArrayLike, names: tuple[str, ...]) -> dict[str, Any]:
    """Reports what became of each class; arguments and errors are those of `score_classes`.

    Returns:
      "classes": {name: {"precision", "recall", "f1", "support"}}, support being the rows with that label;
      "confusion_matrix": int [C, C], a row for each label, a column for each predicted class.
    """
    labels, _, predicted = _classes(labels, probabilities, names)
    numbers = np.arange(len(names))
    columns = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=_NOTHING)
    return {
        "classes": _class_rows(names, columns),
        "confusion_matrix": sklearn.metrics.confusion_matrix(labels, predicted, labels=numbers).tolist(),
    }


def score_multi_label(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Scores a classification with any number of labels a row; a class above one half is predicted.

    Args:
      labels: [N, C] of 0 and 1.
      probabilities: float [N, C], one for each class on its own.

    Returns:
      `micro_f1` over all N C decisions, `macro_f1`, the mean over all C classes, `subset_accuracy`, the share of rows
      with every class right.

    Raises:
      UserError: nothing to score, shapes that do not fit, fewer than two classes, numbers that are no labels or no
        probabilities.
    """
    labels, probabilities = numbers("labels", labels), numbers("probabilities", probabilities)
    if labels.ndim != 2 or labels.shape[1] < 2:
        raise UserError(f"labels are of shape {list(labels.shape)}: wanted [rows, classes] with at least two classes")
    check_shape("probabilities", probabilities, labels.shape)
    refuse("labels", labels, (labels != 0) & (labels != 1), "neither 0 nor 1")
    refuse("probabilities", probabilities, (probabilities < 0) | (probabilities > 1), "no probability")
    labels, predicted = labels.astype(np.int64), (probabilities > 0.5).astype(np.int64)
    return {
        "micro_f1": float(sklearn.metrics.f1_score(labels, predicted, average="micro", zero_division=_NOTHING)),
        "macro_f1": float(sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=_NOTHING)),
        "subset_accuracy": float(sklearn.metrics.accuracy_score(labels, predicted)),
    }


def score_words(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores tags that mark no entities (parts of speech) by word.

    Returns:
      accuracy, and `macro_f1` over the tags that stand on either side.
    """
    labels, predictions = _flat(tags), _flat(predicted)
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(labels, predictions)),
        "macro_f1": float(sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=_NOTHING)),
    }


def word_report(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Reports what became of each tag: "classes" as in `class_report`."""
    labels, predictions = _flat(tags), _flat(predicted)
    names = sorted({*labels, *predictions})
    columns = sklearn.metrics.precision_recall_fscore_support(labels, predictions, labels=names, zero_division=_NOTHING)
    return {"classes": _class_rows(names, columns)}


def _flat(sentences: Sequence[Sequence[str]]) -> list[str]:
    return [tag for sentence in sentences for tag in sentence]


def _class_rows(names: Sequence[str], columns: Any) -> dict[str, dict[str, float]]:
    """Turns the four columns of scikit-learn's report into a row for each class."""
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        name: {"precision": precision, "recall": recall, "f1": f1, "support": int(support)}
        for name, (precision, recall, f1, support) in zip(names, rows, strict=True)
    }


def _calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Returns the mean distance of accuracy and confidence over bins (0, 1/15], ..., (14/15, 1] of `confidence` [N]."""
    bins = np.searchsorted(np.linspace(0, 1, _CALIBRATION_BINS + 1), confidence, side="left")
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(confidence))


def _classes(labels: ArrayLike, probabilities: ArrayLike, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Returns checked labels [N], probabilities [N, C] whose rows sum to one in float64, predicted classes [N]."""
    labels, probabilities = np.asarray(labels), numbers("probabilities", probabilities)
    check_shape("labels", labels, (len(labels),))
    check_shape("probabilities", probabilities, (len(labels), len(names)))
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"the classes are named {', '.join(names)}: wanted at least two, each with a name of its own")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels are {labels.dtype}: wanted the numbers of the classes, which are whole")
    refuse("labels", labels, (labels < 0) | (labels >= len(names)), f"outside the classes 0 to {len(names) - 1}")
    refuse("probabilities", probabilities, probabilities < 0, "no probability: are these logits?")
    sums = probabilities.sum(axis=1)
    # A softmax in float32 is off by 1e-6 at the most; 1e-3 forgives probabilities that were rounded for a file.
    refuse("probabilities.sum(axis=1)", sums, abs(sums - 1) > 1e-3, "not 1: are these logits?")
    return labels, probabilities / sums[:, None], probabilities.argmax(axis=1)
