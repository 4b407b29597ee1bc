"""Pairs are what the paper's algorithm draws: against a plain restatement of it, and by properties of each pair."""

import dataclasses
import itertools
import random

import numpy as np
import pytest
from helpers.paper_instances import SIGMAS, assert_same_means, plain_pairs, plain_truncate
from helpers.synthetic_corpus import corpus_of, synthetic_corpus

from bert_jax.config import DataConfig
from bert_jax.pretraining.pairs import _truncate, draw_sequences


def draw(corpus, seed=0, ranges=None, **config):
    ranges = ranges or [(0, corpus.num_tokens)]
    return draw_sequences(corpus, ranges, DataConfig(**config), np.random.default_rng(seed))


def pieces(sequences):
    """(start, length) of A and of B, [n] each."""
    return sequences.start[::2], sequences.length[::2], sequences.start[1::2], sequences.length[1::2]


def document_of(corpus, token):
    sentence = np.searchsorted(corpus.sentences, token, side="right") - 1
    return np.searchsorted(corpus.documents, sentence, side="right") - 1


def test_pairs_have_the_statistics_of_the_papers_algorithm():
    corpus, length = synthetic_corpus(150), 64

    def means(label, a, a_length, b, b_length):
        total = a_length + b_length
        return {
            "pairs": len(label),
            "random share": label.mean(),
            "A": a_length.mean(),
            "B": b_length.mean(),
            "full": (total == length - 3).mean(),
            "below 40": (total < 40).mean(),
            "A position": a.mean(),
            "B position": b.mean(),
        }

    theirs, ours = [], []
    for seed in range(40):
        found = [
            (label, a[0], len(a), b[0], len(b))
            for a, b, label, _ in plain_pairs(corpus, length, 0.1, random.Random(seed))
        ]
        theirs.append(means(*np.array(found).T))
        sequences = draw(corpus, seed, length=length)
        ours.append(means(sequences.label, *pieces(sequences)))
    assert_same_means(*({name: [run[name] for run in runs] for name in runs[0]} for runs in (theirs, ours)))


def test_a_tenth_of_the_targets_is_short():
    """Sentences of 10 tokens: a chunk has 125 tokens after truncation exactly if its target is above 120."""
    corpus = corpus_of([80_000], np.full(80_000, 10))
    totals = draw(corpus, objective="sop", length=128).length.reshape(-1, 2).sum(1)
    n, expected = len(totals), 0.1 * 119 / 124  # short targets are 2 to 125
    assert n > 6_000
    assert abs((totals < 125).mean() - expected) < SIGMAS * np.sqrt(expected / n)
    counts = np.bincount(-(-totals[totals < 125] // 10), minlength=13)[1:]  # targets 2-10, 11-20, ..., 111-120
    assert (np.abs(counts - n * 0.1 * 10 / 124) < SIGMAS * np.sqrt(n / 124) + n * 0.1 / 124).all()


def test_half_of_the_choices_are_random_and_cuts_are_uniform():
    """Chunks of 13 sentences of 10 tokens, 125 after truncation: A of k sentences keeps 10 k or 10 k - 5 tokens."""
    corpus = corpus_of([40_000, 40_000], np.full(80_000, 10))
    sequences = draw(corpus, length=128, short_rate=0.0)
    n = len(sequences.label)
    assert n > 6_000
    assert abs(sequences.label.mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(n)
    following = sequences.label == 0
    cuts = np.bincount(-(-sequences.length[::2][following] // 10), minlength=13)
    expected = following.sum() / 12
    assert cuts[0] == 0
    assert len(cuts) == 13
    assert (np.abs(cuts[1:] - expected) < SIGMAS * np.sqrt(expected)).all()


@pytest.mark.parametrize("length", [16, 128, 512])
def test_labels_tell_the_truth(length):
    corpus = synthetic_corpus(200)
    sequences = draw(corpus, length=length)
    a, a_length, b, b_length = pieces(sequences)
    follows = sequences.label == 0
    assert 0.1 < follows.mean() < 0.6
    own, other = document_of(corpus, a), document_of(corpus, b)
    assert (own == document_of(corpus, a + a_length - 1)).all()
    assert (other == document_of(corpus, b + b_length - 1)).all()
    assert (own[follows] == other[follows]).all()
    assert (own[~follows] != other[~follows]).all()
    assert (a_length >= 1).all()
    assert (b_length >= 1).all()
    assert (a_length + b_length <= length - 3).all()
    whole = a_length + b_length < length - 3  # nothing was truncated
    assert (b == a + a_length)[follows & whole].all()
    starts = np.isin(corpus.sentences, a[whole])
    assert starts.sum() == len(np.unique(a[whole]))
    assert np.isin(b[whole], corpus.sentences).all()
    assert np.isin((b + b_length)[whole], corpus.sentences).all()
    # What truncation took from between A and B is all that lies between them: no sentence more than was in the chunk.
    assert (b >= a + a_length)[follows].all()
    assert (b - a - a_length)[follows].max() < 2 * length + 128


def test_random_documents_and_sentences_are_uniform():
    corpus = corpus_of(np.full(10, 20), np.full(200, 30))
    hits = np.zeros((10, 20))
    total = 0
    for seed in range(300):
        sequences = draw(corpus, seed, length=512)
        _, a_length, b, b_length = pieces(sequences)
        chosen = (sequences.label == 1) & (a_length + b_length < 509)
        sentence = b[chosen] // 30
        np.add.at(hits, (sentence // 20, sentence % 20), 1)
        total += chosen.sum()
    shares = hits.sum(1) / total
    assert np.abs(shares - 0.1).max() < SIGMAS * np.sqrt(0.09 / total) + 0.005
    assert total > 1_000


def test_truncation_takes_from_the_longer_one():
    grid = np.stack(np.meshgrid(np.arange(1, 40), np.arange(1, 40)), -1).reshape(-1, 2)
    starts, lengths = _truncate(np.full_like(grid, 1000), grid, 21, np.random.default_rng(0))
    rng = random.Random(0)
    for (a, b), kept in zip(grid.tolist(), lengths.tolist(), strict=True):
        plain_a, plain_b = [0] * a, [0] * b
        plain_truncate(plain_a, plain_b, 21, rng)
        assert kept == [len(plain_a), len(plain_b)]
    off = grid - lengths
    front = starts - 1000
    assert (front >= 0).all()
    assert (front <= off).all()
    assert abs(front.sum() / off.sum() - 0.5) < SIGMAS * 0.5 / np.sqrt(off.sum())


def test_epochs_that_start_elsewhere_lose_nothing_at_seams():
    """Every sentence is in some pair, wherever the corpus is cut into ranges; only truncation leaves tokens out."""
    corpus = synthetic_corpus(200)
    seams = np.linspace(0, corpus.num_tokens, 26).astype(int).tolist()
    ranges = list(itertools.pairwise(seams))

    def coverage(ranges):
        sequences = draw(corpus, 1, ranges, length=128)
        a, a_length, b, b_length = pieces(sequences)
        seen = np.zeros(corpus.num_tokens + 1, np.int64)
        follows = sequences.label == 0
        for start, length in ((a, a_length), (b[follows], b_length[follows])):
            np.add.at(seen, start, 1)
            np.add.at(seen, start + length, -1)
        return np.cumsum(seen)[:-1] > 0

    whole, cut = coverage([(0, corpus.num_tokens)]), coverage(ranges)
    assert whole.mean() > 0.9
    assert cut.mean() > whole.mean() - 0.01
    near = np.zeros(corpus.num_tokens, bool)
    for seam in seams[1:-1]:
        near[seam - 64 : seam + 64] = True
    assert cut[near].mean() > cut.mean() - 0.03


def test_a_pair_runs_over_the_seam():
    """A range of one token draws what begins there, in full length."""
    corpus = corpus_of([100, 100], np.full(200, 10))
    sequences = draw(corpus, ranges=[(500, 501)], objective="sop", length=128, short_rate=0.0)
    assert len(sequences.label) == 1
    assert sequences.length.sum() == 125


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("lengths", [[1], [2], [128], [3, 128], [1] * 50, [128] * 5])
def test_one_document_is_enough(objective, lengths):
    corpus = corpus_of([len(lengths)], lengths)
    for length in (8, 128):
        sequences = draw(corpus, objective=objective, length=length)
        assert (sequences.length > 0).all()
        assert (sequences.lengths <= length).all()
        assert (sequences.start >= 0).all()
        assert (sequences.start + sequences.length <= corpus.num_tokens).all()
        if objective == "nsp":
            a, a_length, b, b_length = pieces(sequences)
            untouched = (sequences.label == 1) & (a_length + b_length < length - 3)
            if len(lengths) > 1:
                assert (b != a + a_length)[untouched].all()  # a random B is not what follows
        assert len(sequences.label) > 0 or (objective == "sop" and max(lengths) == 1)


def test_in_a_single_document_a_random_b_is_any_sentence_but_the_next():
    corpus = corpus_of([5], np.full(5, 4))
    found = set()
    for seed in range(300):
        sequences = draw(corpus, seed, length=64, short_rate=0.0)
        a, a_length, b, _ = pieces(sequences)
        for i in np.flatnonzero(sequences.label == 1):
            found.add(((a[i] + a_length[i]).item() // 4, b[i].item() // 4))
    assert {end for end, _ in found} == {1, 2, 3, 4, 5}
    # 4 other sentences each; at the end of the document nothing follows, and its own last sentence is left out
    assert found == {(end, start) for end in range(1, 6) for start in range(5) if start not in (end, end - (end == 5))}


def test_sentence_order():
    corpus = synthetic_corpus(200)
    sequences = draw(corpus, objective="sop", length=128)
    a, a_length, b, b_length = pieces(sequences)
    swapped = sequences.label == 1
    n = len(swapped)
    assert abs(swapped.mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(n)
    assert ((a < b) == ~swapped).all()
    assert (document_of(corpus, a) == document_of(corpus, b)).all()
    whole = a_length + b_length < 125
    assert (np.where(swapped, b + b_length == a, a + a_length == b))[whole].all()


def test_a_single_sentence_is_split_for_sentence_order():
    corpus = corpus_of([1, 1, 1], [1, 9, 4])
    sequences = draw(corpus, objective="sop", length=32, short_rate=0.0)
    assert len(sequences.label) == 2  # one token cannot be split
    assert sorted(sequences.length.tolist()) == [2, 2, 4, 5]


def test_full_sentences_fill_rows_and_cross_documents():
    corpus = corpus_of([2, 1, 3], [4, 5, 3, 2, 2, 9])
    sequences = draw(corpus, objective="none", length=16)  # room for 14
    found = [
        list(zip(sequences.start[i:j].tolist(), sequences.length[i:j].tolist(), strict=True))
        for i, j in zip(sequences.first[:-1], sequences.first[1:], strict=True)
    ]
    # 4 + 5, [SEP], 3 make 13, and the next document's 2 do not fit; 2 + 2 + 9 make 13.
    assert found == [[(0, 9), (9, 3)], [(12, 13)]]
    assert sequences.lengths.tolist() == [15, 15]
    assert (sequences.label == -1).all()


@pytest.mark.parametrize("length", [16, 128, 512])
def test_full_sentences_hold_every_token_once_and_no_part_of_a_sentence(length):
    corpus = synthetic_corpus(150)
    sequences = draw(corpus, objective="none", length=length)
    order = np.argsort(sequences.start)
    ends = (sequences.start + sequences.length)[order]
    assert sequences.start[order[0]] == 0
    assert (sequences.start[order[1:]] == ends[:-1]).all()
    assert ends[-1] == corpus.num_tokens
    assert (sequences.lengths <= length).all()
    broken = ends[~np.isin(ends, corpus.sentences)]
    sizes = np.diff(corpus.sentences)
    assert len(broken) <= (sizes // (length - 2)).sum()  # only of sentences longer than a row
    follows = np.searchsorted(corpus.sentences, ends[:-1], side="right") - 1
    last = np.isin(order[:-1] + 1, sequences.first)  # of its sequence
    crosses = np.isin(ends[:-1], corpus.sentences[corpus.documents])
    room = length - sequences.lengths[np.searchsorted(sequences.first, order[:-1], side="right") - 1]
    assert (sizes[follows] + crosses > room)[last & ~np.isin(ends[:-1], broken)].all()  # the next would not have fit


def test_ranges_cover_all_text_without_an_objective():
    corpus = synthetic_corpus(100)
    seams = [*range(0, corpus.num_tokens, 777), corpus.num_tokens]
    sequences = draw(corpus, ranges=list(itertools.pairwise(seams)), objective="none", length=64)
    seen = np.zeros(corpus.num_tokens, bool)
    for start, size in zip(sequences.start, sequences.length, strict=True):
        seen[start : start + size] = True
    assert seen.all()


def test_a_sequence_is_the_same_for_the_same_key_only():
    corpus = synthetic_corpus(50)
    first, again, other = (dataclasses.astuple(draw(corpus, seed)) for seed in (1, 1, 2))
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert any(x.shape != y.shape or (x != y).any() for x, y in zip(first, other, strict=True))
