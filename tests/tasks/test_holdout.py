"""Validation drawn from training: alike in its labels, without a text of training, the same for the same seed."""

import collections
import random

import pytest

from bert_jax.config import FinetuningConfig, TaskDataConfig, from_config_dict, to_config_dict, with_overrides
from bert_jax.errors import UserError
from bert_jax.tasks.holdout import held_out
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassificationExample
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.tasks.table import TASKS


def kind_of(name):
    return TASKS[f"custom:{name}"].kind


def texts(counts):
    examples = [(label, number) for label, count in counts.items() for number in range(count)]
    random.Random(0).shuffle(examples)
    return [TextExample(f"{label}{n}", f"text {label} {n}", None, label) for label, n in examples]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_class_keeps_its_share_and_nothing_is_lost(share, seed, capsys):
    examples = texts({"a": 600, "b": 300, "c": 7, "rare": 1, "rarer": 1, "rarest": 1})
    train, validation = held_out(kind_of("classification"), examples, share, seed, "train.csv")
    assert sorted(train + validation, key=examples.index) == examples
    for part in (train, validation):
        assert part == sorted(part, key=examples.index)
    counts = collections.Counter(example.label for example in validation)
    for label, count in {"a": 600, "b": 300, "c": 7}.items():
        assert abs(counts[label] - share * count) <= 1
    assert not counts.keys() & {"rare", "rarer", "rarest"}
    told = f"{len(validation)} of 910 examples of train.csv are held out, drawn by seed {seed} (a {counts['a']}, b"
    assert told in capsys.readouterr().out


def test_the_seed_draws():
    examples = texts({"a": 50, "b": 50})
    drawn = [held_out(kind_of("classification"), examples, 0.2, seed, "x")[1] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_equal_texts_stay_together():
    draw = random.Random(2)
    forms = ["a  Text {}", "A text {} "]
    examples = [
        TextExample(str(number), draw.choice(forms).format(number % 60), None, "ab"[number % 2])
        for number in range(400)
    ]
    train, validation = held_out(kind_of("classification"), examples, 0.2, 0, "x")
    assert 60 <= len(validation) <= 90
    one, other = ({" ".join(each.text.casefold().split()) for each in part} for part in (train, validation))
    assert not one & other


def test_questions_on_a_context_stay_together():
    examples = [QuestionAnsweringExample(str(n), f"q{n}", f"context {n // 5}", (), False) for n in range(200)]
    train, validation = held_out(kind_of("question_answering"), examples, 0.1, 0, "x")
    assert len(validation) == 20
    assert not {each.context for each in train} & {each.context for each in validation}


def test_every_tag_stays_in_training():
    draw = random.Random(3)
    sets = [("O",), ("O", "B-X"), ("B-Y", "I-Y", "O"), ("B-X", "B-Z")]
    examples = [
        TokenClassificationExample(str(n), tuple(f"w{n}" for _ in tags), tags)
        for n in range(300)
        for tags in [draw.choices(sets, [60, 30, 10, 1])[0]]
    ]
    examples.append(TokenClassificationExample("once", ("w",), ("B-ONCE",)))
    train, validation = held_out(kind_of("token_classification"), examples, 0.3, 0, "x")
    tags = [{tag for each in part for tag in each.tags} for part in (train, validation)]
    assert tags[1] < tags[0] == {tag for each in examples for tag in each.tags}
    assert abs(len(validation) - 90) <= 3


@pytest.mark.parametrize("counts", [{"a": 1, "b": 1}, {"a": 4}, {"a": 2, "b": 2}])
def test_too_few_are_told(counts):
    with pytest.raises(UserError, match=r"none of \d examples can be held out for data.validation=0.1"):
        held_out(kind_of("classification"), texts(counts), 0.1, 0, "x")


@pytest.mark.parametrize(("value", "share"), [("0.1", 0.1), (0.1, 0.1), ("dev.csv", None), ("", None), ("./0.1", None)])
def test_a_share_stands_where_a_path_would(value, share):
    assert TaskDataConfig(validation=value).validation_share == share
    config = with_overrides(FinetuningConfig(total_steps=1), {"data.validation": value})
    assert config.data.validation_share == share
    file = to_config_dict(FinetuningConfig(total_steps=1))  # as a config file has it
    file.data.validation = value
    assert from_config_dict(FinetuningConfig, file) == config


@pytest.mark.parametrize("value", ["1.5", 0.0, "0", "-0.1", "nan"])
def test_shares_that_are_none(value):
    with pytest.raises(UserError, match="a file is wanted, or a share of train between 0 and 1"):
        TaskDataConfig(validation=value)
