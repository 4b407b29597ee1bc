"""A loaded model that answers: fill_mask and next_sentence, alone and in batches, and scripts/predict.py."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bert_jax
from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.inference.language_model import Prediction
from bert_jax.inference.model import Model
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.model.heads import BertForPreTraining
from bert_jax.model.inputs import Inputs
from bert_jax.model.layers import dense
from bert_jax.model.quantization import dequantize, quantize
from bert_jax.runtime.execution import Execution
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer, truncate_pair

ROOT = Path(__file__).parents[2]
WORDS = ["the", "film", "was", "a", "good", "bad", "##ly", "##s", "actor", ".", ",", "cafe"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS]
CONFIG = ModelConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
)


@pytest.fixture(scope="module")
def model():
    ids, starts = jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 1), jnp.int32)
    init = functools.partial(BertForPreTraining(CONFIG).init, sequence_starts=starts, masked_positions=ids)
    shapes = jax.eval_shape(init, jax.random.key(0), Inputs(ids, ids, ids, ids))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0.0, 0.3, leaf.shape).astype(np.float32), shapes)
    return Model(Pretrained(params, CONFIG), Tokenizer.from_vocabulary(VOCABULARY))


@pytest.fixture
def traces(monkeypatch):
    """The shapes that the model is traced with; a call that is compiled already adds nothing."""
    shapes = []
    plain = nn.Module.apply

    def counted(self, variables, *args, **kwargs):
        shapes.append(args[0].input_ids.shape)
        return plain(self, variables, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "apply", counted)
    return shapes


def probabilities(model, ids, token_types):
    """The plain computation, unpadded: MLM probabilities [L, V] and the probability that B follows A."""
    ids, token_types = (jnp.asarray([value], jnp.int32) for value in (ids, token_types))
    positions = jnp.arange(ids.shape[1])[None]
    mlm, nsp = BertForPreTraining(CONFIG).apply(
        {"params": model.params},
        Inputs(ids, token_types, positions, jnp.ones_like(ids)),
        sequence_starts=jnp.zeros((1, 1), int),
        masked_positions=positions,
    )
    return np.asarray(jax.nn.softmax(mlm[0])), float(jax.nn.softmax(nsp[0, 0])[0])


# ----------------------------------------------------------------------------------------------------------- fill_mask


@pytest.mark.slow
def test_fill_mask_is_the_plain_computation(model):
    answer = model.fill_mask("The [MASK] was [MASK].", top_k=3)
    ids = [2, 5, 4, 7, 4, 14, 3]
    expected, _ = probabilities(model, ids, [0] * 7)
    assert len(answer) == 2
    for position, predictions in zip((2, 4), answer, strict=True):
        row = expected[position, : len(VOCABULARY)]
        best = np.argsort(-row)[:3]
        assert [prediction.token for prediction in predictions] == [VOCABULARY[entry] for entry in best]
        np.testing.assert_allclose([prediction.score for prediction in predictions], row[best], rtol=1e-5)
        assert all(isinstance(prediction, Prediction) for prediction in predictions)


def test_fill_mask_text_replaces_its_own_mask_only(model):
    first, second = model.fill_mask("The [MASK] was  [MASK]!", top_k=len(VOCABULARY))
    texts = {prediction.token: prediction.text for prediction in first}
    assert texts["film"] == "The film was  [MASK]!"
    assert texts["##s"] == "Thes was  [MASK]!"
    texts = {prediction.token: prediction.text for prediction in second}
    assert texts["good"] == "The [MASK] was  good!"
    assert texts["##ly"] == "The [MASK] wasly!"


@pytest.mark.slow
def test_fill_mask_offers_tokens_of_the_vocabulary_only(model):
    (predictions,) = model.fill_mask("the [MASK]", top_k=1_000)
    assert sorted(prediction.token for prediction in predictions) == sorted(VOCABULARY)
    scores = [prediction.score for prediction in predictions]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_a_mask_alone_and_masks_side_by_side(model):
    assert len(model.fill_mask("[MASK]")) == 1
    assert len(model.fill_mask("good[MASK][MASK]ly")) == 2


def test_fill_mask_without_a_mask(model):
    for text in ("the film", ""):
        with pytest.raises(UserError, match=r"no \[MASK\]"):
            model.fill_mask(text)
    with pytest.raises(UserError, match="top_k=0"):
        model.fill_mask("[MASK]", top_k=0)


@pytest.mark.slow
def test_a_long_text_is_cut_behind_its_masks_or_refused(model):
    room = CONFIG.max_position_embeddings - 2
    fits = "the " * (room - 1) + "[MASK] " + "film " * 50
    (predictions,) = model.fill_mask(fits, top_k=2)
    expected, _ = probabilities(model, [2, *[5] * (room - 1), 4, 3], [0] * (room + 2))
    np.testing.assert_allclose(
        [prediction.score for prediction in predictions], np.sort(expected[room, : len(VOCABULARY)])[:-3:-1], rtol=1e-5
    )
    with pytest.raises(UserError, match=f"token {room + 1} of the text, the model reads {room}"):
        model.fill_mask("[MASK] " + "the " * (room - 1) + "[MASK]")


# ------------------------------------------------------------------------------------------------------- next_sentence


@pytest.mark.slow
def test_next_sentence_is_the_plain_computation(model):
    _, expected = probabilities(model, [2, 5, 6, 3, 7, 9, 14, 3], [0, 0, 0, 0, 1, 1, 1, 1])
    assert model.next_sentence("The film", "was good.") == pytest.approx(expected, rel=1e-5)
    assert isinstance(model.next_sentence("the", "film"), float)


def test_next_sentence_of_nothing(model):
    with pytest.raises(UserError, match="first text is empty"):
        model.next_sentence(" ", "the film")
    with pytest.raises(UserError, match="second text is empty"):
        model.next_sentence("the film", "")


@pytest.mark.slow
def test_long_pairs_are_truncated_as_bert_does(model):
    room = CONFIG.max_position_embeddings - 3
    first, second = [5] * 30, [6] * 25
    one, other = truncate_pair(first, second, room)
    _, expected = probabilities(model, [2, *one, 3, *other, 3], [0] * (len(one) + 2) + [1] * (len(other) + 1))
    assert model.next_sentence("the " * 30, "film " * 25) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- batches


def random_texts(count, masks=True):
    rng = np.random.default_rng(2)
    texts = []
    for _ in range(count):
        words = rng.choice(WORDS[:6], rng.integers(1, 36)).tolist()
        if masks:
            words[rng.integers(len(words))] = "[MASK]"
        texts.append(" ".join(words))
    return texts


@pytest.mark.slow
def test_a_batch_answers_in_order_and_keeps_errors_apart(model):
    texts = random_texts(50)
    texts[7] = "no mask here"
    texts[20] = ""
    told = []
    answers = model.fill_mask_batch(texts, top_k=2, batch_size=8, progress=told.append)
    assert sum(told) == 48
    for number, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        if number in (7, 20):
            assert isinstance(answer, UserError)
            continue
        ((best, _),) = answer
        ((alone, _),) = model.fill_mask(text, top_k=2)
        assert (best.token, best.text) == (alone.token, alone.text)
        assert best.score == pytest.approx(alone.score, rel=1e-5)


@pytest.mark.slow
def test_a_batch_of_pairs(model):
    texts = random_texts(40, masks=False)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    pairs[3] = ("the", "")
    answers = model.next_sentence_batch(pairs, batch_size=8)
    assert isinstance(answers[3], UserError)
    for number in (0, 1, 2, 19):
        assert answers[number] == pytest.approx(model.next_sentence(*pairs[number]), rel=1e-5)
    assert model.next_sentence_batch([]) == []


@pytest.mark.slow
def test_many_lengths_compile_a_few_times(model, traces):
    other = dataclasses.replace(CONFIG, layer_norm_eps=2e-12)  # of which no other test has compiled anything
    fresh = Model(Pretrained(model.params, other), model.tokenizer)
    texts = random_texts(300)
    assert len({len(text.split()) for text in texts}) > 25
    for text in texts:
        fresh.fill_mask(text)
    assert sorted(traces) == [(1, 16), (1, 24), (1, 32), (1, 40)]
    fresh.fill_mask_batch(texts, batch_size=16)  # 18 full batches, and one of 12 that is filled up to 16
    assert sorted(traces[4:]) == [(16, 16), (16, 24), (16, 32), (16, 40)]
    fresh.fill_mask_batch(texts, batch_size=16)
    assert len(traces) == 8


# ---------------------------------------------------------------------------------------------------------------- load


@pytest.mark.slow
def test_bfloat16_answers_about_the_same(model, tmp_path):
    """Two to three digits, and not the very numbers of float32: the computation is another."""
    half = Model(Pretrained(model.params, model.config), model.tokenizer, "bfloat16")
    texts = ["the film was good .", "good", "a bad film and a good one"]
    for one, other in (
        (half.embed(texts), model.embed(texts)),
        (half.encode(texts).hidden, model.encode(texts).hidden),
        (half.encode(texts).pooled, model.encode(texts).pooled),
        (half.next_sentence("good", "bad"), model.next_sentence("good", "bad")),
        (np.log(half.pseudo_perplexity(texts[0])), np.log(model.pseudo_perplexity(texts[0]))),
    ):
        assert np.asarray(one).dtype.itemsize >= 4
        difference = np.linalg.norm(np.subtract(one, other)) / np.linalg.norm(other)
        assert 0 < difference < 0.05
    with pytest.raises(UserError, match="dtype='float16' is not known"):
        Model(Pretrained(model.params, model.config), model.tokenizer, "float16")
    half.save(tmp_path / "saved")  # what was loaded, not what it computes with
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(tmp_path / "saved").params, model.params)


@pytest.mark.slow
def test_bfloat16_matrices_are_stored_in_it_without_changing_a_bit(model):
    half = Model(Pretrained(model.params, model.config), model.tokenizer, "bfloat16")
    assert half.params["bert"]["encoder"]["layer_0"]["attention"]["query"]["kernel"].dtype == jnp.bfloat16
    assert half.params["bert"]["encoder"]["layer_0"]["attention_layer_norm"]["scale"].dtype == jnp.float32
    texts = ["the film was good .", "a bad film"]
    stored = half.encode(texts), half.next_sentence(*texts), half.pseudo_perplexity(texts[0])
    half.params = model.params
    converted = half.encode(texts), half.next_sentence(*texts), half.pseudo_perplexity(texts[0])
    jax.tree.map(np.testing.assert_array_equal, stored, converted)


def test_a_cpu_gives_float32_for_bfloat16_products():
    """What makes them twice as fast there; XLA would give bfloat16 at the rate of float32."""
    layer = dense(ModelConfig(), 4, Execution(jnp.bfloat16))
    inputs = jnp.ones((2, 3), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), inputs)
    assert layer.apply(variables, inputs).dtype == jnp.bfloat16
    assert "preferred_element_type=float32" in str(jax.make_jaxpr(layer.apply)(variables, inputs))


@pytest.mark.slow
def test_int8_takes_a_quarter_of_the_memory_and_answers_about_the_same(model):
    small = Model(Pretrained(model.params, model.config), model.tokenizer, "int8")
    size = lambda params: sum(leaf.nbytes for leaf in jax.tree.leaves(params["bert"]))  # noqa: E731
    assert 0.25 < size(small.params) / size(model.params) < 0.35  # biases, LayerNorm and scales are float32
    texts = ["the film was good .", "good", "a bad film and a good one"]
    for one, other in (
        (small.embed(texts), model.embed(texts)),
        (small.next_sentence("good", "bad"), model.next_sentence("good", "bad")),
        (np.log(small.pseudo_perplexity(texts[0])), np.log(model.pseudo_perplexity(texts[0]))),
    ):
        assert 0 < np.linalg.norm(np.subtract(one, other)) / np.linalg.norm(other) < 0.05


def test_each_output_has_its_own_scale_in_int8():
    """Within half a step of its largest weight, whatever the others are; a column of zeros stays."""
    kernel = np.random.default_rng(0).normal(size=(40, 6)) * [1e-3, 1, 1e3, 0, 1, 1]
    table = kernel.T.copy()
    params = {"bert": {"x": {"kernel": kernel.astype(np.float32)}, "y": {"embedding": table.astype(np.float32)}}}
    found = dequantize(quantize(params), jnp.float32)["bert"]
    step = np.abs(kernel).max(axis=0) / 127
    assert (np.abs(found["x"]["kernel"] - kernel) <= 0.501 * step).all()
    assert (np.abs(found["y"]["embedding"] - table) <= 0.501 * step[:, None]).all()


@pytest.mark.slow
def test_load_from_a_folder_and_from_a_workdir(model, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text("{}")
    (workdir / "metrics.jsonl").write_text("")
    model.save(workdir / "model")
    for path in (workdir, str(workdir / "model")):
        loaded = bert_jax.load(path)
        assert loaded.config == CONFIG
        jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)
        assert loaded.fill_mask("The [MASK].") == model.fill_mask("The [MASK].")
        assert loaded.next_sentence("the", "film") == model.next_sentence("the", "film")


def test_load_says_what_it_looked_for(model, tmp_path):
    with pytest.raises(UserError, match="nowhere is no folder"):
        bert_jax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no model: .*model\.safetensors"):
        bert_jax.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=f"has not finished.*--workdir={tmp_path}"):
        bert_jax.load(tmp_path)


def test_load_of_a_model_with_another_tokenizer(model, tmp_path):
    model.save(tmp_path / "model")
    Tokenizer.from_vocabulary([*VOCABULARY, *(f"x{number}" for number in range(9))]).save(tmp_path / "other")
    for path in (tmp_path / "other").glob("*.*"):
        shutil.copy(path, tmp_path / "model")
    with pytest.raises(UserError, match=r"ids up to 25, .* 17 rows \(vocab_size\)"):
        bert_jax.load(tmp_path / "model")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        bert_jax.load(tmp_path / "model")


@pytest.mark.subprocess
def test_the_text_room_does_not_start_jax():
    code = "import sys, bert_jax.text.tokenizer; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=120).returncode == 0


# -------------------------------------------------------------------------------------------------- scripts/predict.py


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def predict(*arguments, text=b""):
    command = [sys.executable, str(ROOT / "scripts" / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, env=environment(), timeout=300)


@pytest.mark.slow
@pytest.mark.subprocess
def test_predict_fill_mask(model, tmp_path):
    model.save(tmp_path / "model")
    lines = [
        b"The [MASK] was good",
        b"",
        b"no mask",
        b"caf\xc3\xa9 [MASK]\r",
        b"bad \xff [MASK]",
        b"the " * 60 + b"[MASK]",
    ]
    done = predict("fill-mask", f"--model={tmp_path / 'model'}", "--top_k=2", "--window=4", text=b"\n".join(lines))
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(answers) == len(lines)
    expected = model.fill_mask("The [MASK] was good", top_k=2)
    for got, want in zip(answers[0]["masks"][0], expected[0], strict=True):
        assert got == {"token": want.token, "score": pytest.approx(want.score, rel=1e-5), "text": want.text}
    assert answers[3]["masks"][0][0]["text"].startswith("café")
    errors = {number: answer["error"] for number, answer in enumerate(answers, 1) if "error" in answer}
    assert sorted(errors) == [2, 3, 5, 6]
    for number, words in {2: "the text is empty", 3: "no [MASK]", 5: "not UTF-8 at byte 5", 6: "token 61"}.items():
        assert errors[number].startswith(f"line {number}: ")
        assert words in errors[number]
    assert done.stderr.startswith(b"4 lines have no answer")  # and no bar before it: nobody looks


@pytest.mark.slow
@pytest.mark.subprocess
def test_predict_next_sentence_from_file_to_file(model, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "in.tsv").write_text("the film\twas good\nno tab\nthe\t\nthe\tfilm\n")
    output = tmp_path / "out.jsonl"
    files = f"--input={tmp_path / 'in.tsv'}", f"--output={output}"
    done = predict("next-sentence", f"--model={tmp_path / 'model'}", *files)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert answers[0] == {"probability": pytest.approx(model.next_sentence("the film", "was good"), rel=1e-5)}
    assert "found 0 tabs" in answers[1]["error"]
    assert "the text_pair is empty" in answers[2]["error"]
    assert answers[3] == {"probability": pytest.approx(model.next_sentence("the", "film"), rel=1e-5)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tsv", "model", "out.jsonl"]


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fill-mask", "--model=/nowhere"], "/nowhere is no folder"),
        (["fill-mask", "--model=/nowhere", "--input=/no/such/file"], "/no/such/file"),
        (["sing", "--model=/nowhere"], "wanted one TASK of fill-mask, next-sentence"),
        (["fill-mask"], "--model is required: workdir of a finished run"),
    ],
)
def test_predict_refuses_in_one_line(arguments, words):
    done = predict(*arguments)
    assert done.returncode == 1
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_numbers_of_calls_are_whole(model, tmp_path):
    texts = ["the film", "a good actor"]
    np.testing.assert_array_equal(
        model.embed(texts, max_length=np.int64(4), batch_size=np.int32(1)),
        model.embed(texts, max_length=4, batch_size=1),
    )
    for value in (1.5, "2", None, True, -1):
        with pytest.raises(UserError, match=f"batch_size={value!r}: a whole number of at least 1"):
            model.embed(texts, batch_size=value)
        with pytest.raises(UserError, match=f"max_length={value!r}: a whole number of at least 0"):
            model.embed(texts, max_length=value)
        with pytest.raises(UserError, match=f"top_k={value!r}: a whole number of at least 1"):
            model.fill_mask("the [MASK]", top_k=value)
    for folder in (None, 5, ""):
        with pytest.raises(UserError, match=f"a folder is wanted to save the model in, not {folder!r}"):
            model.save(folder)
