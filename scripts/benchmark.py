r"""Measures speed and exactness, prints a table, and writes WORKDIR/benchmark/SUITE.json.

  python scripts/benchmark.py --suite=input --workdir=runs/quickstart
  python scripts/benchmark.py --suite=parity --model=runs/quickstart

Suites:
  input    how fast the loader makes batches of the run's corpus on one core, against what training in WORKDIR took
  parity   how far states, attentions, logits, loss and gradients are from `transformers` in PyTorch with the same
           weights, in float32 and bfloat16 on this machine's devices (needs: pip install torch transformers)
"""

from pathlib import Path

from absl import flags

from bert_jax import command
from bert_jax.experiments.benchmark import SUITES, benchmark

_SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "what is measured, as in --suite=input", required=True)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    "runs",
    "gets the result; for input, folder of a pre-training run, as in --workdir=runs/quickstart",
)
_MODEL = flags.DEFINE_string(
    "model",
    "",
    "parity: whose weights, a workdir of a finished run, a folder in Hugging Face layout or one with Google's "
    "checkpoint, as in --model=runs/quickstart; empty: random weights of 4 layers, 256 wide",
)


def main(_: list[str]) -> None:
    """Flags in, one call into the package."""
    benchmark(_SUITE.value, Path(_WORKDIR.value), _MODEL.value)


if __name__ == "__main__":
    command.run(main)
