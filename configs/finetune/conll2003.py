"""Fine-tunes for the named entities of CoNLL-2003 (Devlin et al. 2018, section 5.3).

  python scripts/finetune.py --config=configs/finetune/conll2003.py --workdir=runs/conll2003 \
      --config.init_from=MODEL --config.data.directory=FOLDER

The folder holds train.txt, valid.txt and test.txt; without it the data comes from TFDS.
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import paper


def get_config() -> ConfigDict:
    """Returns the paper's recipe."""
    return to_config_dict(paper("conll2003"))
