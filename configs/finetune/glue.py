"""Fine-tunes for a task of GLUE by the paper's recipe (Devlin et al. 2018, appendix A.3).

  python scripts/finetune.py --config=configs/finetune/glue.py:mrpc --workdir=runs/mrpc --config.init_from=MODEL

Without --config.data.directory (the folder of the official files) the data comes from TFDS.
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import one_of, paper


def get_config(task: str = "mrpc") -> ConfigDict:
    """Returns the recipe of a task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli."""
    return to_config_dict(paper(one_of("glue.py", task)))
