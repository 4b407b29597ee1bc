"""A model in the memory of the devices, and how it is run; the classes that build on this say what it answers."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import MeshConfig
from bert_jax.errors import UserError
from bert_jax.inference.rows import TextRow, row_batches
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.model.parameters import is_body_matrix, part_names
from bert_jax.model.quantization import quantize
from bert_jax.runtime.execution import Execution
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.forward import forward_of, put

DTYPES = ("float32", "bfloat16", "int8")  # the last: bfloat16 with matrices that are kept in eight bits

_SHOWN = 10  # labels in a model's repr

AnyAnswer = TypeVar("AnyAnswer")


class LoadedModel:
    """Holds tokenizer, config and parameters, and runs them.

    Attributes:
      config: the architecture.
      tokenizer: its vocabulary.
      params: on the devices.
      parts: what the model has besides the body: "pooler" and the heads.
      labels: names of the classes of a fine-tuned head; empty if it has none.
      problem_type: of a sequence classification, as transformers names it; empty if it is not known.
      settings: how a fine-tuned head was trained to read.
      dtype: the compute type.
      execution: where and in which type it computes.
    """

    def __init__(self, model: Pretrained, tokenizer: Tokenizer, dtype: str = "float32") -> None:
        """Brings the parameters to the devices.

        Args:
          model: as it was read.
          tokenizer: of the model.
          dtype: one of `DTYPES`.

        Raises:
          UserError: another dtype.
        """
        if dtype not in DTYPES:
            raise UserError(f"dtype={dtype!r} is not known: choose {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
        self.config = model.config
        self.execution = Execution.here("bfloat16" if dtype == "int8" else dtype, MeshConfig())
        self.dtype = self.execution.dtype
        self.tokenizer = tokenizer
        self.labels = model.labels
        self.problem_type = model.problem_type
        self.settings = model.settings
        self._loaded = model
        params = _without_padding(model.params, tokenizer)
        stored = quantize(params) if dtype == "int8" else _in_compute_type(params, self.execution.dtype)
        self.params = put(stored, self.execution.mesh)
        self.parts = part_names(model.params)

    def __repr__(self) -> str:
        config, entries = self.config, int(self.tokenizer.is_token.sum())
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self._loaded.params))
        parts = [
            f"{config.num_hidden_layers} layers of width {config.hidden_size} with {config.num_attention_heads} "
            f"attention heads, {parameters:,} parameters",
            f"{config.max_position_embeddings} tokens at most",
            f"{entries:,} vocabulary entries, {'lower-cased' if self.tokenizer.lower_case else 'cased'}",
            f"the body and {', '.join(sorted(self.parts))}" if self.parts else "the body only",
        ]
        if self.labels:
            more = f", and {len(self.labels) - _SHOWN} more" if len(self.labels) > _SHOWN else ""
            parts.append(f"labels {', '.join(self.labels[:_SHOWN])}{more}")
        return f"<bert_jax.Model: {'; '.join([*parts, self.dtype.name])}>"

    def need(self, part: str, purpose: str) -> None:
        """Raises UserError if the model has no such part, a head or the pooler."""
        if part not in self.parts:
            has = f"it has the body and {', '.join(sorted(self.parts))}" if self.parts else "it has the body only"
            raise UserError(f"{purpose} needs a model with {part}: {has}")

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model in Hugging Face layout; see `bert_jax.interop.huggingface.save`."""
        huggingface.save(directory, self._loaded, self.tokenizer)

    def _run(
        self,
        function: Callable[..., Any],
        module: Any,
        rows: Sequence[TextRow | UserError],
        batch_size: int,
        *,
        progress: Callable[[int], object] = lambda answered: None,
        targets: Sequence[int] | None = None,
        **settings: Any,
    ) -> Iterator[tuple[list[int], Any]]:
        """Yields, for each batch of the good rows, their indices and what a function of `compute` gives for them.

        Args:
          function: of `compute`.
          module: its network.
          rows: errors among them are passed over.
          batch_size: rows that run at once.
          progress: is called after each batch with the number of its rows.
          targets: a number for each row, that becomes `targets` of the batch.
          settings: of the function.
        """
        forward = forward_of(self.execution.mesh, function, module, **settings)
        batches = list(
            row_batches(
                rows, batch_size, self.tokenizer.pad_id, self.config.max_position_embeddings, self.execution.platform
            )
        )
        arrays = (arrays if targets is None else _with_targets(arrays, indices, targets) for indices, arrays in batches)
        for (indices, _), outputs in zip(batches, forward(self.params, arrays), strict=True):
            check_finite(jax.tree.map(lambda leaf, count=len(indices): leaf[:count], outputs))  # the rest is padding
            yield indices, outputs
            progress(len(indices))

    def fault_of_inputs(self, inputs: str) -> str:
        """Says why a fine-tuned head should not be asked about such inputs, or nothing if it can be; warns if unsure.

        Args:
          inputs: one of `config.finetuning.INPUTS`.
        """
        trained = self.settings.inputs
        if not trained and inputs in ("pairs", "both"):
            warnings.warn(
                "the model does not tell whether it was trained on pairs of texts: its answers about pairs mean "
                "something only if it was",
                stacklevel=2,
            )
        if trained in ("", "both", inputs) or not inputs:
            return ""
        if trained == "single":
            return "the model was trained on single texts, and this is a pair: give the text alone (a stray tab?)"
        return "the model was trained on pairs, and this is a single text: give it with its text_pair"

    def _fault_of_pair(self, is_pair: bool) -> str:
        """Says why two texts cannot be told apart, or nothing if they can."""
        if is_pair and self.config.type_vocab_size < 2:
            return f"type_vocab_size={self.config.type_vocab_size}: the model does not tell two texts apart"
        return ""


def check_finite(outputs: Any) -> None:
    """Raises UserError if there is a number among some arrays that is not finite: it would be no answer."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)):
        raise UserError(
            "the model computes numbers that are not finite: its weights are damaged, or too large for "
            "the compute type (dtype='float32' has the widest range)"
        )


def raised(answer: AnyAnswer | UserError) -> AnyAnswer:
    """Returns an answer, or raises the error that stands in its place."""
    if isinstance(answer, UserError):
        raise answer
    return answer


def _with_targets(arrays: dict[str, np.ndarray], indices: list[int], targets: Sequence[int]) -> dict[str, np.ndarray]:
    padded = np.zeros(len(arrays["lengths"]), np.int32)
    padded[: len(indices)] = [targets[index] for index in indices]
    return {**arrays, "targets": padded}


def _without_padding(params: dict, tokenizer: Tokenizer) -> dict:
    """Gives ids without a token, such as the padding of the word embeddings, no chance behind a [MASK]."""
    head = params.get("masked_language_model")
    if head is None:
        return params
    bias = np.full(head["bias"].shape, -np.inf, np.float32)
    bias[np.flatnonzero(tokenizer.is_token)] = np.asarray(head["bias"])[np.flatnonzero(tokenizer.is_token)]
    return {**params, "masked_language_model": {**head, "bias": bias}}


def _in_compute_type(params: dict, dtype: jnp.dtype) -> dict:
    """Keeps the matrices of the body in the type that multiplies them: no conversion at each call, the same answers."""

    def stored(path: tuple, leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(dtype, copy=False) if is_body_matrix(path) else leaf

    return jax.tree_util.tree_map_with_path(stored, params)
