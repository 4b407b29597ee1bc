"""What the tests share: a small text, and a tiny pre-training run on it."""

import json
import os
import random
from pathlib import Path

import pytest

from bert_jax.config import DataConfig, OptimizerConfig, PretrainingConfig, ScheduleConfig, model_config

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # scripts that tests start leave no programs in the user's cache


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of 2 to 12 sentences over 200 words, a blank line between documents."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 7))) for _ in range(200)]
    sentence = lambda: " ".join(draw.choices(words, k=draw.randint(3, 15))).capitalize() + "."  # noqa: E731
    documents = [" ".join(sentence() for _ in range(draw.randint(2, 12))) for _ in range(300)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return path


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
