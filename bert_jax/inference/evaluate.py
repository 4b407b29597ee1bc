"""Scores of a finished model: of a fine-tuned head on a task, of a masked LM on text."""

import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import DataConfig, PretrainingConfig, TaskDataConfig
from bert_jax.errors import UserError
from bert_jax.inference.language_model import PseudoPerplexity
from bert_jax.inference.model import Model
from bert_jax.metrics.language_model import unigram_loss
from bert_jax.metrics.tables import report_table
from bert_jax.model.parameters import body, with_body
from bert_jax.model.quantization import dequantize
from bert_jax.pretraining.batches import validation_batches
from bert_jax.pretraining.run import pretraining_objective
from bert_jax.runtime.files import claim, refuse_foreign, temporary_folder, to_json, write_whole
from bert_jax.tasks.data import read_splits, source_of_split
from bert_jax.tasks.evaluation import Evaluator
from bert_jax.tasks.labels import check_labels
from bert_jax.tasks.objective import TaskObjective
from bert_jax.tasks.predictions import write_predictions
from bert_jax.tasks.rows import check_max_length
from bert_jax.tasks.submission import write_submission
from bert_jax.tasks.table import task_named
from bert_jax.text.build import build_corpus
from bert_jax.text.corpus import Corpus
from bert_jax.text.sources import TextSource, read_documents
from bert_jax.training.loop import compile_evaluation
from bert_jax.training.metrics import once

RESULTS = ("scores.json", "report.txt", "predictions.jsonl", "submission")  # what an evaluation writes in its folder


def evaluate_task(
    model: Model,
    name: str,
    split: str,
    data: TaskDataConfig,
    output: Path,
    *,
    max_length: int = 0,
    truncation: str = "",
    batch_size: int = 32,
    progress: Callable[[np.ndarray], object] = lambda rows: None,
) -> dict[str, Any]:
    """Scores a fine-tuned model on a split of a task.

    Args:
      model: with the head that the task needs.
      name: of the task.
      split: train, validation, test, or another that the task has.
      data: where it is, and its columns; `train`, `validation` and `test` are files for these splits.
      output: folder; gets scores.json, report.txt, predictions.jsonl, and what the task's graders read.
      max_length: tokens of a row at the most; 0 for as many as in training, else all that the model takes.
      truncation: of single texts that are longer; by default as in training.
      batch_size: rows that run at once.
      progress: is called after each batch with the numbers of the rows that it ran.

    Returns:
      What scores.json holds: "task", "split", "source", "examples", and if these have labels "scores" and
      "report"; of tags "measure", what is scored and why.

    Raises:
      UserError: the head does not fit the task, the data cannot be read, or `output` has such files of others.
    """
    refuse_foreign(output, "evaluation", RESULTS)
    task = task_named(name)
    kind = task.kind
    model.need(kind.head, f"task {task.name}")
    names = kind.names_of_head(task, model.labels, model.problem_type)
    examples = read_splits(task, [split], data)[split]
    source = source_of_split(task, split, data)
    if fault := model.fault_of_inputs(kind.inputs_of(examples)):
        raise UserError(f"{source}: {fault}")
    check_labels(kind.names_in, names, examples, split, source, "the model")
    codec = kind.fitted(model.codec(kind, names, max_length, truncation), examples)
    objective = TaskObjective(kind, model.config, max(1, len(names)), execution=model.execution)
    outcome = Evaluator(objective, codec, examples, batch_size).outcome(model.params, progress)
    claim(output, "evaluation", RESULTS)
    records = write_predictions(output / "predictions.jsonl", examples, outcome.predictions)
    write_submission(output / "submission", task, split, examples, records)
    result = {"task": name, "split": split, "source": source, "examples": len(examples)}
    result |= {"max_length": codec.max_length, "truncation": codec.truncation}
    if measure := kind.measure(names):
        result["measure"] = measure
    if outcome.scores:
        result |= {"reference": task.reference, "scores": outcome.scores, "report": outcome.report}
    return _written(output, result)


def evaluate_text(
    model: Model,
    source: str | TextSource,
    output: Path,
    *,
    length: int = 128,
    max_rows: int = 10_000,
    pseudo_perplexity_of: int = 0,
    batch_size: int = 32,
    progress: Callable[[int], object] = lambda texts: None,
) -> dict[str, Any]:
    """Scores a masked LM on text: the loss of single tokens hidden at 15 %, as validation in pre-training does.

    Args:
      model: with the masked-LM head; with the next-sentence head too, sentence pairs are scored.
      source: a `TextSource`, or the string that names one.
      output: folder; gets scores.json and report.txt.
      length: L of the rows.
      max_rows: so many rows are scored at the most.
      pseudo_perplexity_of: so many documents, from the first on, are scored by pseudo-perplexity too, as far as the
        model reads them.
      batch_size: rows that run at once.
      progress: is called after each document that is scored, with 1.

    Returns:
      What scores.json holds: "source", its "documents" and "tokens", the "scored_rows" and "scored_tokens" (with [CLS]
      and [SEP]) that were taken of them, "scores" with `mlm_loss` and `unigram_loss` in nats,
      `mlm_perplexity`, `mlm_accuracy`, `nsp_loss` and `nsp_accuracy` of pairs, `pseudo_perplexity` over all tokens.

    Raises:
      UserError: the model has no such head, the source cannot be read, or `output` has such files of others.
    """
    refuse_foreign(output, "evaluation", RESULTS)
    model.need("masked_language_model", "scores on text")
    check_max_length(length, model.config)
    source = TextSource(source) if isinstance(source, str) else source
    with temporary_folder(output / "corpus") as directory:
        build_corpus(source, model.tokenizer, directory, longest=length - 3, validation_share=0.0, verbose=False)
        corpus = Corpus.open(directory, "train", model.tokenizer)
        pairs = "next_sentence" in model.parts and corpus.num_documents > 1
        if pairs and corpus.num_sentences == corpus.num_documents:
            pairs = False
            warnings.warn("every document has one sentence: there are no next sentences to score", stacklevel=2)
        data = DataConfig(length=length, objective="nsp" if pairs else "none")
        rows = max(1, min(batch_size, max_rows, corpus.num_sentences))  # the last batch is filled up
        ids = dict(cls_id=model.tokenizer.cls_id, sep_id=model.tokenizer.sep_id, batch_size=rows)
        batches = validation_batches(corpus, data, **ids, max_rows=max_rows, seed=0)
        result = {"source": source.source, "documents": corpus.num_documents, "tokens": int(corpus.num_tokens)}
        filled = np.array([(batch["sequence_ids"] > 0).sum(1) for batch in batches])
        result |= {"scored_rows": int((filled > 0).sum()), "scored_tokens": int(filled.sum())}
        unigram = unigram_loss(corpus.token_counts, batches, model.tokenizer.special_ids)
    config = PretrainingConfig(total_steps=1, model=model.config, data=data, compute_dtype=model.execution.dtype.name)
    objective = pretraining_objective(config, model.tokenizer, model.execution)
    params = _with_unused_heads(dequantize(model.params, model.execution.dtype), objective)
    scores = compile_evaluation(objective, params, batches, model.execution.mesh)(params)
    scores = {key: value for key, value in scores.items() if key != "loss"} | {"unigram_loss": unigram}
    if pseudo_perplexity_of:
        documents = itertools.islice(read_documents(source), pseudo_perplexity_of)
        scores["pseudo_perplexity"] = _pseudo_perplexity(model, list(documents), batch_size, progress)
    return _written(output, result | {"scores": scores})


def _with_unused_heads(params: dict, objective: Any) -> dict:
    """Adds zeros for what the network of pre-training has besides, which is not scored."""
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    whole = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
    return with_body({**whole, **params}, {**body(whole), **body(params)})


def _pseudo_perplexity(model: Model, documents: list[str], batch_size: int, progress: Callable[[int], object]) -> float:
    room = model.config.max_position_embeddings
    whole = model.tokenizer.encode_inputs(documents, room)
    # What of each document fits between [CLS] and [SEP]
    heads = [
        text[: encoding.offsets[-2][1]]
        for text, encoding in zip(documents, whole, strict=True)
        if len(encoding.ids) > 2
    ]
    answers = model.pseudo_perplexity_batch(heads, batch_size, progress)
    scores = [answer for answer in answers if isinstance(answer, PseudoPerplexity)]
    tokens = sum(score.tokens for score in scores)
    return math.exp(sum(score.tokens * math.log(score.value) for score in scores) / tokens)


def _written(output: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes scores.json and report.txt."""
    claim(output, "evaluation", RESULTS)
    lines = [f"{key}: {value}" for key, value in result.items() if value and key not in ("scores", "report")]
    scores = once(result.get("scores", {}))
    width = max(map(len, scores), default=0)
    shown = {name: f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for name, value in scores.items()}
    lines += ["", *(f"{name:{width}}  {value}" for name, value in shown.items())]
    if result.get("report"):
        lines += ["", report_table(result["report"])]
    text = "\n".join(lines) + "\n"
    write_whole(output / "report.txt", text)
    write_whole(output / "scores.json", to_json(result, indent=2, ensure_ascii=False) + "\n")
    return result
