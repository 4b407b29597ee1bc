"""Defines the heads of pre-training and fine-tuning, on the body (Devlin et al. 2018, sections 3.1, 3.2 and 4).

The classes bear the names of Hugging Face's and hold the same weights.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from bert_jax.config import ModelConfig
from bert_jax.model.encoder import Bert
from bert_jax.model.inputs import Inputs
from bert_jax.model.layers import ACTIVATIONS, Dropout, dense, layer_norm
from bert_jax.runtime.execution import Execution


class MaskedLanguageModelHead(nn.Module):
    """Applies dense, activation and LayerNorm; then the tied word table and a bias for each vocabulary entry."""

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        config = self.config
        self.transform = dense(config, config.hidden_size, self.execution)
        self.layer_norm = layer_norm(config, self.execution.dtype, name=None)
        self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))

    def __call__(
        self, bert: Bert, hidden: Float[Array, "B L D"], positions: Int[Array, "B P"]
    ) -> Float32[Array, "B P V"]:
        """Returns logits float32 [B, P, V] of `hidden` [B, L, D] at int32 [B, P]: only P positions meet V."""
        batch, predicted = positions.shape
        chosen = jnp.take_along_axis(hidden, positions[:, :, None], axis=1).reshape(batch * predicted, -1)
        transformed = self.layer_norm(ACTIVATIONS[self.config.hidden_act](self.transform(chosen)))
        return (bert.embeddings.decode(transformed) + self.bias).reshape(batch, predicted, -1)


class BertForPreTraining(nn.Module):
    """Applies the masked-LM and the next-sentence head."""

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.masked_language_model = MaskedLanguageModelHead(self.config, self.execution)
        self.next_sentence = dense(self.config, 2, self.execution, dtype=jnp.float32)

    def __call__(
        self,
        inputs: Inputs,
        *,
        sequence_starts: Int[Array, "B K"],
        masked_positions: Int[Array, "B P"],
        deterministic: bool = True,
    ) -> tuple[Float32[Array, "B P V"], Float32[Array, "B K 2"]]:
        """Applies both heads.

        Args:
          inputs: the rows of a batch, int32 [B, L] each.
          sequence_starts: the position of each sequence's [CLS], int32 [B, K].
          masked_positions: the positions to predict, int32 [B, P].
          deterministic: whether there is no dropout.

        Returns:
          Masked-LM logits float32 [B, P, V]; next-sentence logits float32 [B, K, 2], 0 for "is next", 1 for "random".
        """
        hidden = self.bert(inputs, deterministic=deterministic, max_sequences=sequence_starts.shape[1])
        logits = self.masked_language_model(self.bert, hidden, masked_positions)
        return logits, self.next_sentence(self.bert.pool(hidden, sequence_starts))


class BertForMaskedLM(nn.Module):
    """Applies the masked-LM head alone, and has no pooler."""

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.masked_language_model = MaskedLanguageModelHead(self.config, self.execution)

    def __call__(
        self, inputs: Inputs, *, masked_positions: Int[Array, "B P"], deterministic: bool = True
    ) -> Float32[Array, "B P V"]:
        """Returns logits float32 [B, P, V] at the positions int32 [B, P]."""
        hidden = self.bert(inputs, deterministic=deterministic, max_sequences=1)
        return self.masked_language_model(self.bert, hidden, masked_positions)


class BertForNextSentencePrediction(nn.Module):
    """Applies the next-sentence head alone."""

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.next_sentence = dense(self.config, 2, self.execution, dtype=jnp.float32)

    def __call__(
        self, inputs: Inputs, *, sequence_starts: Int[Array, "B K"], deterministic: bool = True
    ) -> Float32[Array, "B K 2"]:
        """Returns logits float32 [B, K, 2], 0 for "is next", 1 for "random"; `sequence_starts` is int32 [B, K]."""
        hidden = self.bert(inputs, deterministic=deterministic, max_sequences=sequence_starts.shape[1])
        return self.next_sentence(self.bert.pool(hidden, sequence_starts))


class BertForSequenceClassification(nn.Module):
    """Gives a class, several classes, or a number (C = 1) for each sequence, from its pooled state."""

    config: ModelConfig
    labels: int  # C
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.dropout = _classifier_dropout(self.config)
        self.sequence_classification = dense(self.config, self.labels, self.execution, dtype=jnp.float32)

    def __call__(
        self, inputs: Inputs, *, sequence_starts: Int[Array, "B K"], deterministic: bool = True
    ) -> Float32[Array, "B K C"]:
        """Returns logits float32 [B, K, C]; `sequence_starts` is int32 [B, K]."""
        hidden = self.bert(inputs, deterministic=deterministic, max_sequences=sequence_starts.shape[1])
        pooled = self.dropout(self.bert.pool(hidden, sequence_starts), deterministic=deterministic)
        return self.sequence_classification(pooled)


class BertForMultipleChoice(nn.Module):
    """Chooses one of C texts, by a score for the pooled state of each."""

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.dropout = _classifier_dropout(self.config)
        self.multiple_choice = dense(self.config, 1, self.execution, dtype=jnp.float32)

    def __call__(self, inputs: Inputs, *, deterministic: bool = True) -> Float32[Array, "B C"]:
        """Returns logits float32 [B, C] of `inputs` int32 [B, C, L], a sequence in each row."""
        batch, choices, length = inputs.input_ids.shape
        rows = inputs.map(lambda array: array.reshape(-1, length))
        hidden = self.bert(rows, deterministic=deterministic, max_sequences=1)
        pooled = self.bert.pool(hidden, jnp.zeros((batch * choices, 1), jnp.int32))
        scores = self.multiple_choice(self.dropout(pooled, deterministic=deterministic))
        return scores.reshape(batch, choices)


class BertForTokenClassification(nn.Module):
    """Gives a class for each token; has no pooler."""

    config: ModelConfig
    labels: int  # C
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.dropout = _classifier_dropout(self.config)
        self.token_classification = dense(self.config, self.labels, self.execution, dtype=jnp.float32)

    def __call__(self, inputs: Inputs, *, deterministic: bool = True) -> Float32[Array, "B L C"]:
        """Returns logits float32 [B, L, C]."""
        hidden = self.bert(inputs, deterministic=deterministic, max_sequences=1)
        return self.token_classification(self.dropout(hidden, deterministic=deterministic))


class BertForQuestionAnswering(nn.Module):
    """Finds where the answer starts and ends; has no pooler, and no dropout before the last layer.

    Padding has no part in the softmax over positions, so that the loss does not depend on how far a row was padded; in
    the original and in Hugging Face's class it has.
    """

    config: ModelConfig
    execution: Execution = Execution()

    def setup(self) -> None:
        self.bert = Bert(self.config, self.execution)
        self.question_answering = dense(self.config, 2, self.execution, dtype=jnp.float32)

    def __call__(
        self, inputs: Inputs, *, deterministic: bool = True
    ) -> tuple[Float32[Array, "B L"], Float32[Array, "B L"]]:
        """Returns logits of start and end, float32 [B, L] each; at padding the least number."""
        logits = self.question_answering(self.bert(inputs, deterministic=deterministic, max_sequences=1))
        logits = jnp.where(inputs.sequence_ids[:, :, None] > 0, logits, jnp.finfo(jnp.float32).min)
        return logits[..., 0], logits[..., 1]


def _classifier_dropout(config: ModelConfig) -> Dropout:
    rate = config.classifier_dropout
    return Dropout(config.hidden_dropout_prob if rate is None else rate)
