r"""Pre-trains BERT from raw text. Run again with the same workdir, it goes on where it stopped.

  python scripts/pretrain.py --config=configs/pretrain/quickstart.py --workdir=runs/quickstart
  python scripts/pretrain.py --config=configs/pretrain/small.py --workdir=runs/mine \
      --config.data.source='texts/*.txt' --config.total_epochs=3 --config.schedule.warmup=0.05
"""

from bert_jax.runtime import command

from pathlib import Path

from absl import flags

import bert_jax
from bert_jax.config import PretrainingConfig
from bert_jax.pretraining.run import pretrain, summary

_CONFIG = command.define_config(PretrainingConfig, "config file, as in --config=configs/pretrain/small.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, as in --workdir=runs/tiny", required=True)
_SAMPLE = flags.DEFINE_multi_string(
    "sample", [], "sentence to complete at the end, as in --sample='A [MASK] film.'; may be repeated"
)
_PROFILE = flags.DEFINE_bool(
    "profile", False, "also trace a few steps into WORKDIR/profile, and print the operations that cost most"
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "first check every byte of the corpus and of all checkpoints, as after a fault of the disk"
)


def main(_: list[str]) -> None:
    """Runs pre-training as the flags say."""
    workdir = Path(_WORKDIR.value)
    config = command.read_config(PretrainingConfig, _CONFIG)
    print(summary(pretrain(config, workdir, profile=_PROFILE.value, verify=_VERIFY.value)))
    if _SAMPLE.value:
        model = bert_jax.load(str(workdir))
        print("\nThe five likeliest words behind each [MASK]:")
        for text in _SAMPLE.value:
            for predictions in model.fill_mask(text, top_k=5):
                print(f"  {text:<52}" + "  ".join(f"{word.token} {word.score:.2f}" for word in predictions))


if __name__ == "__main__":
    command.run(main, resumes=True)
