"""Fine-tunes for the questions of SQuAD 1.1 and 2.0 (Devlin et al. 2018, sections 4.2 and 4.3).

  python scripts/finetune.py --config=configs/finetune/squad.py:squad --workdir=runs/squad \
      --config.init_from=MODEL --config.data.directory=FOLDER

The folder holds train-v1.1.json and dev-v1.1.json (v2.0 for squad2); without it the data comes from TFDS.
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import one_of, paper


def get_config(task: str = "squad") -> ConfigDict:
    """Returns the recipe of squad or squad2: length 384 and stride 128, as in the released script."""
    return to_config_dict(paper(one_of("squad.py", task), max_length=384, total_epochs=2.0))
