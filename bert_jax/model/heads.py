"""What stands on the body: the heads of pre-training and fine-tuning (Devlin et al. 2018, sections 3.1, 3.2 and 4).

The classes bear the names of Hugging Face's and hold the same weights. Their `inputs` are the four int32 [B, L] arrays
of `Bert`: input_ids, token_type_ids, position_ids and sequence_ids.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.encoder import Bert
from bert_jax.model.layers import ACTIVATIONS, Dropout, dense, layer_norm


class MaskedLanguageModelHead(nn.Module):
    """Dense, activation, LayerNorm; then the tied word table and a bias per vocabulary entry."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.transform = dense(config, config.hidden_size, self.dtype, name=None)
        self.layer_norm = layer_norm(config, self.dtype, name=None)
        self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))

    def __call__(self, bert: Bert, hidden: jax.Array, positions: jax.Array) -> jax.Array:
        """Hidden states [B, L, D] of `bert` and int32 [B, P] -> logits float32 [B, P, V]: only P positions meet V."""
        batch, predicted = positions.shape
        chosen = jnp.take_along_axis(hidden, positions[:, :, None], axis=1).reshape(batch * predicted, -1)
        transformed = self.layer_norm(ACTIVATIONS[self.config.hidden_act](self.transform(chosen)))
        return (bert.embeddings.decode(transformed) + self.bias).reshape(batch, predicted, -1)


class BertForPreTraining(nn.Module):
    """Masked-LM and next-sentence head."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.masked_language_model = MaskedLanguageModelHead(self.config, self.dtype)
        self.next_sentence = dense(self.config, 2, jnp.float32, name=None)

    def __call__(
        self,
        *inputs: jax.Array,
        sequence_starts: jax.Array,
        masked_positions: jax.Array,
        deterministic: bool = True,
    ) -> tuple[jax.Array, jax.Array]:
        """Both heads at once.

        Args:
          inputs: four int32 [B, L].
          sequence_starts: int32 [B, K], the position of each sequence's [CLS].
          masked_positions: int32 [B, P].
          deterministic: no dropout.

        Returns:
          masked-LM logits float32 [B, P, V]; next-sentence logits float32 [B, K, 2], 0 for "is next", 1 for "random".
        """
        hidden = self.bert(*inputs, deterministic=deterministic, most=sequence_starts.shape[1])
        logits = self.masked_language_model(self.bert, hidden, masked_positions)
        return logits, self.next_sentence(self.bert.pool(hidden, sequence_starts))


class BertForMaskedLM(nn.Module):
    """Masked-LM head alone; no pooler."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.masked_language_model = MaskedLanguageModelHead(self.config, self.dtype)

    def __call__(self, *inputs: jax.Array, masked_positions: jax.Array, deterministic: bool = True) -> jax.Array:
        """Four int32 [B, L], and int32 [B, P] -> logits float32 [B, P, V]."""
        hidden = self.bert(*inputs, deterministic=deterministic, most=1)
        return self.masked_language_model(self.bert, hidden, masked_positions)


class BertForNextSentencePrediction(nn.Module):
    """Next-sentence head alone."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.next_sentence = dense(self.config, 2, jnp.float32, name=None)

    def __call__(self, *inputs: jax.Array, sequence_starts: jax.Array, deterministic: bool = True) -> jax.Array:
        """Four int32 [B, L], and int32 [B, K] -> logits float32 [B, K, 2], 0 for "is next", 1 for "random"."""
        hidden = self.bert(*inputs, deterministic=deterministic, most=sequence_starts.shape[1])
        return self.next_sentence(self.bert.pool(hidden, sequence_starts))


class BertForSequenceClassification(nn.Module):
    """A class, several classes, or a number (C = 1) for each sequence, from the pooled state."""

    config: ModelConfig
    labels: int  # C
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.dropout = _classifier_dropout(self.config)
        self.sequence_classification = dense(self.config, self.labels, jnp.float32, name=None)

    def __call__(self, *inputs: jax.Array, sequence_starts: jax.Array, deterministic: bool = True) -> jax.Array:
        """Four int32 [B, L], and int32 [B, K] -> logits float32 [B, K, C]."""
        hidden = self.bert(*inputs, deterministic=deterministic, most=sequence_starts.shape[1])
        pooled = self.dropout(self.bert.pool(hidden, sequence_starts), deterministic=deterministic)
        return self.sequence_classification(pooled)


class BertForMultipleChoice(nn.Module):
    """Which of C texts, from a score for the pooled state of each."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.dropout = _classifier_dropout(self.config)
        self.multiple_choice = dense(self.config, 1, jnp.float32, name=None)

    def __call__(self, *inputs: jax.Array, deterministic: bool = True) -> jax.Array:
        """Four int32 [B, C, L], a sequence each -> logits float32 [B, C]."""
        batch, choices, length = inputs[0].shape
        hidden = self.bert(*(array.reshape(-1, length) for array in inputs), deterministic=deterministic, most=1)
        pooled = self.bert.pool(hidden, jnp.zeros((batch * choices, 1), jnp.int32))
        scores = self.multiple_choice(self.dropout(pooled, deterministic=deterministic))
        return scores.reshape(batch, choices)


class BertForTokenClassification(nn.Module):
    """A class for each token; no pooler."""

    config: ModelConfig
    labels: int  # C
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.dropout = _classifier_dropout(self.config)
        self.token_classification = dense(self.config, self.labels, jnp.float32, name=None)

    def __call__(self, *inputs: jax.Array, deterministic: bool = True) -> jax.Array:
        """Four int32 [B, L] -> logits float32 [B, L, C]."""
        hidden = self.bert(*inputs, deterministic=deterministic, most=1)
        return self.token_classification(self.dropout(hidden, deterministic=deterministic))


class BertForQuestionAnswering(nn.Module):
    """Where the answer starts and ends; no pooler, and no dropout before the last layer.

    Padding has no part in the softmax over positions, so that the loss does not depend on how far a row was padded; in
    the original and in Hugging Face's class it has.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.bert = Bert(self.config, self.dtype)
        self.question_answering = dense(self.config, 2, jnp.float32, name=None)

    def __call__(self, *inputs: jax.Array, deterministic: bool = True) -> tuple[jax.Array, jax.Array]:
        """Four int32 [B, L] -> logits of the start and of the end, float32 [B, L] each; the least number at padding."""
        logits = self.question_answering(self.bert(*inputs, deterministic=deterministic, most=1))
        sequence_ids = inputs[3]
        logits = jnp.where(sequence_ids[:, :, None] > 0, logits, jnp.finfo(jnp.float32).min)
        return logits[..., 0], logits[..., 1]


def _classifier_dropout(config: ModelConfig) -> Dropout:
    rate = config.classifier_dropout
    return Dropout(config.hidden_dropout_prob if rate is None else rate)
