"""Hyperparameters from the literature."""

from typing import Any

from bert_jax.config import FinetuningConfig, OptimizerConfig, ScheduleConfig


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
