"""A loaded model with its pre-trained heads: words behind a [MASK], pairs of sentences, how fluent a text is."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.errors import UserError
from bert_jax.inference import compute
from bert_jax.inference.rows import check_items, fill_rows, filled, is_pair, pair_rows, row_batches, token_rows
from bert_jax.interop.layout import Pretrained
from bert_jax.model.heads import BertForMaskedLM, BertForNextSentencePrediction
from bert_jax.model.parameters import is_body_matrix, part_names
from bert_jax.model.quantization import quantize
from bert_jax.runtime.execution import Execution
from bert_jax.text.tokenizer import Tokenizer

DTYPES = ("float32", "bfloat16", "int8")  # the last: bfloat16 with matrices that are kept in eight bits


class Prediction(NamedTuple):
    """One proposal for a [MASK]."""

    token: str  # as it stands in the vocabulary: "##ing" continues the word before it
    score: float  # its probability
    text: str  # the text with this [MASK] replaced, other masks left


class PseudoPerplexity(NamedTuple):
    """Of a text; over several texts it is the exp of the mean of ln(value), weighted by their tokens."""

    value: float
    tokens: int


class LanguageModel:
    """Tokenizer, config and parameters; inference on the default device."""

    def __init__(self, model: Pretrained, tokenizer: Tokenizer, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise UserError(f"dtype={dtype!r} is not known: choose {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
        self.config, self.execution = model.config, Execution.here("bfloat16" if dtype == "int8" else dtype)
        self.dtype = self.execution.dtype
        self.tokenizer = tokenizer
        self.labels = model.labels
        self.problem_type = model.problem_type
        self.settings = model.settings
        self._loaded = model
        self.params = jax.device_put(quantize(model.params) if dtype == "int8" else _stored(model.params, self.dtype))
        self.parts = part_names(model.params)  # what it has besides the body: "pooler" and the heads
        self._batches = functools.partial(
            row_batches,
            pad_id=tokenizer.pad_id,
            max_length=model.config.max_position_embeddings,
            platform=self.execution.platform,
        )
        masked_lm = BertForMaskedLM(model.config, self.execution)
        next_sentence = BertForNextSentencePrediction(model.config, self.execution)
        self._fill = jax.jit(functools.partial(compute.fill, masked_lm), static_argnames="top_k")
        self._log_probability = jax.jit(functools.partial(compute.log_probability, masked_lm))
        self._follow = jax.jit(functools.partial(compute.follow, next_sentence))

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Prediction]]:
        """The `top_k` most probable tokens for each [MASK] in the text, best first.

        Raises:
          UserError: the text has no [MASK], or one lies beyond the longest input that the model takes.
        """
        if not isinstance(text, str):
            raise UserError("fill_mask takes one text; for a list of texts there is fill_mask_batch")
        return _raised(self.fill_mask_batch([text], top_k)[0])

    def next_sentence(self, first: str, second: str) -> float:
        """The probability that `second` follows `first`. A pair that is too long loses the end of its longer text.

        Raises:
          UserError: one of them is empty.
        """
        return _raised(self.next_sentence_batch([(first, second)])[0])

    def fill_mask_batch(
        self,
        texts: Sequence[str],
        top_k: int = 5,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[list[list[Prediction]] | UserError]:
        """`fill_mask` of many texts, in their order; a text that has no answer gives its error in its place.

        Args:
          texts: they are batched by length, whatever their order.
          top_k: proposals for each mask.
          batch_size: texts that run at once.
          progress: told after each batch how many texts it answered.
        """
        self.need("masked_language_model", "fill_mask")
        check_items(texts, batch_size, lambda text: isinstance(text, str), "texts")
        if top_k < 1:
            raise UserError(f"top_k={top_k}: ask for at least 1")
        rows = fill_rows(texts, self.tokenizer, self.config.max_position_embeddings)
        answers: list = list(rows)  # where a row is an error, that is the answer
        for indices, inputs, masked in self._batches(rows, batch_size):
            found = self._fill(self.params, *inputs, masked, top_k=min(top_k, self.config.vocab_size))
            scores, ids = map(np.asarray, found)
            for number, index in enumerate(indices):
                answers[index] = [
                    self._proposals(texts[index], mask, scores[number, mask], ids[number, mask])
                    for mask in range(len(rows[index].masks))
                ]
            progress(len(indices))
        return answers

    def next_sentence_batch(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[float | UserError]:
        """`next_sentence` of many pairs, in their order; a pair that has no answer gives its error in its place."""
        self.need("next_sentence", "next_sentence")
        check_items(pairs, batch_size, is_pair, "pairs (first, second)")
        self._check_token_types(pairs)
        rows = pair_rows(pairs, self.tokenizer, self.config.max_position_embeddings)
        answers: list = list(rows)
        for indices, inputs, _ in self._batches(rows, batch_size):
            probabilities = np.asarray(self._follow(self.params, *inputs))
            for number, index in enumerate(indices):
                answers[index] = float(probabilities[number])
            progress(len(indices))
        return answers

    def pseudo_perplexity(self, text: str) -> float:
        """exp of the mean negative logarithm of each token's probability where it alone is hidden; the lower, the more
        fluent (Salazar et al. 2020, equation 4).

        Raises:
          UserError: the text is empty, or longer than the model takes.
        """
        if not isinstance(text, str):
            raise UserError("pseudo_perplexity takes one text; for a list of texts there is pseudo_perplexity_batch")
        return _raised(self.pseudo_perplexity_batch([text])[0]).value

    def pseudo_perplexity_batch(
        self,
        texts: Sequence[str],
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[PseudoPerplexity | UserError]:
        """`pseudo_perplexity` of many texts, in their order; a text that has none gives its error in its place."""
        self.need("masked_language_model", "pseudo_perplexity")
        check_items(texts, batch_size, lambda text: isinstance(text, str), "texts")
        room = self.config.max_position_embeddings - 2
        answers: list[PseudoPerplexity | UserError] = []
        for ids in self.tokenizer.encode_batch(texts):
            if not ids:
                answers.append(UserError("the text is empty"))
            elif len(ids) > room:
                answers.append(UserError(f"the text has {len(ids)} tokens, the model reads {room}: shorten the text"))
            else:
                answers.append(self._score_tokens(ids, batch_size))
            progress(1)
        return answers

    def need(self, part: str, purpose: str) -> None:
        """Raises UserError if the model has no such part, a head or the pooler."""
        if part not in self.parts:
            has = f"it has the body and {', '.join(sorted(self.parts))}" if self.parts else "it has the body only"
            raise UserError(f"{purpose} needs a model with {part}: {has}")

    def _proposals(self, text: str, mask: int, scores: np.ndarray, ids: np.ndarray) -> list[Prediction]:
        tokens = [self.tokenizer.id_to_token(number) for number in ids]
        return [
            Prediction(token, float(score), filled(text, mask, token))
            for score, token in zip(scores, tokens, strict=True)
        ]

    def _score_tokens(self, ids: Sequence[int], batch_size: int) -> PseudoPerplexity:
        """Of a text without [CLS] and [SEP]: each of its tokens is hidden in a row of its own."""
        rows = token_rows(ids, self.tokenizer)
        total = 0.0
        for indices, inputs, masked in self._batches(rows, batch_size):
            targets = np.zeros(len(masked), np.int32)
            targets[: len(indices)] = [ids[index] for index in indices]
            found = self._log_probability(self.params, *inputs, masked, targets)
            total += float(np.asarray(found, np.float64)[: len(indices)].sum())
        return PseudoPerplexity(math.exp(-total / len(ids)), len(ids))

    def _check_token_types(self, texts: Sequence[str | tuple[str, str]]) -> None:
        if self.config.type_vocab_size < 2 and not all(isinstance(text, str) for text in texts):
            raise UserError(f"type_vocab_size={self.config.type_vocab_size}: the model does not tell two texts apart")


def _raised(answer: Any) -> Any:
    if isinstance(answer, UserError):
        raise answer
    return answer


def _stored(params: dict, dtype: jnp.dtype) -> dict:
    """The matrices of the body in the type that multiplies them: no conversion at each call, and the same answers."""

    def stored(path: tuple, leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(dtype, copy=False) if is_body_matrix(path) else leaf

    return jax.tree_util.tree_map_with_path(stored, params)
