"""A pre-training step of ours and its update alone, in any setting that changes what it costs, to be measured."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainingConfig, model_config
from bert_jax.experiments.training_sides import OPTIMIZER, TOTAL_STEPS, Batch, make_objective
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.profile import cost_table, costs
from bert_jax.training.step import make_init, make_train_step


@dataclasses.dataclass(frozen=True)
class StepSetting:
    """What a step does; without dropout, as in the comparison with PyTorch."""

    size: str
    rows: int
    length: int
    dtype: str
    scan_layers: bool = False
    remat: bool = False
    accumulate: int = 1
    optimizer: OptimizerConfig = OPTIMIZER

    def objective(self) -> PretrainingObjective:
        model = model_config(
            self.size,
            vocab_size=ModelConfig.vocab_size,
            max_position_embeddings=max(512, self.length),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            scan_layers=self.scan_layers,
            remat=self.remat,
        )
        return make_objective(model, DataConfig(length=self.length), self.dtype)

    def training(self) -> TrainingConfig:
        return TrainingConfig(
            total_steps=1,
            batch_size=self.rows,
            accumulate=self.accumulate,
            optimizer=self.optimizer,
            schedule=ScheduleConfig(warmup=0),
        )


class Step:
    """The step; a turn is one on each batch.

    Its facts are seconds to trace, compile and run it for the first time, and what memory it needs, in bytes:
    `parameters`, `optimizer_state`, and the `temporaries` of the compiled program, gradients among them.
    """

    def __init__(self, setting: StepSetting, batches: list[Batch], programs: Path | None = None) -> None:
        """Compiles it and runs it once.

        Args:
          setting: what it does.
          batches: before masking, of one shape.
          programs: folder of JAX's persistent cache; None: not used.
        """
        if programs is not None:
            jax.config.update("jax_enable_compilation_cache", True)
            jax.config.update("jax_compilation_cache_dir", str(programs))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        self.batches, config, objective = batches, setting.training(), setting.objective()
        optimizer = make_optimizer(config.optimizer)
        self.state = jax.block_until_ready(jax.jit(make_init(objective, optimizer, config.seed))())
        times = [time.perf_counter()]
        step = jax.jit(make_train_step(objective, optimizer, config), donate_argnums=0)
        lowered = step.lower(self.state, batches[0], TOTAL_STEPS)
        times.append(time.perf_counter())
        self.compiled = lowered.compile()
        times.append(time.perf_counter())
        self.step(batches[0])
        times.append(time.perf_counter())
        seconds = dict(zip(("trace", "compile", "run"), np.diff(times).tolist(), strict=True))
        nbytes = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
        memory = {
            "parameters": nbytes(self.state.params),
            "optimizer_state": nbytes(self.state.opt_state),
            "temporaries": self.compiled.memory_analysis().temp_size_in_bytes,
        }
        self.facts: dict[str, Any] = {"first_step": seconds, "bytes": memory}

    def turn(self) -> None:
        for batch in self.batches:
            self.step(batch)

    def step(self, batch: Batch) -> float:
        """One optimizer step; the norm of its gradient."""
        self.state, metrics = self.compiled(self.state, batch, TOTAL_STEPS)
        return float(metrics["gradient_norm"].total)


def profiled(setting: StepSetting, batches: list[Batch], folder: Path) -> str:
    """Traces a turn of the step into `folder`; its costliest operations as lines of text."""
    step = Step(setting, batches)
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

        self.state = jax.jit(make_init(objective, optimizer, 0))()
        self.gradients = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), self.state.params)
        arguments = self.state.params, self.state.opt_state, self.gradients
        self.compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*arguments).compile()
        self.facts: dict[str, Any] = {}

    def turn(self) -> None:
        for _ in range(self.updates):
            params, opt_state = self.compiled(self.state.params, self.state.opt_state, self.gradients)
            self.state = self.state.replace(params=params, opt_state=opt_state)
        jax.block_until_ready(self.state)
