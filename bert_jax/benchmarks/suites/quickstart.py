"""The quickstart's loss at fixed steps, beside that of a CPU, which is kept: another device must learn the same."""

import json
import subprocess
import tempfile
from pathlib import Path

import jax

from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites.compile import ROOT, quickstart_command
from bert_jax.errors import UserError

KEPT = ROOT / "docs/benchmarks/quickstart-cpu-2026-11-28.json"  # what this suite wrote on a CPU
STEPS, EVERY = 200, 20
TOLERANCE = 0.02  # of the loss; bfloat16 has 8 bits


def quickstart_suite(*, source: str) -> Results:
    """Trains the quickstart's model for `STEPS` steps, and holds its losses against the kept ones.

    Raises:
      UserError: the run fails.
    """
    side, kept_side = f"bert_jax on {jax.default_backend()}", "bert_jax on cpu, kept"
    metadata = {"source": source, "steps": STEPS, "tolerance": TOLERANCE}
    results = Results("quickstart", "The quickstart's loss at fixed steps", "", metadata)
    kept = Results.load(KEPT) if KEPT.is_file() else None
    if kept is None or kept.metadata != metadata:
        kept = None
        print("there are no losses of a CPU to compare with", flush=True)
    for step, loss in losses(source).items():
        case = f"step {step}"
        results.add(case, side, loss=loss)
        if kept is not None:
            (wanted,) = kept.by_side(case, "loss").values()
            results.add(case, kept_side, loss=wanted)
            share = abs(loss - wanted) / wanted
            results.notes[case] = f"{share:.1e} apart, {'within' if share <= TOLERANCE else 'BEYOND'} {TOLERANCE:.0e}"
    return results


def losses(source: str) -> dict[int, float]:
    """Returns the training loss of a new run, by step: each the mean of the steps since the one before."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        flags = (f"--config.total_steps={STEPS}", f"--config.log_every={EVERY}")
        ended = subprocess.run(quickstart_command(workdir, source, *flags), capture_output=True, text=True)
        if ended.returncode:
            last = (ended.stderr or ended.stdout).strip().splitlines()[-1:]
            raise UserError(f"the quickstart ended with status {ended.returncode}: {' '.join(last)}")
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == "train"}
