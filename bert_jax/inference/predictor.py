"""A loaded model that answers: masked words, sentence pairs, vectors, classes, tags, answers, fluency."""

import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.errors import UserError
from bert_jax.finetuning.batches import evaluation_batches
from bert_jax.finetuning.evaluation import forward
from bert_jax.finetuning.examples import AnsweringExample, Example, TaggingExample, TextExample
from bert_jax.finetuning.features import check_max_length
from bert_jax.finetuning.objective import FinetuningObjective
from bert_jax.finetuning.reading import Class, Classes, Number, Reading, Reply
from bert_jax.finetuning.reading import Prediction as TaskPrediction
from bert_jax.inference import compute
from bert_jax.inference.rows import (
    Row,
    check_items,
    fill_rows,
    filled,
    is_pair,
    is_text_or_pair,
    is_text_or_words,
    pair_rows,
    row_batches,
    token_rows,
)
from bert_jax.inference.tagging import Tagging, tagging_of, words_of
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained, parts_of
from bert_jax.model.encoder import Bert
from bert_jax.model.heads import BertForMaskedLM, BertForNextSentencePrediction
from bert_jax.text.tokenizer import Tokenizer

LONGEST = {"answering": 384}  # tokens of a row by default, where it is not all that the model takes
POOLINGS = ("mean", "cls", "pooler")


class Prediction(NamedTuple):
    """One proposal for a [MASK]."""

    token: str  # as it stands in the vocabulary: "##ing" continues the word before it
    score: float  # its probability
    text: str  # the text with this [MASK] replaced, other masks left


class States(NamedTuple):
    """What the encoder makes of some texts, in their order; L is the longest of them."""

    hidden: np.ndarray  # float32 [B, L, D], of the last layer
    pooled: np.ndarray | None  # float32 [B, D]; None if the model has no pooler
    attention_mask: np.ndarray  # int32 [B, L], 1 where a token is


class PseudoPerplexity(NamedTuple):
    """Of a text; over several texts it is the exp of the mean of ln(value), weighted by their tokens."""

    value: float
    tokens: int


class Model:
    """Tokenizer, config and parameters; inference in float32 on the default device."""

    def __init__(self, model: Pretrained, tokenizer: Tokenizer) -> None:
        self.config = model.config
        self.tokenizer = tokenizer
        self.labels = model.labels
        self.problem_type = model.problem_type
        self.params = jax.device_put(model.params)
        self.parts = parts_of(model.params)  # what it has besides the body: "pooler" and the heads
        self.settings = model.settings
        self._batches = functools.partial(
            row_batches, pad_id=tokenizer.pad_id, max_length=model.config.max_position_embeddings
        )
        self._fill = jax.jit(functools.partial(compute.fill, BertForMaskedLM(model.config)), static_argnames="top_k")
        self._log_probability = jax.jit(functools.partial(compute.log_probability, BertForMaskedLM(model.config)))
        self._follow = jax.jit(functools.partial(compute.follow, BertForNextSentencePrediction(model.config)))
        self._encode = jax.jit(functools.partial(compute.encode, Bert(model.config)), static_argnames="pooled")
        self._embed = jax.jit(
            functools.partial(compute.embed, Bert(model.config)), static_argnames=("pooling", "normalize")
        )

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

    def encode(self, texts: Sequence[str | tuple[str, str]], batch_size: int = 32) -> States:
        """Hidden states of texts or pairs of texts; what is too long is cut as BERT does."""
        rows = self._text_rows(texts, self.config.max_position_embeddings, batch_size)
        longest = max((len(row.ids) for row in rows), default=0)
        hidden = np.zeros((len(rows), longest, self.config.hidden_size), np.float32)
        mask = np.zeros((len(rows), longest), np.int32)
        pooled = np.zeros((len(rows), self.config.hidden_size), np.float32) if "pooler" in self.parts else None
        for indices, inputs, _ in self._batches(rows, batch_size):
            states, vectors = self._encode(self.params, *inputs, pooled=pooled is not None)
            for number, index in enumerate(indices):
                length = len(rows[index].ids)
                hidden[index, :length] = states[number, :length]
                mask[index, :length] = 1
            if pooled is not None:
                pooled[indices] = vectors[: len(indices)]
        return States(hidden, pooled, mask)

    def embed(
        self,
        texts: Sequence[str | tuple[str, str]],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> np.ndarray:
        """A vector for each text or pair of texts (Reimers & Gurevych 2019, section 3).

        Args:
          texts: they are batched by length, whatever their order.
          pooling: of the last layer the "mean" over all tokens, [CLS] and [SEP] included, or the "cls" state; or the
            "pooler"'s output.
          normalize: to unit length.
          max_length: tokens, [CLS] and [SEP] included, after which texts are cut; 0 for all that the model takes.
            Models of sentence-transformers have been trained on fewer: `max_seq_length` in sentence_bert_config.json.
          batch_size: texts that run at once.
          progress: told after each batch how many texts it answered.

        Returns:
          float32 [N, D], in the order of the texts.

        Raises:
          UserError: an unknown pooling, a model without pooler, or a length that the model does not take.
        """
        if pooling not in POOLINGS:
            raise UserError(f"pooling={pooling!r} is not known: choose {', '.join(POOLINGS[:-1])} or {POOLINGS[-1]}")
        if pooling == "pooler":
            self.need("pooler", "pooling='pooler'")
        check_max_length(max_length, self.config)
        rows = self._text_rows(texts, max_length or self.config.max_position_embeddings, batch_size)
        vectors = np.zeros((len(rows), self.config.hidden_size), np.float32)
        for indices, inputs, _ in self._batches(rows, batch_size):
            found = self._embed(self.params, *inputs, pooling=pooling, normalize=normalize)
            vectors[indices] = found[: len(indices)]
            progress(len(indices))
        return vectors

    def classify(
        self,
        texts: Sequence[str | tuple[str, str]],
        *,
        truncation: str = "",
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Class | Classes | Number]:
        """The class of each text or pair: the likeliest; all that are likelier than not; or a number, in regression.

        Args:
          texts: they are batched by length, whatever their order.
          truncation: what is read of a text that is too long: its "head", its "tail", "both", or "windows" averaged;
            by default as in training.
          max_length: tokens at which a text is too long; 0 for as many as in training, else all that the model takes.
          batch_size: texts that run at once.
          progress: told after each batch how many texts it answered.

        Raises:
          UserError: the model has no head for it.
        """
        self.need("sequence_classification", "classify")
        check_items(texts, batch_size, is_text_or_pair, "texts or pairs (first, second)")
        self._check_token_types(texts)
        kind = {"regression": "regression", "multi_label_classification": "several"}.get(
            self.problem_type, "classification"
        )
        if len(self.labels) == 1:  # whatever the file says: a single class would always be right
            kind = "regression"
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        examples = [TextExample(str(number), *pair, None) for number, pair in enumerate(pairs)]
        reading = self.reading(kind, self.labels, max_length, truncation)
        return self._answers(reading, examples, batch_size, progress)

    def tag(
        self,
        texts: Sequence[str | Sequence[str]],
        *,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Tagging]:
        """The tag of each word of each text, and the entities that they make; long texts are read in parts.

        Args:
          texts: each a text, which is cut into words at whitespace and marks, or a list of words.
          max_length: tokens of a part; 0 for as many as in training, else all that the model takes.
          batch_size: parts that run at once.
          progress: told after each batch how many texts it answered.

        Raises:
          UserError: the model has no head for it.
        """
        self.need("token_classification", "tag")
        check_items(texts, batch_size, is_text_or_words, "texts or lists of words")
        given = [words_of(text) for text in texts]
        examples = [
            TaggingExample(str(number), tuple(text[start:stop] for start, stop in places), None)
            for number, (text, places) in enumerate(given)
        ]
        found = self._answers(self.reading("tagging", self.labels, max_length), examples, batch_size, progress)
        return [tagging_of(*each, tags) for each, tags in zip(given, found, strict=True)]

    def answer(self, question: str, context: str) -> Reply:
        """The answer that the context has to the question; see `answer_batch`."""
        return self.answer_batch([(question, context)])[0]

    def answer_batch(
        self,
        questions: Sequence[tuple[str, str]],
        *,
        null_threshold: float | None = None,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Reply]:
        """The best stretch of the context for each (question, context), long contexts in overlapping windows.

        Args:
          questions: the pairs.
          null_threshold: a question whose `null_score_diff` is above it has no answer, an empty text; by default the
            one that fine-tuning found on its validation questions, and none if all of these had answers.
          max_length: tokens of question and window together; 0 for as many as in training, else 384.
          batch_size: windows that run at once.
          progress: told after each batch how many questions it answered.

        Raises:
          UserError: the model has no head for it.
        """
        self.need("question_answering", "answer")
        check_items(questions, batch_size, is_pair, "pairs (question, context)")
        self._check_token_types(questions)
        examples = [AnsweringExample(str(number), *pair, (), True) for number, pair in enumerate(questions)]
        reading = self.reading("answering", (), max_length, null_threshold=null_threshold)
        return self._answers(reading, examples, batch_size, progress)

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

    def reading(
        self,
        kind: str,
        names: tuple[str, ...],
        max_length: int = 0,
        truncation: str = "",
        null_threshold: float | None = None,
    ) -> Reading:
        """How a head of that kind reads: as it is told, else as it was trained, else all that the model takes.

        Raises:
          UserError: a length that the model does not take.
        """
        check_max_length(max_length, self.config)
        longest = min(LONGEST.get(kind, sys.maxsize), self.config.max_position_embeddings)
        settings = self.settings
        return Reading(
            kind,
            self.tokenizer,
            names,
            max_length or settings.max_length or longest,
            truncation or settings.truncation,
            0 if max_length else settings.stride,
            settings.null_threshold if null_threshold is None else null_threshold,
        )

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model in Hugging Face layout; see `bert_jax.interop.huggingface.save`."""
        model = Pretrained(self.params, self.config, self.labels, self.problem_type, self.settings)
        huggingface.save(directory, model, self.tokenizer)

    def _answers(
        self, reading: Reading, examples: Sequence[Example], batch_size: int, progress: Callable[[int], object]
    ) -> list[TaskPrediction]:
        """The predictions of a head of fine-tuning."""
        if not examples:
            return []
        rows = reading.rows(examples)
        owners = np.array([row.example for row in rows], np.int64)
        waiting = np.bincount(owners, minlength=len(examples))  # rows of each example

        def done(numbers: np.ndarray) -> None:
            np.subtract.at(waiting, owners[numbers], 1)
            progress(int((waiting[np.unique(owners[numbers])] == 0).sum()))

        objective = FinetuningObjective(reading.kind, self.config, max(1, len(reading.names)))
        batches = evaluation_batches(rows, batch_size, reading.max_length)
        return reading.predictions(examples, rows, forward(objective, self.params, batches, done)[0])

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

    def _text_rows(self, texts: Sequence[str | tuple[str, str]], max_length: int, batch_size: int) -> list[Row]:
        check_items(texts, batch_size, is_text_or_pair, "texts or pairs (first, second)")
        self._check_token_types(texts)
        encoded = self.tokenizer.encode_inputs(texts, max_length)
        return [Row(each.ids, each.token_type_ids.count(0), []) for each in encoded]


def _raised(answer: Any) -> Any:
    if isinstance(answer, UserError):
        raise answer
    return answer
