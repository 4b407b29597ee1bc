r"""Fine-tunes for sentiment on 200 labelled IMDB reviews: the quickstart's word embeddings under a new encoder.

  python scripts/finetune.py --config=configs/finetune/few_labels.py --workdir=runs/few_labels --seeds=3 \
      --config.init_from=runs/quickstart

Two cores of an AMD EPYC, 2026-11-22: test accuracy 0.730 +- 0.019 over three seeds on the 2,449 held-out reviews, each
seed with 200 reviews of its own; a minute a seed on one busy core. Why only the words: docs/ablations.md.
"""

from ml_collections import ConfigDict

from bert_jax.config import OptimizerConfig, TaskDataConfig, to_config_dict
from bert_jax.finetuning.recipes import paper


def get_config() -> ConfigDict:
    """Returns a run of 150 steps with one evaluation at the end: nothing is chosen by a score."""
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
