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
from helpers.finetuning_runs import config_for

from bert_jax.config import (
    FinetuningConfig,
    HeadSettings,
    ModelConfig,
    OptimizerConfig,
    PretrainingConfig,
    TaskDataConfig,
    from_config_dict,
    with_overrides,
)
from bert_jax.errors import Interrupted, UserError
from bert_jax.finetuning.run import (
    balanced_weights,
    drawn_examples,
    finetune,
    initial_params,
    make_objective,
    prepare,
    rank,
    starting_point,
)
from bert_jax.interop import huggingface
from bert_jax.pretraining.run import with_architecture
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.evaluation import Outcome
from bert_jax.tasks.kinds.base import Codec
from bert_jax.tasks.kinds.question_answering import Answer, QuestionAnswering
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.table import TASKS, task_named

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A random model of one layer, as MODEL."""
    return saved_body(tmp_path_factory.mktemp("body") / "model", num_hidden_layers=1)


@pytest.fixture(scope="module")
def deeper_body(tmp_path_factory):
    """One of two layers."""
    return saved_body(tmp_path_factory.mktemp("deeper_body") / "model", num_hidden_layers=2)


def saved_body(directory, **changes):
    config = dataclasses.replace(random_model.CONFIG, max_position_embeddings=80, **changes)
    huggingface.save(directory, random_model.random_model(config), random_model.tokenizer())
    return directory


GOALS = {
    "classification": ("accuracy", 0.95, "BertForSequenceClassification"),
    "pairs": ("accuracy", 0.95, "BertForSequenceClassification"),
    "multi_label": ("micro_f1", 0.95, "BertForSequenceClassification"),
    "regression": ("pearson", 0.95, "BertForSequenceClassification"),
    "token_classification": ("f1", 0.95, "BertForTokenClassification"),
    "multiple_choice": ("accuracy", 0.95, "BertForMultipleChoice"),
    "question_answering": ("f1", 90.0, "BertForQuestionAnswering"),  # in percent, as the official script
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOALS)
def test_every_kind_of_task_is_learned_scored_and_exported(tmp_path, body, kind, capsys):
    metric, goal, architecture = GOALS[kind]
    scores = finetune(config_for(tmp_path, kind, body), tmp_path / "run").metrics
    assert scores["validation"][metric] >= goal
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == scores
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "validation.jsonl").open()]
    said = capsys.readouterr().out
    assert "drawn at random" in said
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
        assert "tags are BIO (B-, I-, O): entities are scored\n" in said
        assert huggingface.load(tmp_path / "run" / "model").settings.whole_words == ("U.S.",)
    assert len(lines) == (41 if kind == "token_classification" else 40)


@pytest.mark.slow
def test_interrupted_runs_go_on_to_the_same_bits(tmp_path, body, monkeypatch):
    config = config_for(tmp_path, "classification", body, longest=8, total_epochs=2.0, eval_every=4, checkpoint_every=4)
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
    for file in (config.data.train, config.data.validation):  # row 0 of the head is "neg", and not the first of others
        Path(file).write_text(Path(file).read_text().replace('"neg"', '"unhappy"').replace('"pos"', '"happy"'))
    with pytest.raises(UserError, match=r'the list of labels was \["neg", "pos"\] and is \["happy", "unhappy"\]'):
        finetune(config, tmp_path / "torn")


@pytest.mark.slow
def test_frozen_layers_stay_and_the_head_keeps_its_settings(tmp_path, deeper_body):
    optimizer = OptimizerConfig(learning_rate=2e-3, frozen_layers=1)
    config = config_for(tmp_path, "classification", deeper_body, total_epochs=1.0, optimizer=optimizer)
    finetune(dataclasses.replace(config, truncation="tail"), tmp_path / "run")
    model = huggingface.load(tmp_path / "run" / "model")
    assert model.settings == HeadSettings(max_length=24, truncation="tail", stride=4, inputs="single")
    before, after = huggingface.load(deeper_body).params["bert"], model.params["bert"]
    for part in ("embeddings",):
        jax.tree.map(np.testing.assert_array_equal, before[part], after[part])
    jax.tree.map(np.testing.assert_array_equal, before["encoder"]["layer_0"], after["encoder"]["layer_0"])
    assert not np.array_equal(
        before["encoder"]["layer_1"]["attention"]["query"]["kernel"],
        after["encoder"]["layer_1"]["attention"]["query"]["kernel"],
    )


@pytest.mark.slow
def test_the_best_checkpoint_is_exported(tmp_path, body):
    """By the metric that is asked for; validation wants the opposite of training, so that the first one is the best."""
    config = config_for(tmp_path, "classification", body, metric="cross_entropy", total_epochs=3.0)
    validation = Path(config.data.validation)
    opposite = {"neg": "pos", "pos": "neg"}
    lines = [json.loads(line) for line in validation.open()]
    validation.write_text("".join(json.dumps(line | {"label": opposite[line["label"]]}) + "\n" for line in lines))
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
def test_what_cannot_be_run(tmp_path, deeper_body, changes, words):
    config = config_for(tmp_path, "classification", deeper_body)
    with pytest.raises(UserError, match=words):
        finetune(dataclasses.replace(config, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_architecture_that_is_asked_for_is_not_passed_over(body) -> None:
    """The default of `model` says nothing by itself, and something where it is set by name, with several seeds too."""
    config = FinetuningConfig(total_steps=1, init_from=str(body), data=TaskDataConfig(train="x.csv"))
    assert starting_point(config)[0].config.hidden_size == 48
    asked = with_overrides(with_overrides(config, {"model.hidden_size": 768}), {"seed": 1})
    with pytest.raises(UserError, match=r"has model.hidden_size=48, which cannot be 768: leave it out"):
        starting_point(asked)
    assert starting_point(with_overrides(config, {"model.hidden_size": 48}))[0].config.hidden_size == 48
    pretraining = PretrainingConfig(total_steps=1, init_from=str(body))
    assert with_architecture(pretraining).model.hidden_size == 48
    with pytest.raises(UserError, match=r"model.vocab_size=99 \(asked for: 30522\)"):
        with_architecture(with_overrides(pretraining, {"model.vocab_size": 30_522}))


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("token_classification", dict(truncation="tail"), "truncation=tail is for classes"),
        (
            "regression",
            dict(label_smoothing=0.1),
            "label_smoothing needs a task with classes: task custom:regression is regression",
        ),
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
    codec = Codec(random_model.tokenizer(), (), 80, null_threshold=0.0)
    for best, threshold in ((0.0, -4.0), (-0.5, -0.5)):
        outcome = Outcome(answers, {"best_f1_thresh": best}, {})
        assert QuestionAnswering().tuned(codec, lambda outcome=outcome: outcome).null_threshold == threshold


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


def test_validation_can_be_drawn_from_train(tmp_path, body, capsys):
    config = config_for(tmp_path, "classification", body)
    config = with_overrides(config, {"data.validation": 0.25, "data.examples": 100})
    found = [prepare(config).splits for _ in range(2)]
    assert found[0] == found[1]  # as after a restart
    assert found[0].keys() == {"train", "validation"}
    train, validation = found[0]["train"], found[0]["validation"]
    assert (len(train), len(validation)) == (100, 40)
    assert not {each.text for each in train} & {each.text for each in validation}
    assert "validation: 40 of 160 examples of" in capsys.readouterr().out


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
        ("conll2003.py", None),
        ("few_labels.py", None),
        ("minilm.py", None),
    ],
)
def test_every_config_names_a_task(file, task):
    """And opens with its command."""
    config, words = config_of(file, task)
    assert config.task in TASKS
    assert config.task.endswith(task or "")
    assert f"--config=configs/finetune/{file}" in words


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("several", "multi_label"),
        ("tagging", "token_classification"),
        ("answering", "question_answering"),
        ("choice", "multiple_choice"),
    ],
)
def test_the_names_before_0_2_go_on(old, new):
    assert config_of("custom.py", old)[0] == config_of("custom.py", new)[0]
    assert task_named(f"custom:{old}") is TASKS[f"custom:{new}"]


def config_of(file, task):
    """Returns the config of a file, and how the file opens."""
    path = Path(__file__).parents[2] / "configs" / "finetune" / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_config_dict(FinetuningConfig, module.get_config(*[task] if task else []))
    return config, module.__doc__
