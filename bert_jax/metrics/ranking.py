"""Which score ranks the checkpoints of a run."""

import statistics
from collections.abc import Mapping

from bert_jax.errors import UserError

LOWER_IS_BETTER = ("loss", "cross_entropy", "calibration_error", "mean_squared_error")
# Metrics of tasks that are the mean of two scores.
_MEANS = {"f1_accuracy": ("f1", "accuracy")}


def rank_by_score(name: str, scores: Mapping[str, float]) -> float:
    """Returns a score such that the higher is the better.

    Raises:
      UserError: there is no score of that name.
    """
    if name not in scores:
        raise UserError(f"metric={name} is none of the scores of this task: {', '.join(scores)}")
    return -scores[name] if name in LOWER_IS_BETTER else scores[name]


def rank_by_metric(metric: str, scores: Mapping[str, float]) -> float:
    """Returns the metric of a task, such as ``f1`` or ``f1_accuracy``, from its scores.

    Where no score has the name of the metric, the nearest does: SQuAD's F1 without the best threshold, the F1 over all
    decisions (micro), and the accuracy where tags mark no entities.
    """
    nearest = (metric, metric.removeprefix("best_"), f"micro_{metric}", "accuracy")
    names = _MEANS.get(metric) or [name for name in nearest if name in scores][:1]
    return float(statistics.fmean(scores[name] for name in names))
