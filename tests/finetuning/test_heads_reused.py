"""A head serves a task again only if it is for the same classes, in whatever order it has them."""

import numpy as np
import pytest
from helpers.fine_tuned import fine_tuned

from bert_jax.config import FinetuningConfig
from bert_jax.finetuning.run import Prepared, with_head_for
from bert_jax.interop.layout import Pretrained
from bert_jax.tasks.kinds.base import Codec
from bert_jax.tasks.table import task_named


@pytest.mark.parametrize("kind", ["classification", "multi_label", "token_classification"])
@pytest.mark.parametrize(
    ("labels", "rows", "words"),
    [
        (("B-A", "O", "I-A"), [0, 2, 1], "in another order: its classes are put as here, B-A, I-A, O"),
        (("b-a", "o", "i-a"), [0, 2, 1], "in another order"),
        (("B-A", "I-A", "O"), [0, 1, 2], ""),
        (("B-A", "I-A", "B-B"), None, "drawn at random"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), None, "drawn at random"),
    ],
)
def test_the_rows_of_a_head_follow_the_names_of_its_classes(kind, labels, rows, words, capsys):
    names, task = ("B-A", "I-A", "O"), task_named(f"custom:{kind}")
    model = fine_tuned(kind, labels)
    loaded = Pretrained(model.params, model.config, labels, task.kind.problem_type)
    codec = Codec(model.tokenizer, names, 32)
    start = with_head_for(
        FinetuningConfig(init_from="the model", total_steps=1), Prepared(task, {}, loaded, codec)
    ).params
    assert words in capsys.readouterr().out
    assert (task.kind.head in start) == (rows is not None)
    if rows is not None:
        for name, values in loaded.params[task.kind.head].items():
            np.testing.assert_array_equal(start[task.kind.head][name], np.asarray(values)[..., rows])


def test_a_head_for_another_problem_is_drawn_anew(capsys):
    model = fine_tuned("multi_label", ("a", "b"))
    loaded = Pretrained(model.params, model.config, ("a", "b"), "multi_label_classification")
    prepared = Prepared(task_named("custom:classification"), {}, loaded, Codec(model.tokenizer, ("a", "b"), 32))
    assert (
        "sequence_classification" not in with_head_for(FinetuningConfig(init_from="it", total_steps=1), prepared).params
    )
    assert "it has sequence_classification for multi_label_classification a, b" in capsys.readouterr().out


def test_one_decision_is_no_number(capsys):
    model = fine_tuned("multi_label", ("toxic",))
    loaded = Pretrained(model.params, model.config, ("toxic",), "multi_label_classification")
    prepared = Prepared(task_named("custom:regression"), {}, loaded, Codec(model.tokenizer, (), 32))
    config = FinetuningConfig(init_from="it", total_steps=1)
    assert "sequence_classification" not in with_head_for(config, prepared).params
    assert "for multi_label_classification toxic" in capsys.readouterr().out


def test_classes_without_names_are_those_of_a_task_that_fixes_them(capsys):
    model = fine_tuned("classification", ("LABEL_0", "LABEL_1"))
    loaded = Pretrained(model.params, model.config, ("LABEL_0", "LABEL_1"))
    prepared = Prepared(task_named("mrpc"), {}, loaded, Codec(model.tokenizer, task_named("mrpc").labels, 32))
    assert with_head_for(FinetuningConfig(init_from="it", total_steps=1), prepared).params is loaded.params
    assert "does not name the classes of its head: they are taken as" in capsys.readouterr().out
