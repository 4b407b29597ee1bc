"""The frozen dataclasses that every room below the scripts takes, and the one way into them.

A config file (``configs/pretrain/NAME.py``) returns an ``ml_collections.ConfigDict``; `from_config_dict` turns it into
dataclasses once. Below that line no code sees a ConfigDict, and no key can be misspelt, mistyped or left unread.
"""

import dataclasses
import difflib
import math
import typing
from typing import Any, TypeVar

from ml_collections import ConfigDict, config_dict

from bert_jax.errors import UserError

Config = TypeVar("Config")


def _check_ranges(config: Any, prefix: str, ranges: dict[str, tuple[float, float]]) -> None:
    """Raises UserError for a field outside its [least, most]."""
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if not least <= value <= most:
            limit = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
            raise UserError(f"{prefix}{name}={value} is out of range: it must be {limit}")


def _check_choice(config: Any, prefix: str, name: str, choices: tuple[str, ...]) -> None:
    """Raises UserError for a field that is none of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise UserError(f"{prefix}{name}={value!r} is not known: choose {', '.join(choices[:-1])} or {choices[-1]}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture, in the names of Hugging Face's ``BertConfig``."""

    vocab_size: int = 30_522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3_072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # before the last layer of a classifier; None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    scan_layers: bool = False  # one compiled layer instead of num_hidden_layers: compiles faster, may run slower
    attention: str = "auto"  # the kernel: plain, cudnn (NVIDIA), splash (TPU), or auto: the fastest that fits
    remat: bool = (
        False  # recompute each layer going back: less memory, a third more work; on a CPU with scan_layers only
    )
    remat_saves: str = "nothing"  # what remat keeps besides a layer's input: or products, those of dense layers

    def __post_init__(self) -> None:
        counts = (
            "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings"
        )
        ranges = dict.fromkeys([*counts.split(), "type_vocab_size"], (1, math.inf))
        ranges |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), (0, 0.99))
        if self.classifier_dropout is not None:
            ranges["classifier_dropout"] = (0, 0.99)
        _check_ranges(self, "model.", ranges | {"initializer_range": (0, 1), "layer_norm_eps": (0, 1)})
        _check_choice(self, "model.", "hidden_act", ("gelu", "gelu_new", "relu"))
        _check_choice(self, "model.", "attention", ("auto", "plain", "cudnn", "splash"))
        _check_choice(self, "model.", "remat_saves", ("nothing", "products"))
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size={self.hidden_size} does not divide by "
                f"model.num_attention_heads={self.num_attention_heads}"
            )


# Layers, width and heads of the published sizes (Devlin et al. 2018, table 1; Turc et al. 2019, table 2).
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1_024, 16),
}


def model_config(size: str, **overrides: Any) -> ModelConfig:
    """The named size (a key of `SIZES`), with the given fields replaced."""
    if size not in SIZES:
        raise UserError(f"model size {size!r} is not known: choose one of {', '.join(SIZES)}")
    layers, width, heads = SIZES[size]
    shape = dict(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width)
    return ModelConfig(**{**shape, **overrides})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where pre-training text comes from and how rows are made of it."""

    source: str = ""  # SOURCE; the vocabulary and the corpus are then built in the workdir
    corpus: str = ""  # or a folder written by build_corpus
    tokenizer: str = ""  # folder of the vocabulary; empty: trained from `source`
    document_per_file: bool = False  # a .txt file is one document; else a blank line ends it
    column: str = "text"  # text column of jsonl, csv, tsv, parquet and TFDS sources
    errors: str = "strict"  # bytes that are not UTF-8: strict stops, replace puts U+FFFD in their place
    language: str = "en"  # for the sentence splitter
    lower_case: bool = True
    min_frequency: int = 2  # a vocabulary entry is seen at least so often
    validation_share: float = 0.01  # of the documents
    validation_rows: int = 512  # at most so many rows are scored at each evaluation
    length: int = 128  # L
    packing: bool = True  # several sequences in a row
    objective: str = "nsp"  # nsp, sop (sentence order) or none (RoBERTa's full sentences)
    short_rate: float = 0.1  # share of pairs with a random shorter target length
    mask_rate: float = 0.15
    whole_word: bool = False

    def __post_init__(self) -> None:
        _check_choice(self, "data.", "objective", ("nsp", "sop", "none"))
        _check_choice(self, "data.", "errors", ("strict", "replace"))
        ranges = {"length": (8, math.inf), "mask_rate": (0.001, 0.999), "short_rate": (0, 1)}
        ranges |= {
            "validation_share": (0.000001, 0.9),
            "validation_rows": (1, math.inf),
            "min_frequency": (1, math.inf),
        }
        _check_ranges(self, "data.", ranges)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule."""

    name: str = "bert_adamw"  # bert_adamw (no bias correction unless asked for), adamw or lamb
    learning_rate: float = 1e-4  # the peak
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    clip_norm: float = 1.0  # of the whole gradient; 0 turns it off
    bias_correction: bool = False  # of bert_adamw; the others always correct
    mu_dtype: str = "float32"  # first moment: or bfloat16, which takes a quarter less memory for the two moments
    layer_decay: float = 1.0  # each layer learns at so much of the rate of the layer above it
    frozen_layers: int = -1  # 0: the embeddings do not learn; k: nor do the k lowest layers; -1: all learn

    def __post_init__(self) -> None:
        _check_choice(self, "optimizer.", "name", ("bert_adamw", "adamw", "lamb"))
        _check_choice(self, "optimizer.", "mu_dtype", ("float32", "bfloat16"))
        ranges = dict.fromkeys(("learning_rate", "weight_decay", "clip_norm", "eps"), (0, math.inf))
        ranges |= {"layer_decay": (0.01, 1), "frozen_layers": (-1, math.inf)}
        _check_ranges(self, "optimizer.", ranges | dict.fromkeys(("b1", "b2"), (0, 0.999999999)))


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run."""

    name: str = "linear"  # linear, cosine or wsd (warmup-stable-decay)
    warmup: float = 0.01  # below 1: share of the run; from 1: steps
    decay: float = 0.2  # wsd: share of the run spent going down
    final: float = 0.0  # learning rate at the end, as a share of the peak

    def __post_init__(self) -> None:
        _check_choice(self, "schedule.", "name", ("linear", "cosine", "wsd"))
        _check_ranges(self, "schedule.", {"warmup": (0, math.inf), "decay": (0, 1), "final": (0, 1)})


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; -1 takes the devices that are left."""

    data: int = -1


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What the training loop needs to know; a duration of 0 is unset."""

    seed: int = 0
    batch_size: int = 256  # global rows a step
    total_steps: int = 0
    total_epochs: float = 0.0
    total_tokens: int = 0
    total_minutes: float = 0.0
    log_every: int = 50
    eval_every: int = 500  # 0: once an epoch
    checkpoint_every: int = 500  # a multiple of eval_every, to have each ranked; 0: after each evaluation
    keep_checkpoints: int = 2  # the newest; the best is kept besides
    patience: int = 0  # stop after so many evaluations that were no better than the best; 0: never
    compute_dtype: str = "auto"  # float32, bfloat16, or auto: bfloat16 on GPU and TPU, float32 on CPU
    accumulate: int = 1  # micro-batches a step
    tensorboard: bool = True
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        counts = ("batch_size", "log_every", "keep_checkpoints", "accumulate")
        from_zero = ("eval_every", "checkpoint_every", "patience")
        _check_ranges(self, "", dict.fromkeys(counts, (1, math.inf)) | dict.fromkeys(from_zero, (0, math.inf)))
        _check_choice(self, "", "compute_dtype", ("auto", "float32", "bfloat16"))
        durations = ("total_steps", "total_epochs", "total_tokens", "total_minutes")
        _check_ranges(self, "", dict.fromkeys(durations, (0, math.inf)))
        given = [name for name in durations if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise UserError(f"set exactly one of {', '.join(durations)} (the others 0): found {found}")
        if self.batch_size % self.accumulate:
            raise UserError(f"batch_size={self.batch_size} does not divide by accumulate={self.accumulate}")
        if self.total_steps and self.schedule.warmup >= max(2, self.total_steps):
            raise UserError(
                f"schedule.warmup={self.schedule.warmup:g} steps do not fit into total_steps={self.total_steps}: "
                "lower it, or give a share of the run, such as 0.05"
            )


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    """One pre-training run."""

    init_from: str = ""  # MODEL whose weights the run starts from; empty: random weights
    initial_attention: str = "random"  # or neighbours: the first heads start out looking at the words beside each word
    initial_embeddings: str = "random"  # or counted: word embeddings that know which words the corpus has near which
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self, "", "initial_attention", ("random", "neighbours"))
        _check_choice(self, "", "initial_embeddings", ("random", "counted"))
        for name in ("initial_attention", "initial_embeddings"):
            if self.init_from and getattr(self, name) != "random":
                raise UserError(f"{name} is for random weights: with init_from, leave it at random")


@dataclasses.dataclass(frozen=True)
class TaskDataConfig:
    """Where the examples of a task are; all empty: TFDS, or the package that the task names."""

    directory: str = ""  # holds the task's official files
    train: str = ""  # a file in place of the task's own, of csv, tsv, jsonl, CoNLL columns or SQuAD's JSON
    validation: str = ""
    test: str = ""
    text: str = ""  # column, if not the task's own
    text_pair: str = ""
    label: str = ""
    examples: int = 0  # train on so many, drawn by the seed; 0: on all

    def __post_init__(self) -> None:
        _check_ranges(self, "data.", {"examples": (0, math.inf)})


@dataclasses.dataclass(frozen=True)
class FinetuningConfig(TrainingConfig):
    """One fine-tuning run."""

    task: str = ""  # a row of bert_jax/tasks/table.py
    init_from: str = ""  # MODEL to train on; none:MODEL: its architecture with random weights; none: that of `model`
    vocabulary: str = ""  # with init_from=none: folder of the vocabulary
    metric: str = ""  # that chooses the best checkpoint: any of the scores, or the task's own
    max_length: int = 128  # L at the most
    truncation: str = "head"  # of single texts: head, tail, both, or windows that are averaged
    stride: int = 0  # tokens from one window to the next; 0: half a window, 128 at the most
    label_smoothing: float = 0.0
    balance_classes: bool = False  # weigh each class by the inverse of its frequency
    reinitialized_layers: int = 0  # so many top layers start anew
    model: ModelConfig = ModelConfig()  # with init_from a MODEL, its sizes stand; dropouts, scan_layers, remat are read
    data: TaskDataConfig = TaskDataConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self, "", "truncation", ("head", "tail", "both", "windows"))
        if self.eval_every and self.checkpoint_every % self.eval_every:
            raise UserError(
                f"checkpoint_every={self.checkpoint_every} must be a multiple of eval_every={self.eval_every}, or 0: "
                "the best checkpoint is one that was scored"
            )
        _check_ranges(self, "", {"label_smoothing": (0, 0.99), "reinitialized_layers": (0, math.inf)})


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How a head of fine-tuning was trained to read, and reads unless it is told otherwise; kept with the model."""

    max_length: int = 0  # tokens of a row; 0: not known
    truncation: str = "head"
    stride: int = 0
    null_threshold: float | None = None  # of answering: see `bert_jax.tasks.reading.Reading`


def to_config_dict(config: Any) -> ConfigDict:
    """A mutable, key-locked ConfigDict with every field of a dataclass: what a config file starts from."""
    values = ConfigDict(dataclasses.asdict(config))
    _make_settable(values)
    return values


def _make_settable(values: ConfigDict) -> None:
    """Lets a flag set a field that is None: the flags need to know its type, and here such a field is a float."""
    for key, value in values.items():
        if isinstance(value, ConfigDict):
            _make_settable(value)
        elif value is None:
            values[key] = config_dict.placeholder(float)


def from_config_dict(cls: type[Config], config: Any, path: str = "") -> Config:
    """Builds dataclass `cls` from a ConfigDict or dict.

    Raises:
      UserError: an unknown key (names the nearest), or a value of the wrong type, with the key's full path.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in dict(config).items():
        if key not in fields:
            raise unknown_key(key, list(fields), path)
        kind = hints[key]
        if dataclasses.is_dataclass(kind):
            values[key] = from_config_dict(kind, value, f"{path}{key}.")
        elif kind in (float, float | None) and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            values[key] = value
        else:
            raise UserError(f"config key {path}{key} wants {getattr(kind, '__name__', kind)}, got {value!r}")
    return cls(**values)


def unknown_key(key: str, known: list[str], path: str = "") -> UserError:
    """The error for a misspelt key below `path` (such as "model."); names the nearest of the known ones."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return UserError(f"config key {path}{key} is not known: did you mean {path}{nearest}?")
