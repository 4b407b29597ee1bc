"""The other side of the comparisons of a pre-training step: `transformers` in PyTorch at its best.

It has the weights and masked batches of ours, updates with AdamW, clips the gradient and computes in the same type. It
is tried in each way that an expert would try (`Way`), and the fastest counts. Under torch.compile, transformers 5.17
gives rows without padding a mask, which shuts out flash attention; 5.23 does not.
"""

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.benchmarks.finetuning_sides import fused_adamw
from bert_jax.benchmarks.our_step import OPTIMIZER, Batch
from bert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run theirs.

    Attributes:
      attention: as `transformers` names it.
      positions: where it computes the vocabulary's logits: `masked`, as ours does, or `all`, as its class does.
      compiled: by torch.compile; its mode, such as `default`.
      checkpointed: computes the activations of a layer again in the backward pass (gradient checkpointing).
    """

    attention: str = "sdpa"
    positions: str = "masked"
    compiled: str = ""
    checkpointed: bool = False

    @property
    def name(self) -> str:
        ways = {"": "", "default": ", compiled"}.get(self.compiled, f", compiled for {self.compiled}")
        return f"PyTorch {self.attention}, logits at {self.positions}{ways}{', checkpointed' * self.checkpointed}"


WAYS = {
    "cpu": (Way("eager"), Way("sdpa"), Way("sdpa", compiled="default"), Way("sdpa", "all")),
    "gpu": (
        Way("sdpa"),
        Way("sdpa", compiled="default"),
        Way("sdpa", compiled="max-autotune-no-cudagraphs"),
        *(Way(f"flash_attention_{version}", compiled=mode) for version in (2, 3) for mode in ("", "default")),
        Way("sdpa", "all"),
    ),
}


class Theirs:
    """What an expert writes with PyTorch and `transformers`: fused AdamW, autocast, no synchronisation within a turn.

    Its facts are the loss of the first step, and the seconds of all of it: torch.compile compiles there.
    """

    def __init__(self, way: Way, dtype: str, start: Path, batches: list[Batch], programs: Path | None = None) -> None:
        """Does the first step.

        Args:
          way: how it runs.
          dtype: of the products.
          start: folder with the weights.
          batches: masked: a turn is a step on each.
          programs: folder of torch.compile's cache; None: the usual one.
        """
        if programs is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(programs)
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
        self.loss_of = torch.compile(self._loss, mode=way.compiled) if way.compiled else self._loss
        self.batches = [self.arguments(batch) for batch in batches]
        begin = time.perf_counter()
        first_loss = self.step(self.batches[0]).item()
        self.facts = {"first_loss": first_loss, "first_step": {"step": time.perf_counter() - begin}}

    def turn(self) -> None:
        import torch

        for batch in self.batches:
            self.step(batch)
        if self.device == "cuda":
            torch.cuda.synchronize()

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

    def step(self, arguments: dict[str, Any]) -> Any:
        """One optimizer step; its loss, which nobody has waited for."""
        import torch

        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.loss_of(**arguments)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), OPTIMIZER.clip_norm)
        self.optimizer.step()
        return loss.detach()

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has had of a GPU."""
        import torch

        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def _loss(self, labels: Any, next_sentence_labels: Any, positions: Any = None, **inputs: Any) -> Any:
        import torch

        if positions is None:
            return self.network(**inputs, labels=labels, next_sentence_label=next_sentence_labels).loss
        hidden, pooled = self.network.bert(**inputs, return_dict=False)[:2]
        chosen = hidden.reshape(-1, hidden.shape[-1])[positions]
        cross_entropy = torch.nn.functional.cross_entropy
        logits, next_sentence_logits = self.network.cls(chosen, pooled)
        return cross_entropy(logits.float(), labels) + cross_entropy(next_sentence_logits.float(), next_sentence_labels)
