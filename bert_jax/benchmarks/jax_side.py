"""The project's own sides: one for each kind of work."""

import contextlib
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bert_jax
from bert_jax.benchmarks import harness
from bert_jax.config import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainingConfig, model_config
from bert_jax.inference.rows import TextRow, row_batches
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained, arrange_layers
from bert_jax.model.kernels.choose import KERNELS, describe_kernel
from bert_jax.model.kernels.plain import scaled_dot_product_attention
from bert_jax.model.pattern import AttentionPattern
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.objective import TaskObjective
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.training.objective import Mean, Objective, Parameters
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.profile import cost_table, costs
from bert_jax.training.step import TrainState, make_train_step, row_keys, stream_key

Batch = dict[str, Any]  # arrays of NumPy; of JAX once they are on the device
OPTIMIZER = OptimizerConfig(name="adamw")
TOTAL_STEPS = 1_000_000  # of the schedule: so many that the rate stays as good as constant


class JaxSide:
    """A side that computes by JAX."""

    metadata: dict[str, Any]

    def device_peak_bytes(self) -> int | None:
        """Returns the most memory that it has had of its device, where JAX knows: not on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def numbered_vocabulary(size: int) -> Tokenizer:
    """Returns the special tokens, then numbers: what an export needs when nobody reads text."""
    return Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *map(str, range(size - len(SPECIAL_TOKENS)))])


def nbytes(tree: Parameters) -> int:
    """Returns the bytes of the arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def temporary_bytes(program: jax.stages.Compiled) -> int | None:
    """Returns what a compiled program wants of memory for its temporaries, where JAX knows."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes if analysis else None


def describe_attention(config: ModelConfig, dtype: str, length: int, max_sequences: int) -> str:
    """Returns the kernel that a model takes of itself for rows of this kind, and why."""
    return describe_kernel(config, Execution.here(dtype), length, max_sequences)


# ---- a pre-training step -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StepSetting:
    """What a step does: on `rows` rows of `length` tokens, masked as the paper does, without dropout."""

    size: str
    rows: int
    length: int
    dtype: str
    vocab_size: int
    layers: tuple[tuple[str, Any], ...] = ()  # keys of the model's config that trade memory for time, and their values
    accumulate: int = 1
    optimizer: OptimizerConfig = OPTIMIZER

    @property
    def case(self) -> str:
        """Returns what the results call it."""
        return f"{self.size}, {self.rows} rows of {self.length}"

    def model(self) -> ModelConfig:
        """Returns the architecture."""
        fixed = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        positions = max(512, self.length)
        changes = dict(vocab_size=self.vocab_size, max_position_embeddings=positions, **fixed)
        return model_config(self.size, **changes, **dict(self.layers))

    def objective(self) -> PretrainingObjective:
        """Returns the objective, with the special ids of `numbered_vocabulary`."""
        return PretrainingObjective(
            self.model(),
            DataConfig(length=self.length),
            special_ids=tuple(range(len(SPECIAL_TOKENS))),
            mask_id=SPECIAL_TOKENS.index("[MASK]"),
            continuations=(False,) * self.vocab_size,
            execution=Execution.here(self.dtype),
        )

    def training(self) -> TrainingConfig:
        """Returns the recipe."""
        return TrainingConfig(
            total_steps=1,
            batch_size=self.rows,
            accumulate=self.accumulate,
            optimizer=self.optimizer,
            schedule=ScheduleConfig(warmup=0),  # PyTorch's side has a constant rate
        )


class Start(JaxSide):
    """What every side of a step begins with: weights in a folder, `masked` batches, and the loss on the first."""

    def __init__(self, setting: StepSetting, batches: list[Batch], folder: Path) -> None:
        """Writes the weights as `transformers` reads them into `folder`; `batches` are from before masking."""
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
        self.metadata = {"masked": masked, "first_loss": first_loss}

    def run(self) -> None:
        """Does nothing."""


@contextlib.contextmanager
def start_of(setting: StepSetting, batches: list[Batch]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Provides folder and metadata of a `Start` that a process of its own has made, whose memory is free again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        with harness.started(functools.partial(Start, setting, batches, path)) as start:
            metadata = start.metadata
        yield path, metadata


def loss_of(objective: Objective, metrics: dict[str, Mean]) -> float:
    """Returns the loss that the metrics of a step make."""
    return sum(float(metrics[name].total / metrics[name].count) for name in objective.losses)


class JaxStep(JaxSide):
    """The project's own step: a compiled function for each shape of batches, which reuses its state's memory."""

    def __init__(self, objective: Objective, config: TrainingConfig, params: Parameters, total_steps: int) -> None:
        """Takes the parameters, which must be arrays of its own."""
        self.objective, self.total_steps = objective, np.int32(total_steps)
        optimizer = make_optimizer(config.optimizer)
        self.state = TrainState(jnp.int32(0), params, jax.jit(optimizer.init)(params))
        jax.block_until_ready(self.state)
        self.train_step = jax.jit(make_train_step(objective, optimizer, config), donate_argnums=0)
        self.programs: dict[tuple, jax.stages.Compiled] = {}
        self.trace_seconds = self.compile_seconds = 0.0  # the second has both

    def compile(self, batch: Batch) -> None:
        """Compiles the step for batches of this shape, unless it is."""
        shape, begin = batch["input_ids"].shape, time.perf_counter()
        if shape not in self.programs:
            lowered = self.train_step.lower(self.state, batch, self.total_steps)
            self.trace_seconds += time.perf_counter() - begin
            self.programs[shape] = lowered.compile()
            self.compile_seconds += time.perf_counter() - begin

    def step(self, batch: Batch) -> dict[str, Mean]:
        """Does one optimizer step and returns its metrics, which nobody has waited for."""
        self.state, metrics = self.programs[batch["input_ids"].shape](self.state, batch, self.total_steps)
        return metrics


class JaxPretraining(JaxStep):
    """A pre-training step: masks, gradient, update. A run is a step on each batch.

    Its metadata are the loss of the first step; `figures`, the seconds to trace, compile and run it; and `bytes`: of
    parameters, of the optimizer's state, and of the compiled program's temporaries, gradients among them.
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
        objective = setting.objective()
        params = jax.device_put(arrange_layers(huggingface.load(start).params, objective.model))
        super().__init__(objective, setting.training(), params, TOTAL_STEPS)
        self.batches = jax.device_put(batches)  # those of PyTorch are on the device, too
        self.compile(self.batches[0])
        (self.compiled,) = self.programs.values()
        begin = time.perf_counter()
        first_loss = loss_of(objective, self.step(self.batches[0]))
        parts = {"trace_seconds": self.trace_seconds, "compile_seconds": self.compile_seconds - self.trace_seconds}
        parts["run_seconds"] = time.perf_counter() - begin
        self.metadata = {
            "first_loss": first_loss,
            "figures": {"first_seconds": sum(parts.values()), **parts},
            "bytes": {
                "parameter_bytes": nbytes(self.state.params),
                "optimizer_bytes": nbytes(self.state.opt_state),
                "temporary_bytes": temporary_bytes(self.compiled),
            },
        }

    def run(self) -> None:
        """Does a step on each batch."""
        for batch in self.batches:
            self.step(batch)
        jax.block_until_ready(self.state)


def profiled(setting: StepSetting, batches: list[Batch], start: Path, folder: Path) -> str:
    """Traces a run of the step into `folder`; returns its costliest operations as lines of text."""
    side = JaxPretraining(setting, batches, start)
    with jax.profiler.trace(folder):
        side.run()
    table = cost_table(costs(folder, [side.compiled.as_text() or ""], len(batches)))
    return f"{table}\ntrace of {len(batches)} steps, for XProf or Perfetto: {folder}"


class JaxUpdate(JaxSide):
    """What follows the gradient of a step alone: clipping, update rule, decay, new parameters."""

    def __init__(self, setting: StepSetting, updates: int) -> None:
        """Compiles it; a run is so many updates with one gradient."""
        optimizer, self.updates = make_optimizer(setting.optimizer), updates

        def update(params: Any, opt_state: Any, gradients: Any) -> tuple[Any, Any]:
            changes, opt_state = optimizer.update(gradients, opt_state, params)
            return jax.tree.map(lambda p, u: p - 1e-4 * u, params, changes), opt_state

        self.params = jax.jit(setting.objective().init)(stream_key(0, "init"))
        self.opt_state = jax.jit(optimizer.init)(self.params)
        self.gradients = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), self.params)
        arguments = self.params, self.opt_state, self.gradients
        self.compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*arguments).compile()
        self.metadata = {}

    def run(self) -> None:
        """Does the updates."""
        for _ in range(self.updates):
            self.params, self.opt_state = self.compiled(self.params, self.opt_state, self.gradients)
        jax.block_until_ready(self.params)


# ---- a fine-tuning step --------------------------------------------------------------------------


class JaxFinetuning(JaxStep):
    """A fine-tuning step; and the forward pass without dropout."""

    def __init__(self, objective: TaskObjective, config: TrainingConfig, start: Pretrained, total_steps: int) -> None:
        """Starts from the parameters of `start`."""
        params = jax.tree.map(jnp.array, start.params)  # copies: the step gives its arguments' memory away
        super().__init__(objective, config, params, total_steps)
        self.metrics, self.outputs = jax.jit(objective.metrics), jax.jit(objective.outputs)

    def train(self, batch: Batch) -> float:
        """Does one optimizer step and returns its loss."""
        return loss_of(self.objective, self.step(batch))

    def loss(self, batch: Batch) -> float:
        """Returns the loss without dropout."""
        return loss_of(self.objective, self.metrics(self.state.params, batch, None))

    def logits(self, batch: Batch) -> np.ndarray:
        """Returns the outputs without dropout."""
        return np.asarray(self.outputs(self.state.params, batch, None))


# ---- texts to vectors ----------------------------------------------------------------------------


class JaxEmbedding(JaxSide):
    """`Model.embed`."""

    def __init__(self, folder: Path, dtype: str, texts: list[str], batch_size: int) -> None:
        """Compiles what the texts need."""
        self.model, self.texts, self.batch_size = bert_jax.load(str(folder), dtype), texts, batch_size
        begin = time.perf_counter()
        self.metadata = {"vectors": self.run(), "figures": {"first_seconds": time.perf_counter() - begin}}
        self.metadata["figures"]["parameter_bytes"] = nbytes(self.model.params)

    def run(self) -> np.ndarray:
        """Returns the vectors of all texts."""
        return self.model.embed(self.texts, batch_size=self.batch_size)


class JaxExported(JaxSide):
    """The program of `convert.py --format=stablehlo`, as a server runs it, on the batches of `Model.embed`."""

    def __init__(self, folder: Path, texts: list[str], batch_size: int) -> None:
        """Compiles what the texts need of the program in `folder`."""
        self.forward = jax.jit(jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes())).call)
        self.longest = json.loads((folder / "signature.json").read_text())["longest"]
        self.tokenizer, self.texts, self.batch_size = Tokenizer.load(folder), texts, batch_size
        begin = time.perf_counter()
        self.metadata = {"vectors": self.run(), "figures": {"first_seconds": time.perf_counter() - begin}}

    def run(self) -> np.ndarray:
        """Returns the vectors of all texts."""
        encoded = self.tokenizer.encode_inputs(self.texts, self.longest)
        rows, vectors = [TextRow(each.ids, len(each.ids), []) for each in encoded], {}
        batching = self.batch_size, self.tokenizer.pad_id, self.longest, jax.default_backend()
        for numbers, batch in row_batches(rows, *batching):
            ids, lengths = batch["ids"], batch["lengths"]
            mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)
            hidden = np.asarray(self.forward(ids, np.zeros_like(ids), mask)["last_hidden_state"])
            sums = np.einsum("bld,bl->bd", hidden, mask)
            vectors |= {number: sums[row] / lengths[row] for row, number in enumerate(numbers)}
        return np.stack([vectors[number] for number in range(len(rows))])


# ---- attention alone -----------------------------------------------------------------------------


class JaxAttention(JaxSide):
    """A kernel of the project on cases of `bert_jax.benchmarks.suites.attention`; a run is `calls` calls on one case.

    Its metadata are the results of each case, or why it cannot do it; seconds to compile, and bytes of temporaries.
    """

    def __init__(self, kernel: str, dtype: str, cases: list[Any], calls: int) -> None:
        """Compiles each case and runs it once."""
        self.kernel, self.dtype, self.calls = kernel, jnp.dtype(dtype), calls
        self.work: dict[str, Callable[[], list[jax.Array]]] = {}
        self.metadata = {"results": {}, "left_out": {}, "programs": {}}
        for case in cases:
            try:
                self.work[case.name] = self.prepare(case)
                results = self.work[case.name]()
                self.metadata["results"][case.name] = [np.asarray(a[case.checked], np.float32) for a in results]
            except RuntimeError as error:  # not enough memory, for example
                self.metadata["left_out"][case.name] = str(error)

    def run(self, name: str) -> None:
        """Calls the kernel on the case of this name."""
        for _ in range(self.calls):
            results = self.work[name]()
        jax.block_until_ready(results)

    def prepare(self, case: Any) -> Callable[[], list[jax.Array]]:
        """Returns what gives the output; and with a gradient those of query, key and value."""
        kernel, execution = KERNELS[self.kernel], Execution.here(self.dtype.name)
        rows = jax.jit(kernel.prepare, static_argnums=(1, 2))(case.sequence_ids, case.max_sequences, AttentionPattern())
        attend = lambda query, key, value, rows: kernel.attend(query, key, value, rows, execution)  # noqa: E731
        if self.kernel == "plain" and case.gradient:  # as the encoder has it
            attend = plain_attention
        arrays = [jnp.asarray(array, self.dtype) for array in case.arrays()]
        begin = time.perf_counter()
        run = attention_call(attend, case.gradient).lower(*arrays, rows).compile()
        figures = {"compile_seconds": time.perf_counter() - begin, "temporary_bytes": temporary_bytes(run)}
        self.metadata["programs"][case.name] = figures
        # On a CPU, calls that wait for nobody would run side by side.
        wait = jax.block_until_ready if jax.default_backend() == "cpu" else lambda results: results
        return lambda: wait(run(*arrays, rows))


def plain_attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `scaled_dot_product_attention` without the probabilities."""
    return scaled_dot_product_attention(query, key, value, mask)[0]


def attention_call(attend: Callable[..., jax.Array], gradient: bool) -> Any:
    """Returns a jitted function of query, key, value, the output's gradient and the rows: output, and 3 gradients."""

    @jax.jit
    def run(query: jax.Array, key: jax.Array, value: jax.Array, weights: jax.Array, rows: Any) -> list[jax.Array]:
        if not gradient:
            return [attend(query, key, value, rows)]
        output, pull = jax.vjp(lambda *inputs: attend(*inputs, rows), query, key, value)
        return [output, *pull(weights)]

    return run


def reference_attention(case: Any) -> list[np.ndarray]:
    """Returns what plain attention gives in float32, on the CPU whatever the device, of the rows that are checked."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        arrays = [jnp.asarray(array[case.checked]) for array in case.arrays()]
        mask = AttentionPattern().mask(jnp.asarray(case.sequence_ids[case.checked]))
        return [np.asarray(array) for array in attention_call(plain_attention, case.gradient)(*arrays, mask)]
