"""Holds the recipe of the BERT paper, for all published sizes."""

from bert_jax.config import (
    DataConfig,
    OptimizerConfig,
    PretrainingConfig,
    ScheduleConfig,
    model_config,
)
from bert_jax.errors import UserError


def original(size: str, phase: str) -> PretrainingConfig:
    """Returns a phase of Devlin et al. 2018, appendix A.2: one million steps of 256 rows, 90 % at length 128, then 512.

    The two phases are two runs. The learning rate goes down in one line over both, from 1e-4 after 10,000 steps to 0;
    Adam's moments start anew in the second, as in the released code, hence its short warm-up.

    Args:
      size: the size, a key of `bert_jax.config.SIZES`.
      phase: the phase, "128", or "512" with `init_from` the workdir of the first.

    Raises:
      UserError: there is no such phase or size.
    """
    if phase not in ("128", "512"):
        raise UserError(f"phase {phase!r} is not known: choose 128, or 512 to go on from a run of 128")
    first = phase == "128"
    return PretrainingConfig(
        batch_size=256,
        total_steps=900_000 if first else 100_000,
        eval_every=10_000,
        checkpoint_every=5_000,
        model=model_config(size),
        data=DataConfig(source="tfds:wikipedia/20230601.en:train", length=int(phase), packing=False),
        optimizer=OptimizerConfig(name="bert_adamw", learning_rate=1e-4 if first else 1e-5),
        schedule=ScheduleConfig(name="linear", warmup=10_000.0 if first else 1_000.0, final=0.1 if first else 0.0),
    )
