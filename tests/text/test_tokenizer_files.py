"""A folder's tokenizer is read as `transformers` reads it, or refused by the name of what is not BERT's."""

import json
import warnings

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from bert_jax.errors import UserError
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = [*SPECIAL_TOKENS, "the", "film", "##s", "é", "e"]


def write(folder, words=WORDS, encoding="utf-8", **settings):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding=encoding)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def fast(folder, change, **settings):
    """Writes the tokenizer.json of `WORDS`, after `change` has changed it."""
    Tokenizer.from_vocabulary(WORDS).save(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    "name",
    ["BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "XLMRobertaTokenizerFast", "XBertTokenizer", 7],
)
def test_a_tokenizer_of_another_class_is_refused_by_name(tmp_path, file, name):
    (write(tmp_path) / file).write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(UserError, match=rf"{file}: tokenizer_class is {json.dumps(name)}, .*only BertTokenizer"):
        Tokenizer.load(tmp_path)


def test_classes_that_are_berts_under_another_name(tmp_path):
    for name in ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast"):
        assert Tokenizer.load(write(tmp_path, tokenizer_class=name)).tokens == WORDS
    with pytest.raises(UserError, match="PreTrainedTokenizerFast"):  # it is what tokenizer.json says, and there is none
        Tokenizer.load(write(tmp_path, tokenizer_class="PreTrainedTokenizerFast"))


def test_empty_lines_behind_a_vocabulary_are_no_tokens(tmp_path):
    assert Tokenizer.load(write(tmp_path, [*WORDS, "", ""])).tokens == WORDS


def test_a_generic_class_follows_tokenizer_json_alone(tmp_path):
    for name, kept in (("PreTrainedTokenizerFast", True), ("BertTokenizer", False)):
        folder = fast(tmp_path, lambda content: None, tokenizer_class=name, do_lower_case=False)
        assert Tokenizer.load(folder).lower_case == kept


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cls_token": "<s>"}, 'cls_token is "<s>"'),
        ({"mask_token": {"content": "<mask>"}}, 'mask_token is "<mask>"'),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is false"),
        ({"word_tokenizer_type": "mecab"}, 'word_tokenizer_type is "mecab"'),
        ({"subword_tokenizer_type": "character"}, 'subword_tokenizer_type is "character"'),
        ({"do_lower_case": "no"}, 'do_lower_case is "no"'),
        ({"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, "Python code"),
        ({"added_tokens_decoder": {"5": {"content": "the"}}}, "added tokens"),
    ],
)
def test_settings_that_are_not_berts(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        Tokenizer.load(write(tmp_path, **settings))


def unigram(content):
    content["model"] = json.loads(tokenizers.Tokenizer(models.Unigram()).to_str())["model"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unigram, "is not WordPiece but Unigram"),
        (lambda content: content.update(normalizer=None), "normalizer is null"),
        (
            lambda content: content.update(normalizer=json.loads(normalizers.NFKC().__getstate__())),
            'normalizer is "NFKC"',
        ),
        (
            lambda content: content.update(pre_tokenizer=json.loads(pre_tokenizers.Whitespace().__getstate__())),
            'pre_tokenizer is "Whitespace"',
        ),
        (lambda content: content["model"].update(continuing_subword_prefix="@@"), 'subword_prefix is "@@"'),
        (
            lambda content: content.update(
                post_processor=json.loads(processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)).__getstate__())
            ),
            "post_processor does not make",
        ),
        (lambda content: content["post_processor"]["pair"][3]["Sequence"].update(type_id=0), "post_processor"),
    ],
)
def test_a_tokenizer_json_that_is_not_berts(tmp_path, change, words):
    with pytest.raises(UserError, match=rf"tokenizer\.json: .*{words}"):
        Tokenizer.load(fast(tmp_path, change))


def test_post_processors_that_are_berts(tmp_path):
    bert = json.loads(processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)).__getstate__())
    for processor in (None, bert):
        folder = fast(tmp_path, lambda content, processor=processor: content.update(post_processor=processor))
        assert Tokenizer.load(folder).tokens == WORDS


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "tokenizer_config.json"])
def test_byte_order_marks_and_other_encodings(tmp_path, name):
    folder = tmp_path if name != "vocab.txt" else write(tmp_path)
    if name != "vocab.txt":
        Tokenizer.from_vocabulary(WORDS).save(folder)
    expected, text = Tokenizer.load(folder).hash, (folder / name).read_text()
    (folder / name).write_text(text, encoding="utf-8-sig")
    assert Tokenizer.load(folder).hash == expected
    for encoding, words in (("utf-16", "UTF-16"), ("latin-1", "not UTF-8")):
        (folder / name).write_bytes(f"é{text}".encode(encoding))
        with pytest.raises(UserError, match=f"{name}.*{words}"):
            Tokenizer.load(folder)


def test_a_vocabulary_of_cased_text_keeps_the_case_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match=r"vocab\.txt: 2 of 12 entries have capitals, such as Film.* keeps its case"):
        tokenizer = Tokenizer.load(write(tmp_path, [*WORDS, "Film", "##S"]))
    assert not tokenizer.lower_case
    with pytest.warns(UserWarning, match="1 of 99 entries have capitals.*text is lower-cased"):
        assert Tokenizer.load(write(tmp_path, [*WORDS, "T", *map(str, range(88))])).lower_case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tokenizer.load(write(tmp_path, [*WORDS, "<S>", "<T>"])).lower_case  # of Google's Chinese vocabulary
        assert Tokenizer.load(write(tmp_path, [*WORDS, "Film", "##S"], do_lower_case=True)).lower_case


def test_a_token_that_stands_twice_has_its_last_place(tmp_path):
    """As in `transformers`; the first place has no token."""
    transformers = pytest.importorskip("transformers")
    words = [*WORDS, "film", "good"]
    tokenizer = Tokenizer.load(write(tmp_path, words, do_lower_case=True))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.vocab_size == len(words)
    assert (
        tokenizer.encode_batch(["the films good"])[0] == theirs("the films good", add_special_tokens=False)["input_ids"]
    )
    assert [number for number, is_token in enumerate(tokenizer.is_token) if not is_token] == [WORDS.index("film")]
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path / "saved").encode_batch(["the films good"]) == tokenizer.encode_batch(
        ["the films good"]
    )


def test_an_id_far_beyond_the_others_is_refused_before_memory_is_taken(tmp_path):
    folder = fast(tmp_path, lambda content: content["model"]["vocab"].update(far=2_000_000_000))
    with pytest.raises(UserError, match=r"tokenizer\.json: the vocabulary has 11 tokens, and an id of 2000000000"):
        Tokenizer.load(folder)
