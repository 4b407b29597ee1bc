"""A loaded model that answers: masked words, sentence pairs, vectors, classes, tags, answers, fluency."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from bert_jax.errors import UserError
from bert_jax.finetuning.batches import evaluation_batches
from bert_jax.inference import compute, intermediates
from bert_jax.inference.intermediates import Attentions
from bert_jax.inference.language_model import LanguageModel
from bert_jax.inference.rows import (
    Row,
    check_items,
    is_pair,
    is_text_or_pair,
    is_text_or_words,
)
from bert_jax.inference.tagging import Tagging, tagging_of, words_of
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.model.encoder import Bert
from bert_jax.tasks.evaluation import forward
from bert_jax.tasks.examples import AnsweringExample, Example, TaggingExample, TextExample
from bert_jax.tasks.features import check_max_length
from bert_jax.tasks.objective import FinetuningObjective
from bert_jax.tasks.reading import Class, Classes, Number, Prediction, Reading, Reply
from bert_jax.text.tokenizer import Tokenizer

LONGEST = {"answering": 384}  # tokens of a row by default, where it is not all that the model takes
POOLINGS = ("mean", "cls", "pooler")


class States(NamedTuple):
    """What the encoder makes of some texts, in their order; L is the longest of them."""

    hidden: np.ndarray  # float32 [B, L, D], of the last layer
    pooled: np.ndarray | None  # float32 [B, D]; None if the model has no pooler
    attention_mask: np.ndarray  # int32 [B, L], 1 where a token is


class Model(LanguageModel):
    """With all that the body and the heads of fine-tuning do."""

    def __init__(self, model: Pretrained, tokenizer: Tokenizer, dtype: str = "float32") -> None:
        super().__init__(model, tokenizer, dtype)
        bert = Bert(model.config, self.execution)
        self._encode = jax.jit(functools.partial(compute.encode, bert), static_argnames="pooled")
        self._embed = jax.jit(functools.partial(compute.embed, bert), static_argnames=("pooling", "normalize"))

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

    def attentions(self, text: str | tuple[str, str]) -> Attentions:
        """Returns where the heads look in a text or a pair of texts; see `intermediates.attentions`."""
        return intermediates.attentions(self, text)

    def hidden_states(self, text: str | tuple[str, str]) -> np.ndarray:
        """Returns the states of all layers, float32 [layers + 1, L, D]; see `intermediates.hidden_states`."""
        return intermediates.hidden_states(self, text)

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
        huggingface.save(directory, self._loaded, self.tokenizer)

    def _answers(
        self, reading: Reading, examples: Sequence[Example], batch_size: int, progress: Callable[[int], object]
    ) -> list[Prediction]:
        """The predictions of a head of fine-tuning."""
        if not examples:
            return []
        rows = reading.rows(examples)
        owners = np.array([row.example for row in rows], np.int64)
        waiting = np.bincount(owners, minlength=len(examples))  # rows of each example

        def done(numbers: np.ndarray) -> None:
            np.subtract.at(waiting, owners[numbers], 1)
            progress(int((waiting[np.unique(owners[numbers])] == 0).sum()))

        objective = FinetuningObjective(reading.kind, self.config, max(1, len(reading.names)), execution=self.execution)
        batches = evaluation_batches(rows, batch_size, reading.max_length, self.execution.platform)
        return reading.predictions(examples, rows, forward(objective, self.params, batches, done)[0])

    def _text_rows(self, texts: Sequence[str | tuple[str, str]], max_length: int, batch_size: int) -> list[Row]:
        check_items(texts, batch_size, is_text_or_pair, "texts or pairs (first, second)")
        self._check_token_types(texts)
        encoded = self.tokenizer.encode_inputs(texts, max_length)
        return [Row(each.ids, each.token_type_ids.count(0), []) for each in encoded]
