"""The tasks, one row each: where the data is, what its columns mean, how it is scored, and what is published."""

from collections.abc import Sequence
from typing import Any

from bert_jax.config.finetuning import TASK_ALIASES
from bert_jax.errors import UserError, did_you_mean
from bert_jax.tasks import submission
from bert_jax.tasks.kinds.base import Task
from bert_jax.tasks.kinds.classification import Classification
from bert_jax.tasks.kinds.multi_label import MultiLabel
from bert_jax.tasks.kinds.multiple_choice import MultipleChoice, ReadingComprehension
from bert_jax.tasks.kinds.question_answering import QuestionAnswering
from bert_jax.tasks.kinds.regression import Regression
from bert_jax.tasks.kinds.text import TextKind
from bert_jax.tasks.kinds.token_classification import TokenClassification

_GLUE_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_CONLL_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


def _glue(name: str, metric: str, columns: tuple[str, str, str], scores: str, **others: Any) -> Task:
    """Makes a row of GLUE; `columns` are text, text_pair and label in the official files."""
    text, text_pair, label = columns
    defaults = dict(
        kind=Classification(),
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
        submission=submission.glue("CoLA", submission.label_number),
    ),
    _glue(
        "sst2",
        "accuracy",
        ("sentence", "", "label"),
        "accuracy 93.5 / 94.9",
        labels=("negative", "positive"),
        submission=submission.glue("SST-2", submission.label_number),
    ),
    _glue(
        "mrpc",
        "f1_accuracy",
        ("#1 String", "#2 String", "Quality"),
        "F1 88.9 / 89.3",
        labels=("not_equivalent", "equivalent"),
        tfds_columns=("sentence1", "sentence2", "label"),
        header=("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),  # some copies have lost the line
        submission=submission.glue("MRPC", submission.label_number),
    ),
    _glue(
        "qqp",
        "f1_accuracy",
        ("question1", "question2", "is_duplicate"),
        "F1 71.2 / 72.1",
        labels=("not_duplicate", "duplicate"),
        flawed=True,
        submission=submission.glue("QQP", submission.label_number),
    ),
    _glue(
        "stsb",
        "pearson_spearman",
        ("sentence1", "sentence2", "score"),
        "Spearman 85.8 / 86.5",
        kind=Regression(),
        submission=submission.glue("STS-B", submission.similarity),
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
        submission=submission.glue("MNLI-m", submission.label_name, mismatched="MNLI-mm"),
    ),
    _glue(
        "qnli",
        "accuracy",
        ("question", "sentence", "label"),
        "accuracy 90.5 / 92.7",
        labels=("entailment", "not_entailment"),
        submission=submission.glue("QNLI", submission.label_name),
    ),
    _glue(
        "rte",
        "accuracy",
        ("sentence1", "sentence2", "label"),
        "accuracy 66.4 / 70.1",
        labels=("entailment", "not_entailment"),
        submission=submission.glue("RTE", submission.label_name),
    ),
    _glue(
        "wnli",
        "accuracy",
        ("sentence1", "sentence2", "label"),
        "",
        labels=("not_entailment", "entailment"),
        reference="accuracy 65.1 by always giving the commoner answer (GLUE test, Devlin et al. 2019, appendix B.1)",
        submission=submission.glue("WNLI", submission.label_number),
    ),
)

_OTHERS = (
    Task(
        name="squad",
        kind=QuestionAnswering(),
        metric="f1",
        tfds=("squad/v1.1",),
        splits={"train": "train", "validation": "validation"},
        files={"train": "train-v1.1.json", "validation": "dev-v1.1.json"},
        submission=submission.squad,
        reference="EM/F1 80.8/88.5, large 84.1/90.9 (dev, Devlin et al. 2019, table 2)",
    ),
    Task(
        name="squad2",
        kind=QuestionAnswering(),
        metric="best_f1",
        tfds=("squad/v2.0",),
        splits={"train": "train", "validation": "validation"},
        files={"train": "train-v2.0.json", "validation": "dev-v2.0.json"},
        submission=submission.squad2,
        reference="F1 76.3 (dev, Liu et al. 2019, table 2), large EM/F1 78.7/81.9 (dev, Devlin et al. 2019, table 3)",
    ),
    Task(
        name="conll2003",
        kind=TokenClassification(),
        metric="f1",
        text="1",
        label="",
        labels=_CONLL_TAGS,
        tfds=("conll2003/conll2003",),
        tfds_columns=("tokens", "", "ner"),
        splits={"train": "train", "validation": "dev", "test": "test"},
        files={"train": "train.txt", "validation": "valid.txt", "test": "test.txt"},
        submission=submission.conll,
        reference="entity F1 92.4, large 92.8 (test, cased, Devlin et al. 2019, table 7)",
    ),
    Task(
        name="swag",
        kind=MultipleChoice(),
        metric="accuracy",
        text="sent1",
        text_pair="sent2",
        files={"train": "train.csv", "validation": "val.csv", "test": "test.csv"},
        reference="accuracy 81.6, large 86.6 (dev, Devlin et al. 2019, table 4)",
    ),
    Task(
        name="race",
        kind=ReadingComprehension(),
        metric="accuracy",
        text="article",
        text_pair="questions",
        label="answers",
        tfds=("race/high", "race/middle"),
        tfds_columns=("article", "questions", "answers"),
        splits={"train": "train", "validation": "dev", "test": "test"},
        files={"train": "train", "validation": "dev", "test": "test"},
        reference="accuracy 64.3 (dev, BERT-base, Liu et al. 2019, table 2)",
    ),
    Task(
        name="imdb",
        kind=Classification(),
        metric="accuracy",
        labels=("negative", "positive"),
        package="imdb",
        reference="accuracy 95.6, large 95.8, both pre-trained on its text first (official test, not in the package; "
        "Sun et al. 2019)",
    ),
    Task(
        name="rotten_tomatoes",
        kind=Classification(),
        metric="accuracy",
        labels=("negative", "positive"),
        package="rotten_tomatoes",
        reference="none known for this split",
    ),
)

_CUSTOM = (
    Task(name="custom:classification", kind=Classification(), metric="accuracy"),
    Task(name="custom:pairs", kind=Classification(), metric="accuracy", text_pair="text_pair"),
    Task(name="custom:multi_label", kind=MultiLabel(), metric="f1"),
    Task(name="custom:regression", kind=Regression(), metric="pearson_spearman"),
    Task(name="custom:token_classification", kind=TokenClassification(), metric="f1", text="1", label=""),
    Task(name="custom:question_answering", kind=QuestionAnswering(), metric="f1"),
    Task(name="custom:multiple_choice", kind=MultipleChoice(), metric="accuracy"),
)

TASKS: dict[str, Task] = {task.name: task for task in (*_GLUE, *_OTHERS, *_CUSTOM)}


def task_named(name: str) -> Task:
    """Returns the row of that name.

    Raises:
      UserError: there is none; names the nearest.
    """
    name = TASK_ALIASES.get(name, name)
    if name in TASKS:
        return TASKS[name]
    meant = did_you_mean(name, TASKS) or ":"
    raise UserError(f"task {name!r} is not known{meant} There are {', '.join(TASKS)}")


def kind_of_head(problem_type: str, labels: Sequence[str]) -> TextKind:
    """Returns the kind that a head of sequence classification serves.

    Whatever the file says, a head with one output gives a number: a single class would always be right.
    """
    if len(labels) == 1:
        return Regression()
    kinds = {kind.problem_type: kind for kind in (MultiLabel(), Regression())}
    return kinds.get(problem_type, Classification())
