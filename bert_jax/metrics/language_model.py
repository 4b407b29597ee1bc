"""Yardsticks of pre-training: what is reached without looking at a word's neighbours, or at a pair of sentences."""

from collections.abc import Iterable, Sequence

import numpy as np


def unigram_loss(
    train_counts: np.ndarray, batches: Iterable[dict[str, np.ndarray]], special_ids: Sequence[int]
) -> float:
    """Returns the cross-entropy, in nats, of the tokens that masking may hide, by their frequency in training.

    A model reaches it that knows the words but not their neighbours: the yardstick of the masked-LM loss.

    Args:
      train_counts: int [V], how often the training text has each token; smoothed by adding one.
      batches: with `input_ids`.
      special_ids: tokens that are never masked.
    """
    counts = np.zeros(len(train_counts), np.int64)
    for batch in batches:
        counts += np.bincount(batch["input_ids"].ravel(), minlength=len(counts))
    smoothed = train_counts + 1.0
    counts[list(special_ids)] = smoothed[list(special_ids)] = 0
    occurring = counts > 0
    return float(-(counts[occurring] * np.log(smoothed[occurring] / smoothed.sum())).sum() / counts.sum())


def majority_share(batches: Iterable[dict[str, np.ndarray]]) -> float:
    """Returns the share of the commoner answer among sentence pairs, by `next_sentence_labels`; 0 if there are none."""
    labels = np.concatenate([batch["next_sentence_labels"].ravel() for batch in batches])
    return float(max((labels == 0).sum(), (labels == 1).sum()) / max(1, (labels >= 0).sum()))
