"""The two sides of the comparison of pre-training: the project's own step, and `transformers` in PyTorch at its best.

Both have the same starting weights and masked batches; both update with AdamW, clip the gradient and compute in the
same type. Theirs is tried in each way that an expert would try (`Way`), and the fastest counts.
"""

import contextlib
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from bert_jax.errors import UserError
from bert_jax.experiments.finetuning_sides import fused_adamw
from bert_jax.experiments.parity import numbered_vocabulary
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.training.objective import Mean
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.step import TrainState, make_train_step, row_keys, stream_key

Batch = dict[str, np.ndarray]
OPTIMIZER = OptimizerConfig(name="adamw")
TOTAL_STEPS = np.int32(1_000_000)  # of the schedule: so many that the rate stays as good as constant


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run theirs.

    Attributes:
      attention: as `transformers` names it.
      positions: where it computes the vocabulary's logits: `masked`, as ours does, or `all`, as its class does.
      compiled: by torch.compile.
      checkpointed: computes the activations of a layer again in the backward pass (gradient checkpointing).
    """

    attention: str = "sdpa"
    positions: str = "masked"
    compiled: bool = False
    checkpointed: bool = False

    @property
    def name(self) -> str:
        ways = ", compiled" * self.compiled + ", checkpointed" * self.checkpointed
        return f"PyTorch {self.attention}, logits at {self.positions}{ways}"


WAYS = {
    "cpu": (Way("eager"), Way("sdpa"), Way("sdpa", compiled=True), Way("sdpa", "all")),
    "gpu": (Way("sdpa"), Way("sdpa", "all"), Way("sdpa", compiled=True), Way("flash_attention_2", compiled=True)),
}


def make_objective(model: ModelConfig, data: DataConfig, dtype: str) -> PretrainingObjective:
    """The objective of pre-training with the special ids of `numbered_vocabulary`."""
    ids = range(len(SPECIAL_TOKENS))
    continuations = (False,) * model.vocab_size
    mask_id = SPECIAL_TOKENS.index("[MASK]")
    return PretrainingObjective(model, data, tuple(ids), mask_id, continuations, jnp.dtype(dtype))


class Ours:
    """The project's own step: masks, gradient, update; one compiled function that reuses its state's memory."""

    name = "bert_jax"

    def __init__(self, objective: PretrainingObjective, batches: list[Batch], theirs: list[Batch], start: Path) -> None:
        """Compiles the step.

        Args:
          objective: without dropout.
          batches: of one shape, before masking: a turn is a step on each.
          theirs: what the other side is to have, before masking.
          start: folder that gets the weights before the first step, as `transformers` reads them.
        """
        self.objective, self.batches = objective, batches
        config = TrainingConfig(total_steps=1, batch_size=len(batches[0]["input_ids"]), optimizer=OPTIMIZER)
        config = dataclasses.replace(config, schedule=ScheduleConfig(warmup=0))  # theirs has a constant rate
        optimizer = make_optimizer(config.optimizer)
        params = jax.jit(objective.init)(stream_key(0, "init"))
        model = objective.model
        huggingface.save(start, Pretrained(jax.device_get(params), model), numbered_vocabulary(model.vocab_size))
        prepared = [self._prepared(batch, step) for step, batch in enumerate(theirs)]
        self.facts = {"first_loss": self._sum(jax.jit(objective.metrics)(params, prepared[0], None))}
        self.facts["masked"] = prepared
        self.state = TrainState(jnp.int32(0), params, optimizer.init(params))
        step, begin = jax.jit(make_train_step(objective, optimizer, config), donate_argnums=0), time.perf_counter()
        self.compiled = step.lower(self.state, batches[0], TOTAL_STEPS).compile()
        self.facts["compile_seconds"] = time.perf_counter() - begin

    def turn(self) -> None:
        for batch in self.batches:
            self.step(batch)

    def step(self, batch: Batch) -> float:
        """One optimizer step; its loss."""
        self.state, metrics = self.compiled(self.state, batch, TOTAL_STEPS)
        return self._sum(metrics)

    def _sum(self, metrics: dict[str, Mean]) -> float:
        return sum(float(metrics[name].total / metrics[name].count) for name in self.objective.losses)

    def _prepared(self, batch: Batch, step: int) -> Batch:
        """The batch as that step masks it."""
        keys = row_keys(stream_key(0, "prepare", step), batch)
        return jax.device_get(jax.jit(functools.partial(self.objective.prepare, training=True))(batch, keys))


class Theirs:
    """What an expert writes with PyTorch and `transformers`: fused AdamW, autocast, no synchronisation but the loss."""

    def __init__(self, way: Way, dtype: str, start: Path, batches: list[Batch]) -> None:
        """Prepares the first step.

        Args:
          way: how it runs.
          dtype: of the products.
          start: folder with the weights.
          batches: masked: a turn is a step on each.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(f"{error.name} is needed to compare with: pip install torch transformers") from error
        self.way = way
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        self.device = "cuda" if on_gpu else "cpu"
        torch.set_float32_matmul_precision("highest")
        transformers.utils.logging.disable_progress_bar()
        network = transformers.BertForPreTraining.from_pretrained(start, attn_implementation=way.attention)
        self.network = network.to(self.device).train()
        if way.checkpointed:
            network.config.use_cache = False  # of a decoder: it would be told about
            network.activation_checkpointing_enable()
        self.optimizer = fused_adamw(network, OPTIMIZER)
        self.autocast = torch.autocast(self.device, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
        self.loss_of = torch.compile(self._loss) if way.compiled else self._loss
        self.batches = [self.arguments(batch) for batch in batches]
        begin = time.perf_counter()
        with self.autocast:
            self.facts = {"first_loss": self.loss_of(**self.batches[0]).item()}
        self.facts["first_seconds"] = time.perf_counter() - begin  # torch.compile compiles here, and at the first step

    def turn(self) -> None:
        for batch in self.batches:
            self.step(batch)

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """A masked batch as theirs takes it; rows without padding have no mask, which lets SDPA take its fast way."""
        import torch

        to = lambda array: torch.from_numpy(np.asarray(array, np.int64)).to(self.device)  # noqa: E731
        length = batch["input_ids"].shape[1]
        used, follows = batch["labels"] >= 0, batch["next_sentence_labels"][:, 0]
        found = {
            "input_ids": to(batch["input_ids"]),
            "token_type_ids": to(batch["token_type_ids"]),
            "attention_mask": None if batch["sequence_ids"].all() else to(batch["sequence_ids"] > 0),
            "next_sentence_labels": to(np.where(follows < 0, -100, follows)),  # a row may be left empty
        }
        rows = np.arange(len(used))[:, None] * length
        if self.way.positions == "masked":
            found["positions"], found["labels"] = to((rows + batch["positions"])[used]), to(batch["labels"][used])
        else:
            labels = np.full(batch["input_ids"].shape, -100, np.int64)
            labels.ravel()[(rows + batch["positions"])[used]] = batch["labels"][used]
            found["labels"] = to(labels)
        return found

    def step(self, arguments: dict[str, Any]) -> float:
        """One optimizer step; its loss."""
        import torch

        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.loss_of(**arguments)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), OPTIMIZER.clip_norm)
        self.optimizer.step()
        return loss.item()

    def _loss(self, labels: Any, next_sentence_labels: Any, positions: Any = None, **inputs: Any) -> Any:
        import torch

        if positions is None:
            return self.network(**inputs, labels=labels, next_sentence_label=next_sentence_labels).loss
        hidden, pooled = self.network.bert(**inputs, return_dict=False)[:2]
        chosen = hidden.reshape(-1, hidden.shape[-1])[positions]
        cross_entropy = torch.nn.functional.cross_entropy
        logits, next_sentence_logits = self.network.cls(chosen, pooled)
        return cross_entropy(logits.float(), labels) + cross_entropy(next_sentence_logits.float(), next_sentence_labels)
