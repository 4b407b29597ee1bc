"""scripts/evaluate.py and what it calls: scores of a finished model on a task and on text."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics
from helpers import random_model
from helpers.fine_tuned import fine_tuned
from helpers.finetuning_runs import config_for

from bert_jax.config import TaskDataConfig
from bert_jax.errors import UserError
from bert_jax.finetuning.run import finetune
from bert_jax.inference.evaluate import evaluate_task, evaluate_text
from bert_jax.inference.model import Model
from bert_jax.tasks.table import task_named

ROOT = Path(__file__).parents[2]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def classified(model, tmp_path, labels):
    """The scores of a file whose right labels are these, and what the model says of its texts."""
    texts = [f"the film was {word} word{number}" for number, word in enumerate(("good", "bad", "a", "actor") * 3)]
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    data = TaskDataConfig(test=write_rows(tmp_path / "test.jsonl", rows))
    (tmp_path / "out").mkdir()
    found = evaluate_task(model, "custom:classification", "test", data, tmp_path / "out", batch_size=5)
    return found, [answer.label for answer in model.classify(texts)]


@pytest.mark.slow
def test_scores_report_and_predictions_of_classes(tmp_path):
    model = fine_tuned("classification", ("no", "maybe", "yes"))
    labels = ["no", "yes", "no", "maybe"] * 3
    found, predicted = classified(model, tmp_path, labels)
    assert found["scores"]["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert found["scores"]["f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predicted, average="macro"))
    matrix = sklearn.metrics.confusion_matrix(labels, predicted, labels=["no", "maybe", "yes"])
    assert found["report"]["confusion_matrix"] == matrix.tolist()
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == found
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert [line["label"] for line in lines] == predicted
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "confusion matrix" in report
    assert "examples: 12" in report
    assert "\nloss " in report
    assert "cross_entropy" not in report  # it is the loss
    assert "reference" not in report  # there is none


@pytest.mark.slow
def test_an_unlabelled_file_gets_predictions_only(tmp_path):
    model = fine_tuned("classification", ("no", "yes"))
    data = TaskDataConfig(test=write_rows(tmp_path / "test.jsonl", [{"text": "the film"}, {"text": "bad"}]))
    found = evaluate_task(model, "custom:classification", "test", data, tmp_path)
    assert "scores" not in found
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_run_and_its_evaluation_say_the_same(tmp_path):
    config = config_for(tmp_path, "token_classification", "none", init_from="none", vocabulary="", total_epochs=0.2)
    random_model.tokenizer().save(tmp_path / "vocabulary")
    small = dataclasses.replace(random_model.CONFIG, max_position_embeddings=80)
    config = dataclasses.replace(config, vocabulary=str(tmp_path / "vocabulary"), model=small)
    scores = finetune(config, tmp_path / "run").metrics["validation"]
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), f"--model={tmp_path / 'run'}"]
    command += [
        "--task=custom:token_classification",
        f"--input={config.data.validation}",
        f"--output={tmp_path / 'out'}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert found["scores"] == pytest.approx(scores, rel=1e-4)
    assert "precision" in done.stdout
    for flags, words in (
        (["--task=mrpc", "--source=x"], "set either --task"),
        (["--task=mrpc", "--split=test", "--input=x"], "set one of them"),
    ):
        wrong = subprocess.run([*command[:3], "--output=x", *flags], capture_output=True, text=True, env=environment)
        assert wrong.returncode == 1
        assert words in wrong.stderr
        assert "Traceback" not in wrong.stderr


def class_names(model, task):
    model.need(task.kind.head, f"task {task.name}")
    return task.kind.names_of_head(task, model.labels, model.problem_type)


def test_glue_gets_its_submission(tmp_path):
    model = fine_tuned("classification", ("entailment", "not_entailment"))
    rows = "index\tsentence1\tsentence2\n0\tthe film\tbad\n1\ta film\tgood\n"
    (tmp_path / "test.tsv").write_text(rows)
    evaluate_task(model, "rte", "test", TaskDataConfig(directory=str(tmp_path)), tmp_path)
    lines = (tmp_path / "submission" / "RTE.tsv").read_text().splitlines()
    assert lines == ["index\tprediction"] + [
        f"{number}\t{answer.label}"
        for number, answer in enumerate(model.classify([("the film", "bad"), ("a film", "good")]))
    ]


def test_the_classes_of_the_head_in_the_words_of_the_task(capsys):
    assert class_names(
        fine_tuned("classification", ("CONTRADICTION", "Neutral", "entailment")), task_named("mnli")
    ) == (
        "contradiction",
        "neutral",
        "entailment",
    )
    nameless = fine_tuned("classification", ("LABEL_0", "LABEL_1"))
    assert class_names(nameless, task_named("sst2")) == ("negative", "positive")
    assert "does not name its classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        (
            lambda: fine_tuned("token_classification", ("O", "B-X")),
            "sst2",
            "task sst2 needs a model with sequence_classification",
        ),
        (
            lambda: fine_tuned("question_answering"),
            "conll2003",
            "task conll2003 needs a model with token_classification",
        ),
        (lambda: fine_tuned("classification", ("a", "b")), "squad", "task squad needs a model with question_answering"),
        (lambda: fine_tuned("classification", ("a", "b")), "stsb", "task stsb is regression, .* has 2 outputs"),
        (lambda: fine_tuned("classification", ("a",)), "sst2", "task sst2 is classification, .* has 1 output"),
        (
            lambda: fine_tuned("classification", ("neg", "pos")),
            "sst2",
            "the labels neg, pos, and task sst2 has negative, positive",
        ),
        (
            lambda: fine_tuned("classification", ("a", "b"), "multi_label_classification"),
            "sst2",
            "the model was trained for multi_label",
        ),
    ],
)
def test_a_head_that_does_not_fit_the_task(model, task, words):
    with pytest.raises(UserError, match=words):
        class_names(model(), task_named(task))


def test_labels_that_the_model_never_saw(tmp_path):
    with pytest.raises(UserError, match="labels that the model never saw: 'odd'"):
        classified(fine_tuned("classification", ("no", "yes")), tmp_path, ["no", "yes", "odd"] * 4)


# ---------------------------------------------------------------------------------------------------------- raw text


@pytest.mark.slow
def test_the_loss_of_a_masked_language_model(tmp_path):
    """Of a model that gives every token the same probability, whatever is hidden."""
    model = random_model.random_model()
    flat = jax.tree.map(np.zeros_like, model.params["masked_language_model"])
    params = {**model.params, "masked_language_model": flat}
    model = Model(dataclasses.replace(model, params=params), random_model.tokenizer())
    documents = [" ".join(["the film was good ."] * (3 + number)) for number in range(6)]
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    found = evaluate_text(model, str(tmp_path / "a.txt"), tmp_path, length=16, pseudo_perplexity_of=2)
    assert found["documents"] == 6
    assert found["tokens"] == sum(5 * (3 + number) for number in range(6))
    assert 0 < found["scored_tokens"] <= 16 * found["scored_rows"]
    assert found["scores"]["mlm_loss"] == pytest.approx(math.log(99), rel=1e-5)
    assert found["scores"]["mlm_perplexity"] == pytest.approx(99, rel=1e-4)
    assert found["scores"]["pseudo_perplexity"] == pytest.approx(99, rel=1e-4)
    assert found["scores"]["unigram_loss"] == pytest.approx(math.log(5), rel=0.3)  # five words, as often each
    assert "nsp_accuracy" in found["scores"]
    assert json.loads((tmp_path / "scores.json").read_text()) == found


@pytest.mark.slow
def test_what_is_scored_of_a_text_is_counted(tmp_path):
    """A row holds one of the documents, with [CLS] and [SEP]."""
    model = Model(random_model.random_model(architecture="BertForMaskedLM"), random_model.tokenizer())
    (tmp_path / "a.txt").write_text("\n\n".join(f"the film was good word{number}" for number in range(9)))
    found = evaluate_text(model, str(tmp_path / "a.txt"), tmp_path, length=8, max_rows=4, batch_size=10**15)
    assert (found["documents"], found["tokens"]) == (9, 45)
    assert (found["scored_rows"], found["scored_tokens"]) == (4, 4 * 7)


@pytest.mark.slow
def test_there_are_no_next_sentences_in_documents_of_one(tmp_path):
    model = Model(random_model.random_model(), random_model.tokenizer())
    (tmp_path / "a.txt").write_text("\n\n".join(f"the film was good word{number}" for number in range(9)))
    with pytest.warns(UserWarning, match="no next sentences to score"):
        found = evaluate_text(model, str(tmp_path / "a.txt"), tmp_path, length=8)
    assert "mlm_loss" in found["scores"]
    assert "nsp_accuracy" not in found["scores"]


@pytest.mark.slow
def test_pseudo_perplexity_over_documents_is_weighted_by_tokens(tmp_path):
    model = Model(random_model.random_model(architecture="BertForMaskedLM"), random_model.tokenizer())
    documents = ["the film was good . the actor was bad .", "good " * 60]
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    found = evaluate_text(model, str(tmp_path / "a.txt"), tmp_path, length=16, pseudo_perplexity_of=9)
    one, other = model.pseudo_perplexity_batch([documents[0], "good " * 38])  # 40 positions
    total = one.tokens * math.log(one.value) + other.tokens * math.log(other.value)
    assert other.tokens == 38
    assert found["scores"]["pseudo_perplexity"] == pytest.approx(math.exp(total / (one.tokens + 38)), rel=1e-4)
    assert "nsp_accuracy" not in found["scores"]


def test_text_for_a_model_without_the_head(tmp_path):
    with pytest.raises(UserError, match="scores on text needs a model with masked_language_model"):
        evaluate_text(fine_tuned("question_answering"), "x.txt", tmp_path)
