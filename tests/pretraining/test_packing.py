"""Rows: nothing overlaps, nothing is lost, little is padded, and what is written is what a plain loop writes."""

import numpy as np
import pytest
from helpers.synthetic_corpus import CLS, SEP, synthetic_corpus

from bert_jax.config import DataConfig
from bert_jax.pretraining.packing import best_fit, sequences_per_row, write_rows
from bert_jax.pretraining.pairs import Sequences, draw_sequences


def drawn(length=128, objective="nsp", documents=300, seed=0, short_rate=0.1):
    corpus = synthetic_corpus(documents)
    config = DataConfig(length=length, objective=objective, short_rate=short_rate)
    return corpus, draw_sequences(corpus, [(0, corpus.num_tokens)], config, np.random.default_rng(seed))


@pytest.mark.parametrize("max_sequences", [1, 2, 8])
@pytest.mark.parametrize("lengths", [[], [16], [1], [1] * 40, [16] * 3, [15, 1, 15, 1], [9, 8, 7, 7, 9, 1, 1, 1, 16]])
def test_best_fit_never_overlaps(lengths, max_sequences):
    lengths = np.array(lengths, np.int64)
    row, slot, position = best_fit(lengths, 16, max_sequences)
    taken = np.zeros((len(lengths), 16), np.int64)
    for i in range(len(lengths)):
        assert position[i] + lengths[i] <= 16
        taken[row[i], position[i] : position[i] + lengths[i]] += 1
    assert taken.max(initial=0) <= 1
    rows = int(row.max(initial=-1)) + 1
    for r in range(rows):
        members = np.flatnonzero(row == r)
        order = members[np.argsort(position[members])]
        assert slot[order].tolist() == list(range(len(members)))
        assert 1 <= len(members) <= max_sequences
        assert (position[order] == np.cumsum(lengths[order]) - lengths[order]).all()  # no gaps


def test_best_fit_takes_the_fullest_row_with_room():
    #                    row 0  row 1  row 2 has 4 left, row 1 has 6: 4 goes to row 2, the next 4 to row 1
    row, _, position = best_fit(np.array([16, 10, 12, 4, 4, 2]), 16, 8)
    assert row.tolist() == [0, 2, 1, 1, 2, 2]
    assert position.tolist() == [0, 0, 0, 12, 10, 14]


def test_a_full_house_takes_no_more():
    row, slot, _ = best_fit(np.ones(10, np.int64), 16, 4)
    assert np.bincount(row).tolist() == [4, 4, 2]
    assert slot.max() == 3


@pytest.mark.parametrize("length", [128, 512])
def test_packed_rows_are_filled(length):
    """The target: 95 % of the positions of packed rows. `short_rate` makes the gaps that short sequences fill."""
    _, sequences = drawn(length, documents=2_000)
    lengths = sequences.lengths
    rows = best_fit(lengths, length, sequences_per_row(length, packing=True))[0].max() + 1
    assert lengths.sum() / (rows * length) >= 0.95
    assert lengths.sum() / (len(lengths) * length) < 0.9  # one sequence a row would not


def test_best_fit_is_near_the_lower_bound_where_gaps_can_be_filled():
    lengths = np.random.default_rng(0).integers(4, 65, 2_000)
    rows = best_fit(lengths, 128, 16)[0].max() + 1
    assert rows <= 1.01 * lengths.sum() / 128 + 1


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("length", [16, 128])
def test_rows_are_what_a_plain_loop_writes(objective, packing, length):
    corpus, sequences = drawn(length, objective, documents=40)
    max_sequences = sequences_per_row(length, packing)
    places = best_fit(sequences.lengths, length, max_sequences)
    rows = int(places[0].max()) + 3  # two of them empty
    batch = write_rows(corpus.tokens, sequences, places, (rows, length, max_sequences), CLS, SEP)

    names = ["input_ids", "token_type_ids", "position_ids", "sequence_ids"]
    expected = {name: np.zeros((rows, length), int) for name in names}
    expected["next_sentence_labels"] = np.full((rows, max_sequences), -1)
    for i, (row, slot, position) in enumerate(zip(*places, strict=True)):
        ids, types = [CLS], [0]
        for which, piece in enumerate(range(sequences.first[i], sequences.first[i + 1])):
            start, size = sequences.start[piece], sequences.length[piece]
            ids += [*corpus.tokens[start : start + size], SEP]
            types += [which if objective != "none" else 0] * (size + 1)
        here = slice(position, position + len(ids))
        assert len(ids) == sequences.lengths[i]
        assert (expected["sequence_ids"][row, here] == 0).all()
        for name, value in zip(names, [ids, types, range(len(ids)), slot + 1], strict=True):
            expected[name][row, here] = value
        expected["next_sentence_labels"][row, slot] = sequences.label[i]
    assert set(batch) == set(expected)
    for name, array in batch.items():
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_no_sequences_give_empty_rows():
    nothing = Sequences(*(np.zeros(n, np.int64) for n in (0, 0, 1)), np.zeros(0, np.int32))
    places = best_fit(nothing.lengths, 16, 2)
    batch = write_rows(np.zeros(0, np.uint16), nothing, places, (3, 16, 2), CLS, SEP)
    assert batch["input_ids"].shape == (3, 16)
    assert not batch["sequence_ids"].any()
    assert (batch["next_sentence_labels"] == -1).all()


def test_sequences_per_row():
    assert [sequences_per_row(n, packing=True) for n in (8, 16, 64, 128, 256, 512)] == [2, 2, 4, 8, 16, 16]
    assert sequences_per_row(512, packing=False) == 1
