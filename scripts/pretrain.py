"""Pre-trains BERT. Run again with the same workdir, it goes on where it stopped.

python scripts/pretrain.py --config=configs/pretrain/tiny.py --workdir=runs/tiny \
    --config.data.source='texts/*.txt' --config.total_steps=10_000
"""

from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from bert_jax.config import PretrainingConfig, from_config_dict
from bert_jax.pretraining.run import pretrain

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/pretrain/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, for example runs/tiny.", required=True)


def main(argv: list[str]) -> None:
    """Flags in, one call into the package."""
    logging.set_verbosity(logging.ERROR)  # Orbax tells much
    summary = pretrain(from_config_dict(PretrainingConfig, CONFIG.value), Path(WORKDIR.value))
    print(summary)


if __name__ == "__main__":
    app.run(main)
