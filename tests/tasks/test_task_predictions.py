"""What fine-tuned heads say of new text: classify, tag, answer, pseudo-perplexity, alone and line by line."""

import dataclasses
import functools
import io
import json
import math

import numpy as np
import pytest
import torch
import transformers
from helpers import random_model
from helpers.fine_tuned import CONFIG, fine_tuned

from bert_jax import load
from bert_jax.config import HeadSettings
from bert_jax.errors import UserError
from bert_jax.inference import lines
from bert_jax.inference.inputs import line_inputs
from bert_jax.inference.model import Model
from bert_jax.inference.words import tagging_of, words_of
from bert_jax.interop import huggingface
from bert_jax.metrics.tag_schemes import TagScheme
from bert_jax.tasks.kinds.base import Codec
from bert_jax.tasks.kinds.token_classification import Tags, TokenClassification, TokenClassificationExample
from bert_jax.tasks.spans import best_answers, question_rows
from bert_jax.tasks.squad import QuestionAnsweringExample

pytestmark = pytest.mark.torch

TEXTS = ["the film was good", ("the film", "was a word1 of an actor"), "the " * 100]


def theirs(model, directory):
    """The same in PyTorch, read from what `save` wrote; and their tokenizer."""
    model.save(directory)
    name = json.loads((directory / "config.json").read_text())["architectures"][0]
    network = getattr(transformers, name).from_pretrained(directory, attn_implementation="eager").eval()
    return network, transformers.AutoTokenizer.from_pretrained(directory)


def their_logits(network, tokenizer, text, **options):
    pair = (text,) if isinstance(text, str) else text
    with torch.no_grad():
        return network(**tokenizer(*pair, truncation=True, return_tensors="pt", **options))


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem_type", ["single_label_classification", "multi_label_classification", "regression", ""]
)
def test_classes_are_those_of_transformers(problem_type, tmp_path):
    labels = ("score",) if problem_type == "regression" else ("no", "maybe", "yes")
    model = fine_tuned("classification", labels, problem_type)
    network, tokenizer = theirs(model, tmp_path / "model")
    for answer, text in zip(model.classify(TEXTS, batch_size=2), TEXTS, strict=True):
        logits = their_logits(network, tokenizer, text).logits[0]
        if problem_type == "regression":
            assert answer == (pytest.approx(logits.item(), rel=1e-4, abs=1e-5),)
        elif problem_type == "multi_label_classification":
            probabilities = dict(zip(labels, torch.sigmoid(logits).tolist(), strict=True))
            assert answer.scores == pytest.approx(probabilities, rel=1e-4)
            assert answer.labels == [name for name in labels if probabilities[name] > 0.5]
        else:
            probabilities = dict(zip(labels, torch.softmax(logits, 0).tolist(), strict=True))
            assert answer.scores == pytest.approx(probabilities, rel=1e-4)
            assert answer.label == max(probabilities, key=probabilities.get)
            assert answer.score == answer.scores[answer.label]
    again = huggingface.load(tmp_path / "model")
    assert (again.labels, again.problem_type) == (labels, problem_type)


def test_one_class_is_a_number():
    """As transformers takes it, whatever the file says: its softmax would always be 1."""
    assert model_values(fine_tuned("classification", ("only",), "")) != {1.0}


def model_values(model):
    return {answer.value for answer in model.classify(["the film", "good"])}


@pytest.mark.slow
def test_long_texts_are_cut_or_averaged():
    model = fine_tuned("classification", ("no", "yes"))
    words = ["good"] * 60 + ["bad"] * 60
    head, tail, windows = (
        model.classify([" ".join(words)], truncation=truncation, max_length=42)[0].scores["yes"]
        for truncation in ("head", "tail", "windows")
    )
    assert head == pytest.approx(model.classify(["good " * 40])[0].scores["yes"], rel=1e-4)
    assert tail == pytest.approx(model.classify(["bad " * 40])[0].scores["yes"], rel=1e-4)
    parts = [" ".join(words[start : start + 40]) for start in range(0, 100, 20)]  # a window of 40, a stride of 20
    mean = np.mean([each.scores["yes"] for each in model.classify(parts)])
    assert windows == pytest.approx(mean, rel=1e-4)


@pytest.mark.slow
def test_a_head_reads_as_it_was_trained():
    settings = HeadSettings(max_length=20, truncation="tail")
    model = fine_tuned("classification", ("no", "yes"), settings=settings)
    text = "good " * 30 + "bad " * 30
    plain = fine_tuned("classification", ("no", "yes"))
    assert model.classify([text]) == plain.classify([text], truncation="tail", max_length=20)
    assert model.classify([text], truncation="head", max_length=30) == plain.classify([text], max_length=30)


def test_words_and_where_they_stand():
    text = "John's U.S. tour (of 1,000 well-known cafés) cost $5--or 6%."
    wanted = "John|'s|U.S|.|tour|(|of|1,000|well-known|cafés|)|cost|$|5|-|-|or|6|%|."
    whole, places = words_of(text)
    assert whole == text
    assert "|".join(text[start:stop] for start, stop in places) == wanted
    joined, places = words_of(["U.S.", "tour"])
    assert joined == "U.S. tour"
    assert [joined[start:stop] for start, stop in places] == ["U.S.", "tour"]
    assert words_of("")[1] == []


@pytest.mark.slow
def test_tags_are_those_of_the_first_token_of_each_word(tmp_path):
    labels = ("O", "B-X", "I-X")
    model = fine_tuned("token_classification", labels)
    network, tokenizer = theirs(model, tmp_path / "model")
    texts = ["the film was wordy, word1!", ["the", "unknowable", "film"], "", "film " * 100]
    found = model.tag(texts, max_length=20)
    for tagging, words in zip(found[:2], (["the", "film", "was", "wordy", ",", "word1", "!"], texts[1]), strict=True):
        assert [word.text for word in tagging.words] == words
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            probabilities = torch.softmax(network(**encoded).logits[0], 1)
        firsts = [encoded.word_ids().index(number) for number in range(len(words))]
        assert [word.tag for word in tagging.words] == [labels[probabilities[place].argmax()] for place in firsts]
        scores = [probabilities[place].max().item() for place in firsts]
        assert [word.score for word in tagging.words] == pytest.approx(scores, rel=1e-4)
    assert found[0].words[3][:3] == ("wordy", 13, 18)
    assert found[2] == ([], [])
    assert len(found[3].words) == 100  # more than a row takes


@pytest.mark.parametrize("nothing", ["", " \n", "\u200b\u200d", []])
def test_tags_of_nothing_are_none(nothing):
    model = fine_tuned("token_classification", ("O", "B-X", "I-X"))
    assert model.tag([nothing]) == [([], [])]
    neighbours = model.tag([nothing, "the film", nothing])
    assert neighbours == [([], []), *model.tag(["the film"]), ([], [])]
    assert model.tag([]) == []


def test_words_are_cut_as_training_had_them(tmp_path):
    labels = ("O", "B-X", "I-X")
    examples = [TokenClassificationExample("0", ("The", "U.S.", "film", "--", "good"), ("O", "B-X", "O", "O", "O"))]
    codec = TokenClassification().fitted(Codec(random_model.tokenizer(), labels, 20), examples)
    model = fine_tuned("token_classification", labels, settings=HeadSettings(20, whole_words=codec.whole_words))
    model.save(tmp_path / "model")
    text = "the U.S. film--in the U.S."
    for each in (model, load(tmp_path / "model")):
        assert [word.text for word in each.tag([text])[0].words] == ["the", "U.S.", "film", "--", "in", "the", "U.S."]
        assert [word.text for word in each.tag([["U", ".", "S."]])[0].words] == ["U", ".", "S."]


@pytest.mark.parametrize("value", ["U.S.", [1], {"U.S.": 1}, None])
def test_learned_words_that_are_none_are_an_error(value, tmp_path):
    fine_tuned("token_classification", ("O", "B-X")).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"bert_jax": {"whole_words": value}}))
    with pytest.raises(UserError, match=r"config.json.*whole_words wants a list of texts"):
        huggingface.load(tmp_path)


def test_an_empty_word_is_an_error_in_its_place():
    model = fine_tuned("token_classification", ("O", "B-X", "I-X"))
    good, fault, none = model.tag_batch(["the film", ["the", " "], ""])
    assert len(good.words) == 2
    assert str(fault) == "word 1 is empty: take it out"
    assert none == ([], [])


BIO = TagScheme("BIO")


def test_entities_from_tags():
    text, places = words_of("Jane  Roe saw Rome")
    tagging = tagging_of(text, places, Tags(["B-PER", "I-PER", "O", "I-LOC"], [0.5, 0.7, 0.9, 0.8]), BIO)
    assert tagging.entities == [("PER", "Jane  Roe", 0, 9, pytest.approx(0.6)), ("LOC", "Rome", 14, 18, 0.8)]
    assert tagging_of(text, places, Tags(["NN", "NN", "VB", "NN"], [1.0] * 4), None).entities == []


def test_entities_are_those_of_the_scheme_of_all_labels():
    """Whatever tags a text happens to have: U-PER alone is of no scheme that a single sentence could tell."""
    labels = ("O", "B-PER", "L-PER", "U-PER")
    (tagging,) = fine_tuned("token_classification", labels).tag(["the film was a good bad actor word1 word2 word3"])
    tags = [word.tag for word in tagging.words]
    assert set(tags) - {"O"}
    spans = [(label, tagging.words[first].start, tagging.words[last].stop) for label, first, last in entities_of(tags)]
    assert [(entity.label, entity.start, entity.stop) for entity in tagging.entities] == spans != []


def entities_of(tags):
    """Of BILOU without I: B and L side by side are one entity, any other is by itself."""
    found = []
    for place, tag in enumerate(tags):
        if tag == "L-PER" and place and tags[place - 1] == "B-PER":
            found[-1] = ("PER", place - 1, place)
        elif tag != "O":
            found.append(("PER", place, place))
    return found


@pytest.mark.slow
def test_answers_are_the_best_spans_of_their_logits(tmp_path):
    model = fine_tuned("question_answering")
    network, tokenizer = theirs(model, tmp_path / "model")
    context = "the actor was good and the film was a cafe word1 word2"
    example = QuestionAnsweringExample("0", "the film", context, (), True)
    (row,) = question_rows([example], random_model.tokenizer(), 80, stride=6)
    output = their_logits(network, tokenizer, ("the film", context))
    logits = output.start_logits.numpy(), output.end_logits.numpy()
    want = best_answers([row], *logits, context, unanswerable=False)
    found = model.answer("the film", context)
    assert (found.answer, found.start, found.stop) == (want.best.text, want.best.start, want.best.stop)
    assert context[found.start : found.stop] == found.answer != ""
    assert found.score == pytest.approx(want.best.probability, rel=1e-3)
    assert found.null_score_diff == pytest.approx(want.null_score_diff, rel=1e-3)
    assert [answer.text for answer in found.ranked] == [answer.text for answer in want.ranked]
    # A context of several windows, and one that is passed over.
    long, other, *empty = model.answer_batch(
        [("the film", "word1 " * 200), ("film", context), ("", context), ("film", " \n")]
    )
    assert [str(error) for error in empty] == ["the question is empty", "the context is empty"]
    assert long.answer.startswith("word1")
    alone = model.answer("film", context)
    assert other[:3] == alone[:3]
    assert other.score == pytest.approx(alone.score, rel=1e-4)


def test_the_threshold_decides_whether_there_is_an_answer(tmp_path):
    model = fine_tuned("question_answering", settings=HeadSettings(null_threshold=2.5))
    model.save(tmp_path / "model")
    again = huggingface.load(tmp_path / "model")
    assert again.settings == HeadSettings(null_threshold=2.5)
    question = ("the film", "the actor was good")
    diff = model.answer(*question).null_score_diff
    below, above = (model.answer_batch([question], null_threshold=diff + by)[0] for by in (-0.01, 0.01))
    assert below.answer == ""
    assert len(below.ranked) > 1
    assert above.answer != ""
    assert model.answer(*question).answer == ("" if diff > 2.5 else above.answer)
    transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "model")  # takes the key


@pytest.mark.slow
def test_pseudo_perplexity_hides_each_token_once():
    model = Model(random_model.random_model(CONFIG), random_model.tokenizer())
    text = "the film was word1"
    ids = model.tokenizer.encode_batch([text])[0]
    words = [model.tokenizer.id_to_token(number) for number in ids]
    assert len(words) == 4
    total = 0.0
    for place in range(4):
        hidden = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
        (proposals,) = model.fill_mask(hidden, top_k=model.config.vocab_size)
        total += math.log(next(each.score for each in proposals if each.token == words[place]))
    assert model.pseudo_perplexity(text) == pytest.approx(math.exp(-total / 4), rel=1e-4)
    found = model.pseudo_perplexity_batch([text, "", "the " * 100], batch_size=3)
    assert found[0] == (pytest.approx(model.pseudo_perplexity(text), rel=1e-4), 4)
    assert "the text is empty" in str(found[1])
    assert "the text has 100 tokens, the model reads 78" in str(found[2])
    with pytest.raises(UserError, match="the text is empty"):
        model.pseudo_perplexity("")


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("question_answering", lambda model: model.classify(["a"])),
        ("question_answering", lambda model: model.tag(["a"])),
        ("token_classification", lambda model: model.answer("a", "b")),
        ("token_classification", lambda model: model.pseudo_perplexity("a")),
    ],
)
def test_a_head_that_does_not_fit_is_told(kind, call):
    with pytest.raises(UserError, match=f"needs a model with .*: it has the body and .*{kind}"):
        call(fine_tuned(kind, ("O", "B")))


def test_other_errors():
    model = fine_tuned("classification", ("no", "yes"))
    with pytest.raises(UserError, match="max_length=81 is longer than the position table"):
        model.classify(["a"], max_length=81)
    with pytest.raises(UserError, match="item 1 is 3"):
        model.classify(["a", 3])
    with pytest.raises(UserError, match="a list of texts or pairs"):
        model.classify("a")
    assert model.classify([]) == []


# ------------------------------------------------------------------------------------------------------- line by line


def run_lines(name, model, text, json_lines=False, **options):
    task, target = lines.LINE_TASKS[name], io.StringIO()
    run = functools.partial(task.run, model, batch_size=4, **options)
    errors = lines.predict_lines(run, line_inputs(task, io.BytesIO(text), json_lines), target, window=3)
    found = [json.loads(line) for line in target.getvalue().splitlines()]
    assert errors == sum("error" in each for each in found)
    return found


@pytest.mark.slow
def test_lines_are_classified_in_their_order():
    model = fine_tuned("classification", ("no", "yes"))
    found = run_lines(
        "classify", model, b"the film was good\n\nthe film\twas bad\na\tb\tc\n" + b"good " * 200 + b"\nbad"
    )
    want = model.classify(["the film was good", ("the film", "was bad"), "good " * 200, "bad"])
    got = [found[number] for number in (0, 2, 4, 5)]
    assert [each["label"] for each in got] == [each.label for each in want]
    np.testing.assert_allclose([each["score"] for each in got], [each.score for each in want], rtol=1e-4)
    assert found[1] == {"error": "line 2: the text is empty"}
    assert found[3] == {"error": "line 4: wanted text<TAB>text_pair, found 2 tabs"}


def test_lines_of_json():
    model = fine_tuned("token_classification", ("O", "B-X"))
    text = b'{"id": 7, "text": "the film"}\n{"text": ["the", "film"]}\n{"id": "x"}\n[1]\n{"text": 3}\n{"text": []}\n{\n'
    found = run_lines("tag", model, text, json_lines=True)
    assert found[0].pop("id") == 7
    assert found[0] == found[1]
    assert [word["text"] for word in found[0]["words"]] == ["the", "film"]
    assert found[2]["id"] == "x"
    for place, words in enumerate(("no 'text' in it: there is 'id'", "not a JSON object", "not a text but a int"), 2):
        assert words in found[place]["error"]
    assert "not a list of words" in found[5]["error"]
    assert "line 7: not JSON" in found[6]["error"]


def test_lines_of_questions_and_vectors():
    model = fine_tuned("question_answering")
    found = run_lines("answer", model, b"the film\tthe actor was good\nthe film\n\tthe\n")
    assert found[0]["answer"] == model.answer("the film", "the actor was good").answer
    assert found[0]["ranked"][0]["text"] == found[0]["answer"]
    assert "wanted question<TAB>context, found 0 tabs" in found[1]["error"]
    assert "the question is empty" in found[2]["error"]
    (vector,) = run_lines("embed", model, b"the film", pooling="cls", normalize=True)
    np.testing.assert_allclose(vector["vector"], model.embed(["the film"], "cls", normalize=True)[0], atol=1e-6)


def test_a_missing_head_is_told_before_a_line_is_read():
    for name in lines.LINE_TASKS.keys() - {"answer", "embed"}:
        with pytest.raises(UserError, match="needs a model with"):
            run_lines(name, fine_tuned("question_answering"), b"", **({"top_k": 1} if name == "fill-mask" else {}))
    assert run_lines("embed", fine_tuned("question_answering"), b"") == []


def test_a_line_that_cannot_be_answered_leaves_the_others_their_answers():
    model = fine_tuned("classification", ("no", "yes"))
    found = run_lines("classify", model, b"the film\nthe film\tbad\ngood\n", truncation="tail", max_length=20)
    assert "truncation='tail' is for single texts" in found[1]["error"]
    assert [found[0]["label"], found[2]["label"]] == [each.label for each in model.classify(["the film", "good"])]


def test_lines_with_half_a_surrogate_pair_or_none_of_the_numbers_of_json():
    model = fine_tuned("classification", ("no", "yes"))
    text = b'\xef\xbb\xbf{"id": "\\ud83d", "text": "a \\ud83d film"}\n{"id": NaN, "text": "a"}\n'
    found = run_lines("classify", model, text, json_lines=True)
    assert found[0]["label"] in ("no", "yes")
    json.dumps(found, ensure_ascii=False).encode("utf-8")
    assert "not JSON: NaN" in found[1]["error"]


def test_a_batch_gives_an_error_in_the_place_of_an_answer():
    """And the method without _batch raises it."""
    model = fine_tuned("classification", ("no", "yes"))
    texts = ["the film", ("the film", "bad"), "good"]
    first, second, third = model.classify_batch(texts, truncation="tail", max_length=20)
    assert "truncation='tail' is for single texts" in str(second)
    assert isinstance(second, UserError)
    alone = model.classify(["the film", "good"], truncation="tail", max_length=20)
    assert [first.label, third.label] == [answer.label for answer in alone]
    with pytest.raises(UserError, match="truncation='tail' is for single texts"):
        model.classify(texts, truncation="tail", max_length=20)


@pytest.mark.slow
def test_a_model_of_one_token_type_answers_what_it_can():
    config = dataclasses.replace(CONFIG, type_vocab_size=1)
    model = fine_tuned("classification", ("no", "yes"), config=config)
    texts = ["the film", ("the film", "bad")]
    for good, error in (model.classify_batch(texts), model.embed_batch(texts)):
        assert not isinstance(good, UserError)
        assert "the model does not tell two texts apart" in str(error)
    questions = fine_tuned("question_answering", config=config).answer_batch([("the film", "the actor was good")])
    assert "the model does not tell two texts apart" in str(questions[0])
    with pytest.raises(UserError, match="does not tell two texts apart"):
        model.embed(texts)
