"""Fine-tuning from a user's files to scores, predictions and an exported model, for every kind of task."""

import dataclasses
import importlib.util
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from helpers import random_model

from bert_jax.config import (
    FinetuningConfig,
    HeadSettings,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TaskDataConfig,
    from_config_dict,
)
from bert_jax.errors import Interrupted, UserError
from bert_jax.finetuning.run import (
    balanced_weights,
    drawn_examples,
    finetune,
    initial_params,
    make_objective,
    rank,
    starting_point,
)
from bert_jax.interop import huggingface
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.kinds.question_answering import Answer, QuestionAnswering
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.table import TASKS, task_named

WORDS = ["the", "film", "was", "a", "actor", "cafe", "word1", "word2", "word3"]


def sentences(count, seed):
    """Random words, with "good" or "bad" somewhere."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        words = list(rng.choice(WORDS, rng.integers(2, 9)))
        words.insert(rng.integers(0, len(words) + 1), ["bad", "good"][number % 2])
        yield words


def write_task(directory, kind):
    """train.EXT and validation.EXT of a task that a small model can learn; returns their ending."""
    for split, count, seed in (("train", 160, 0), ("validation", 40, 1)):
        good = [(words, "good" in words) for words in sentences(count, seed)]
        if kind == "token_classification":
            tags = {"good": "B-POS", "bad": "B-NEG"}
            text = "\n\n".join("\n".join(f"{word} {tags.get(word, 'O')}" for word in words) for words, _ in good)
            (directory / f"{split}.txt").write_text(text + "\n")
            continue
        if kind == "question_answering":
            (directory / f"{split}.json").write_text(json.dumps(squad(good)))
            continue
        rows = []
        for words, positive in good:
            text = " ".join(words)
            rows.append(
                {
                    "classification": {"text": text, "label": "pos" if positive else "neg"},
                    "pairs": {"text": "the film", "text_pair": text, "label": "pos" if positive else "neg"},
                    "multi_label": {"text": text, "label": ["pos", "any"] if positive else ["any"]},
                    "regression": {"text": text, "label": 1.0 if positive else -1.0},
                    "multiple_choice": {
                        "text": "a",
                        "ending0": "good" if positive else "bad",
                        "ending1": "bad" if positive else "good",
                        "label": int(not positive),
                    },
                }[kind]
            )
        if kind == "multi_label":  # a label that stands everywhere teaches nothing, but is one
            rows[0]["label"] = []
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"token_classification": "txt", "question_answering": "json"}.get(kind, "jsonl")


def squad(sentences):
    """Each sentence asks for the word that is "good" or "bad" in it; every fourth has none."""
    paragraphs = []
    for number, (words, positive) in enumerate(sentences):
        question = {"id": str(number), "question": "a film"}
        if number % 4:
            context, answer = " ".join(words), "good" if positive else "bad"
            question["answers"] = [{"text": answer, "answer_start": context.index(answer)}]
        else:
            context = " ".join(word for word in words if word not in ("good", "bad"))
            question |= {"answers": [], "is_impossible": True}
        paragraphs.append({"context": context, "qas": [question]})
    return {"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A random model of two layers, as MODEL."""
    directory = tmp_path_factory.mktemp("body") / "model"
    config = dataclasses.replace(random_model.CONFIG, max_position_embeddings=80)
    huggingface.save(directory, random_model.random_model(config), random_model.tokenizer())
    return directory


def config_for(directory, kind, body, **changes):
    ending = write_task(directory, kind)
    settings = dict(
        task=f"custom:{kind}",
        init_from=str(body),
        batch_size=16,
        total_epochs=6.0,
        log_every=10,
        eval_every=0,
        checkpoint_every=0,
        tensorboard=False,
        max_length=24,
        stride=4,
        data=TaskDataConfig(
            train=str(directory / f"train.{ending}"), validation=str(directory / f"validation.{ending}")
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, bias_correction=True),
        schedule=ScheduleConfig(warmup=0.1),
        model=ModelConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    )
    if kind == "question_answering":
        settings |= dict(max_length=80, stride=8)
    return FinetuningConfig(**settings | changes)


GOALS = {
    "classification": ("accuracy", 0.95, "BertForSequenceClassification"),
    "pairs": ("accuracy", 0.95, "BertForSequenceClassification"),
    "multi_label": ("micro_f1", 0.95, "BertForSequenceClassification"),
    "regression": ("pearson", 0.95, "BertForSequenceClassification"),
    "token_classification": ("f1", 0.95, "BertForTokenClassification"),
    "multiple_choice": ("accuracy", 0.95, "BertForMultipleChoice"),
    "question_answering": ("f1", 90.0, "BertForQuestionAnswering"),  # in percent, as the official script
}


@pytest.mark.parametrize("kind", GOALS)
def test_every_kind_of_task_is_learned_scored_and_exported(tmp_path, body, kind, capsys):
    metric, goal, architecture = GOALS[kind]
    scores = finetune(config_for(tmp_path, kind, body), tmp_path / "run").metrics
    assert scores["validation"][metric] >= goal
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == scores
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "validation.jsonl").open()]
    assert len(lines) == 40
    assert "drawn at random" in capsys.readouterr().out
    if kind == "question_answering":  # the threshold is that of validation, and goes into the model
        threshold = huggingface.load(tmp_path / "run" / "model").settings.null_threshold
        assert scores["validation"]["f1"] == scores["validation"]["best_f1"]
        assert [not line["answer"] for line in lines] == [line["null_score_diff"] > threshold for line in lines]
        assert scores["validation"]["NoAns_total"] == 10
    network, info = getattr(transformers, architecture).from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not info["missing_keys"]
    if kind in ("classification", "pairs"):
        assert network.config.id2label == {0: "neg", 1: "pos"}
    if kind == "token_classification":
        assert network.config.id2label == {0: "B-NEG", 1: "B-POS", 2: "O"}


def test_interrupted_runs_go_on_to_the_same_bits(tmp_path, body, monkeypatch):
    config = config_for(tmp_path, "classification", body, total_epochs=2.0, eval_every=4, checkpoint_every=4)
    straight = finetune(config, tmp_path / "straight").metrics
    from bert_jax.finetuning import run

    plain = run.stream

    def interrupted(batches, step):
        for number, batch in enumerate(plain(batches, step), step):
            if number == 9:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(run, "stream", interrupted)
    with pytest.raises(Interrupted):
        finetune(config, tmp_path / "torn")
    monkeypatch.setattr(run, "stream", plain)
    assert finetune(config, tmp_path / "torn").metrics == straight
    one, other = (huggingface.load(tmp_path / name / "model").params for name in ("straight", "torn"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_frozen_layers_stay_and_the_head_keeps_its_settings(tmp_path, body):
    optimizer = OptimizerConfig(learning_rate=2e-3, frozen_layers=1)
    config = config_for(tmp_path, "classification", body, total_epochs=1.0, optimizer=optimizer)
    finetune(dataclasses.replace(config, truncation="tail"), tmp_path / "run")
    model = huggingface.load(tmp_path / "run" / "model")
    assert model.settings == HeadSettings(max_length=24, truncation="tail", stride=4)
    before, after = huggingface.load(body).params["bert"], model.params["bert"]
    for part in ("embeddings",):
        jax.tree.map(np.testing.assert_array_equal, before[part], after[part])
    jax.tree.map(np.testing.assert_array_equal, before["encoder"]["layer_0"], after["encoder"]["layer_0"])
    assert not np.array_equal(
        before["encoder"]["layer_1"]["attention"]["query"]["kernel"],
        after["encoder"]["layer_1"]["attention"]["query"]["kernel"],
    )


def test_the_best_checkpoint_is_exported(tmp_path, body):
    """By the metric that is asked for; at such a rate the last one is not the best."""
    config = config_for(tmp_path, "classification", body, metric="cross_entropy", total_epochs=3.0)
    config = dataclasses.replace(config, optimizer=OptimizerConfig(learning_rate=0.3), seed=1)
    scores = finetune(config, tmp_path / "run").metrics
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    found = [line["cross_entropy"] for line in lines if line["split"] == "validation"]
    assert scores["validation"]["cross_entropy"] == pytest.approx(min(found), rel=1e-5)
    assert min(found) < found[-1]


def test_the_rank_of_an_evaluation():
    scores = {"loss": 0.4, "accuracy": 0.8, "f1": 0.6}
    ranks = {metric: rank(FinetuningConfig(total_steps=1, task="mrpc", metric=metric), scores) for metric in ("", "f1")}
    assert ranks == {"": pytest.approx(0.7), "f1": 0.6}
    assert rank(FinetuningConfig(total_steps=1, task="mrpc", metric="loss"), scores) == -0.4
    assert rank(FinetuningConfig(total_steps=1, task="squad2"), {"best_f1": 70.0, "f1": 50.0}) == 70.0
    assert rank(FinetuningConfig(total_steps=1, task="custom:multi_label"), {"micro_f1": 0.3}) == 0.3
    assert (
        rank(FinetuningConfig(total_steps=1, task="custom:token_classification"), {"accuracy": 0.9}) == 0.9
    )  # no entities
    with pytest.raises(UserError, match="metric=f2 is none of the scores of this task: loss, accuracy, f1"):
        rank(FinetuningConfig(total_steps=1, task="mrpc", metric="f2"), scores)


def test_from_nothing(body):
    """Random weights of a given architecture, or of that of a model."""
    model = dataclasses.replace(random_model.CONFIG, num_hidden_layers=1)
    config = FinetuningConfig(total_steps=1, init_from="none", vocabulary=str(body), model=model)
    loaded, _ = starting_point(config)
    assert loaded.config.num_hidden_layers == 1
    assert loaded.params == {}
    config = FinetuningConfig(total_steps=1, init_from=f"none:{body}")
    loaded, tokenizer = starting_point(config)
    assert (loaded.config.hidden_size, tokenizer.vocab_size) == (48, 99)
    drawn = {"bert": "as drawn"}
    assert initial_params(config, loaded, drawn) is drawn


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(init_from=""), "set init_from to the MODEL"),
        (dict(init_from="none"), "init_from=none needs a vocabulary"),
        (dict(vocabulary="x"), "brings its own vocabulary"),
        (dict(max_length=81), "max_length=81 is longer than the position table of the model"),
        (dict(model=ModelConfig(hidden_size=384)), "has model.hidden_size=48, which cannot be 384"),
        (dict(reinitialized_layers=3), "reinitialized_layers=3 .* do not fit into the 2 layers"),
        (dict(reinitialized_layers=1, optimizer=OptimizerConfig(frozen_layers=2)), "what starts anew has to learn"),
        (dict(task="mrcp"), "task 'mrcp' is not known: did you mean mrpc"),
        (dict(data=TaskDataConfig(train="nowhere.csv", validation="nowhere.csv")), r"nowhere\.csv"),
    ],
    ids=str,
)
def test_what_cannot_be_run(tmp_path, body, changes, words):
    config = config_for(tmp_path, "classification", body)
    with pytest.raises(UserError, match=words):
        finetune(dataclasses.replace(config, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("token_classification", dict(truncation="tail"), "truncation=tail is for classes"),
        ("regression", dict(label_smoothing=0.1), "label_smoothing is for one class among several"),
    ],
)
def test_settings_that_a_task_does_not_read(kind, changes, words):
    config = FinetuningConfig(total_steps=1, task=f"custom:{kind}", **changes)
    with pytest.raises(UserError, match=words):
        make_objective(config, TASKS[config.task], ModelConfig(), (), [], Execution())


def test_a_checkpoint_comes_with_its_evaluation():
    with pytest.raises(UserError, match="checkpoint_every=5 must be a multiple of eval_every=2"):
        FinetuningConfig(total_steps=1, eval_every=2, checkpoint_every=5)


def test_the_threshold_where_never_to_answer_is_best():
    """The official script says 0, which need not be below every null score."""
    answers = [Answer("", 0, 0, 0.5, score, []) for score in (-3.0, -0.5)]
    assert QuestionAnswering().tuned_threshold({"best_f1_thresh": 0.0}, answers) < -3
    assert QuestionAnswering().tuned_threshold({"best_f1_thresh": -0.5}, answers) == -0.5


def test_training_on_some_of_the_examples():
    """The seed draws which, so that several seeds also tell how much that matters."""
    config = FinetuningConfig(total_steps=1, data=TaskDataConfig(examples=20))
    examples = list(range(100))
    found = {seed: drawn_examples(dataclasses.replace(config, seed=seed), examples) for seed in (0, 1)}
    assert all(len(set(each)) == 20 and each == sorted(each) for each in found.values())
    assert found[0] != found[1]
    assert found[0] == drawn_examples(config, examples)
    assert drawn_examples(dataclasses.replace(config, data=TaskDataConfig()), examples) == examples
    with pytest.raises(UserError, match=r"data\.examples=20: there are 19 to train on"):
        drawn_examples(config, examples[:19])


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["a"] * 7 + ["b"] * 2 + ["c"]
    examples = [TextExample(str(number), "x", None, label) for number, label in enumerate(labels)]
    want = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    np.testing.assert_allclose(balanced_weights(TASKS["custom:classification"], ("a", "b", "c"), examples), want)


@pytest.mark.parametrize(
    ("file", "task"),
    [
        *[("glue.py", task) for task in ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")],
        *[("squad.py", task) for task in ("squad", "squad2")],
        *[("choice.py", task) for task in ("swag", "race")],
        *[("reviews.py", task) for task in ("imdb", "rotten_tomatoes")],
        *[("custom.py", name.split(":")[1]) for name in TASKS if name.startswith("custom:")],
        *[("custom.py", name) for name in ("several", "tagging", "answering", "choice")],  # names before 0.2
        ("conll2003.py", None),
        ("few_labels.py", None),
    ],
)
def test_every_config_names_a_task(file, task):
    """And opens with its command."""
    path = Path(__file__).parents[2] / "configs" / "finetune" / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_config_dict(FinetuningConfig, module.get_config(*[task] if task else []))
    assert task_named(config.task) in TASKS.values()
    assert config.task.endswith(task or "")
    assert f"--config=configs/finetune/{file}" in module.__doc__
