"""Masking statistics are the paper's, at odd sizes, on more than 100,000 tokens."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.pretraining.masking import choose_positions, hide_tokens, predictions_per_row

pytestmark = pytest.mark.slow

V, MASK = 97, 4


def make_rows(rows: int = 801, length: int = 131, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Packed rows of one to four sequences [CLS] ... [SEP] and padding: ids, sequence ids, candidates, int32 [B, L]."""
    rng = np.random.default_rng(seed)
    ids, sequences = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    for row in range(rows):
        cuts = [0, *sorted(rng.choice(np.arange(8, length, 8), rng.integers(1, 5), replace=False))]
        for number, (start, stop) in enumerate(itertools.pairwise(cuts), 1):
            ids[row, start:stop] = rng.integers(5, V, stop - start)
            ids[row, start], ids[row, stop - 1] = 2, 3
            sequences[row, start:stop] = number
    return jnp.array(ids), jnp.array(sequences), jnp.array((sequences > 0) & (ids >= 5))


def choose(seed: int, sequence_ids, candidates, continuations, *, sequences: int) -> tuple[jax.Array, jax.Array]:
    """Positions and use of each row of a batch, [B, P]."""
    keys = jax.random.split(jax.random.key(seed), len(sequence_ids))
    draw = partial(choose_positions, mask_rate=0.15, sequences=sequences)
    return jax.vmap(draw, (0, 0, 0, None if continuations is None else 0))(
        keys, sequence_ids, candidates, continuations
    )


def chosen_mask(positions: jax.Array, used: jax.Array, length: int) -> np.ndarray:
    chosen = np.zeros((positions.shape[0], length), int)
    np.add.at(chosen, (np.arange(len(positions))[:, None], np.asarray(positions)), np.asarray(used))
    return chosen


@pytest.fixture(scope="module")
def drawn():
    ids, sequences, candidates = make_rows()
    positions, used = choose(1, sequences, candidates, None, sequences=4)
    return ids, sequences, candidates, positions, used


def test_each_sequence_has_its_own_number_of_predictions(drawn) -> None:
    ids, sequences, candidates, positions, used = drawn
    chosen = chosen_mask(positions, used, ids.shape[1])
    assert chosen.max() == 1, "a position was drawn twice"
    assert not chosen[~np.asarray(candidates)].any(), "a special token or padding was drawn"
    exact = total = 0
    for row in range(len(ids)):
        for number in range(1, int(sequences[row].max()) + 1):
            inside = np.asarray(sequences[row] == number)
            expected = max(1, round(inside.sum() * 0.15))
            got = chosen[row, inside].sum()
            assert got <= expected
            exact, total = exact + (got == expected), total + 1
    assert exact / total > 0.99  # the rest: rows whose rounding asks for more than P
    share = chosen.sum() / (np.asarray(sequences) > 0).sum()
    assert abs(share - 0.15) < 0.005


def test_the_number_is_rounded_as_python_rounds() -> None:
    """190 * 0.15 is 28.5 in double precision and more in single."""
    for length in (190, 390):
        ids = jnp.ones((1, length), jnp.int32)
        _, used = choose(0, ids, ids > 0, None, sequences=1)
        assert used.sum() == round(length * 0.15), length


def test_positions_are_uniform_over_a_sequence() -> None:
    rows, length = 4_000, 67
    sequences = jnp.ones((rows, length), jnp.int32)
    candidates = jnp.ones((rows, length), bool).at[:, 0].set(False).at[:, -1].set(False)
    positions, used = choose(0, sequences, candidates, None, sequences=1)
    counts = chosen_mask(positions, used, length).sum(0)
    assert counts[0] == counts[-1] == 0
    expected = rows * 10 / (length - 2)
    deviation = np.sqrt(rows * (10 / (length - 2)) * (1 - 10 / (length - 2)))
    assert np.abs(counts[1:-1] - expected).max() < 4.5 * deviation


def test_80_10_10_over_the_whole_vocabulary(drawn) -> None:
    ids, _, _, positions, used = drawn
    hide = jax.vmap(lambda *row: hide_tokens(*row, mask_id=MASK, vocab_size=V))
    hidden = hide(jax.random.split(jax.random.key(2), len(ids)), ids, positions, used)
    chosen = chosen_mask(positions, used, ids.shape[1]).astype(bool)
    before, after = np.asarray(ids), np.asarray(hidden)
    assert (before == after)[~chosen].all(), "a token was changed that is not predicted"
    n = chosen.sum()
    masked, kept = (after == MASK)[chosen].mean(), (after == before)[chosen].mean()
    bound = lambda p: 4 * np.sqrt(p * (1 - p) / n)  # noqa: E731
    assert abs(masked - (0.8 + 0.1 / V)) < bound(0.8)
    assert abs(kept - (0.1 + 0.1 / V)) < bound(0.1)
    random = after[chosen & (after != MASK) & (after != before)]
    assert len(np.unique(random)) == V - 1, "random tokens come from all of the vocabulary, special ones included"


def test_whole_words_are_hidden_together(drawn) -> None:
    ids, sequences, candidates, _, _ = drawn
    rng = np.random.default_rng(5)
    continuation_entry = np.zeros(V, bool)
    continuation_entry[rng.choice(np.arange(5, V), 30, replace=False)] = True
    continuations = jnp.array(continuation_entry)[ids] & candidates
    positions, used = choose(3, sequences, candidates, continuations, sequences=4)
    chosen = chosen_mask(positions, used, ids.shape[1]).astype(bool)
    inside_word = np.asarray(continuations)[:, 1:] & np.asarray(candidates)[:, :-1]
    full = np.asarray(used).sum(1) < positions.shape[1]  # in a full row a word may lose its end
    assert (chosen[:, 1:] == chosen[:, :-1])[inside_word & full[:, None]].all()
    share = chosen.sum() / (np.asarray(sequences) > 0).sum()
    assert 0.12 < share <= 0.152


def test_a_surplus_is_left_unmasked_without_favour() -> None:
    length = 40  # ten sequences of four tokens ask for ten predictions, P is eight
    sequences = jnp.repeat(jnp.arange(1, 11), 4)[None].repeat(500, 0)
    candidates = jnp.ones((500, length), bool)
    positions, used = choose(0, sequences, candidates, None, sequences=10)
    assert predictions_per_row(length, 0.15) == 8
    assert used.all()
    of_sequence = chosen_mask(positions, used, length).reshape(500, 10, 4).sum((0, 2))
    assert abs(of_sequence - 400).max() < 4.5 * np.sqrt(500 * 0.8 * 0.2)


def test_padding_rows_have_no_predictions() -> None:
    zeros = jnp.zeros((3, 16), jnp.int32)
    _, used = choose(0, zeros, zeros > 0, None, sequences=2)
    assert not used.any()


def test_pieces_without_a_head_can_be_drawn() -> None:
    """Truncation may put a ## piece behind [CLS] or [SEP]; it is a word of its own."""
    length = 12
    sequences = jnp.ones((3_000, length), jnp.int32)
    candidates = jnp.ones((3_000, length), bool).at[:, jnp.array([0, 6, 11])].set(False)
    continuations = jnp.zeros((3_000, length), bool).at[:, jnp.array([1, 2, 7, 9])].set(True)
    positions, used = choose(0, sequences, candidates, continuations, sequences=1)
    counts = chosen_mask(positions, used, length).sum(0)
    assert (counts[[1, 2]] == counts[1]).all()
    assert (counts[[0, 6, 11]] == 0).all()
    assert counts[7] > 0.7 * counts[3]
