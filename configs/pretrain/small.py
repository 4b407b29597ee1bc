r"""Pre-trains BERT-small (4 layers, width 512, 8 heads) by the paper: 900,000 steps at length 128, 100,000 at 512.

  python scripts/pretrain.py --config=configs/pretrain/small.py --workdir=runs/small
  python scripts/pretrain.py --config=configs/pretrain/small.py:512 --workdir=runs/small-512 \
      --config.init_from=runs/small

The text is English Wikipedia as TFDS has it, which TFDS has to prepare first, with the packages that it names.
Your own text: --config.data.source='texts/*.txt'. Shorter: --config.total_steps=10_000 --config.schedule.warmup=0.01.
Hardware, time and result: not run yet.
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.pretraining.recipes import original


def get_config(phase: str = "128") -> ConfigDict:
    """Returns the run of a phase, "128" or "512"."""
    return to_config_dict(original("small", phase))
