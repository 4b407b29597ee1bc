r"""Measures speed, prints a table, and writes WORKDIR/benchmark/SUITE.json.

  python scripts/benchmark.py --suite=input --workdir=runs/quickstart

Suites:
  input   how fast the loader makes batches of the run's corpus on one core, against what training in WORKDIR took
"""

from pathlib import Path

from absl import flags

from bert_jax import command
from bert_jax.experiments.benchmark import SUITES, benchmark

_SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "what is measured, as in --suite=input", required=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of a pre-training run, as in --workdir=runs/quickstart", required=True
)


def main(_: list[str]) -> None:
    """Flags in, one call into the package."""
    benchmark(_SUITE.value, Path(_WORKDIR.value))


if __name__ == "__main__":
    command.run(main)
