"""Scores of numbers that a model predicts."""

import numpy as np
import scipy.stats
import sklearn.metrics
from numpy.typing import ArrayLike

from bert_jax.metrics.checks import check_shape, numbers


def score_numbers(targets: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Scores a regression, targets and predictions float [N].

    Returns:
      `pearson` and `spearman` correlation, 0.0 where targets or predictions are all the same (or N is 1);
      `pearson_spearman`, the mean of the two; `mean_squared_error`.

    Raises:
      UserError: nothing to score, different lengths, a number that is not finite.
    """
    targets, predictions = numbers("targets", targets), numbers("predictions", predictions)
    check_shape("targets", targets, (len(targets),))
    check_shape("predictions", predictions, targets.shape)
    varied = np.ptp(targets) > 0 and np.ptp(predictions) > 0  # otherwise scipy warns and gives NaN
    pearson = float(np.asarray(scipy.stats.pearsonr(targets, predictions))[0]) if varied else 0.0
    spearman = float(np.asarray(scipy.stats.spearmanr(targets, predictions))[0]) if varied else 0.0
    return {
        "pearson": pearson,
        "spearman": spearman,
        "pearson_spearman": (pearson + spearman) / 2,
        "mean_squared_error": float(sklearn.metrics.mean_squared_error(targets, predictions)),
    }
