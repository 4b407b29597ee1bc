"""Our side of the comparisons of a pre-training step, and what every side begins with."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.benchmarks.turns import started
from bert_jax.config import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainingConfig, model_config
from bert_jax.experiments.parity import numbered_vocabulary
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained, arrange_layers
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.runtime.execution import Execution
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.training.objective import Mean
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.profile import cost_table, costs
from bert_jax.training.step import TrainState, make_train_step, row_keys, stream_key

Batch = dict[str, np.ndarray]
OPTIMIZER = OptimizerConfig(name="adamw")
TOTAL_STEPS = np.int32(1_000_000)  # of the schedule: so many that the rate stays as good as constant


@dataclasses.dataclass(frozen=True)
class StepSetting:
    """What a step does: on `rows` rows of `length` tokens, masked as the paper does, without dropout."""

    size: str
    rows: int
    length: int
    dtype: str
    vocab_size: int
    scan_layers: bool = False
    remat: bool = False
    remat_saves: str = "nothing"
    accumulate: int = 1
    optimizer: OptimizerConfig = OPTIMIZER

    def model(self) -> ModelConfig:
        return model_config(
            self.size,
            vocab_size=self.vocab_size,
            max_position_embeddings=max(512, self.length),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            scan_layers=self.scan_layers,
            remat=self.remat,
            remat_saves=self.remat_saves,
        )

    def objective(self) -> PretrainingObjective:
        """With the special ids of `numbered_vocabulary`."""
        return PretrainingObjective(
            self.model(),
            DataConfig(length=self.length),
            special_ids=tuple(range(len(SPECIAL_TOKENS))),
            mask_id=SPECIAL_TOKENS.index("[MASK]"),
            continuations=(False,) * self.vocab_size,
            execution=Execution.here(self.dtype),
        )

    def training(self) -> TrainingConfig:
        return TrainingConfig(
            total_steps=1,
            batch_size=self.rows,
            accumulate=self.accumulate,
            optimizer=self.optimizer,
            schedule=ScheduleConfig(warmup=0),  # theirs has a constant rate
        )


class Start:
    """What every side begins with: weights, in a folder; in its facts `masked` batches, and ours' loss on the first."""

    def __init__(self, setting: StepSetting, batches: list[Batch], folder: Path) -> None:
        """`batches` are from before masking; `folder` gets the weights as `transformers` reads them."""
        objective = setting.objective()
        params = jax.jit(objective.init)(stream_key(0, "init"))
        vocabulary = numbered_vocabulary(setting.vocab_size)
        huggingface.save(folder, Pretrained(jax.device_get(params), objective.model), vocabulary)
        mask = jax.jit(functools.partial(objective.prepare, training=True))
        masked = [
            jax.device_get(mask(batch, row_keys(stream_key(0, "prepare", step), batch)))  # as that step masks it
            for step, batch in enumerate(batches)
        ]
        first_loss = loss_of(objective, jax.jit(objective.metrics)(params, masked[0], None))
        self.facts: dict[str, Any] = {"masked": masked, "first_loss": first_loss}

    def turn(self) -> None:
        """Has none."""


def start_in(folder: Path, setting: StepSetting, batches: list[Batch]) -> dict[str, Any]:
    """The facts of a `Start` in a process of its own, whose memory is free again."""
    with started(functools.partial(Start, setting, batches, folder)) as start:
        return start.facts


def loss_of(objective: PretrainingObjective, metrics: dict[str, Mean]) -> float:
    """The loss that the metrics of a step tell."""
    return sum(float(metrics[name].total / metrics[name].count) for name in objective.losses)


class Step:
    """The project's own step: masks, gradient, update; one compiled function that reuses its state's memory.

    A turn is one on each batch. Its facts are the loss of the first step, the seconds to trace, compile and run it, and
    what memory it needs, in bytes: `parameters`, `optimizer_state`, and the `temporaries` of the compiled program,
    gradients among them.
    """

    name = "bert_jax"

    def __init__(self, setting: StepSetting, batches: list[Batch], start: Path, programs: Path | None = None) -> None:
        """Compiles it and runs it once.

        Args:
          setting: what it does.
          batches: before masking, of one shape.
          start: folder with the weights before the first step.
          programs: folder of JAX's persistent cache; None: not used.
        """
        if programs is not None:
            jax.config.update("jax_enable_compilation_cache", True)
            jax.config.update("jax_compilation_cache_dir", str(programs))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        config, self.objective = setting.training(), setting.objective()
        optimizer = make_optimizer(config.optimizer)
        params = jax.device_put(arrange_layers(huggingface.load(start).params, self.objective.model))
        self.state = jax.block_until_ready(TrainState(jnp.int32(0), params, jax.jit(optimizer.init)(params)))
        self.batches = jax.device_put(batches)  # theirs are on the device, too
        times = [time.perf_counter()]
        step = jax.jit(make_train_step(self.objective, optimizer, config), donate_argnums=0)
        lowered = step.lower(self.state, self.batches[0], TOTAL_STEPS)
        times.append(time.perf_counter())
        self.compiled = lowered.compile()
        times.append(time.perf_counter())
        first_loss = loss_of(self.objective, self.step(self.batches[0]))
        times.append(time.perf_counter())
        nbytes = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
        self.facts: dict[str, Any] = {
            "first_loss": first_loss,
            "first_step": dict(zip(("trace", "compile", "run"), np.diff(times).tolist(), strict=True)),
            "bytes": {
                "parameters": nbytes(self.state.params),
                "optimizer_state": nbytes(self.state.opt_state),
                "temporaries": self.compiled.memory_analysis().temp_size_in_bytes,
            },
        }

    def turn(self) -> None:
        for batch in self.batches:
            self.step(batch)
        jax.block_until_ready(self.state)

    def step(self, batch: Batch) -> dict[str, Mean]:
        """One optimizer step; its metrics, which nobody has waited for."""
        self.state, metrics = self.compiled(self.state, batch, TOTAL_STEPS)
        return metrics

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has had of its device, where JAX tells: not on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def profiled(setting: StepSetting, batches: list[Batch], start: Path, folder: Path) -> str:
    """Traces a turn of the step into `folder`; its costliest operations as lines of text."""
    step = Step(setting, batches, start)
    with jax.profiler.trace(folder):
        step.turn()
    found = costs(folder, [step.compiled.as_text()], len(batches))
    return f"{cost_table(found)}\ntrace of {len(batches)} steps, for XProf or Perfetto: {folder}"


class Update:
    """What follows the gradient of a step alone: clipping, update rule, decay, new parameters."""

    def __init__(self, setting: StepSetting, updates: int) -> None:
        """Compiles it; a turn is so many updates with one gradient."""
        optimizer, objective, self.updates = make_optimizer(setting.optimizer), setting.objective(), updates

        def update(params: Any, opt_state: Any, gradients: Any) -> tuple[Any, Any]:
            changes, opt_state = optimizer.update(gradients, opt_state, params)
            return jax.tree.map(lambda p, u: p - 1e-4 * u, params, changes), opt_state

        self.params = jax.jit(objective.init)(stream_key(0, "init"))
        self.opt_state = jax.jit(optimizer.init)(self.params)
        self.gradients = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), self.params)
        arguments = self.params, self.opt_state, self.gradients
        self.compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*arguments).compile()
        self.facts: dict[str, Any] = {}

    def turn(self) -> None:
        for _ in range(self.updates):
            self.params, self.opt_state = self.compiled(self.params, self.opt_state, self.gradients)
        jax.block_until_ready(self.params)
