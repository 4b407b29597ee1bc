"""A tiny pre-training run, and what it wrote."""

import dataclasses
import json
import sys
from pathlib import Path

import orbax.checkpoint as ocp

from bert_jax.config import DataConfig, OptimizerConfig, PretrainingConfig, ScheduleConfig, model_config


def metric_lines(workdir: Path) -> list[dict]:
    """metrics.jsonl without the speed, which no two runs share."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("tokens_per_second", "input_wait")} for line in found
    ]


def tiny_run(text_file: Path, **changes) -> PretrainingConfig:
    """A run of seconds: 2 layers of width 16, rows of 32 tokens, dropout on."""
    defaults = dict(
        seed=3,
        batch_size=8,
        total_steps=40,
        log_every=3,
        eval_every=20,
        checkpoint_every=4,
        tensorboard=False,
        model=model_config("tiny", vocab_size=300, hidden_size=16, intermediate_size=32, max_position_embeddings=32),
        data=DataConfig(source=str(text_file), length=32, validation_share=0.1, validation_rows=12),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        schedule=ScheduleConfig(warmup=0.1),
    )
    return PretrainingConfig(**{**defaults, **changes})


ROOT = Path(__file__).parents[2]


def pretraining_command(text_file: Path, directory: Path, workdir: Path) -> list[str]:
    """The command of `tiny_run`, through scripts/pretrain.py."""
    values = dataclasses.asdict(tiny_run(text_file))
    config = directory / "tiny_run.py"
    config.write_text(
        f"from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({values!r})\n"
    )
    return [sys.executable, str(ROOT / "scripts" / "pretrain.py"), f"--config={config}", f"--workdir={workdir}"]


def saved_state(workdir: Path, step: int) -> dict:
    """Returns the training state of a checkpoint."""
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
