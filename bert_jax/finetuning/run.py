"""A fine-tuning run: examples, a pre-trained body, training, the best checkpoint, scores, predictions, export."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import FinetuningConfig, HeadSettings, ModelConfig
from bert_jax.errors import UserError
from bert_jax.finetuning.batches import Batch, FinetuningBatches
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import Pretrained, arrange_layers, with_heads
from bert_jax.model import parameters
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.runtime.execution import Execution
from bert_jax.runtime.files import write_whole
from bert_jax.tasks.data import read_examples, source_name
from bert_jax.tasks.evaluation import Evaluator, Outcome
from bert_jax.tasks.examples import Example, TaggingExample, check_labels, label_names
from bert_jax.tasks.features import check_max_length
from bert_jax.tasks.objective import FinetuningObjective
from bert_jax.tasks.reading import PROBLEM_TYPES, Prediction, Reading, as_json
from bert_jax.tasks.submission import write_submission
from bert_jax.tasks.table import Task, task_named
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import workdir as workdirs
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.loop import Data, Evaluation, train
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import state_sharding
from bert_jax.training.step import make_init

# What of `model` is read when the architecture is that of `init_from`.
KEPT_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "scan_layers",
    "remat",
    "remat_saves",
    "attention",
)
NOTHING_BUT = "none:"  # before a MODEL: its architecture and vocabulary, and random weights
# Each metric of a task is one of the scores, or the mean of two.
LOWER_IS_BETTER = ("loss", "cross_entropy", "calibration_error", "mean_squared_error")
MEANS = {"f1_accuracy": ("f1", "accuracy")}


def finetune(config: FinetuningConfig, workdir: Path, *, profile: bool = False) -> dict[str, Evaluation]:
    """Runs, or goes on with, the run in `workdir`. With `profile`, a trace of a few steps is left in WORKDIR/profile.

    Returns:
      The scores of the best checkpoint on each split that has labels; also in WORKDIR/scores.json. Its predictions are
      in WORKDIR/predictions/SPLIT.jsonl, the model in WORKDIR/model.

    Raises:
      UserError: the config, the data or `init_from` cannot be used.
      Interrupted: by SIGINT or SIGTERM, after saving.
    """
    task = task_named(config.task)
    train_examples = examples_of(config, task, "train")
    names = label_names(task, train_examples, source_of(config, task, "train"))
    train_examples = drawn_examples(config, train_examples)
    splits = {split: examples_of(config, task, split) for split in scored_splits(config, task)}
    for split, examples in splits.items():
        check_labels(names, examples, split, source_of(config, task, split))
    loaded, tokenizer = starting_point(config)
    check_max_length(config.max_length, loaded.config)
    execution = Execution.here(config.compute_dtype, config.mesh)
    workdirs.claim(workdir, config)

    reading = Reading(task.kind, tokenizer, names, config.max_length, config.truncation, config.stride)
    if not all(getattr(example, "answerable", True) for example in train_examples):
        reading = dataclasses.replace(reading, null_threshold=0.0)
    objective = make_objective(config, task, loaded.config, names, train_examples, execution)
    batches = FinetuningBatches(
        reading.rows(train_examples), batch_size=config.batch_size, max_length=config.max_length, seed=config.seed
    )
    print(
        f"{len(train_examples):,} examples make {len(batches.rows):,} rows, padded to {batches.lengths} tokens "
        f"({batches.padding_share:.1%} padding): the step compiles {len(batches.lengths)} times at the most"
    )
    print(describe_kernel(objective.model, execution, max(batches.lengths), 1))
    evaluators = {
        split: Evaluator(objective, reading, examples, max(config.batch_size, 32)) for split, examples in splits.items()
    }
    data = Data(
        train=functools.partial(stream, batches),
        rows_per_epoch=len(batches.rows),
        tokens_per_row=config.max_length,
        evaluate=evaluators["validation"],
        rank=functools.partial(rank, config),
        vocabulary=tokenizer.hash,
    )
    start = functools.partial(initial_params, config, loaded)
    train(objective, config, workdir, data, execution.mesh, start, profile=profile)
    params = best_params(config, objective, workdir, execution.mesh)
    scores, null_threshold = write_results(workdir, task, evaluators, params)
    model = Pretrained(
        params,
        objective.model,
        names if task.kind != "regression" else ("value",),
        PROBLEM_TYPES.get(task.kind, ""),
        HeadSettings(config.max_length, config.truncation, config.stride, null_threshold),
    )
    huggingface.save(workdir / "model", model, tokenizer)
    return scores


def examples_of(config: FinetuningConfig, task: Task, split: str) -> list[Example]:
    """The examples of a split."""
    columns = {name: getattr(config.data, name) for name in ("directory", "text", "text_pair", "label")}
    return read_examples(task, split, file=getattr(config.data, split, ""), **columns)


def drawn_examples(config: FinetuningConfig, examples: Sequence[Example]) -> list[Example]:
    """As many as `data.examples` says, drawn by the seed, in their order."""
    number = config.data.examples or len(examples)
    if number > len(examples):
        raise UserError(f"data.examples={number}: there are {len(examples):,} to train on")
    chosen = np.random.default_rng(config.seed).choice(len(examples), number, replace=False)
    return [examples[index] for index in sorted(chosen)]


def scored_splits(config: FinetuningConfig, task: Task) -> list[str]:
    """Validation, and the test splits that are given or belong to the task; next to own training files, those given."""
    given, directory = config.data, config.data.directory
    if given.train or given.test:
        others = ["test"] if given.test else []
    elif directory:
        others = [split for split, file in task.files.items() if (Path(directory).expanduser() / file).exists()]
    else:
        others = ["test"] if task.package else list(task.splits) if task.tfds else []
    return ["validation", *(split for split in others if split not in ("train", "validation"))]


def source_of(config: FinetuningConfig, task: Task, split: str) -> str:
    """Where a split is read from, for messages."""
    return source_name(task, split, directory=config.data.directory, file=getattr(config.data, split, ""))


def starting_point(config: FinetuningConfig) -> tuple[Pretrained, Tokenizer]:
    """The model of `init_from` and its tokenizer; with "none", the given architecture and vocabulary.

    Raises:
      UserError: a vocabulary is missing, or given where the model brings one.
    """
    if not config.init_from:
        raise UserError("set init_from to the MODEL to start from, or to none:MODEL for random weights in its place")
    if config.init_from != "none":
        if config.vocabulary:
            raise UserError(f"init_from={config.init_from} brings its own vocabulary: set vocabulary to nothing")
        loaded, tokenizer = pretrained.load_pretrained(config.init_from.removeprefix(NOTHING_BUT))
        check_architecture(config, loaded.config)
        kept = {name: getattr(config.model, name) for name in KEPT_FIELDS}
        return dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, **kept)), tokenizer
    if not config.vocabulary:
        raise UserError(
            "init_from=none needs a vocabulary: set vocabulary to a folder with vocab.txt or tokenizer.json, and the "
            "sizes in model (BERT-base, if nothing is set); or init_from=none:MODEL to take both from a model"
        )
    tokenizer = Tokenizer.load(config.vocabulary)
    return Pretrained({}, dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)), tokenizer


def check_architecture(config: FinetuningConfig, loaded: ModelConfig) -> None:
    """Raises UserError for settings that the model of `init_from` overrides or cannot follow."""
    for field in dataclasses.fields(ModelConfig):
        asked, is_default = getattr(config.model, field.name), getattr(ModelConfig(), field.name)
        if field.name not in KEPT_FIELDS and asked not in (is_default, getattr(loaded, field.name)):
            found = getattr(loaded, field.name)
            raise UserError(
                f"init_from={config.init_from} has model.{field.name}={found}, which cannot be {asked}: leave it out"
            )
    layers, fresh = loaded.num_hidden_layers, config.reinitialized_layers
    if fresh > layers or config.optimizer.frozen_layers > layers - fresh:
        raise UserError(
            f"reinitialized_layers={fresh} and optimizer.frozen_layers={config.optimizer.frozen_layers} do not fit "
            f"into the {layers} layers of the model: what starts anew has to learn"
        )


def make_objective(
    config: FinetuningConfig,
    task: Task,
    model: ModelConfig,
    names: tuple[str, ...],
    train_examples: Sequence[Example],
    execution: Execution,
) -> FinetuningObjective:
    """The objective of the task on an architecture."""
    if config.label_smoothing and task.kind not in ("classification", "tagging", "choice"):
        raise UserError(f"label_smoothing is for one class among several: task {task.name} has {task.kind}")
    if config.truncation != "head" and task.kind in ("tagging", "answering", "choice"):
        raise UserError(f"truncation={config.truncation} is for classes and numbers of single texts: set it to head")
    return FinetuningObjective(
        kind=task.kind,
        model=model,
        labels=max(1, len(names)),
        label_smoothing=config.label_smoothing,
        class_weights=balanced_weights(names, train_examples) if config.balance_classes else (),
        execution=execution,
    )


def balanced_weights(names: tuple[str, ...], examples: Sequence[Example]) -> tuple[float, ...]:
    """The inverse of each class's frequency, 1 on average over the examples (scikit-learn's "balanced")."""
    labels = [each.tags if isinstance(each, TaggingExample) else (each.label,) for each in examples]
    counts = collections.Counter(itertools.chain.from_iterable(labels))
    if not names or any(not isinstance(name, str) for name in counts):
        raise UserError("balance_classes needs one class for each text or word: this task has none")
    total = sum(counts.values())
    return tuple(total / (len(names) * max(1, counts[name])) for name in names)


def stream(batches: FinetuningBatches, step: int) -> Iterator[Batch]:
    """The batches from a step on."""
    return (batches[number] for number in itertools.count(step))


def rank(config: FinetuningConfig, evaluation: Evaluation) -> float:
    """The score that chooses the best checkpoint; the higher, the better.

    Raises:
      UserError: `metric` is none of the scores.
    """
    if config.metric:
        if config.metric not in evaluation:
            raise UserError(f"metric={config.metric} is none of the scores of this task: {', '.join(evaluation)}")
        return -evaluation[config.metric] if config.metric in LOWER_IS_BETTER else evaluation[config.metric]
    metric = task_named(config.task).metric
    others = (metric, metric.removeprefix("best_"), f"micro_{metric}", "accuracy")  # where a task has none of that name
    names = MEANS.get(metric) or [name for name in others if name in evaluation][:1]
    return float(np.mean([evaluation[name] for name in names]))


def initial_params(config: FinetuningConfig, loaded: Pretrained, drawn: dict) -> dict:
    """The body of `init_from` under the drawn head; the top `reinitialized_layers` as drawn."""
    if config.init_from == "none" or config.init_from.startswith(NOTHING_BUT):
        return drawn
    unrolled = dataclasses.replace(loaded.config, scan_layers=False)
    fresh = arrange_layers(jax.device_get(drawn), unrolled)
    params = with_heads(config.init_from, loaded.params, fresh)
    for number in range(max(0, unrolled.num_hidden_layers - config.reinitialized_layers), unrolled.num_hidden_layers):
        params = parameters.with_layer(params, number, parameters.layer(fresh, number))
    return arrange_layers(params, loaded.config)


def best_params(config: FinetuningConfig, objective: FinetuningObjective, workdir: Path, mesh: Mesh) -> dict:
    """The parameters of the checkpoint with the highest rank."""
    abstract = jax.eval_shape(make_init(objective, make_optimizer(config.optimizer), config.seed))
    with contextlib.closing(Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)) as checkpoints:
        state = checkpoints.restore_best(abstract, state_sharding(mesh, abstract))
    return jax.device_get(state.params)


def write_results(
    workdir: Path, task: Task, evaluators: dict[str, Evaluator], params: dict
) -> tuple[dict[str, Evaluation], float | None]:
    """WORKDIR/predictions/SPLIT.jsonl for each split, and the scores of those with labels in WORKDIR/scores.json.

    WORKDIR/submission gets the files that the graders of the task read, if it has any.
    Where questions may have no answer, the threshold that is best on validation is used on all splits.

    Returns:
      the scores, and the threshold or None.
    """
    validation = evaluators["validation"]
    if validation.reading.null_threshold is not None:
        threshold = tuned_threshold(validation.outcome(params))
        for evaluator in evaluators.values():
            evaluator.reading = dataclasses.replace(evaluator.reading, null_threshold=threshold)
    scores = {}
    for split, evaluator in evaluators.items():
        outcome = evaluator.outcome(params)
        records = write_predictions(workdir / "predictions" / f"{split}.jsonl", evaluator.examples, outcome.predictions)
        write_submission(workdir / "submission", task, split, evaluator.examples, records)
        if outcome.scores:
            scores[split] = outcome.scores
    write_whole(workdir / "scores.json", json.dumps(scores, indent=2) + "\n")
    return scores, validation.reading.null_threshold


def tuned_threshold(outcome: Outcome) -> float:
    """The threshold with the best F1. Where that is never to answer, the official script says 0; this is below all."""
    threshold = outcome.scores["best_f1_thresh"]
    null_scores = [reply.null_score_diff for reply in outcome.predictions]
    return threshold if threshold in null_scores else min(null_scores) - 1


def write_predictions(
    path: Path, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> list[dict[str, Any]]:
    """A JSON object for each example: its id and what the model says of it; returns these objects."""
    records = [
        {"id": example.id, **as_json(prediction)} for example, prediction in zip(examples, predictions, strict=True)
    ]
    write_whole(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return records
