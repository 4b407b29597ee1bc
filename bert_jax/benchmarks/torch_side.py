"""PyTorch's sides: one for each kind of work, `transformers` at its best.

They have the weights and batches of the project's sides, update with AdamW, clip the gradient and compute in the same
type. Each kind of work has variants that an expert would try, and the best counts. Under torch.compile, transformers
5.17 gives rows without padding a mask, which shuts out flash attention; 5.23 does not.
"""

import dataclasses
import functools
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import OPTIMIZER, Batch
from bert_jax.config import OptimizerConfig, TrainingConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.text.tokenizer import Tokenizer


class TorchSide:
    """A side that computes by PyTorch, on the GPU where JAX does; `device` is PyTorch's name of it.

    Raises:
      UserError: PyTorch or transformers is not installed.
    """

    metadata: dict[str, Any]

    def __init__(self) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(f"{error.name} is needed to compare with: pip install torch transformers") from error
        self.torch: Any = torch
        self.transformers: Any = transformers
        self.device = "cuda" if harness.on_gpu() and torch.cuda.is_available() else "cpu"
        torch.set_float32_matmul_precision("highest")
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()  # it reports each head that the body does without

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def device_peak_bytes(self) -> int | None:
        """Returns the most memory that it has had of a GPU."""
        return self.torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def tensor(self, array: Any) -> Any:
        """Returns an array on the device, integers as int64."""
        array = np.asarray(array)
        array = array if np.issubdtype(array.dtype, np.floating) else array.astype(np.int64)
        return self.torch.from_numpy(array).to(self.device)


# ---- a training step -----------------------------------------------------------------------------


class TorchStep(TorchSide):
    """What an expert writes: fused AdamW that does not decay biases and LayerNorm, autocast, clipping, a schedule."""

    def start(self, architecture: str, folder: Path, attention: str, optimizer: OptimizerConfig, dtype: str) -> None:
        """Loads the network of that class of transformers, and makes its optimizer; `dtype`: of the products."""
        load = getattr(self.transformers, architecture).from_pretrained
        network = load(folder, attn_implementation=attention)
        self.network, self.config = network.to(self.device).train(), optimizer
        groups: dict[float, list] = {optimizer.weight_decay: [], 0.0: []}
        for name, parameter in self.network.named_parameters():
            exempt = name.endswith("bias") or "LayerNorm" in name
            groups[0.0 if exempt else optimizer.weight_decay].append(parameter)
        self.optimizer = self.torch.optim.AdamW(
            [dict(params=params, weight_decay=decay) for decay, params in groups.items()],
            lr=optimizer.learning_rate,
            betas=(optimizer.b1, optimizer.b2),
            eps=optimizer.eps,
            fused=True,
        )
        self.schedule: Any = None
        self.autocast = self.torch.autocast(self.device, self.torch.bfloat16, enabled=dtype == "bfloat16")
        self.loss_of: Callable[..., Any] = lambda **arguments: self.network(**arguments).loss

    def step(self, arguments: dict[str, Any]) -> Any:
        """Does one optimizer step and returns its loss, which nobody has waited for."""
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.loss_of(**arguments)
        loss.backward()
        if self.config.clip_norm:
            self.torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        return loss.detach()


@dataclasses.dataclass(frozen=True)
class StepVariant:
    """One way to run a pre-training step."""

    attention: str = "sdpa"  # as `transformers` names it
    positions: str = "masked"  # that get the vocabulary's logits: `masked`, as in bert_jax, or `all`, as in its class
    compiled: str = ""  # by torch.compile; its mode, such as `default`
    checkpointed: bool = False  # computes a layer's activations again in the backward pass

    @property
    def name(self) -> str:
        """Returns what the results call it."""
        compiled = {"": "", "default": ", compiled"}.get(self.compiled, f", compiled for {self.compiled}")
        checkpointed = ", checkpointed" if self.checkpointed else ""
        return f"PyTorch {self.attention}, logits at {self.positions}{compiled}{checkpointed}"


STEP_VARIANTS = {  # the most promising first: where time is short, the last are left out
    "cpu": (StepVariant("eager"), StepVariant(), StepVariant(compiled="default"), StepVariant(positions="all")),
    "gpu": (
        StepVariant("sdpa", compiled="default"),
        StepVariant("sdpa"),
        *(StepVariant(f"flash_attention_{version}", compiled=mode) for version in (2, 3) for mode in ("default", "")),
        StepVariant("sdpa", compiled="max-autotune-no-cudagraphs"),
        StepVariant("sdpa", "all"),
    ),
}


class TorchPretraining(TorchStep):
    """A pre-training step; nothing is waited for within a run, which is a step on each batch.

    Its metadata are the loss of the first step, and the seconds of all of it: torch.compile compiles there.
    """

    def __init__(
        self, variant: StepVariant, dtype: str, start: Path, batches: list[Batch], programs: Path | None = None
    ) -> None:
        """Does the first step from the weights in `start`, on masked batches; `programs` is torch.compile's cache."""
        if programs is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(programs)
        super().__init__()
        self.start("BertForPreTraining", start, variant.attention, OPTIMIZER, dtype)
        self.variant = variant
        if variant.checkpointed:
            self.network.config.use_cache = False  # of a decoder: it would warn of it
            self.network.activation_checkpointing_enable()
        self.loss_of = self.torch.compile(self._loss, mode=variant.compiled) if variant.compiled else self._loss
        self.batches = [self.arguments(batch) for batch in batches]
        begin = time.perf_counter()
        first_loss = self.step(self.batches[0]).item()
        self.metadata = {"first_loss": first_loss, "figures": {"first_seconds": time.perf_counter() - begin}}

    def run(self) -> None:
        """Does a step on each batch."""
        for batch in self.batches:
            self.step(batch)
        self.synchronize()

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """Returns a masked batch as it is taken; rows without padding have no mask, which lets SDPA run its fastest."""
        length = batch["input_ids"].shape[1]
        used, next_sentence = batch["labels"] >= 0, batch["next_sentence_labels"][:, 0]
        arguments = {
            "input_ids": self.tensor(batch["input_ids"]),
            "token_type_ids": self.tensor(batch["token_type_ids"]),
            "attention_mask": None if batch["sequence_ids"].all() else self.tensor(batch["sequence_ids"] > 0),
            "next_sentence_labels": self.tensor(np.where(next_sentence < 0, -100, next_sentence)),  # of empty rows
        }
        places = (np.arange(len(used))[:, None] * length + batch["positions"])[used]
        if self.variant.positions == "masked":
            return arguments | {"positions": self.tensor(places), "labels": self.tensor(batch["labels"][used])}
        labels = np.full(batch["input_ids"].shape, -100, np.int64)
        labels.ravel()[places] = batch["labels"][used]
        return arguments | {"labels": self.tensor(labels)}

    def _loss(self, labels: Any, next_sentence_labels: Any, positions: Any = None, **inputs: Any) -> Any:
        if positions is None:
            return self.network(**inputs, labels=labels, next_sentence_label=next_sentence_labels).loss
        hidden, pooled = self.network.bert(**inputs, return_dict=False)[:2]
        chosen = hidden.reshape(-1, hidden.shape[-1])[positions]
        cross_entropy = self.torch.nn.functional.cross_entropy
        logits, next_sentence_logits = self.network.cls(chosen, pooled)
        return cross_entropy(logits.float(), labels) + cross_entropy(next_sentence_logits.float(), next_sentence_labels)


class TorchFinetuning(TorchStep):
    """A fine-tuning step, as in a plain loop, in float32; and the forward pass without dropout."""

    compile_seconds = 0.0

    def __init__(
        self,
        start: Pretrained,
        tokenizer: Tokenizer,
        architecture: str,
        config: TrainingConfig,
        total_steps: int,
        attention: str,
    ) -> None:
        """Starts from the weights of `start`, by the class `architecture` of transformers, with `attention`."""
        super().__init__()
        self.torch.manual_seed(config.seed)
        with tempfile.TemporaryDirectory() as folder:
            huggingface.save(Path(folder) / "model", start, tokenizer)
            self.start(architecture, Path(folder) / "model", attention, config.optimizer, "float32")
        warmup = max(1.0, config.schedule.warmup * total_steps)
        decay = max(1, total_steps - warmup)
        self.schedule = self.torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1, (step + 1) / warmup) * min(1, max(0, total_steps - step) / decay)
        )

    def compile(self, batch: Batch) -> None:
        """Does nothing."""

    def train(self, batch: Batch) -> float:
        """Does one optimizer step and returns its loss."""
        return self.step(self._arguments(batch)).item()

    def loss(self, batch: Batch) -> float:
        """Returns the loss without dropout."""
        return self._outputs(batch).loss.item()

    def logits(self, batch: Batch) -> np.ndarray:
        """Returns the outputs without dropout."""
        return self._outputs(batch).logits.cpu().numpy()

    def _outputs(self, batch: Batch) -> Any:
        self.network.eval()
        with self.torch.no_grad():
            outputs = self.network(**self._arguments(batch))
        self.network.train()
        return outputs

    def _arguments(self, batch: Batch) -> dict[str, Any]:
        """Returns a batch under PyTorch's names; a label of -1 is -100 there."""
        labels = batch["labels"]
        labels = np.where(labels < 0, -100, labels) if np.issubdtype(labels.dtype, np.integer) else labels
        arrays = {"input_ids": batch["input_ids"], "token_type_ids": batch["token_type_ids"]}
        arrays |= {"attention_mask": batch["sequence_ids"], "labels": labels}
        return {name: self.tensor(array) for name, array in arrays.items()}


# ---- texts to vectors ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EmbeddingVariant:
    """One way to make vectors of texts."""

    attention: str = "sdpa"  # as `transformers` names it
    by_length: bool = True  # texts are sorted by length first, so that batches have next to no padding
    compiled: bool = False  # by torch.compile, for shapes of any length
    max_tokens: int = 0  # of a batch, padding included; 0: any number. On a CPU few are faster

    @property
    def name(self) -> str:
        """Returns what the results call it."""
        order = "by length" if self.by_length else "in their order"
        at_once = f", {self.max_tokens:,} tokens at once" if self.max_tokens else ""
        return f"PyTorch {self.attention}, texts {order}{at_once}" + (", compiled" if self.compiled else "")


class TorchEmbedding(TorchSide):
    """What an expert writes: fast tokenizer, batches padded to their longest, inference mode."""

    def __init__(self, variant: EmbeddingVariant, folder: Path, dtype: str, texts: list[str], batch_size: int) -> None:
        """Loads the model in `folder`, and makes the vectors once."""
        super().__init__()
        self.variant, self.texts, self.batch_size = variant, texts, batch_size
        self.tokenizer = self.transformers.AutoTokenizer.from_pretrained(folder)
        network = self.transformers.BertModel.from_pretrained(folder, attn_implementation=variant.attention)
        self.longest = network.config.max_position_embeddings
        self.network = network.to(self.device, getattr(self.torch, dtype)).eval()
        self.forward = self.torch.compile(self.network, dynamic=True) if variant.compiled else self.network
        begin = time.perf_counter()
        self.metadata = {"vectors": self.run(), "figures": {"first_seconds": time.perf_counter() - begin}}

    def run(self) -> np.ndarray:
        """Returns the vectors of all texts."""
        ids = self.tokenizer(self.texts, truncation=True, max_length=self.longest)["input_ids"]
        order = list(range(len(ids)))
        if self.variant.by_length:
            order.sort(key=lambda number: -len(ids[number]))
        vectors = np.zeros((len(ids), self.network.config.hidden_size), np.float32)
        with self.torch.inference_mode():
            while order:
                limit = self.variant.max_tokens // len(ids[order[0]]) or 1
                rows = min(limit, self.batch_size) if self.variant.max_tokens else self.batch_size
                chosen, order = order[:rows], order[rows:]
                inputs = self.tokenizer.pad({"input_ids": [ids[number] for number in chosen]}, return_tensors="pt")
                mask = inputs["attention_mask"].to(self.device)
                hidden = self.forward(inputs["input_ids"].to(self.device), attention_mask=mask).last_hidden_state
                pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
                vectors[chosen] = pooled.float().cpu().numpy()
        return vectors


# ---- attention alone -----------------------------------------------------------------------------

BACKENDS = {"cpu": ("flash", "math"), "gpu": ("flash", "efficient", "cudnn")}  # of scaled_dot_product_attention


class TorchAttention(TorchSide):
    """`scaled_dot_product_attention` by one of its backends; without padding it has no mask, so that it runs fastest.

    A run is `calls` calls on one case of `bert_jax.benchmarks.suites.attention`. Its metadata are the results of each
    case, or why it cannot do it.
    """

    def __init__(self, backend: str, dtype: str, cases: list[Any], calls: int) -> None:
        """Runs each case once."""
        super().__init__()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        self.dtype, self.calls = getattr(self.torch, dtype), calls
        name = {"math": "MATH"}.get(backend, f"{backend.upper()}_ATTENTION")
        self.backend = functools.partial(sdpa_kernel, getattr(SDPBackend, name))
        self.work: dict[str, Callable[[], list[Any]]] = {}
        self.metadata = {"results": {}, "left_out": {}, "programs": {}}
        with self.backend(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of why a backend cannot do a case; the error says it too
            for case in cases:
                try:
                    self.work[case.name] = self.prepare(case)
                    results = [each[case.checked].detach().float().cpu().numpy() for each in self.work[case.name]()]
                    self.metadata["results"][case.name] = results
                except RuntimeError as error:  # a backend that cannot do it, or not enough memory
                    self.metadata["left_out"][case.name] = str(error)

    def run(self, name: str) -> None:
        """Calls the function on the case of this name."""
        with self.backend():
            for _ in range(self.calls):
                self.work[name]()
        self.synchronize()

    def prepare(self, case: Any) -> Callable[[], list[Any]]:
        """Returns what gives the output; and with a gradient those of query, key and value."""
        torch = self.torch
        attend = torch.nn.functional.scaled_dot_product_attention
        *inputs, gradient = (self.tensor(array).to(self.dtype) for array in case.arrays())
        for each in inputs:
            each.requires_grad_(case.gradient)
        ids = self.tensor(case.sequence_ids)
        masks = {"padded": (ids > 0)[:, None, None], "packed": (ids[:, :, None] == ids[:, None, :])[:, None]}
        mask = masks.get(case.filling)

        def run() -> list[Any]:
            heads_first = (each.transpose(1, 2) for each in inputs)
            output = attend(*heads_first, attn_mask=mask).transpose(1, 2).contiguous()
            return [output, *(torch.autograd.grad(output, inputs, gradient) if case.gradient else ())]

        return run
