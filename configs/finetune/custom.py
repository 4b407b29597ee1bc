"""Fine-tunes on your own files: csv, tsv, jsonl, parquet; CoNLL columns for tags of words; SQuAD's JSON for questions.

  python scripts/finetune.py --config=configs/finetune/custom.py:classification --workdir=runs/mine \
      --config.init_from=MODEL --config.data.train=train.csv --config.data.validation=dev.csv \
      --config.data.text=text --config.data.label=label

The kind of task stands after the colon: classification, pairs (of texts, with a class), multi_label, regression,
token_classification, question_answering or multiple_choice. The names before 0.2 (several, tagging, answering, choice)
are aliases.
"""

from ml_collections import ConfigDict

from bert_jax.config import to_config_dict
from bert_jax.finetuning.recipes import paper
from bert_jax.tasks.table import task_named


def get_config(kind: str = "classification") -> ConfigDict:
    """Returns the paper's recipe for a kind of task; questions are read as in SQuAD."""
    task = f"custom:{kind}"
    return to_config_dict(paper(task, **task_named(task).kind.recipe))
