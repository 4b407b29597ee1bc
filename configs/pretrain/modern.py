r"""Pre-trains BERT-base or BERT-large as is usual now: packed rows of 512, no dropout, bfloat16 on GPU and TPU.

  python scripts/pretrain.py --config=configs/pretrain/modern.py:base --workdir=runs/modern-base
  python scripts/pretrain.py --config=configs/pretrain/modern.py:large --workdir=runs/modern-large

Hardware, time and result: not run yet. What differs from base.py and large.py, and why: docs/guides/pre-training.md.

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
    """Returns the run of a size, "base" or "large" (or another key of `bert_jax.config.SIZES`)."""
    return to_config_dict(
        PretrainingConfig(
            batch_size=256,
            total_steps=325_000,
            eval_every=5_000,
            checkpoint_every=5_000,
            model=model_config(size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
            data=DataConfig(source="tfds:wikipedia/20230601.en:train", length=512, packing=True),
            optimizer=OptimizerConfig(name="bert_adamw", learning_rate=1e-4),
            schedule=ScheduleConfig(name="linear", warmup=0.01),
        )
    )
