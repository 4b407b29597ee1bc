"""The fine-tuned heads of a loaded model: classes and numbers of texts, tags of words, answers to questions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.inference.loaded import LoadedModel, check_finite, raised
from bert_jax.inference.rows import is_pair, is_text_or_pair, is_text_or_words, listed
from bert_jax.inference.words import Tagging, tagging_of, words_of
from bert_jax.metrics.tag_schemes import scheme_of_labels
from bert_jax.tasks.batches import evaluation_batches
from bert_jax.tasks.evaluation import forward
from bert_jax.tasks.kinds.base import Codec, Kind
from bert_jax.tasks.kinds.classification import Class
from bert_jax.tasks.kinds.multi_label import Classes
from bert_jax.tasks.kinds.question_answering import Answer, QuestionAnswering
from bert_jax.tasks.kinds.regression import Number
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassification, TokenClassificationExample
from bert_jax.tasks.objective import TaskObjective
from bert_jax.tasks.rows import check_max_length
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.tasks.table import kind_of_head


class TaskHeads(LoadedModel):
    """Answers with a fine-tuned head."""

    # ---- classes and numbers ---------------------------------------------------------------------

    def classify(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        truncation: str = "",
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Class | Classes | Number]:
        """Gives each text or pair its likeliest class; all that are likelier than not; or a number, in regression.

        Args:
          texts: they are batched by length, whatever their order.
          truncation: what is read of a text that is too long: its "head", its "tail", "both", or "windows" averaged;
            by default as in training.
          max_length: tokens at which a text is too long; 0 for as many as in training, else all that the model takes.
          batch_size: texts that run at once.
          progress: is called after each batch with the number of texts that it answered.

        Raises:
          UserError: the model has no head for it, or a text has no answer.
        """
        answers = self.classify_batch(
            texts, truncation=truncation, max_length=max_length, batch_size=batch_size, progress=progress
        )
        return [raised(answer) for answer in answers]

    def classify_batch(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        truncation: str = "",
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Class | Classes | Number | UserError]:
        """Answers as `classify`; a text without an answer gives its error in its place."""
        self.need("sequence_classification", "classify")
        texts = listed(texts, batch_size, is_text_or_pair, "texts or pairs (first, second)")
        kind = kind_of_head(self.problem_type, self.labels)
        pairs = [(text, None) if isinstance(text, str) else (text[0], text[1]) for text in texts]
        examples = [TextExample(str(number), *pair, None) for number, pair in enumerate(pairs)]
        inputs = ["single" if second is None else "pairs" for _, second in pairs]
        faults_of = {name: self._fault_of_pair(name == "pairs") or self.fault_of_inputs(name) for name in set(inputs)}
        faults = [faults_of[name] for name in inputs]
        codec = self.codec(kind, self.labels, max_length, truncation)
        return self._answers(kind, examples, faults, codec, batch_size, progress)

    # ---- tags ------------------------------------------------------------------------------------

    def tag(
        self,
        texts: Iterable[str | Sequence[str]],
        *,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Tagging]:
        """Tags each word of each text, and finds the entities that the tags make; long texts are read in parts.

        Args:
          texts: each a text, which is cut into words (`bert_jax.text.words`) as training had them, or a list of words.
          max_length: tokens of a part; 0 for as many as in training, else all that the model takes.
          batch_size: parts that run at once.
          progress: is called after each batch with the number of texts that it answered.

        Raises:
          UserError: the model has no head for it, or a text has no answer.
        """
        answers = self.tag_batch(texts, max_length=max_length, batch_size=batch_size, progress=progress)
        return [raised(answer) for answer in answers]

    def tag_batch(
        self,
        texts: Iterable[str | Sequence[str]],
        *,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Tagging | UserError]:
        """Answers as `tag`; a text without an answer gives its error in its place."""
        self.need("token_classification", "tag")
        texts = listed(texts, batch_size, is_text_or_words, "texts or lists of words")
        kind = TokenClassification()
        whole = frozenset(self.settings.whole_words)
        split = [words_of(text, whole) for text in texts]
        examples = [
            TokenClassificationExample(str(number), tuple(text[start:stop] for start, stop in places), None)
            for number, (text, places) in enumerate(split)
        ]
        codec = self.codec(kind, self.labels, max_length)
        faults = [_fault_of_words(text) for text in texts]
        answers = self._answers(kind, examples, faults, codec, batch_size, progress)
        scheme = scheme_of_labels(self.labels)
        return [
            answer if isinstance(answer, UserError) else tagging_of(text, places, answer, scheme)
            for (text, places), answer in zip(split, answers, strict=True)
        ]

    # ---- answers ---------------------------------------------------------------------------------

    def answer(self, question: str, context: str) -> Answer:
        """Returns the answer that the context has to the question; see `answer_batch`."""
        return raised(self.answer_batch([(question, context)])[0])

    def answer_batch(
        self,
        questions: Iterable[tuple[str, str]],
        *,
        null_threshold: float | None = None,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[Answer | UserError]:
        """Finds the best stretch of the context for each (question, context), long contexts in overlapping windows.

        Args:
          questions: the pairs.
          null_threshold: a question whose `null_score_diff` is above it has no answer, an empty text; by default the
            one that fine-tuning found on its validation questions, and none if all of these had answers.
          max_length: tokens of question and window together; 0 for as many as in training, else 384.
          batch_size: windows that run at once.
          progress: is called after each batch with the number of questions that it answered.

        Returns:
          For each question its answer, or the error that stands in the way.

        Raises:
          UserError: the model has no head for it.
        """
        self.need("question_answering", "answer")
        questions = listed(questions, batch_size, is_pair, "pairs (question, context)")
        kind = QuestionAnswering()
        examples = [
            QuestionAnsweringExample(str(number), pair[0], pair[1], (), True) for number, pair in enumerate(questions)
        ]
        codec = self.codec(kind, (), max_length, null_threshold=null_threshold)
        faults = [self._fault_of_pair(True) or _fault_of_question(*pair) for pair in questions]
        return self._answers(kind, examples, faults, codec, batch_size, progress)

    # ---- all heads -------------------------------------------------------------------------------

    def codec(
        self,
        kind: Kind,
        labels: tuple[str, ...],
        max_length: int = 0,
        truncation: str = "",
        null_threshold: float | None = None,
    ) -> Codec:
        """Returns how a head of a kind reads: as it is told, else as it was trained, else all that the model takes.

        Raises:
          UserError: a length that the model does not take.
        """
        check_max_length(max_length, self.config)
        settings = self.settings
        return Codec(
            self.tokenizer,
            labels,
            max_length or settings.max_length or min(kind.default_max_length, self.config.max_position_embeddings),
            truncation or settings.truncation,
            0 if max_length else settings.stride,
            settings.null_threshold if null_threshold is None else null_threshold,
        )

    def _answers(
        self,
        kind: Kind,
        examples: Sequence[Any],
        faults: Sequence[str],
        codec: Codec,
        batch_size: int,
        progress: Callable[[int], object],
    ) -> list[Any]:
        """Returns the prediction for each example, or the error in its place: a given fault or one of the kind."""
        answers: list[Any] = [
            UserError(found) if (found := fault or kind.fault(example, codec)) else None
            for fault, example in zip(faults, examples, strict=True)
        ]
        good = [number for number, answer in enumerate(answers) if answer is None]
        examples = [examples[number] for number in good]
        rows = kind.rows(examples, codec)
        owners = np.array([row.example for row in rows], np.int64)
        waiting = np.bincount(owners, minlength=len(examples))  # rows of each example

        def done(numbers: np.ndarray) -> None:
            np.subtract.at(waiting, owners[numbers], 1)
            progress(int((waiting[np.unique(owners[numbers])] == 0).sum()))

        objective = TaskObjective(kind, self.config, max(1, len(codec.labels)), execution=self.execution)
        batches = evaluation_batches(kind, rows, batch_size, codec.max_length, self.execution.platform)
        outputs, _ = forward(objective, self.params, batches, done)
        check_finite(outputs)
        predictions = kind.predictions(examples, rows, outputs, codec) if good else []
        for number, prediction in zip(good, predictions, strict=True):
            answers[number] = prediction
        return answers


def _fault_of_question(question: str, context: str) -> str:
    """Says which of the two is empty, or nothing."""
    return "the question is empty" if not question.strip() else "the context is empty" if not context.strip() else ""


def _fault_of_words(text: str | Sequence[str]) -> str:
    """Says which of given words is none, or nothing."""
    if isinstance(text, str) or all(word.strip() for word in text):
        return ""
    return f"word {next(number for number, word in enumerate(text) if not word.strip())} is empty: take it out"
