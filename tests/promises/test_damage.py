"""Damage to files of ours is never silent: of what is cut, zeroed, flipped or lost, a line tells, or nothing is wrong.

`--trials=1000` damages that many places of each kind in place of a few.
"""

import contextlib
import dataclasses
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.runs import metric_lines, tiny_run
from helpers.toy import CONFIG, Toy, assert_same_bits

from bert_jax.runtime import checksums
from bert_jax.config import DataConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.run import pretrain
from bert_jax.text.build import build_corpus
from bert_jax.text.corpus import SPLITS, Corpus, identity, read_header
from bert_jax.text.tokenizer import train_tokenizer
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.step import make_init

REGIONS = 5  # of each file: its beginning, its end, and what lies between


def cut(content: bytes, place: int, _draw: random.Random) -> bytes:
    return content[:place]


def zeroed(content: bytes, place: int, draw: random.Random) -> bytes:
    width = draw.choice((1, 16, 4096))
    return (content[:place] + bytes(width) + content[place + width :])[: len(content)]


def flipped(content: bytes, place: int, draw: random.Random) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def lost(_content: bytes, _place: int, _draw: random.Random) -> None:
    return None


def replaced(_content: bytes, _place: int, draw: random.Random) -> bytes:
    return draw.choice((b"", b"[]", b"7", b"null", b"[" * 50_000, b'{"a":' * 50_000, b"\xff\xfe{}", b'{"a": NaN}'))


def damages(folder: Path, trials: int, seed: int = 0) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields what is to be damaged, and the function that does it: each region of each file in each way."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    ways = (cut, zeroed, flipped, flipped, lost, replaced)
    everything = [(name, region, way) for name in files for region in range(REGIONS) for way in ways]
    draw = random.Random(seed)
    draw.shuffle(everything)
    for number in range(trials):
        name, region, way = everything[number % len(everything)]

        def damage(name=name, region=region, way=way) -> None:
            content = (folder / name).read_bytes()
            place = min(len(content) - 1, int(len(content) * (region + draw.random()) / REGIONS))
            changed = way(content, place, draw) if content else None
            if changed is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(changed)

        yield f"{number}: {way.__name__} {name} in region {region}", damage


@contextlib.contextmanager
def intact(folder: Path, scratch: Path) -> Iterator[Path]:
    """Gives a copy of a folder to be damaged."""
    copy = scratch / "copy"
    shutil.copytree(folder, copy)
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def outcome(function: Callable, *arguments) -> tuple[Any, str]:
    """Returns the result of a function, or what it says to the user, which must be a line."""
    try:
        return function(*arguments), ""
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 800
    return None, said


# ---- checkpoints ---------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_read_as_it_was_or_put_aside(straight, tmp_path, trials) -> None:
    """Of the files of the newest checkpoint, and of those of the others that are always read."""
    workdir, _, _ = straight
    init = make_init(Toy(), make_optimizer(CONFIG.optimizer), CONFIG.seed)
    abstract = jax.eval_shape(init)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, jax.jit(init)())

    def newest(folder: Path) -> tuple:
        checkpoints = Checkpoints(folder, keep=9)
        found = checkpoints.restore(abstract, shardings)
        checkpoints.close()
        assert found is not None
        return found

    with intact(workdir / "checkpoints", tmp_path) as copy:
        steps = sorted(int(path.name) for path in copy.iterdir())
        right = {}
        for step in reversed(steps):
            right[step] = newest(copy)
            shutil.rmtree(copy / str(step))
    assert len(right) > 1
    for number in range(max(trials, 6)):
        with intact(workdir / "checkpoints", tmp_path) as copy:
            step = steps[-1 - number % len(steps)]
            (name, damage), *_ = damages(copy / str(step), 1, seed=number)
            damage()
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                state, progress = newest(copy)
            assert said.getvalue().count("\n") == (not (copy / str(step)).exists()), (name, said.getvalue())
            wanted = right[int(state.step)]
            assert int(state.step) == steps[-1] or not (copy / str(steps[-1])).exists(), name
            assert_same_bits(state, wanted[0])
            assert progress == wanted[1], name


# ---- corpus --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(text_file, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    documents = text_file.read_text().split("\n\n")
    build_corpus(
        documents, train_tokenizer(documents, 300), directory, processes=1, verbose=False, validation_share=0.1
    )
    return directory


def contents(directory: Path) -> list[np.ndarray]:
    found = [Corpus.open(directory, split) for split in SPLITS]
    return [
        np.array(getattr(each, name)) for each in found for name in ("tokens", "sentences", "documents", "token_counts")
    ]


def test_a_damaged_corpus_is_refused_in_a_line_or_read_as_it_was(corpus, tmp_path, trials) -> None:
    right = contents(corpus)
    refused = 0
    for number in range(max(trials, 120)):
        with intact(corpus, tmp_path) as copy:
            (name, damage), *_ = damages(copy, 1, seed=number)
            damage()
            found, error = outcome(contents, copy)
            if error:
                refused += 1
                assert str(copy) in error, name
                continue
            for array, wanted in zip(found, right, strict=True):
                np.testing.assert_array_equal(array, wanted, err_msg=name)
    assert refused > 60


def without_checksums(directory: Path) -> None:
    header = json.loads((directory / "header.json").read_text())
    del header["checksums"]
    (directory / "header.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("file", "at", "value", "reason"),
    [
        ("tokens", 7, 60_000, r"token id 60,000 is beyond V=300"),
        ("sentences", 3, 1 << 40, "its offsets do not rise from 0 to"),
        ("sentences", 0, 1, "its offsets do not rise from 0 to"),
        ("documents", -1, 5, "its offsets do not rise from 0 to"),
        ("documents", 2, -1, "its offsets do not rise from 0 to"),
        ("token_counts", 9, -5, "the counts do not add up"),
        ("token_counts", 9, 10**6, "the counts do not add up"),
    ],
)
def test_a_corpus_without_checksums_is_still_read_and_checked_for_sense(
    corpus, tmp_path, file, at, value, reason
) -> None:
    """Of a former version."""
    with intact(corpus, tmp_path) as copy:
        without_checksums(copy)
        assert identity(copy) == ""
        for array, wanted in zip(contents(copy), contents(corpus), strict=True):
            np.testing.assert_array_equal(array, wanted)
        path = copy / "train" / f"{file}.bin"
        array = np.fromfile(path, np.uint16 if file == "tokens" else np.int64)
        array[at] = value
        array.tofile(path)
        with pytest.raises(UserError, match=rf"train/{file}\.bin is damaged \({reason}.*build the corpus again"):
            Corpus.open(copy)


def test_large_files_of_a_corpus_are_checked_when_asked_for(corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bert_jax.text.corpus._CHECKED", 10)
    with intact(corpus, tmp_path) as copy:
        path = copy / "train" / "tokens.bin"
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)
        Corpus.open(copy)
        with pytest.raises(UserError, match=r"tokens\.bin is damaged \(its CRC-32 is not"):
            Corpus.open(copy, verify=True)


def test_checksums_of_a_corpus_are_those_of_its_files(corpus) -> None:
    recorded = read_header(corpus)["checksums"]
    assert recorded == {path.relative_to(corpus).as_posix(): checksums.of_file(path) for path in corpus.glob("*/*.bin")}


# ---- a whole run ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_whose_folder_is_damaged_ends_in_a_line_or_with_the_same_model(
    finished, text_file, tmp_path, trials
) -> None:
    workdir, _ = finished
    weights = (workdir / "model" / "model.safetensors").read_bytes()
    for number in range(max(trials // 10, 2)):
        with intact(workdir, tmp_path) as copy:
            (name, damage), *_ = damages(copy, 1, seed=number)
            damage()
            _, error = outcome(pretrain, tiny_run(text_file), copy)
            if error:
                continue
            assert (copy / "model" / "model.safetensors").read_bytes() == weights, name
            if "metrics.jsonl" not in name:
                assert metric_lines(copy) == metric_lines(workdir), name


def test_the_identity_of_a_run_tells_a_corpus_of_other_text(text_file, tmp_path, monkeypatch) -> None:
    """It stands at the same path, and has the same vocabulary and sizes: the documents stand in another order."""
    identities = []

    def stopped(objective, config, workdir, data, *arguments, **settings):
        identities.append(data.identity)
        raise UserError("stopped")

    monkeypatch.setattr("bert_jax.pretraining.run.train", stopped)
    documents = text_file.read_text().split("\n\n")
    tokenizer = train_tokenizer(documents, 300)
    tokenizer.save(tmp_path / "tokenizer")
    data = DataConfig(corpus=str(tmp_path / "corpus"), tokenizer=str(tmp_path / "tokenizer"), length=32)
    model = dataclasses.replace(tiny_run(text_file).model, vocab_size=tokenizer.vocab_size)
    for swap in (False, True, True):
        documents = documents[::-1] if swap else documents
        build_corpus(documents, tokenizer, tmp_path / "corpus", processes=1, verbose=False, validation_share=0.1)
        with pytest.raises(UserError, match="stopped"):
            pretrain(tiny_run(text_file, data=data, model=model), tmp_path / "run")
    assert identities[0] == identities[2] != identities[1]
    assert identities[0]["vocabulary"] == identities[1]["vocabulary"] == tokenizer.hash
    assert identities[0]["corpus"].split("CRC")[0] == identities[1]["corpus"].split("CRC")[0]
