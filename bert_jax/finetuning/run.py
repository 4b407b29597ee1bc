"""A fine-tuning run: examples, a pre-trained body, training, the best checkpoint, scores, predictions, export."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import FinetuningConfig, HeadSettings, ModelConfig
from bert_jax.config.fields import names as field_names
from bert_jax.config.model import overruled
from bert_jax.errors import UserError
from bert_jax.finetuning.batches import FinetuningBatches
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import Pretrained, arrange_layers, with_heads
from bert_jax.metrics.ranking import rank_by_metric, rank_by_score
from bert_jax.model import parameters
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.runtime.execution import Execution
from bert_jax.runtime.files import to_json, write_whole
from bert_jax.runtime.memory import out_of_memory_told
from bert_jax.tasks.data import read_splits, source_of_split
from bert_jax.tasks.evaluation import Evaluator
from bert_jax.tasks.holdout import held_out
from bert_jax.tasks.kinds.base import Codec, Task
from bert_jax.tasks.labels import are_nameless, check_labels, listed, rows_of_head
from bert_jax.tasks.objective import TaskObjective
from bert_jax.tasks.predictions import write_predictions
from bert_jax.tasks.rows import Batch, check_max_length
from bert_jax.tasks.submission import write_submission
from bert_jax.tasks.table import task_named
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import workdir as workdirs
from bert_jax.training.loop import Data, Evaluation, memory_remedy, train
from bert_jax.training.result import RunResult, timed

# What of `model` is read when the architecture is that of `init_from`.
KEPT_FIELDS = field_names(ModelConfig, "regularization", "computation")
NOTHING_BUT = "none:"  # before a MODEL: its architecture and vocabulary, and random weights


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Holds all that a run needs before its first step.

    Attributes:
      task: the row of the table.
      splits: the examples of "train" and of each split that is scored.
      loaded: the model to start from.
      codec: how it reads.
    """

    task: Task
    splits: dict[str, list[Any]]
    loaded: Pretrained
    codec: Codec


def finetune(config: FinetuningConfig, workdir: Path, *, profile: bool = False, verify: bool = False) -> RunResult:
    """Runs, or goes on with, the run in `workdir`.

    Args:
      config: the config of the run.
      workdir: the folder of the run, new or with the same config.
      profile: whether to leave a trace of a few steps in WORKDIR/profile.
      verify: whether to check every byte of all checkpoints, however large they are.

    Returns:
      The scores of the best checkpoint, as metrics of each split that has labels; also in WORKDIR/scores.json. Its
      predictions are in WORKDIR/predictions/SPLIT.jsonl, the model in WORKDIR/model.

    Raises:
      UserError: the config, the data or `init_from` cannot be used.
      Interrupted: by SIGINT, SIGTERM or SIGHUP, after saving.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "data"):
        prepared = prepare(config)
    execution = Execution.here(config.compute_dtype, config.mesh)
    with workdirs.entered(config, workdir, alone=execution.process_index == 0) as check_there:
        return _finetune(config, workdir, prepared, execution, check_there, seconds, profile=profile, verify=verify)


def _finetune(
    config: FinetuningConfig,
    workdir: Path,
    prepared: Prepared,
    execution: Execution,
    check_there: Callable[[], None],
    seconds: dict[str, float],
    *,
    profile: bool,
    verify: bool,
) -> RunResult:
    """Does it, in a folder that it has for itself."""
    task, codec = prepared.task, prepared.codec
    objective = make_objective(config, task, prepared.loaded.config, codec.labels, prepared.splits["train"], execution)
    evaluators = {
        split: Evaluator(objective, codec, examples, max(config.batch_size, 32))
        for split, examples in prepared.splits.items()
        if split != "train"
    }
    batches = make_batches(config, prepared)
    print(describe_kernel(objective.model, execution, max(batches.lengths), 1))
    data = Data(
        train=functools.partial(stream, batches),
        rows_per_epoch=len(batches.rows),
        tokens_per_row=config.max_length,
        evaluate=evaluators["validation"],
        rank=functools.partial(rank, config),
        identity={"vocabulary": codec.tokenizer.hash, "list of labels": to_json(codec.labels, ensure_ascii=False)},
    )
    start = functools.partial(initial_params, config, with_head_for(config, prepared))
    with timed(seconds, "training"), out_of_memory_told(memory_remedy(config)):
        trained = train(objective, config, workdir, data, execution.mesh, start, profile=profile, verify=verify)
        params = jax.device_get(trained.best_params())
    check_there()
    with timed(seconds, "scoring"):
        scores, codec = write_results(workdir, task, evaluators, params)
    check_there()
    with timed(seconds, "export"):
        inputs = task.kind.inputs_of(prepared.splits["train"])
        how_it_reads = (codec.max_length, codec.truncation, codec.stride, codec.null_threshold)
        settings = HeadSettings(*how_it_reads, inputs, codec.whole_words)
        labels = task.kind.exported_labels(codec.labels)
        model = Pretrained(params, objective.model, labels, task.kind.problem_type, settings)
        huggingface.save(workdir / "model", model, codec.tokenizer)
    result = RunResult(scores, workdir / "model", seconds)
    workdirs.finish(config, workdir, result)
    return result


def prepare(config: FinetuningConfig) -> Prepared:
    """Reads the data and the model, and makes sure that they fit each other.

    Raises:
      UserError: they do not, or cannot be read.
    """
    task = task_named(config.task)
    source, share = source_of_split(task, "train", config.data), config.data.validation_share
    others = [split for split in scored_splits(config, task) if not (share and split == "validation")]
    splits = read_splits(task, ["train", *others], config.data)
    names = task.kind.label_names(task, splits["train"], source)
    if measure := task.kind.measure(names):
        print(measure)
    if share:
        train, validation = held_out(task.kind, splits["train"], share, config.seed, source)
        splits = {"train": train, "validation": validation, **{split: splits[split] for split in others}}
    splits["train"] = drawn_examples(config, splits["train"])
    for split in scored_splits(config, task):
        check_labels(task.kind.names_in, names, splits[split], split, source_of_split(task, split, config.data))
    loaded, tokenizer = starting_point(config)
    check_max_length(config.max_length, loaded.config)
    codec = Codec(tokenizer, names, config.max_length, config.truncation, config.stride)
    return Prepared(task, splits, loaded, task.kind.fitted(codec, splits["train"]))


def make_batches(config: FinetuningConfig, prepared: Prepared) -> FinetuningBatches:
    """Lays the training examples out in batches, and says how many rows and shapes they have."""
    kind, examples = prepared.task.kind, prepared.splits["train"]
    rows = kind.rows(examples, prepared.codec)
    batches = FinetuningBatches(
        kind, rows, batch_size=config.batch_size, max_length=config.max_length, seed=config.seed
    )
    print(
        f"{len(examples):,} examples make {len(rows):,} rows, padded to {batches.lengths} tokens "
        f"({batches.padding_share:.1%} padding): the step compiles {len(batches.lengths)} times at the most"
    )
    return batches


def drawn_examples(config: FinetuningConfig, examples: Sequence[Any]) -> list[Any]:
    """Draws as many examples as `data.examples` says, by the seed, and keeps their order."""
    number = config.data.examples or len(examples)
    if number > len(examples):
        raise UserError(f"data.examples={number}: there are {len(examples):,} to train on")
    chosen = np.random.default_rng(config.seed).choice(len(examples), number, replace=False)
    return [examples[index] for index in sorted(chosen)]


def scored_splits(config: FinetuningConfig, task: Task) -> list[str]:
    """Returns validation, and the test splits that are given or belong to the task.

    Next to training files of one's own only those count that are given.
    """
    given, directory = config.data, config.data.directory
    if given.train or given.test:
        others = ["test"] if given.test else []
    elif directory:
        others = [split for split, file in task.files.items() if (Path(directory).expanduser() / file).exists()]
    else:
        others = ["test"] if task.package else list(task.splits) if task.tfds else []
    return ["validation", *(split for split in others if split not in ("train", "validation"))]


def starting_point(config: FinetuningConfig) -> tuple[Pretrained, Tokenizer]:
    """Reads the model of `init_from` and its tokenizer; with "none", takes the given architecture and vocabulary.

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
    brought = [field.name for field in dataclasses.fields(ModelConfig) if field.name not in KEPT_FIELDS]
    for name in overruled(config.model, loaded, brought, config.asked):
        raise UserError(
            f"init_from={config.init_from} has model.{name}={getattr(loaded, name)}, which cannot be "
            f"{getattr(config.model, name)}: leave it out"
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
    train_examples: Sequence[Any],
    execution: Execution,
) -> TaskObjective:
    """Makes the objective of the task on an architecture.

    Raises:
      UserError: the config asks for what the kind of task does not have.
    """
    kind = task.kind
    if config.label_smoothing and not kind.smooths_labels:
        raise UserError(f"label_smoothing needs a task with classes: task {task.name} is {kind.name}")
    if config.truncation != "head" and not kind.truncates:
        raise UserError(f"truncation={config.truncation} is for classes and numbers of single texts: set it to head")
    return TaskObjective(
        kind=kind,
        model=model,
        labels=max(1, len(names)),
        label_smoothing=config.label_smoothing,
        class_weights=balanced_weights(task, names, train_examples) if config.balance_classes else (),
        execution=execution,
    )


def balanced_weights(task: Task, names: tuple[str, ...], examples: Sequence[Any]) -> tuple[float, ...]:
    """Returns the inverse of each class's frequency, 1 on average over the examples (scikit-learn's "balanced").

    Raises:
      UserError: the task has no classes.
    """
    if not task.kind.balances_classes:
        raise UserError("balance_classes needs one class for each text or word: this task has none")
    counts = collections.Counter(name for example in examples for name in task.kind.names_in(example))
    total = sum(counts.values())
    return tuple(total / (len(names) * max(1, counts[name])) for name in names)


def stream(batches: FinetuningBatches, step: int) -> Iterator[Batch]:
    """Yields the batches from a step on."""
    return (batches[number] for number in itertools.count(step))


def rank(config: FinetuningConfig, evaluation: Evaluation) -> float:
    """Returns the score that chooses the best checkpoint; the higher, the better.

    Raises:
      UserError: `metric` is none of the scores.
    """
    if config.metric:
        return rank_by_score(config.metric, evaluation)
    return rank_by_metric(task_named(config.task).metric, evaluation)


def initial_params(config: FinetuningConfig, loaded: Pretrained, drawn: dict) -> dict:
    """Puts the body of `init_from` under the drawn head; the top `reinitialized_layers` stay as drawn."""
    if config.init_from == "none" or config.init_from.startswith(NOTHING_BUT):
        return drawn
    unrolled = dataclasses.replace(loaded.config, scan_layers=False)
    fresh = arrange_layers(jax.device_get(drawn), unrolled)
    params = with_heads(config.init_from, loaded.params, fresh)
    for number in range(max(0, unrolled.num_hidden_layers - config.reinitialized_layers), unrolled.num_hidden_layers):
        params = parameters.with_layer(params, number, parameters.layer(fresh, number))
    return arrange_layers(params, loaded.config)


def with_head_for(config: FinetuningConfig, prepared: Prepared) -> Pretrained:
    """Puts the classes of the head of `init_from` in the order of the run's, by their names, and says so.

    A head for other classes is taken away: it is drawn anew. One whose classes have no names serves a task that fixes
    them, as in the evaluation of such a model.
    """
    task, loaded, names = prepared.task, prepared.loaded, prepared.codec.labels
    head = loaded.params.get(task.kind.head)
    if head is None or (not names and loaded.problem_type in ("", task.kind.problem_type)):
        return loaded
    if are_nameless(loaded.labels) and task.labels and len(loaded.labels) == len(names):
        print(f"{config.init_from} does not name the classes of its head: they are taken as {listed(names)}")
        return loaded
    rows = rows_of_head(names, loaded.labels)
    if rows is None or loaded.problem_type not in ("", task.kind.problem_type):
        print(
            f"{config.init_from} has {task.kind.head} for {loaded.problem_type} {listed(loaded.labels)}, and here the "
            f"classes are {listed(names) or 'none'}: drawn at random"
        )
        return dataclasses.replace(
            loaded, params={name: loaded.params[name] for name in loaded.params.keys() - {task.kind.head}}
        )
    if rows != list(range(len(rows))):
        print(f"{config.init_from} has {task.kind.head} in another order: its classes are put as here, {listed(names)}")
    in_order = {name: values[..., np.asarray(rows)] for name, values in head.items()}
    return dataclasses.replace(loaded, params={**loaded.params, task.kind.head: in_order})


def write_results(
    workdir: Path, task: Task, evaluators: dict[str, Evaluator], params: dict
) -> tuple[dict[str, Evaluation], Codec]:
    """Writes WORKDIR/predictions/SPLIT.jsonl for each split, and WORKDIR/scores.json with those that have labels.

    WORKDIR/submission gets the files that the graders of the task read, if it has any.
    Where questions may have no answer, the threshold that is best on validation is used on all splits.

    Returns:
      The scores, and how the model reads from now on.
    """
    validation = evaluators["validation"]
    codec = task.kind.tuned(validation.codec, functools.partial(validation.outcome, params))
    scores = {}
    for split, evaluator in evaluators.items():
        evaluator.codec = codec
        outcome = evaluator.outcome(params)
        records = write_predictions(workdir / "predictions" / f"{split}.jsonl", evaluator.examples, outcome.predictions)
        write_submission(workdir / "submission", task, split, evaluator.examples, records)
        if outcome.scores:
            scores[split] = outcome.scores
    write_whole(workdir / "scores.json", to_json(scores, indent=2) + "\n")
    return scores, codec
