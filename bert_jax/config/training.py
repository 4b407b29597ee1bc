"""Declares the keys that the training loop reads, whatever it trains."""

import dataclasses
from typing import ClassVar

from bert_jax.config.fields import Section, names, option
from bert_jax.errors import UserError

LARGEST_SEED = 2**32 - 1  # a key of JAX's takes the lower 32 bits: two seeds that differ above them would be one
MOST_STEPS = 2**31 - 1  # steps are counted in int32 on the devices
MOST_ROWS = 1_000_000  # of a step


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    """Describes the update rule."""

    path: ClassVar[str] = "optimizer."

    name: str = option(
        "bert_adamw",
        choices=("bert_adamw", "adamw", "lamb"),
        role="optimization",
        help="update rule; bert_adamw is BERT's own AdamW, which corrects no bias unless bias_correction is set",
    )
    learning_rate: float = option(1e-4, at_least=0, role="optimization", help="peak learning rate, such as 5e-5")
    weight_decay: float = option(
        0.01, at_least=0, role="optimization", help="decoupled weight decay; biases and LayerNorm are exempt"
    )
    b1: float = option(0.9, at_least=0, at_most=0.999999999, role="optimization", help="decay of the first moment")
    b2: float = option(0.999, at_least=0, at_most=0.999999999, role="optimization", help="decay of the second moment")
    eps: float = option(1e-6, at_least=0, role="optimization", help="number added to the root of the second moment")
    clip_norm: float = option(
        1.0, at_least=0, role="optimization", help="largest norm of the whole gradient; 0 turns clipping off"
    )
    bias_correction: bool = option(
        False, role="optimization", help="correct the bias of the moments in bert_adamw; the other rules always do"
    )
    mu_dtype: str = option(
        "float32",
        choices=("float32", "bfloat16"),
        role="optimization",
        help="type in which the first moment is stored; bfloat16 takes a quarter off the memory of both moments",
    )
    layer_decay: float = option(
        1.0,
        at_least=0.01,
        at_most=1,
        role="optimization",
        help="learning rate of a layer as a share of that of the layer above it, such as 0.9",
    )
    frozen_layers: int = option(
        -1,
        at_least=-1,
        role="optimization",
        help="0 keeps the embeddings as they are, k the k lowest layers too; with -1 all layers learn",
    )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Section):
    """Describes the learning rate over the run."""

    path: ClassVar[str] = "schedule."

    name: str = option(
        "linear",
        choices=("linear", "cosine", "wsd"),
        role="optimization",
        help="shape of the schedule; wsd is warm-up, stable, decay",
    )
    warmup: float = option(
        0.01,
        at_least=0,
        role="optimization",
        help="length of the warm-up: below 1 a share of the run, such as 0.05, from 1 on a number of steps",
    )
    decay: float = option(0.2, at_least=0, at_most=1, role="optimization", help="share of the run in which wsd decays")
    final: float = option(
        0.0, at_least=0, at_most=1, role="optimization", help="last learning rate as a share of the peak"
    )

    def check_fits(self, total_steps: int) -> None:
        """Raises UserError if a warm-up given in steps leaves nothing of a run of `total_steps`."""
        if self.warmup >= max(2, total_steps):
            raise UserError(
                f"schedule.warmup={self.warmup:g} steps do not fit into a run of {total_steps} steps: set it lower, or "
                "to a share of the run, such as schedule.warmup=0.05"
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig(Section):
    """Says how many devices lie along each axis of the mesh."""

    path: ClassVar[str] = "mesh."

    data: int = option(
        -1, role="devices", help="devices over which the rows of a batch are divided; -1 takes all that are left"
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """Describes a run of the training loop; exactly one duration is set, the others are 0."""

    seed: int = option(
        0, at_least=0, at_most=LARGEST_SEED, role="initialization", help="seed of everything that is random in a run"
    )
    batch_size: int = option(
        256, at_least=1, at_most=MOST_ROWS, role="optimization", help="rows of a step, over all devices"
    )
    total_steps: int = option(
        0, at_least=0, at_most=MOST_STEPS, role="run_length", help="duration of the run in optimizer steps"
    )
    total_epochs: float = option(
        0.0, at_least=0, at_most=MOST_STEPS, role="run_length", help="duration in passes over the training data"
    )
    total_tokens: int = option(
        0,
        at_least=0,
        at_most=10**18,
        role="run_length",
        help="duration in tokens, batch_size times the row length a step",
    )
    total_minutes: float = option(
        0.0,
        at_least=0,
        at_most=10**8,
        role="run_length",
        help="duration in minutes of wall time, evaluations included; the number of steps follows from the speed",
    )
    log_every: int = option(
        0,
        at_least=0,
        role="monitoring",
        help="steps from one line of training metrics to the next; 0 takes 50, or a tenth of a run of fewer than 500",
    )
    eval_every: int = option(
        500, at_least=0, role="monitoring", help="steps from one evaluation to the next; 0 evaluates once an epoch"
    )
    checkpoint_every: int = option(
        500,
        at_least=0,
        role="monitoring",
        help="steps from one checkpoint to the next; 0 writes one after each evaluation; a multiple of eval_every "
        "lets each be ranked",
    )
    keep_checkpoints: int = option(
        2, at_least=1, role="monitoring", help="how many of the newest checkpoints are kept; the best is kept as well"
    )
    patience: int = option(
        0,
        at_least=0,
        role="optimization",
        help="stop after this many evaluations in a row that did not beat the best; 0 never stops early",
    )
    compute_dtype: str = option(
        "auto",
        choices=("auto", "float32", "bfloat16"),
        role="precision",
        help="type of the computation; auto is bfloat16 on GPU and TPU and float32 on a CPU; weights are float32",
    )
    accumulate: int = option(
        1, at_least=1, role="optimization", help="micro-batches into which a step is cut to save memory"
    )
    tensorboard: bool = option(True, role="monitoring", help="write the metrics to WORKDIR/tensorboard as well")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        durations = names(TrainingConfig, "run_length")
        given = [name for name in durations if getattr(self, name)]
        if len(given) != 1:
            listed = " and ".join(given) if given else "none of them"
            raise UserError(f"set exactly one of {', '.join(durations)} (the others 0): found {listed}")
        if self.batch_size % self.accumulate:
            raise UserError(f"batch_size={self.batch_size} does not divide by accumulate={self.accumulate}")
        if self.total_steps:
            self.schedule.check_fits(self.total_steps)
