"""The same fine-tuning run with several seeds: mean and deviation of its scores, and the model of the best."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from bert_jax.config import FinetuningConfig
from bert_jax.errors import UserError
from bert_jax.finetuning.run import finetune, rank
from bert_jax.interop import huggingface, pretrained
from bert_jax.runtime.files import write_whole
from bert_jax.tasks.table import task_named
from bert_jax.training.loop import Evaluation


def finetune_seeds(config: FinetuningConfig, workdir: Path, seeds: int) -> dict[str, Any]:
    """Runs, or goes on with, the runs with the seeds `config.seed`, `config.seed` + 1, ..., in WORKDIR/seed_NUMBER.

    A run that has finished is left as it is, so that more seeds can be added. WORKDIR/model gets the model of the seed
    that is best on validation by the task's metric, the first of equals.

    Args:
      config: of all runs but for the seed.
      workdir: new, or of this function.
      seeds: how many, at least two.

    Returns:
      What WORKDIR/scores.json holds: "seeds", the "best_seed", and in "scores" by split and metric the "mean", the
      sample "standard_deviation" and the "values" in the order of the seeds.

    Raises:
      UserError: `workdir` holds something else, or as `finetune`.
      Interrupted: by SIGINT or SIGTERM, after saving.
    """
    check_layout(workdir, seeds)
    runs = {config.seed + number: workdir / f"seed_{config.seed + number}" for number in range(seeds)}
    found = {seed: _finished(dataclasses.replace(config, seed=seed), run) for seed, run in runs.items()}
    metric = config.metric or task_named(config.task).metric
    ranks = {seed: rank(config, scores["validation"]) for seed, scores in found.items()}
    best = max(ranks, key=ranks.__getitem__)
    summary = {"seeds": list(runs), "best_seed": best, "scores": _statistics(list(found.values()))}
    write_whole(workdir / "scores.json", json.dumps(summary, indent=2) + "\n")
    huggingface.save(workdir / "model", *pretrained.load_pretrained(runs[best]))
    print(f"seed {best} is the best on validation ({metric} {ranks[best]:.4f}): {workdir / 'model'} is its model")
    return summary


def check_layout(workdir: Path, seeds: int) -> None:
    """Makes sure that a run with one seed and runs with several do not share a folder.

    Raises:
      UserError: they would.
    """
    has_seeds = any(workdir.glob("seed_*/config.json"))
    if seeds == 1 and has_seeds:
        raise UserError(f"{workdir} holds runs with several seeds: give --seeds as well, or another --workdir")
    alien = ("config.json", "checkpoints") if has_seeds else ("config.json", "checkpoints", "model", "scores.json")
    there = [name for name in alien if (workdir / name).exists()]
    if seeds > 1 and there:
        raise UserError(f"{workdir} holds {there[0]}, so a single run or something else: give another --workdir")


def score_table(summary: dict[str, Any]) -> str:
    """The scores of `finetune_seeds`, a line for each metric."""
    rows = [("split", "metric", "mean", "deviation", "values")]
    for split, metrics in summary["scores"].items():
        for metric, found in metrics.items():
            numbers = (found["mean"], found["standard_deviation"], *found["values"])
            mean, deviation, *values = (f"{number:.4f}" for number in numbers)
            rows.append((split, metric, mean, deviation, " ".join(values)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _finished(config: FinetuningConfig, run: Path) -> dict[str, Evaluation]:
    """The scores of the run, which is brought to its end if it is not there."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    # config.json is written when a run begins, so it tells if another, longer one was begun since.
    records = [run / "finished.json", run / "config.json"]
    done = all(file.is_file() and json.loads(file.read_text()) == values for file in records)
    if done and huggingface.has_weights(run / "model"):
        print(f"seed {config.seed} has finished before, in {run}")
        return json.loads((run / "scores.json").read_text())
    print(f"seed {config.seed} runs in {run}")
    scores = finetune(config, run)
    write_whole(run / "finished.json", json.dumps(values, indent=2) + "\n")
    return scores


def _statistics(runs: list[dict[str, Evaluation]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        split: {metric: _spread([run[split][metric] for run in runs]) for metric in metrics}
        for split, metrics in runs[0].items()
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "standard_deviation": statistics.stdev(values),
        "values": values,
    }
