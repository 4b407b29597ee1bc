"""Defines the task of pre-training: masked language model plus next sentence (Devlin et al. 2018, section 3.1)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import DataConfig, ModelConfig
from bert_jax.model.depths import layer_depths
from bert_jax.model.heads import BertForPreTraining
from bert_jax.model.inputs import Inputs
from bert_jax.pretraining.masking import choose_positions, hide_tokens
from bert_jax.runtime.execution import Execution
from bert_jax.training.losses import accuracy, cross_entropy
from bert_jax.training.objective import Batch, Mean, Objective, Parameters

EVALUATION_MASK_RATE = 0.15


@dataclasses.dataclass(frozen=True)
class PretrainingObjective(Objective):
    """Masks, runs the model, and sums the losses.

    Attributes:
      model: the architecture.
      data: the keys by which rows were made; `mask_rate`, `whole_word` and `objective` act here.
      special_ids: the ids that are never masked.
      mask_id: the id of [MASK].
      continuations: whether each vocabulary entry continues a word ("##").
      execution: the devices and the type of the computation.
    """

    model: ModelConfig
    data: DataConfig
    special_ids: tuple[int, ...]
    mask_id: int
    continuations: tuple[bool, ...]
    execution: Execution = Execution()

    @property
    def losses(self) -> tuple[str, ...]:
        """Names the means whose sum is trained on."""
        return ("mlm_loss",) if self.data.objective == "none" else ("mlm_loss", "nsp_loss")

    def init(self, key: jax.Array) -> Parameters:
        """Draws parameters as BERT does, float32."""
        ids = jnp.zeros((1, 8), jnp.int32)
        inputs, first = Inputs(ids, ids, ids, ids), ids[:, :1]
        network = BertForPreTraining(self.model)
        return network.init(key, inputs, sequence_starts=first, masked_positions=first)["params"]

    def prepare(self, batch: Batch, keys: jax.Array, *, training: bool) -> Batch:
        """Masks rows of `PretrainingBatches`, and adds `positions`, `labels` and `sequence_starts`.

        Evaluation masks as the paper does whatever the run does, so that the losses of all runs compare.

        Args:
          batch: the arrays of `PretrainingBatches`, int32 [B, L] and [B, K].
          keys: a key for each row [B].
          training: whether to mask by the config; otherwise single tokens are masked, by `EVALUATION_MASK_RATE`.

        Returns:
          The batch's own arrays and:
          positions, labels: int32 [B, P]; label -1 where the slot is not used.
          sequence_starts: int32 [B, K]; 0 where the row has fewer sequences.
        """
        ids, sequence_ids = batch["input_ids"], batch["sequence_ids"]
        sequences = batch["next_sentence_labels"].shape[1]
        mask_rate = self.data.mask_rate if training else EVALUATION_MASK_RATE
        whole_word = self.data.whole_word and training

        def mask(key: jax.Array, ids: jax.Array, sequence_ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            position_key, token_key = jax.random.split(key)
            candidates = (sequence_ids > 0) & ~jnp.isin(ids, jnp.array(self.special_ids))
            continuations = jnp.array(self.continuations)[ids] if whole_word else None
            positions, used = choose_positions(
                position_key, sequence_ids, candidates, continuations, mask_rate=mask_rate, sequences=sequences
            )
            hidden = hide_tokens(
                token_key, ids, positions, used, mask_id=self.mask_id, vocab_size=self.model.vocab_size
            )
            return hidden, positions, jnp.where(used, ids[positions], -1)

        hidden, positions, labels = jax.vmap(mask)(keys, ids, sequence_ids)
        numbers = jnp.arange(1, sequences + 1)
        starts = jnp.argmax(sequence_ids[:, None, :] == numbers[:, None], axis=-1)  # [B, K, L] -> [B, K]
        return {**batch, "input_ids": hidden, "positions": positions, "labels": labels, "sequence_starts": starts}

    def metrics(self, params: Parameters, batch: Batch, dropout_key: jax.Array | None) -> dict[str, Mean]:
        """Returns sums and counts of loss and accuracy over the used positions and the labelled sequences."""
        logits, next_sentence_logits = BertForPreTraining(self.model, self.execution).apply(
            {"params": params},
            Inputs.of_batch(batch),
            sequence_starts=batch["sequence_starts"],
            masked_positions=batch["positions"],
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        scored = {"mlm": (logits, batch["labels"])}
        if self.data.objective != "none":
            scored["nsp"] = next_sentence_logits, batch["next_sentence_labels"]
        losses = {f"{name}_loss": cross_entropy(*pair) for name, pair in scored.items()}
        return losses | {f"{name}_accuracy": accuracy(*pair) for name, pair in scored.items()}

    def derived(self, means: dict[str, float]) -> dict[str, float]:
        """Returns the perplexity of the masked language model."""
        return {"mlm_perplexity": math.exp(min(means["mlm_loss"], 700.0))}

    def layer_depths(self, params: Parameters) -> Any:
        """Returns the depth of each parameter."""
        return layer_depths(params)
