"""Runs the same fine-tuning with several seeds: mean and deviation of the scores, and the model of the best."""

import statistics
from pathlib import Path
from typing import Any

from bert_jax.config import FinetuningConfig, with_overrides
from bert_jax.errors import UserError
from bert_jax.experiments.runs import finished, run
from bert_jax.finetuning.run import rank
from bert_jax.interop import huggingface, pretrained
from bert_jax.runtime.files import claim, to_json, write_whole
from bert_jax.tasks.table import task_named

Scores = dict[str, dict[str, float]]  # by split and metric


def finetune_seeds(config: FinetuningConfig, workdir: Path, seeds: int) -> dict[str, Any]:
    """Starts or continues the runs with the seeds `config.seed`, `config.seed` + 1, ..., in WORKDIR/seed_NUMBER.

    A run that has finished is left as it is, so that more seeds can be added. WORKDIR/model gets the model of the seed
    that is best on validation by the task's metric, the first of equals.

    Args:
      config: the config of all runs but for the seed.
      workdir: the folder of the runs, new or made by this function.
      seeds: the number of runs, at least two.

    Returns:
      What WORKDIR/scores.json holds: "seeds", the "best_seed", and in "scores" by split and metric the "mean", the
      sample "standard_deviation" and the "values" in the order of the seeds.

    Raises:
      UserError: `workdir` holds something else, or as `finetune`.
      Interrupted: by SIGINT or SIGTERM, after saving.
    """
    with_overrides(config, {"seed": config.seed + seeds - 1})  # the last is one, too
    check_layout(workdir, seeds)
    claim(workdir, "run", ("model", "scores.json"), known=any(workdir.glob("seed_*/config.json")))
    workdirs = {config.seed + number: workdir / f"seed_{config.seed + number}" for number in range(seeds)}
    scores = {seed: _result(with_overrides(config, {"seed": seed}), folder) for seed, folder in workdirs.items()}
    metric = config.metric or task_named(config.task).metric
    ranks = {seed: rank(config, scores[seed]["validation"]) for seed in workdirs}
    best = max(ranks, key=ranks.__getitem__)
    summary = {"seeds": list(workdirs), "best_seed": best, "scores": _statistics(list(scores.values()))}
    write_whole(workdir / "scores.json", to_json(summary, indent=2) + "\n")
    huggingface.save(workdir / "model", *pretrained.load_pretrained(workdirs[best]))
    print(f"seed {best} is the best on validation ({metric} {ranks[best]:.4f}): {workdir / 'model'} is its model")
    return summary


def check_layout(workdir: Path, seeds: int) -> None:
    """Checks that a run with one seed and runs with several do not share a folder.

    Raises:
      UserError: they would.
    """
    has_seeds = any(workdir.glob("seed_*/config.json"))
    if seeds == 1 and has_seeds:
        raise UserError(f"{workdir} holds runs with several seeds: give --seeds as well, or another --workdir")
    unexpected = ("config.json", "checkpoints") if has_seeds else ("config.json", "checkpoints", "model", "scores.json")
    present = [name for name in unexpected if (workdir / name).exists()]
    if seeds > 1 and present:
        raise UserError(f"{workdir} holds {present[0]}, so a single run or something else: give another --workdir")


def score_table(summary: dict[str, Any]) -> str:
    """Returns the scores of `finetune_seeds` as text, a line for each metric."""
    rows = [("split", "metric", "mean", "deviation", "values")]
    for split, metrics in summary["scores"].items():
        for metric, spread in metrics.items():
            numbers = (spread["mean"], spread["standard_deviation"], *spread["values"])
            mean, deviation, *values = (f"{number:.4f}" for number in numbers)
            rows.append((split, metric, mean, deviation, " ".join(values)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _result(config: FinetuningConfig, workdir: Path) -> Scores:
    """Returns the scores of a run, which is brought to its end if it is not there."""
    if result := finished(config, workdir):
        print(f"seed {config.seed} has finished before, in {workdir}")
    else:
        print(f"seed {config.seed} runs in {workdir}")
        result = run(config, workdir)
    return result.metrics


def _statistics(runs: list[Scores]) -> dict[str, dict[str, dict[str, Any]]]:
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
