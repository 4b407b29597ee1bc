"""Fine-tunes for multiple choice: four endings in SWAG, four answers in RACE (Devlin et al. 2018, section 4.4).

  python scripts/finetune.py --config=configs/finetune/choice.py:swag --workdir=runs/swag --config.init_from=MODEL \
      --config.data.directory=FOLDER

SWAG's folder holds train.csv and val.csv, RACE's train, dev and test; without it RACE comes from TFDS.
"""

from ml_collections import ConfigDict

from bert_jax.config import OptimizerConfig, to_config_dict
from bert_jax.finetuning.recipes import one_of, paper


def get_config(task: str = "swag") -> ConfigDict:
    """Returns the recipe of swag or race: 16 rows a step at a rate of 2e-5, as in the paper; race has 512 tokens."""
    length = 512 if task == "race" else 128
    optimizer = OptimizerConfig(learning_rate=2e-5)
    return to_config_dict(paper(one_of("choice.py", task), max_length=length, batch_size=16, optimizer=optimizer))
