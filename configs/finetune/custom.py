"""A task on your own files: csv, tsv or jsonl, CoNLL columns for tagging, SQuAD's JSON for answering.

  python scripts/finetune.py --config=configs/finetune/custom.py:classification --workdir=runs/mine \
      --config.init_from=MODEL --config.data.train=train.csv --config.data.validation=dev.csv \
      --config.data.text=text --config.data.label=label
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import paper


def get_config(kind: str = "classification") -> ConfigDict:
    """classification, several (labels), pairs, regression, tagging, answering or choice."""
    longer = {"max_length": 384, "total_epochs": 2.0} if kind == "answering" else {}  # as for SQuAD
    return to_config_dict(paper(f"custom:{kind}", **longer))
