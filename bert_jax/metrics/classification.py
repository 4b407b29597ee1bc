"""Scores: from labels and predictions to figures.

Every figure is a plain Python number and none is NaN, so that all of it goes into JSON. Where a ratio is 0/0 (the
precision of a class that was never predicted, the correlation with a constant) the figure is 0.0, as a model that
earns nothing.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
import sklearn.metrics
from numpy.typing import ArrayLike

from bert_jax.errors import UserError

_CALIBRATION_BINS = 15  # Guo et al. 2017, table 1
_TABLE_WIDTH = 120  # characters; a confusion matrix that is wider stays out of a table
_ENTITY_TAG = re.compile("[BIES](-.*)?")


def score_classes(labels: ArrayLike, probabilities: ArrayLike, names: tuple[str, ...]) -> dict[str, float]:
    """Scores of a classification with one label a row; the likeliest class is the predicted one.

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
        "f1": float(sklearn.metrics.f1_score(labels, predicted, average=average, zero_division=0.0)),
        "macro_f1": float(sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "matthews": float(sklearn.metrics.matthews_corrcoef(labels, predicted)) if varied else 0.0,
        "calibration_error": _calibration_error(predicted == labels, probabilities.max(axis=1)),
        "cross_entropy": float(sklearn.metrics.log_loss(labels, probabilities, labels=np.arange(len(names)))),
    }


def class_report(labels: ArrayLike, probabilities: ArrayLike, names: tuple[str, ...]) -> dict[str, Any]:
    """What became of each class; arguments and errors are those of `score_classes`.

    Returns:
      "classes": {name: {"precision", "recall", "f1", "support"}}, support being the rows with that label;
      "confusion_matrix": int [C, C], a row for each label, a column for each predicted class.
    """
    labels, _, predicted = _classes(labels, probabilities, names)
    numbers = np.arange(len(names))
    columns = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0.0)
    return {
        "classes": _class_rows(names, columns),
        "confusion_matrix": sklearn.metrics.confusion_matrix(labels, predicted, labels=numbers).tolist(),
    }


def report_table(report: Mapping[str, Any]) -> str:
    """A `class_report` or `tag_report` as lines for people."""
    names, matrix = list(report["classes"]), report.get("confusion_matrix")
    if matrix:
        names = [f"{number} {name}" for number, name in enumerate(names)]
    width = max([0, *map(len, names)])
    lines = [f"{'':{width}}  precision  recall      f1  support"]
    for name, row in zip(names, report["classes"].values(), strict=True):
        figures = f"{row['precision']:9.4f}  {row['recall']:.4f}  {row['f1']:.4f}  {row['support']:>7,}"
        lines.append(f"{name:{width}}  {figures}")
    if matrix:
        lines += ["", *_matrix_lines(names, width, matrix)]
    return "\n".join(lines)


def score_several_labels(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Scores of a classification with any number of labels a row; a class above one half is predicted.

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
    labels, probabilities = _numbers("labels", labels), _numbers("probabilities", probabilities)
    if labels.ndim != 2 or labels.shape[1] < 2:
        raise UserError(f"labels are of shape {list(labels.shape)}: wanted [rows, classes] with at least two classes")
    _check_shape("probabilities", probabilities, labels.shape)
    _refuse("labels", labels, (labels != 0) & (labels != 1), "neither 0 nor 1")
    _refuse("probabilities", probabilities, (probabilities < 0) | (probabilities > 1), "no probability")
    labels, predicted = labels.astype(np.int64), (probabilities > 0.5).astype(np.int64)
    return {
        "micro_f1": float(sklearn.metrics.f1_score(labels, predicted, average="micro", zero_division=0.0)),
        "macro_f1": float(sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "subset_accuracy": float(sklearn.metrics.accuracy_score(labels, predicted)),
    }


def score_numbers(targets: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Scores of a regression, targets and predictions float [N].

    Returns:
      `pearson` and `spearman` correlation, 0.0 where targets or predictions are all the same (or N is 1);
      `pearson_spearman`, the mean of the two; `mean_squared_error`.

    Raises:
      UserError: nothing to score, different lengths, a number that is not finite.
    """
    targets, predictions = _numbers("targets", targets), _numbers("predictions", predictions)
    _check_shape("targets", targets, (len(targets),))
    _check_shape("predictions", predictions, targets.shape)
    varied = np.ptp(targets) > 0 and np.ptp(predictions) > 0  # otherwise scipy warns and gives NaN
    pearson = float(scipy.stats.pearsonr(targets, predictions).statistic) if varied else 0.0
    spearman = float(scipy.stats.spearmanr(targets, predictions).statistic) if varied else 0.0
    return {
        "pearson": pearson,
        "spearman": spearman,
        "pearson_spearman": (pearson + spearman) / 2,
        "mean_squared_error": float(sklearn.metrics.mean_squared_error(targets, predictions)),
    }


def marks_entities(tags: Collection[str]) -> bool:
    """Whether all tags are of a scheme that `get_entities` reads; parts of speech, for one, are not."""
    return all(tag == "O" or _ENTITY_TAG.fullmatch(tag) for tag in tags)


def get_entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of one sentence, read as conlleval does and as seqeval 1.2.2 does by default.

    BIO, IOB1, IOE and BIOES are all understood at once, and nothing is malformed: an I- or E- that has no B- or I- of
    its type before it begins an entity.

    Args:
      tags: "O", or B, I, E or S with a type ("B-PER"); a bare "B" is of type "_".

    Returns:
      (type, first token, last token) of each entity, in order.

    Raises:
      UserError: another tag.
    """
    entities: list[tuple[str, int, int]] = []
    prefix_before, kind_before = "O", ""
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if not marks_entities([tag]):
            raise UserError(f"token {place} has the tag {tag!r}: wanted O, or B-, I-, E- or S- and a type")
        kind = kind or "_"
        if prefix in ("I", "E") and prefix_before in ("B", "I") and kind == kind_before:
            entities[-1] = (kind, entities[-1][1], place)
        elif prefix != "O":
            entities.append((kind, place, place))
        prefix_before, kind_before = prefix, kind
    return entities


def score_tags(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores of a tagging, by entity: one counts if type, first and last token are right (see `get_entities`).

    Args:
      tags: of each token of each sentence.
      predicted: in the same shape.

    Returns:
      `precision`, `recall` and `f1` over all entities of all sentences (seqeval's micro average), and `accuracy`, the
      share of tokens with the right tag.

    Raises:
      UserError: no tokens, sentences of different lengths, a tag that is none.
    """
    entities, found = _entities(tags, predicted)
    pairs = [pair for one, other in zip(tags, predicted, strict=True) for pair in zip(one, other, strict=True)]
    scores = _overlap(entities, found)
    del scores["support"]
    return scores | {"accuracy": sum(tag == guess for tag, guess in pairs) / len(pairs)}


def tag_report(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What became of each type of entity; arguments and errors are those of `score_tags`.

    Returns:
      "classes": {type: {"precision", "recall", "f1", "support"}}, support being the entities of that type in `tags`.
    """
    sides = _entities(tags, predicted)
    kinds = sorted({entity[1] for side in sides for entity in side})
    return {"classes": {kind: _overlap(*({e for e in side if e[1] == kind} for side in sides)) for kind in kinds}}


def score_words(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores of a tagging whose tags mark no entities (parts of speech), by word.

    Returns:
      accuracy, and `macro_f1` over the tags that stand on either side.
    """
    one, other = _flat(tags), _flat(predicted)
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(one, other)),
        "macro_f1": float(sklearn.metrics.f1_score(one, other, average="macro", zero_division=0.0)),
    }


def word_report(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What became of each tag: "classes" as in `class_report`."""
    one, other = _flat(tags), _flat(predicted)
    names = sorted({*one, *other})
    columns = sklearn.metrics.precision_recall_fscore_support(one, other, labels=names, zero_division=0.0)
    return {"classes": _class_rows(names, columns)}


def _flat(sentences: Sequence[Sequence[str]]) -> list[str]:
    return [tag for sentence in sentences for tag in sentence]


def _class_rows(names: Sequence[str], columns: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """The four columns of scikit-learn's report as a row for each class."""
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        name: {"precision": precision, "recall": recall, "f1": f1, "support": int(support)}
        for name, (precision, recall, f1, support) in zip(names, rows, strict=True)
    }


def _matrix_lines(names: list[str], width: int, matrix: list[list[int]]) -> list[str]:
    """A confusion matrix with `names` before its rows and the numbers of the classes above its columns."""
    rows = [list(range(len(names))), *matrix]
    cell = 2 + max(len(str(count)) for row in rows for count in row)
    if width + cell * len(names) > _TABLE_WIDTH:
        return [f"(the confusion matrix of {len(names)} classes is too wide to be shown)"]
    lines = ["confusion matrix: a row for each label, a column for each predicted class"]
    for name, row in zip(["", *names], rows, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count:{cell}}" for count in row))
    return lines


def _entities(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[set, set]:
    """(sentence, type, first token, last token) of all entities, right and predicted."""
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
                side.update((number, *entity) for entity in get_entities(sentence))
            except UserError as error:
                raise UserError(f"sentence {number} of the {name}: {error}") from error
    return sides


def _overlap(entities: set, found: set) -> dict[str, float]:
    right = len(entities & found)
    return {
        "precision": right / max(1, len(found)),
        "recall": right / max(1, len(entities)),
        "f1": 2 * right / max(1, len(found) + len(entities)),
        "support": len(entities),
    }


def _calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """The mean distance of accuracy and confidence over bins (0, 1/15], ..., (14/15, 1] of `confidence` [N]."""
    bins = np.searchsorted(np.linspace(0, 1, _CALIBRATION_BINS + 1), confidence, side="left")
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(confidence))


def _classes(labels: ArrayLike, probabilities: ArrayLike, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Checked labels [N], probabilities [N, C] whose rows sum to one in float64, predicted classes [N]."""
    labels, probabilities = np.asarray(labels), _numbers("probabilities", probabilities)
    _check_shape("labels", labels, (len(labels),))
    _check_shape("probabilities", probabilities, (len(labels), len(names)))
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"the classes are named {', '.join(names)}: wanted at least two, each with a name of its own")
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels are {labels.dtype}: wanted the numbers of the classes, which are whole")
    _refuse("labels", labels, (labels < 0) | (labels >= len(names)), f"outside the classes 0 to {len(names) - 1}")
    _refuse("probabilities", probabilities, probabilities < 0, "no probability: are these logits?")
    sums = probabilities.sum(axis=1)
    # A softmax in float32 is off by 1e-6 at the most; 1e-3 forgives probabilities that were rounded for a file.
    _refuse("probabilities.sum(axis=1)", sums, abs(sums - 1) > 1e-3, "not 1: are these logits?")
    return labels, probabilities / sums[:, None], probabilities.argmax(axis=1)


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    """`values` in float64: finite, and not none at all."""
    array = np.asarray(values, np.float64)
    if not array.size:
        raise UserError(f"nothing to score: there are no {name}")
    _refuse(name, array, ~np.isfinite(array), "not a finite number")
    return array


def _refuse(name: str, values: np.ndarray, wrong: np.ndarray, reason: str) -> None:
    """Raises a UserError that names the first of `values` that is `wrong` (bool, same shape)."""
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        raise UserError(f"{name}{place} is {values[tuple(place)]}, {reason} ({wrong.sum():,} of {wrong.size:,} wrong)")


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"{name} are of shape {list(values.shape)}, but {list(shape)} was expected")
