"""The packers: valid rows, their own rules, and as few rows as the optimum where it is known; and their suite."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers.synthetic_corpus import corpus_of

from bert_jax.benchmarks import packing_comparison as module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.packing_comparison import (
    PACKERS,
    best_fit,
    document_lengths,
    first_fit,
    least_squares,
    one_a_row,
    shortest_pack_first,
)
from bert_jax.config import DataConfig, PretrainingConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.batches import PretrainingBatches
from bert_jax.text.build import build_corpus
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import train_tokenizer

packers = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS.keys())


@packers
@pytest.mark.parametrize("most", [1, 2, 8])
@pytest.mark.parametrize("capacity", [16, 40])
def test_every_sequence_has_a_place_and_no_row_is_over_full(pack, capacity, most):
    rng = np.random.default_rng(0)
    for n in (1, 2, 30, 400):
        lengths = rng.integers(1, capacity + 1, n) if n % 4 else np.minimum(1 + rng.geometric(0.3, n), capacity)
        rows = pack(lengths, capacity, most)
        assert rows.shape == (n,)
        assert np.bincount(rows, weights=lengths).max() <= capacity
        sequences = np.bincount(rows)
        assert sequences.min() >= 1  # rows are numbered without a gap
        assert sequences.max() <= most


@pytest.mark.parametrize(
    ("pack", "lengths", "rows"),
    [
        (one_a_row, [9, 8, 3], [0, 1, 2]),
        # Row 0 has 6 left, row 1 has 1: the last goes to the first of them, the fullest, and the emptiest.
        (first_fit, [14, 12, 7, 1], [0, 1, 1, 0]),
        (best_fit, [14, 12, 7, 1], [0, 1, 1, 1]),
        (shortest_pack_first, [14, 12, 7, 1], [0, 1, 1, 0]),
        # Row 0 has 7 left, row 1 has 9.
        (first_fit, [13, 11, 5], [0, 1, 0]),
        (best_fit, [13, 11, 5], [0, 1, 0]),
        (shortest_pack_first, [13, 11, 5], [0, 1, 1]),
        # Both rows take two of the fives before a new one is begun; what is new is not shared by equals.
        (shortest_pack_first, [10, 10, 5, 5, 5, 5, 5], [0, 1, 0, 0, 1, 1, 2]),
        (shortest_pack_first, [5, 5, 5], [0, 1, 2]),
        (first_fit, [5, 5, 5], [0, 0, 0]),
    ],
)
def test_the_rules_of_the_packers(pack, lengths, rows):
    found = pack(np.array(lengths), 20, 8)
    order = dict.fromkeys(found.tolist())  # a histogram has no first row: rows are named by their first sequence
    assert [list(order).index(row) for row in found.tolist()] == rows


def test_least_squares_finds_rows_that_no_greedy_packer_finds():
    """4 3 3 twice. Longest first, the fours are put together."""
    lengths = np.array([4, 4, 3, 3, 3, 3])
    assert least_squares(lengths, 10, 3).max() + 1 == 2
    assert first_fit(lengths, 10, 3).max() + 1 == 3
    assert best_fit(lengths, 10, 3).max() + 1 == 3


def test_least_squares_rather_does_without_a_short_sequence():
    """21 and 7 want a 2 that is not there. Were it as dear as any, 21, 6 and a 3 would do no worse, and leave a 7."""
    lengths = np.array([21, 7, 6, 6])
    assert least_squares(lengths, 30, 3).max() + 1 == 2


def test_rows_for_which_nothing_is_left_are_not_counted():
    """Rounding up asks for more rows than there are sequences."""
    rows = least_squares(np.repeat([7, 11, 20], [3, 3, 5]), 20, 3)
    assert np.bincount(rows).min() >= 1


def optimum(lengths: list[int], capacity: int, most: int) -> int:
    """The fewest rows, by trying every place for every sequence."""

    def fewest(left: list[int], rows: list[tuple[int, int]], best: int) -> int:
        if len(rows) >= best:
            return best
        if not left:
            return len(rows)
        for place, (room, number) in enumerate(rows):
            if room >= left[0] and number < most:
                after = [*rows[:place], (room - left[0], number + 1), *rows[place + 1 :]]
                best = min(best, fewest(left[1:], after, best))
        return min(best, fewest(left[1:], [*rows, (capacity - left[0], 1)], best))

    return fewest(lengths, [], len(lengths) + 1)


@pytest.mark.parametrize(
    ("pack", "share"),
    [(first_fit, 0.95), (best_fit, 0.95), (shortest_pack_first, 0.8), (least_squares, 0.9), (one_a_row, 0.0)],
)
def test_few_rows_beside_the_optimum(pack, share):
    """Never fewer than the fewest, seldom more, and never many more."""
    rng, reached = np.random.default_rng(1), 0
    for _ in range(100):
        lengths = rng.integers(1, 13, 8)
        fewest = optimum(lengths.tolist(), 12, 3)
        rows = int(pack(lengths, 12, 3).max()) + 1
        assert rows >= fewest
        assert rows <= fewest + 2 or pack is one_a_row
        reached += rows == fewest
    assert reached >= 100 * share


def test_the_optimum_is_one():
    assert optimum([4, 4, 3, 3, 3, 3], 10, 3) == 2
    assert optimum([4, 4, 3, 3, 3, 3], 10, 2) == 3
    assert optimum([10, 1], 10, 3) == 2


def test_lengths_of_documents():
    corpus = corpus_of([2, 1, 3], [5, 4, 20, 1, 1, 1])
    assert document_lengths(corpus, 16).tolist() == [11, 16, 5]


@pytest.fixture
def workdir(tmp_path, text_file, monkeypatch):
    """A run's folder, with a corpus; rows of 32 tokens, and each packer runs once."""
    config = PretrainingConfig(data=DataConfig(source=str(text_file)), total_steps=1)
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    tokenizer = train_tokenizer(Documents(str(text_file)), 300)
    build_corpus(str(text_file), tokenizer, tmp_path / "corpus", longest=29, verbose=False)
    monkeypatch.setattr(module, "LENGTHS", (32,))
    monkeypatch.setattr(module, "MEASURED_SECONDS", 1e-9)
    return tmp_path


def test_the_packing_suite(workdir, capsys):
    pairs, documents = benchmark("packing", workdir)["comparisons"]
    assert json.loads((workdir / "benchmark" / "packing.json").read_text())["comparisons"] == [pairs, documents]
    for each in (pairs, documents):
        assert list(each["packers"]) == list(PACKERS)
        assert (each["length"], each["most_a_row"]) == (32, 2)
        for packer in each["packers"].values():
            assert packer["rows"] >= each["least_rows"]
            tokens = each["sequences"] * each["mean_tokens"]
            assert packer["filled"] == pytest.approx(tokens / 32 / packer["rows"])
            assert packer["sequences_a_row"] == pytest.approx(each["sequences"] / packer["rows"])
        assert each["packers"]["one a row"]["rows"] == each["sequences"]
    printed = capsys.readouterr().out
    corpus = module.Corpus.open(workdir / "corpus")
    assert documents["sequences"] == corpus.num_documents
    batches = PretrainingBatches(corpus, DataConfig(length=32), cls_id=2, sep_id=3, batch_size=4, seed=0)
    assert pairs["loader"]["filled"] == batches.fill_share
    assert f"{batches.fill_share:.2%}; starts in" in printed


def test_a_folder_without_a_run_or_a_corpus_is_named(workdir, tmp_path_factory):
    shutil.rmtree(workdir / "corpus")
    with pytest.raises(UserError, match="no finished corpus in"):
        benchmark("packing", workdir)
    with pytest.raises(UserError, match="no run in"):
        benchmark("packing", tmp_path_factory.mktemp("empty"))
