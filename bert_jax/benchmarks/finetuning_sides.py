"""The two sides of the comparison of fine-tuning: the project's own step, and a plain PyTorch loop with `transformers`.

Both have the same starting weights (the drawn head included), rows, batches, recipe and scoring, all in float32; what
differs is the dropout that each draws.
"""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import OptimizerConfig
from bert_jax.errors import UserError
from bert_jax.experiments.parity import OUTPUT_TOLERANCE
from bert_jax.finetuning.batches import Batch, FinetuningBatches, evaluation_batches, in_row_order
from bert_jax.finetuning.recipes import paper
from bert_jax.finetuning.run import initial_params, make_objective, starting_point
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.data import read_examples
from bert_jax.tasks.evaluation import score
from bert_jax.tasks.examples import label_names
from bert_jax.tasks.objective import TaskObjective
from bert_jax.tasks.reading import PROBLEM_TYPES, Reading
from bert_jax.tasks.table import task_named
from bert_jax.training.objective import Parameters
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.step import TrainState, make_train_step, stream_key

ATTENTIONS = ("sdpa", "eager")  # of theirs


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a task is trained on, for how long, and what is read off at the end."""

    train: tuple[str, ...]  # splits, one after the other
    scored: str
    epochs: float
    max_length: int
    metrics: tuple[str, ...]
    optimizer: OptimizerConfig


CLIPPED = OptimizerConfig(name="adamw", learning_rate=5e-5)  # at norm 1, as the paper's code does
# As PyTorch's AdamW comes: clipping costs MRPC some 0.02 of its F1.
PLAIN = OptimizerConfig(name="adamw", learning_rate=5e-5, eps=1e-8, clip_norm=0.0)

RECIPES = {
    "mrpc": Recipe(("train", "validation"), "test", 4.0, 128, ("f1", "accuracy"), PLAIN),
    "stsb": Recipe(("train",), "validation", 3.0, 64, ("spearman", "pearson"), CLIPPED),
    "conll2003": Recipe(("train",), "test", 3.0, 128, ("f1",), CLIPPED),
}


class Comparison:
    """One task: the rows of both sides, what they start from, and how they are scored."""

    def __init__(self, name: str, model: str, directory: str = "") -> None:
        """Reads model and data; an empty `directory` takes them from TFDS.

        Raises:
          UserError: no such task here, or model or data cannot be used.
        """
        if name not in RECIPES:
            raise UserError(f"tasks: {name!r} is not compared: choose of {', '.join(RECIPES)}")
        self.name, self.recipe, task = name, RECIPES[name], task_named(name)
        train = [each for split in self.recipe.train for each in read_examples(task, split, directory=directory)]
        self.examples = read_examples(task, self.recipe.scored, directory=directory)
        config = paper(name, init_from=model, total_epochs=self.recipe.epochs, optimizer=self.recipe.optimizer)
        self.loaded, self.tokenizer = starting_point(config)
        length = min(self.recipe.max_length, self.loaded.config.max_position_embeddings)
        self.config = dataclasses.replace(config, max_length=length, compute_dtype="float32")
        self.kind, self.names = task.kind, label_names(task, train)
        self.reading = Reading(self.kind, self.tokenizer, self.names, length)
        self.train_rows, self.rows = self.reading.rows(train), self.reading.rows(self.examples)
        execution = Execution.here(self.config.compute_dtype)
        self.scored_batches = evaluation_batches(self.rows, config.batch_size, length, execution.platform)
        self.objective = make_objective(self.config, task, self.loaded.config, self.names, train, execution)
        self.steps = max(1, round(config.total_epochs * len(self.train_rows) / config.batch_size))

    def batches(self, seed: int) -> FinetuningBatches:
        """What both sides are trained on."""
        config = self.config
        return FinetuningBatches(self.train_rows, batch_size=config.batch_size, max_length=config.max_length, seed=seed)

    def start(self, seed: int) -> Pretrained:
        """The body of the model and a drawn head."""
        drawn = _drawn(self.objective, stream_key(seed, "init"))
        params = jax.device_get(initial_params(self.config, self.loaded, drawn))
        labels = self.names or ("value",)
        return Pretrained(params, self.objective.model, labels, PROBLEM_TYPES.get(self.kind, ""))

    def scores(self, logits_of: Callable[[Batch], np.ndarray]) -> dict[str, float]:
        """The metrics of the recipe, from logits [B, C] or, of tags, [B, L, C]."""
        logits = in_row_order(self.scored_batches, [logits_of(batch.arrays) for batch in self.scored_batches])
        if self.kind == "tagging":
            outputs = [(each.argmax(-1), each.max(-1)) for each in logits]
        else:
            outputs = logits if self.kind == "regression" else list(np.asarray(jax.nn.softmax(np.stack(logits))))
        predictions = self.reading.predictions(self.examples, self.rows, outputs)
        found, _ = score(self.reading, self.examples, predictions)
        return {metric: found[metric] for metric in self.recipe.metrics}


@functools.partial(jax.jit, static_argnums=0)
def _drawn(objective: TaskObjective, key: jax.Array) -> Parameters:
    return objective.init(key)


class Ours:
    """The project's own step and forward pass."""

    def __init__(self, task: Comparison, start: Pretrained, seed: int) -> None:
        self.objective, self.total_steps = task.objective, np.int32(task.steps)
        optimizer = make_optimizer(task.config.optimizer)
        params = jax.tree.map(jnp.array, start.params)  # copies: the step gives its arguments' memory away
        self.state = TrainState(jnp.int32(0), params, optimizer.init(params))
        config = dataclasses.replace(task.config, seed=seed)
        self.train_step = jax.jit(make_train_step(self.objective, optimizer, config), donate_argnums=0)
        self.compiled: dict[tuple, jax.stages.Compiled] = {}
        self.compile_seconds = 0.0

    def compile(self, batch: Batch) -> None:
        """Makes sure that the step is compiled for batches of this shape."""
        shape, begin = batch["input_ids"].shape, time.perf_counter()
        if shape not in self.compiled:
            self.compiled[shape] = self.train_step.lower(self.state, batch, self.total_steps).compile()
            self.compile_seconds += time.perf_counter() - begin

    def step(self, batch: Batch) -> float:
        """One optimizer step; its loss."""
        self.state, metrics = self.compiled[batch["input_ids"].shape](self.state, batch, self.total_steps)
        return float(metrics["task_loss"].total / metrics["task_loss"].count)

    def loss(self, batch: Batch) -> float:
        """Without dropout."""
        found = self.objective.score(self.logits(batch), batch)["task_loss"]
        return float(found.total / found.count)

    def logits(self, batch: Batch) -> np.ndarray:
        return np.asarray(_our_logits(self.objective, self.state.params, batch))


@functools.partial(jax.jit, static_argnums=0)
def _our_logits(objective: TaskObjective, params: Parameters, batch: Batch) -> jax.Array:
    return objective.outputs(params, batch, None)


class Theirs:
    """What one writes with PyTorch and `transformers`: AdamW (fused), a schedule, gradient clipping if asked for."""

    compile_seconds = 0.0

    def __init__(self, task: Comparison, start: Pretrained, seed: int, attention: str = ATTENTIONS[0]) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(f"{error.name} is needed to compare with: pip install torch transformers") from error
        torch.manual_seed(seed)
        transformers.utils.logging.disable_progress_bar()
        head = "TokenClassification" if task.kind == "tagging" else "SequenceClassification"
        with tempfile.TemporaryDirectory() as folder:
            huggingface.save(Path(folder) / "model", start, task.tokenizer)
            network = getattr(transformers, f"BertFor{head}")
            network = network.from_pretrained(Path(folder) / "model", attn_implementation=attention)
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        self.network, self.config = network.to("cuda" if on_gpu else "cpu").train(), task.config.optimizer
        self.optimizer = fused_adamw(network, self.config)
        total, warmup = task.steps, max(1.0, task.config.schedule.warmup * task.steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min(1, (step + 1) / warmup) * min(1, max(0, total - step) / max(1, total - warmup)),
        )

    def compile(self, batch: Batch) -> None:
        """Nothing is compiled."""

    def step(self, batch: Batch) -> float:
        """One optimizer step; its loss."""
        import torch

        self.optimizer.zero_grad()
        loss = self.network(**self._arguments(batch)).loss
        loss.backward()
        if self.config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def loss(self, batch: Batch) -> float:
        """Without dropout."""
        return self._outputs(batch).loss.item()

    def logits(self, batch: Batch) -> np.ndarray:
        return self._outputs(batch).logits.cpu().numpy()

    def _outputs(self, batch: Batch) -> Any:
        import torch

        self.network.eval()
        with torch.no_grad():
            outputs = self.network(**self._arguments(batch))
        self.network.train()
        return outputs

    def _arguments(self, batch: Batch) -> dict[str, Any]:
        """Our arrays under their names; a label of -1 is theirs of -100."""
        import torch

        names = {"input_ids": "input_ids", "token_type_ids": "token_type_ids", "sequence_ids": "attention_mask"}
        found = {theirs: torch.tensor(batch[ours], dtype=torch.long) for ours, theirs in names.items()}
        labels = batch["labels"]
        if labels.dtype.kind == "i":
            labels = np.where(labels < 0, -100, labels).astype(np.int64)
        return {name: each.to(self.network.device) for name, each in (found | {"labels": torch.tensor(labels)}).items()}


def fused_adamw(network: Any, config: OptimizerConfig) -> Any:
    """PyTorch's AdamW in one kernel; biases and LayerNorm are not decayed."""
    import torch

    groups: dict[float, list] = {config.weight_decay: [], 0.0: []}
    for name, parameter in network.named_parameters():
        exempt = name.endswith("bias") or "LayerNorm" in name
        groups[0.0 if exempt else config.weight_decay].append(parameter)
    return torch.optim.AdamW(
        [dict(params=params, weight_decay=decay) for decay, params in groups.items()],
        lr=config.learning_rate,
        betas=(config.b1, config.b2),
        eps=config.eps,
        fused=True,
    )


def check_same_loss(ours: float, theirs: float) -> None:
    """Raises UserError unless both give a batch the same loss without dropout: else they would not be comparable."""
    if not abs(ours - theirs) <= OUTPUT_TOLERANCE * abs(theirs):
        raise UserError(
            f"the two sides do not start alike: without dropout the first loss is {ours:.7g} and {theirs:.7g}"
        )
