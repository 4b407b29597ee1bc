r"""Fine-tunes a pre-trained BERT for a task, scores it and exports it. Run again, it goes on where it stopped.

  python scripts/finetune.py --config=configs/finetune/glue.py:mrpc --workdir=runs/mrpc \
      --config.init_from=runs/minilm --config.data.directory=glue_data/MRPC
  python scripts/finetune.py --config=configs/finetune/custom.py:classification --workdir=runs/mine \
      --config.init_from=runs/quickstart --config.data.train=train.csv --config.data.validation=dev.csv

With --seeds=5 it runs five seeds, and WORKDIR/scores.json has the mean and the deviation of each score.
"""

from bert_jax.runtime import command

from pathlib import Path

from absl import flags

from bert_jax.config import FinetuningConfig
from bert_jax.errors import UserError
from bert_jax.experiments.seeds import check_layout, finetune_seeds, score_table
from bert_jax.finetuning.run import finetune
from bert_jax.training.metrics import described

_CONFIG = command.define_config(
    FinetuningConfig, "config file and, behind a colon, its task, as in --config=configs/finetune/glue.py:mrpc"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, as in --workdir=runs/mrpc", required=True)
_SEEDS = flags.DEFINE_integer(
    "seeds",
    1,
    "number of runs, with the seeds config.seed, config.seed + 1, ..., as in --seeds=5; two or more are kept in "
    "WORKDIR/seed_*",
    lower_bound=1,
    upper_bound=1_000,
)
_PROFILE = flags.DEFINE_bool(
    "profile",
    False,
    "also trace a few steps of a single run into WORKDIR/profile, and print the operations that cost most",
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "first check every byte of all checkpoints of a single run, as after a fault of the disk"
)


def main(_: list[str]) -> None:
    """Runs fine-tuning as the flags say."""
    config, workdir, seeds = command.read_config(FinetuningConfig, _CONFIG), Path(_WORKDIR.value), _SEEDS.value
    if seeds > 1:
        if _PROFILE.value or _VERIFY.value:
            raise UserError("--profile and --verify are for a single run: leave --seeds out")
        print(score_table(finetune_seeds(config, workdir, seeds)))
        return
    check_layout(workdir, seeds)
    for split, values in finetune(config, workdir, profile=_PROFILE.value, verify=_VERIFY.value).metrics.items():
        print(f"{split}: {described(values, '.4f')}")


if __name__ == "__main__":
    command.run(main, resumes=True)
