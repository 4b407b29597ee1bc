"""Hyperparameters from the literature."""

from typing import Any

from bert_jax.config import FinetuningConfig, OptimizerConfig, ScheduleConfig
from bert_jax.errors import UserError, did_you_mean

# The files of configs/finetune that take a task of several, and those that are for one alone.
FILES = {
    "glue.py": ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"),
    "squad.py": ("squad", "squad2"),
    "choice.py": ("swag", "race"),
    "reviews.py": ("rotten_tomatoes", "imdb"),
    "conll2003.py": ("conll2003",),
}


def one_of(file: str, task: str) -> str:
    """Returns the task of a file of configs/finetune.

    Raises:
      UserError: the file does not have it; names the one that has, or the nearest task.
    """
    if task in FILES[file]:
        return task
    right = [name if len(tasks) == 1 else f"{name}:{task}" for name, tasks in FILES.items() if task in tasks]
    meant = f": give configs/finetune/{right[0]}" if right else did_you_mean(task, FILES[file], file + ":{}") or ":"
    has = "" if right else f" It has {', '.join(FILES[file])}"
    raise UserError(f"configs/finetune/{file} has no task {task!r}{meant}{has}")


def paper(task: str, **changes: Any) -> FinetuningConfig:
    """Returns the recipe of Devlin et al. 2018, appendix A.3: batch 32, 3 epochs, a warm-up of a tenth, linear decay.

    The paper chose the rate among 5e-5, 4e-5, 3e-5 and 2e-5 on each development set; this has the first.
    """
    settings: dict[str, Any] = dict(
        task=task,
        batch_size=32,
        total_epochs=3.0,
        max_length=128,
        eval_every=0,
        checkpoint_every=0,
        keep_checkpoints=1,
        optimizer=OptimizerConfig(learning_rate=5e-5),
        schedule=ScheduleConfig(warmup=0.1),
    )
    return FinetuningConfig(**settings | changes)
