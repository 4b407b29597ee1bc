r"""BERT-base or BERT-large as it is pre-trained now: packed rows of 512, no dropout, bfloat16 on GPU and TPU.

  python scripts/pretrain.py --config=configs/pretrain/modern.py:base --workdir=runs/modern-base
  python scripts/pretrain.py --config=configs/pretrain/modern.py:large --workdir=runs/modern-large

Hardware, time and result: not run yet. No figure of speed or quality stands behind this file.

What differs from base.py and large.py, which follow the paper, and why:

  packing     several sentence pairs a row, each seeing itself alone, where the paper pads. Of Wikipedia in rows of 512
              more than half is padding (Krell et al. 2021, who found no loss of convergence by packing).
  dropout     none, where the paper has 0.1. Cramming pre-trains without it; MosaicBERT and ModernBERT have none of
              attention probabilities. Only without that do rows meet the fast kernels of attention, which have no
              dropout: cudnn (NVIDIA; packed rows from Hopper on) and splash (TPU). With it attention is plain, with
              an [L, L] matrix for each head.
  one length  512 from the first step to the last, where the paper has 900,000 steps at 128 and 100,000 at 512: 325,000
              steps of 256 rows have as many positions as both.

The rest is the paper's: sentence pairs, 15 % masked, Adam without bias correction at 1e-4, warm-up over a hundredth of
the steps, one line down to 0. The exported config.json has dropout 0 too; finetune.py takes that of its own config.

The text is English Wikipedia as TFDS has it, which TFDS has to prepare first, with the packages that it names.
Your own text: --config.data.source='texts/*.txt'. Shorter: --config.total_steps=10_000. Less memory:
--config.accumulate=8, or --config.model.scan_layers=True --config.model.remat=True.
"""

from ml_collections import ConfigDict

from bert_jax.config import (
    DataConfig,
    OptimizerConfig,
    PretrainingConfig,
    ScheduleConfig,
    model_config,
    to_config_dict,
)


def get_config(size: str = "base") -> ConfigDict:
    """The run of a size, "base" or "large" (or another key of `bert_jax.config.SIZES`)."""
    return to_config_dict(
        PretrainingConfig(
            batch_size=256,
            total_steps=325_000,
            log_every=100,
            eval_every=5_000,
            checkpoint_every=5_000,
            model=model_config(size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
            data=DataConfig(source="tfds:wikipedia/20230601.en:train", length=512, packing=True),
            optimizer=OptimizerConfig(name="bert_adamw", learning_rate=1e-4),
            schedule=ScheduleConfig(name="linear", warmup=0.01),
        )
    )
