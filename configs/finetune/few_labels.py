"""Sentiment from 200 labelled IMDB reviews, with the quickstart's own model.

  python scripts/finetune.py --config=configs/finetune/few_labels.py --workdir=runs/few_labels --seeds=3 \
      --config.init_from=runs/quickstart

Two cores of an AMD EPYC, 2026-11-22; each seed draws its own 200 reviews. Test accuracy, mean and deviation of three
seeds, on the 2,449 held-out reviews:

  the quickstart's word embeddings, as they are, under a new encoder (this config)   0.730 +- 0.019
  the same with the embeddings learning too                                          0.682 +- 0.051
  all of the quickstart's model (reinitialized_layers=0), all of it learning         0.673 +- 0.041
  the same network from random weights (init_from=none:runs/quickstart)              0.656 +- 0.008

A seed takes a minute on one busy core. (The first and last line with one run of the quickstart, the second and third
with an earlier one, whose first line was 0.724 +- 0.024.)

What seven minutes of pre-training know of sentiment is in the words: which of them are alike. The quickstart's encoder
looks at each word's neighbours, where a new one starts out looking at all words alike, which a class of a whole text
wants. (The last two: --config.reinitialized_layers=0 --config.optimizer.frozen_layers=-1.)
"""

from ml_collections import ConfigDict

from bert_jax.config import OptimizerConfig, TaskDataConfig, to_config_dict
from bert_jax.finetuning.recipes import paper


def get_config() -> ConfigDict:
    """150 steps with one evaluation at the end: nothing is chosen by a score."""
    return to_config_dict(
        paper(
            "imdb",
            truncation="both",
            total_epochs=0.0,
            total_steps=150,
            eval_every=150,
            reinitialized_layers=2,
            data=TaskDataConfig(examples=200),
            optimizer=OptimizerConfig(learning_rate=5e-4, bias_correction=True, frozen_layers=0),
        )
    )
