"""Questions on a context (SQuAD): the answer is a span of it, or there is none.

The rules are those of ``run_squad.py`` in google-research/bert (Devlin et al. 2018, sections 4.2 and 4.3), but answers
are cut out by character offsets (`bert_jax.tasks.spans`), where the original counts words and searches the text again.
"""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model import heads
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.kinds.base import Codec, NamelessKind, Task, must_have_labels
from bert_jax.tasks.rows import Batch, padded_labels
from bert_jax.tasks.spans import Candidate, QuestionAnsweringRow, best_answers, question_rows
from bert_jax.tasks.squad import QuestionAnsweringExample, read_questions, well_placed
from bert_jax.text.tables import Record, file_type, read_rows, sniffed_type
from bert_jax.training.losses import span_cross_entropy
from bert_jax.training.objective import Mean


class Answer(NamedTuple):
    """Holds the answer to a question."""

    answer: str  # empty: the context holds none
    start: int  # [start, stop) in characters of the context
    stop: int
    score: float  # its probability among `ranked`
    null_score_diff: float  # by how much "no answer" scores better than the best answer
    ranked: list[Candidate]  # the best answers, best first


class QuestionAnswering(NamelessKind):
    """Finds the start and the end of the answer in the context; in SQuAD 2.0 a question may have none."""

    name = "question_answering"
    head = "question_answering"
    default_max_length = 384
    recipe: ClassVar[Mapping[str, Any]] = {"max_length": 384, "total_epochs": 2.0}

    # ---- data ------------------------------------------------------------------------------------

    def read_file(self, task: Task, split: str, path: str, *, official: bool) -> Iterator[QuestionAnsweringExample]:
        """Yields the questions of a file in SQuAD's JSON, or of a table with its columns, as Hugging Face has them."""
        del official
        if (file_type(path) or sniffed_type(path)) in (".jsonl", ".parquet") or sniffed_type(path) == ".json":
            return self.read_records(task, split, read_rows(path))
        return read_questions(path, must_have_labels(split))

    def read_records(self, task: Task, split: str, records: Iterator[Record]) -> Iterator[QuestionAnsweringExample]:
        """Yields the questions of records with the columns id, question, context and answers."""
        del task
        if (first := next(records, None)) is not None:
            examples = map(_example, itertools.chain([first], records))
            yield from well_placed(examples, first.source, must_have_labels(split))

    def content(self, example: QuestionAnsweringExample) -> Hashable:
        """Returns the context, of which there may be several questions."""
        return example.context

    def is_labelled(self, example: QuestionAnsweringExample) -> bool:
        """Tells whether answers are known, or that there is none."""
        return bool(example.answers) or not example.answerable

    # ---- rows and batches ------------------------------------------------------------------------

    def rows(self, examples: Sequence[QuestionAnsweringExample], codec: Codec) -> list[QuestionAnsweringRow]:
        """Makes as many rows for each question as its context has windows; see `question_rows`."""
        return question_rows(examples, codec.tokenizer, codec.max_length, stride=codec.stride)

    def labels(self, rows: Sequence[QuestionAnsweringRow], batch_size: int, length: int) -> Batch:
        """Returns `starts` and `ends` int32 [B], the first and last token of the answer; -1 is none."""
        del length
        positions = padded_labels(rows, (batch_size, 2), np.int32)
        return {"starts": positions[:, 0].copy(), "ends": positions[:, 1].copy()}

    # ---- on the device ---------------------------------------------------------------------------

    def network(self, model: ModelConfig, labels: int, execution: Execution) -> nn.Module:
        """Returns the body with two scores for each token."""
        del labels
        return heads.BertForQuestionAnswering(model, execution)

    def loss(
        self,
        outputs: tuple[jax.Array, jax.Array],
        batch: Any,
        *,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] = (),
    ) -> dict[str, Mean]:
        """Returns the mean of the cross-entropies of start and end."""
        del label_smoothing, class_weights
        return {"task_loss": span_cross_entropy(*outputs, batch["starts"], batch["ends"])}

    def probabilities(self, outputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Returns the logits as they are, two float32 [B, L]: answers compete across the rows of a question."""
        return outputs

    def exported_outputs(self, network: nn.Module, variables: Any, batch: Any) -> dict[str, jax.Array]:
        """Returns `start_logits` and `end_logits`, float32 [B, L]."""
        starts, ends = self.outputs(network, variables, batch)
        return {"start_logits": starts, "end_logits": ends}

    # ---- predictions and scores ------------------------------------------------------------------

    def predictions(
        self,
        examples: Sequence[QuestionAnsweringExample],
        rows: Sequence[QuestionAnsweringRow],
        outputs: Sequence[tuple[np.ndarray, np.ndarray]],
        codec: Codec,
    ) -> list[Answer]:
        """Returns the best answer over the rows of each question."""
        rows_of: list[list[int]] = [[] for _ in examples]
        for number, row in enumerate(rows):
            rows_of[row.example].append(number)
        unanswerable = codec.null_threshold is not None
        answers = []
        for example, numbers in zip(examples, rows_of, strict=True):
            starts, ends = zip(*(outputs[number] for number in numbers), strict=True)
            windows = [rows[number] for number in numbers]
            result = best_answers(windows, starts, ends, example.context, unanswerable=unanswerable)
            best = result.best
            if codec.null_threshold is not None and result.null_score_diff > codec.null_threshold:
                best = next(candidate for candidate in result.ranked if not candidate.text)
            answers.append(
                Answer(best.text, best.start, best.stop, best.probability, result.null_score_diff, result.ranked)
            )
        return answers

    def scores(
        self, examples: Sequence[QuestionAnsweringExample], predictions: Sequence[Answer], codec: Codec
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Returns SQuAD's scores; with unanswerable questions also those of the best threshold.

        The best threshold is looked for on what the model would answer if it had to.
        """
        from bert_jax.metrics.question_answering import score_answers

        references = {example.id: [text for text, _ in example.answers] for example in examples}
        given = dict(zip(references, (prediction.answer for prediction in predictions), strict=True))
        scores = score_answers(given, references)
        if codec.null_threshold is not None:
            best = [
                next((candidate.text for candidate in prediction.ranked if candidate.text), "")
                for prediction in predictions
            ]
            null_scores = dict(zip(references, (prediction.null_score_diff for prediction in predictions), strict=True))
            with_threshold = score_answers(dict(zip(references, best, strict=True)), references, null_scores)
            scores |= {name: value for name, value in with_threshold.items() if name.startswith("best_")}
        return scores, {}

    def fitted(self, codec: Codec, examples: Sequence[QuestionAnsweringExample]) -> Codec:
        """Returns the codec with a null threshold, 0 unless it has one, if a question has no answer."""
        if codec.null_threshold is None and any(not example.answerable for example in examples):
            return dataclasses.replace(codec, null_threshold=0.0)
        return codec

    def tuned(self, codec: Codec, outcome: Callable[[], Any]) -> Codec:
        """Returns the codec with the null threshold of the best F1, where questions may have no answer.

        Where that is never to answer, the official script says 0; this is below all null scores.
        """
        if codec.null_threshold is None:
            return codec
        predictions, scores, _ = outcome()
        threshold = scores["best_f1_thresh"]
        null_scores = [prediction.null_score_diff for prediction in predictions]
        threshold = threshold if threshold in null_scores else min(null_scores) - 1
        return dataclasses.replace(codec, null_threshold=threshold)


def _example(record: Record) -> QuestionAnsweringExample:
    for column in ("id", "question", "context"):
        if not isinstance(record.cell(column), str):
            raise UserError(f"{record.place}: {column!r} is not a text but a {type(record.cell(column)).__name__}")
    answers = record.cell("answers")
    try:
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        found = tuple((str(text), int(start)) for text, start in pairs)
    except (KeyError, TypeError, ValueError) as error:
        wanted = "an object with lists of the same length, text and answer_start"
        raise UserError(f"{record.place}: 'answers' is not {wanted}: {str(answers)[:80]}") from error
    return QuestionAnsweringExample(
        id=record.cells["id"],
        question=record.cells["question"],
        context=record.cells["context"],
        answers=found,
        answerable=not record.cells.get("is_impossible", False),
        title=record.cells.get("title", ""),
    )
