"""The pre-trained heads of a loaded model: words behind a [MASK], pairs of sentences, how fluent a text is."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.errors import UserError
from bert_jax.inference import compute
from bert_jax.inference.loaded import LoadedModel, check_finite, raised
from bert_jax.inference.rows import fill_rows, filled, is_pair, is_text, listed, pair_rows, token_rows
from bert_jax.model.heads import BertForMaskedLM, BertForNextSentencePrediction
from bert_jax.tasks.rows import check_count


class Prediction(NamedTuple):
    """Holds one proposal for a [MASK]."""

    token: str  # as it stands in the vocabulary: "##ing" continues the word before it
    score: float  # its probability
    text: str  # the text with this [MASK] replaced, other masks left


class PseudoPerplexity(NamedTuple):
    """Holds the pseudo-perplexity of a text.

    That of several texts is the exp of the mean of ln(value), weighted by their tokens.
    """

    value: float
    tokens: int


class LanguageModel(LoadedModel):
    """Answers with the heads of pre-training."""

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Prediction]]:
        """Returns the `top_k` most probable tokens for each [MASK] in the text, best first.

        Raises:
          UserError: the text has no [MASK], or one lies beyond the longest input that the model takes.
        """
        if not isinstance(text, str):
            raise UserError("fill_mask takes one text; for a list of texts there is fill_mask_batch")
        return raised(self.fill_mask_batch([text], top_k)[0])

    def fill_mask_batch(
        self,
        texts: Iterable[str],
        top_k: int = 5,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[list[list[Prediction]] | UserError]:
        """Answers `fill_mask` for many texts, in their order; a text without an answer gives its error in its place.

        Args:
          texts: they are batched by length, whatever their order.
          top_k: proposals for each mask.
          batch_size: texts that run at once.
          progress: is called after each batch with the number of texts that it answered.

        Raises:
          UserError: the model has no head for it, or what is asked for is no list of texts.
        """
        self.need("masked_language_model", "fill_mask")
        texts = listed(texts, batch_size, is_text, "texts")
        check_count(top_k, "top_k", 1)
        rows = fill_rows(texts, self.tokenizer, self.config.max_position_embeddings)
        answers: list = list(rows)  # where a row is an error, that is the answer
        module = BertForMaskedLM(self.config, self.execution)
        count = min(top_k, int(self.tokenizer.is_token.sum()))
        outputs = self._run(compute.top_tokens, module, rows, batch_size, progress=progress, top_k=count)
        for indices, (scores, ids) in outputs:
            for number, index in enumerate(indices):
                answers[index] = [
                    self._proposals(texts[index], mask, scores[number, mask], ids[number, mask])
                    for mask in range(len(answers[index].masks))
                ]
        return answers

    def next_sentence(self, first: str, second: str) -> float:
        """Returns the probability that `second` follows `first`.

        A pair that is too long loses the end of its longer text.

        Raises:
          UserError: one of them is empty.
        """
        return raised(self.next_sentence_batch([(first, second)])[0])

    def next_sentence_batch(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[float | UserError]:
        """Answers `next_sentence` for many pairs, in their order; arguments and errors as in `fill_mask_batch`."""
        self.need("next_sentence", "next_sentence")
        pairs = listed(pairs, batch_size, is_pair, "pairs (first, second)")
        if fault := self._fault_of_pair(True):
            return [UserError(fault) for _ in pairs]
        rows = pair_rows(pairs, self.tokenizer, self.config.max_position_embeddings)
        answers: list = list(rows)
        module = BertForNextSentencePrediction(self.config, self.execution)
        outputs = self._run(compute.next_sentence_probability, module, rows, batch_size, progress=progress)
        for indices, probabilities in outputs:
            for number, index in enumerate(indices):
                answers[index] = float(probabilities[number])
        return answers

    def pseudo_perplexity(self, text: str) -> float:
        """Returns exp of the mean negative logarithm of each token's probability where it alone is hidden.

        The lower, the more fluent is the text (Salazar et al. 2020, equation 4).

        Raises:
          UserError: the text is empty, or longer than the model takes.
        """
        if not isinstance(text, str):
            raise UserError("pseudo_perplexity takes one text; for a list of texts there is pseudo_perplexity_batch")
        return raised(self.pseudo_perplexity_batch([text])[0]).value

    def pseudo_perplexity_batch(
        self,
        texts: Iterable[str],
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[PseudoPerplexity | UserError]:
        """Answers `pseudo_perplexity` for many texts, in their order; arguments and errors as in `fill_mask_batch`."""
        self.need("masked_language_model", "pseudo_perplexity")
        texts = listed(texts, batch_size, is_text, "texts")
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

    def _proposals(self, text: str, mask: int, scores: np.ndarray, ids: np.ndarray) -> list[Prediction]:
        tokens = [self.tokenizer.id_to_token(number) for number in ids]
        return [
            Prediction(token, float(score), filled(text, mask, token))
            for score, token in zip(scores, tokens, strict=True)
        ]

    def _score_tokens(self, ids: Sequence[int], batch_size: int) -> PseudoPerplexity:
        """Scores a text without [CLS] and [SEP]: each of its tokens is hidden in a row of its own."""
        rows = token_rows(ids, self.tokenizer)
        module = BertForMaskedLM(self.config, self.execution)
        total = 0.0
        for indices, logarithms in self._run(compute.log_probability, module, rows, batch_size, targets=ids):
            total += float(np.asarray(logarithms, np.float64)[: len(indices)].sum())
        value = float(np.exp(-total / len(ids)))  # infinite where it is beyond the range of a float
        check_finite(value)
        return PseudoPerplexity(value, len(ids))
