"""Declares the keys of a fine-tuning run, and the settings that it leaves with its model."""

import dataclasses
from typing import ClassVar

from bert_jax.config.fields import Section, option
from bert_jax.config.model import ModelConfig
from bert_jax.config.training import TrainingConfig
from bert_jax.errors import UserError

INPUTS = ("", "single", "pairs", "both")  # what a head was trained on: texts, pairs of texts, or both
TRUNCATIONS = ("head", "tail", "both", "windows")
# Names that runs were begun with before 0.2; they go on under the new ones.
TASK_ALIASES = {
    "custom:several": "custom:multi_label",
    "custom:tagging": "custom:token_classification",
    "custom:answering": "custom:question_answering",
    "custom:choice": "custom:multiple_choice",
}


@dataclasses.dataclass(frozen=True)
class TaskDataConfig(Section):
    """Says where the examples of a task are; if all keys are empty, in TFDS or in the package that the task names."""

    path: ClassVar[str] = "data."

    directory: str = option("", role="data", help="folder of the task's official files, such as glue_data/MRPC")
    train: str = option(
        "",
        role="data",
        help="training file in place of the task's own: csv, tsv, jsonl, json, parquet, CoNLL columns or SQuAD's JSON",
    )
    validation: str | float = option(
        "",
        role="data",
        help="validation file, likewise; or a share of train, such as 0.1, which the seed draws: classes keep their "
        "shares, equal texts stay together",
    )
    test: str = option("", role="data", help="test file, likewise; it may have no labels")
    text: str = option("", role="data", help="column of the text; empty takes the task's own")
    text_pair: str = option("", role="data", help="column of the second text; empty takes the task's own")
    label: str = option("", role="data", help="column of the label; empty takes the task's own")
    examples: int = option(
        0, at_least=0, role="data", help="train on this many examples, drawn by the seed; 0 trains on all"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        share = self.validation_share
        if share is not None and not 0 < share < 1:
            raise UserError(f"data.validation={self.validation}: a file is wanted, or a share of train between 0 and 1")

    @property
    def validation_share(self) -> float | None:
        """Returns the share of train that is held out for validation; None if that has data of its own."""
        try:
            return float(self.validation)
        except ValueError:
            return None


@dataclasses.dataclass(frozen=True)
class FinetuningConfig(TrainingConfig):
    """Describes a fine-tuning run."""

    task: str = option("", role="task", help="name of the task, such as mrpc or custom:classification")
    init_from: str = option(
        "",
        role="initialization",
        help="MODEL to train on; none:MODEL takes its architecture with random weights, none the architecture in model",
    )
    vocabulary: str = option("", role="data", help="with init_from=none: folder of the vocabulary")
    metric: str = option(
        "", role="task", help="score that chooses the best checkpoint, such as f1; empty takes the task's own"
    )
    max_length: int = option(128, at_least=1, at_most=1_000_000, role="task", help="longest row in tokens, L")
    truncation: str = option(
        "head",
        choices=TRUNCATIONS,
        role="task",
        help="which part of a single text that is too long is read; windows reads all of it and averages",
    )
    stride: int = option(
        0,
        at_least=0,
        role="task",
        help="tokens from the start of one window to the next; 0 is half a window, at most 128",
    )
    label_smoothing: float = option(
        0.0, at_least=0, at_most=0.99, role="task", help="share of each target that goes to all classes alike"
    )
    balance_classes: bool = option(False, role="task", help="weight each class by the inverse of its frequency")
    reinitialized_layers: int = option(
        0, at_least=0, role="initialization", help="how many of the top layers start from random weights"
    )
    # With the architecture of `init_from`, only regularization and computation are read.
    model: ModelConfig = ModelConfig()
    data: TaskDataConfig = TaskDataConfig()

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", TASK_ALIASES.get(self.task, self.task))
        super().__post_init__()
        if self.eval_every and self.checkpoint_every % self.eval_every:
            raise UserError(
                f"checkpoint_every={self.checkpoint_every} must be a multiple of eval_every={self.eval_every}, or 0: "
                "the best checkpoint is one that was scored"
            )


@dataclasses.dataclass(frozen=True)
class HeadSettings(Section):
    """Says how a fine-tuned head reads its input unless the caller says otherwise; it is kept with the model."""

    max_length: int = option(0, at_least=0, role="task", help="longest row in tokens; 0 if it is not known")
    truncation: str = option("head", choices=TRUNCATIONS, role="task", help="which part of a long text is read")
    stride: int = option(0, at_least=0, role="task", help="tokens from the start of one window to the next")
    null_threshold: float | None = option(
        None,
        role="task",
        help="of question answering: how much better than an answer no answer must be; None if all have one",
    )
    inputs: str = option(
        "", choices=INPUTS, role="task", help="of texts: whether it was trained on single ones, pairs, or both"
    )
    whole_words: tuple[str, ...] = option(
        (),
        role="data",
        help="of tags: words that training data has whole where the rules for words cut them; 0 is any number",
    )
