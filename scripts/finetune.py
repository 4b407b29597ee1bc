r"""Fine-tunes a pre-trained BERT for a task, scores it and exports it. Run again, it goes on where it stopped.

  python scripts/finetune.py --config=configs/finetune/glue.py:mrpc --workdir=runs/mrpc \
      --config.init_from=runs/minilm --config.data.directory=glue_data/MRPC
  python scripts/finetune.py --config=configs/finetune/custom.py:classification --workdir=runs/mine \
      --config.init_from=runs/quickstart --config.data.train=train.csv --config.data.validation=dev.csv
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from bert_jax import command
from bert_jax.config import FinetuningConfig, from_config_dict
from bert_jax.finetuning.run import finetune

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "a file of configs/finetune/ and its task; any key can be set, as in --config.total_epochs=4"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, as in --workdir=runs/mrpc", required=True)
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    """Flags in, one call into the package."""
    scores = finetune(from_config_dict(FinetuningConfig, _CONFIG.value), Path(_WORKDIR.value))
    for split, values in scores.items():
        print(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))


if __name__ == "__main__":
    command.run(main)
