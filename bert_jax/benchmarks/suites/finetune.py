"""Fine-tuning here and in a plain PyTorch loop with `transformers`: how good, and how fast.

Both sides have the same starting weights (the drawn head included), rows, batches, recipe and scoring, all in float32;
what differs is the dropout that each draws. The last weights are scored: nothing is chosen by a score on either side.
"""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import JaxFinetuning
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import best_other, verdict
from bert_jax.benchmarks.torch_side import TorchFinetuning
from bert_jax.config import OptimizerConfig
from bert_jax.errors import UserError
from bert_jax.finetuning.batches import FinetuningBatches
from bert_jax.finetuning.recipes import paper
from bert_jax.finetuning.run import initial_params, make_objective, starting_point
from bert_jax.interop.layout import Pretrained
from bert_jax.runtime.execution import Execution
from bert_jax.runtime.files import read_json, write_whole
from bert_jax.tasks.batches import evaluation_batches, in_row_order
from bert_jax.tasks.data import read_examples, source_name
from bert_jax.tasks.kinds.base import Codec
from bert_jax.tasks.rows import Batch
from bert_jax.tasks.table import task_named
from bert_jax.training.step import stream_key

JAX, TORCH = "bert_jax", "PyTorch"
ATTENTIONS = ("sdpa", "eager")  # of PyTorch
CHUNK = 8  # steps of a side in a round

# ---- tasks ---------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """What a task is trained on, for how long, and what is read off at the end."""

    train: tuple[str, ...]  # splits, one after the other
    scored: str
    epochs: float
    max_length: int
    metrics: tuple[str, ...]
    optimizer: OptimizerConfig


CLIPPED = OptimizerConfig(name="adamw", learning_rate=5e-5)  # at norm 1, as the paper's code does
# As PyTorch's AdamW comes: clipping costs MRPC some 0.02 of its F1.
PLAIN = OptimizerConfig(name="adamw", learning_rate=5e-5, eps=1e-8, clip_norm=0.0)

RECIPES = {
    "mrpc": Recipe(("train", "validation"), "test", 4.0, 128, ("f1", "accuracy"), PLAIN),
    "stsb": Recipe(("train",), "validation", 3.0, 64, ("spearman", "pearson"), CLIPPED),
    "conll2003": Recipe(("train",), "test", 3.0, 128, ("f1",), CLIPPED),
}


class Comparison:
    """One task: the rows of both sides, what they start from, and how they are scored."""

    def __init__(self, name: str, model: str, directory: str = "") -> None:
        """Reads model and data; an empty `directory` takes them from TFDS.

        Raises:
          UserError: no such task here, or model or data cannot be used.
        """
        if name not in RECIPES:
            raise UserError(f"tasks: {name!r} is not compared: choose of {', '.join(RECIPES)}")
        self.name, self.recipe, task = name, RECIPES[name], task_named(name)
        train = [row for split in self.recipe.train for row in read_examples(task, split, directory=directory)]
        self.examples = read_examples(task, self.recipe.scored, directory=directory)
        config = paper(name, init_from=model, total_epochs=self.recipe.epochs, optimizer=self.recipe.optimizer)
        self.loaded, self.tokenizer = starting_point(config)
        length = min(self.recipe.max_length, self.loaded.config.max_position_embeddings)
        self.config = dataclasses.replace(config, max_length=length, compute_dtype="float32")
        self.kind, execution = task.kind, Execution.here("float32")
        self.names = self.kind.label_names(task, train, source_name(task, "train", directory=directory))
        self.codec = Codec(self.tokenizer, self.names, length)
        self.train_rows, self.rows = self.kind.rows(train, self.codec), self.kind.rows(self.examples, self.codec)
        self.scored_batches = evaluation_batches(self.kind, self.rows, config.batch_size, length, execution.platform)
        self.objective = make_objective(self.config, task, self.loaded.config, self.names, train, execution)
        self.steps = max(1, round(config.total_epochs * len(self.train_rows) / config.batch_size))

    def batches(self, seed: int) -> FinetuningBatches:
        """Returns what both sides are trained on."""
        sizes = dict(batch_size=self.config.batch_size, max_length=self.config.max_length)
        return FinetuningBatches(self.kind, self.train_rows, **sizes, seed=seed)

    def start(self, seed: int) -> Pretrained:
        """Returns the body of the model and a drawn head."""
        drawn = jax.jit(self.objective.init)(stream_key(seed, "init"))
        params = jax.device_get(initial_params(self.config, self.loaded, drawn))
        labels = self.kind.exported_labels(self.names)
        return Pretrained(params, self.objective.model, labels, self.kind.problem_type)

    def jax_side(self, start: Pretrained, seed: int) -> JaxFinetuning:
        """Returns the project's side."""
        return JaxFinetuning(self.objective, dataclasses.replace(self.config, seed=seed), start, self.steps)

    def torch_side(self, start: Pretrained, seed: int, attention: str = ATTENTIONS[0]) -> TorchFinetuning:
        """Returns PyTorch's side."""
        architecture = type(self.objective.network).__name__  # Hugging Face's name, too
        config = dataclasses.replace(self.config, seed=seed)
        return TorchFinetuning(start, self.tokenizer, architecture, config, self.steps, attention)

    def scores(self, logits_of: Callable[[Batch], np.ndarray]) -> dict[str, float]:
        """Returns the metrics of the recipe, from logits [B, C] or, of tags, [B, L, C]."""
        outputs = [self.kind.probabilities(logits_of(batch.arrays)) for batch in self.scored_batches]
        outputs = in_row_order(self.scored_batches, jax.device_get(outputs))
        predictions = self.kind.predictions(self.examples, self.rows, outputs, self.codec)
        scores, _ = self.kind.scores(self.examples, predictions, self.codec)
        return {metric: scores[metric] for metric in self.recipe.metrics}


# ---- speed ---------------------------------------------------------------------------------------


class Steps:
    """A side whose run is a step on each of some batches."""

    def __init__(self, make: Callable[[], JaxFinetuning | TorchFinetuning], batches: list[Batch]) -> None:
        """Compiles what the batches need; its metadata are the first loss and the seconds that it compiled."""
        self.side, self.batches = make(), batches
        self.metadata: dict[str, Any] = {"first_loss": self.side.loss(batches[0])}
        for batch in batches:
            self.side.compile(batch)
        self.metadata["figures"] = {"compile_seconds": self.side.compile_seconds or None}

    def run(self) -> None:
        """Does a step on each batch."""
        for batch in self.batches:
            self.side.train(batch)


def measure_speed(results: Results, task: Comparison, rounds: int) -> str:
    """Measures a step of each side on the same batches; returns PyTorch's faster attention."""
    case, stream, start = f"{task.name}, a step", task.batches(0), task.start(0)
    batches = [stream[step] for step in range(min(CHUNK, task.steps))]
    makes = {JAX: functools.partial(task.jax_side, start, 0)}
    makes |= {f"{TORCH} {each}": functools.partial(task.torch_side, start, 0, each) for each in ATTENTIONS}
    first: list[float] = []

    def check(name: str, metadata: dict[str, Any]) -> None:
        first.append(metadata["first_loss"])
        harness.check_same_loss(name, first[0], first[-1], "float32")
        print(f"{task.name} {name}: ready", flush=True)

    runs = {name: functools.partial(Steps, make, batches) for name, make in makes.items()}
    harness.compare(results, case, runs, rounds, check, steps=len(batches))
    results.notes[case] = f"rows of {', '.join(str(batch['input_ids'].shape[1]) for batch in batches)}"
    print(verdict(results, case), flush=True)
    return (best_other(results, case) or f"{TORCH} {ATTENTIONS[0]}").split()[1]


# ---- quality -------------------------------------------------------------------------------------


def compare_runs(results: Results, task: Comparison, seeds: int, attention: str, folder: Path) -> None:
    """Records a whole run of each side with each seed; one that is in `folder` already is not repeated."""
    runs: dict[str, list[dict[str, Any]]] = {JAX: [], TORCH: []}
    for seed in range(seeds):
        paths = {name: folder / f"{task.name}-{name}-{seed}.json" for name in runs}
        setting = json.loads(json.dumps({"steps": task.steps, **dataclasses.asdict(task.config), "seed": seed}))
        finished = {name: _finished(path, setting) for name, path in paths.items()}
        makes: dict[str, Callable[[], JaxFinetuning | TorchFinetuning]] = {}
        if None in finished.values():
            start, batch = task.start(seed), task.batches(seed)[0]
            makes[JAX] = functools.partial(task.jax_side, start, seed)
            makes[TORCH] = functools.partial(task.torch_side, start, seed, attention)
            harness.check_same_loss(TORCH, makes[JAX]().loss(batch), makes[TORCH]().loss(batch), "float32")
        for name, path in paths.items():
            run = finished[name]
            if run is None:
                run = _run(task, name, makes[name], seed)
                write_whole(path, json.dumps({"run": run, "setting": setting}, indent=2) + "\n")
            runs[name].append(run)
    if seeds:
        record_scores(results, f"{task.name}, whole runs", runs)


def _run(task: Comparison, name: str, make: Callable[[], JaxFinetuning | TorchFinetuning], seed: int) -> dict:
    """Runs one side from the start to its scores."""
    begin, times, batches, side = time.perf_counter(), [], task.batches(seed), make()
    for step in range(task.steps):
        batch = batches[step]
        side.compile(batch)
        now = time.perf_counter()
        loss = side.train(batch)
        times.append(time.perf_counter() - now)
        if (step + 1) % (task.config.log_every or 50) == 0 or step + 1 == task.steps:
            print(f"{task.name} {name} seed {seed}: step {step + 1:,} of {task.steps:,}, loss {loss:.4f}", flush=True)
    seconds, scores = time.perf_counter() - begin, task.scores(side.logits)
    shown = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items())
    print(f"{task.name} {name} seed {seed}: {shown} after {seconds:,.0f} s", flush=True)
    median, compiled = statistics.median(times), side.compile_seconds
    return {"scores": scores, "step_seconds": median, "compile_seconds": compiled, "total_seconds": seconds}


def _finished(path: Path, setting: dict) -> dict | None:
    """Returns the run that is saved there, if there is one; UserError says that it is of another setting."""
    if not path.exists():
        return None
    saved = read_json(path)
    if saved.get("setting") != setting or "run" not in saved:
        raise UserError(f"{path} is a run of another setting: remove it, or give another --workdir")
    print(f"{path} is finished and not repeated", flush=True)
    return saved["run"]


def record_scores(results: Results, case: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Records mean and deviation over the seeds, and notes how far apart the sides are in those deviations."""
    notes = []
    for metric in runs[JAX][0]["scores"]:
        means, deviations = {}, {}
        for name, side in runs.items():
            values = [run["scores"][metric] for run in side]
            means[name] = statistics.fmean(values)
            results.add_rounds(case, name, metric, values, means[name])
            if len(values) > 1:
                deviations[name] = statistics.stdev(values)
                results.add(case, name, **{f"{metric}_deviation": deviations[name]})
        difference = means[JAX] - means[TORCH]
        pooled = sum(deviation**2 / 2 for deviation in deviations.values()) ** 0.5
        apart = f", {difference / pooled:+.1f} deviations" if pooled else ""
        notes.append(f"{metric} {difference:+.4f}{apart}")
    results.notes[case] = "; ".join(notes)
    for name, side in runs.items():
        for metric in ("total_seconds", "compile_seconds", "step_seconds"):
            results.add_rounds(case, name, metric, [run[metric] for run in side])


# ---- suite ---------------------------------------------------------------------------------------


def finetune_suite(
    workdir: Path, model: str, *, tasks: list[str], seeds: int, rounds: int, directories: dict[str, str]
) -> Results:
    """Measures both sides on each task.

    Raises:
      UserError: as `Comparison`; PyTorch is missing; or the sides do not start alike.
    """
    if not model:
        raise UserError("suite finetune needs a model to start from: set --model=MODEL")
    for name, directory in directories.items():
        if name not in RECIPES or not directory:
            raise UserError(f"directories: {name!r} wants to be TASK=FOLDER, TASK one of {', '.join(RECIPES)}")
    results = Results("finetune", "A fine-tuning step", "seconds", {"model": model, "steps": {}})
    for name in tasks:
        task = Comparison(name, model, directories.get(name, ""))
        results.metadata["steps"][name] = task.steps
        attention = measure_speed(results, task, rounds) if rounds else ATTENTIONS[0]
        compare_runs(results, task, seeds, attention, workdir / "benchmark" / "finetune")
    return results
