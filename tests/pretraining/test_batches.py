"""A batch is a pure function of (corpus, config, seed, step), and an epoch is the whole corpus."""

import dataclasses
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from helpers.synthetic_corpus import CLS, FIRST, SEP, corpus_of, synthetic_corpus

from bert_jax.config import DataConfig
from bert_jax.errors import UserError
from bert_jax.pretraining import batches as module
from bert_jax.pretraining.batches import PretrainingBatches, iterate, validation_batches
from bert_jax.pretraining.permutation import permuted
from bert_jax.text.corpus import CorpusArrays

CORPUS = synthetic_corpus(3_000, distinct=True)  # 6 blocks
NAMES = {"input_ids", "token_type_ids", "position_ids", "sequence_ids", "next_sentence_labels"}


def make(corpus=CORPUS, batch_size=16, seed=1, rows=slice(None), **config):
    config = DataConfig(**{"length": 128, **config})
    return PretrainingBatches(corpus, config, cls_id=CLS, sep_id=SEP, batch_size=batch_size, seed=seed, rows=rows)


def same(x, y):
    return set(x) == set(y) == NAMES and all(
        (x[name] == y[name]).all() and x[name].shape == y[name].shape for name in x
    )


def epoch(batches, number=0):
    """All rows of an epoch, by the blocks."""
    blocks = [batches._make_block(number, index) for index in range(batches.num_blocks)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in NAMES}


def test_a_step_is_always_the_same_batch():
    first, second = make(), make()
    assert first.num_blocks > module.CACHED_BLOCKS  # so that the cache turns over
    per_epoch = first.rows_per_epoch // 16
    steps = [0, 3, per_epoch - 1, per_epoch, per_epoch + 1, 2 * per_epoch, 7]
    ahead = {step: first[step] for step in steps}
    for step in reversed(steps):
        assert same(ahead[step], second[step])
        second._cache.clear()
        assert same(ahead[step], second[step])
    assert not same(ahead[0], make(seed=2)[0])


def test_a_batch_that_is_changed_does_not_change_the_next():
    batches = make()
    before = {name: array.copy() for name, array in batches[0].items()}
    for array in batches[0].values():
        array[:] = 7
    assert same(before, batches[0])


def test_seeds_may_be_any_integer():
    assert not same(make(seed=-1)[0], make(seed=2**70)[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_iterate_yields_the_steps_in_order(workers):
    batches = make()
    stream = iterate(batches, 5, workers=workers)
    for step, batch in zip(range(5, 30), stream, strict=False):
        assert same(batch, batches[step])
    stream.close()


def test_hosts_load_their_rows_of_the_same_global_batch():
    whole = make()
    parts = [make(rows=slice(i, i + 4)) for i in range(0, 16, 4)]
    for step in (0, 11, 200):
        loaded = [part[step] for part in parts]
        assert same(whole[step], {name: np.concatenate([part[name] for part in loaded]) for name in NAMES})


def test_the_batch_size_does_not_change_the_rows():
    small, large = make(batch_size=8), make(batch_size=24)
    rows = [small[step] for step in range(6, 9)]
    assert same(large[2], {name: np.concatenate([row[name] for row in rows]) for name in NAMES})


def test_rows_must_have_no_gaps():
    with pytest.raises(ValueError, match="gaps"):
        make(rows=slice(0, 8, 2))


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("length", [8, 128])
def test_the_structure_of_rows(objective, packing, length):
    corpus = synthetic_corpus(60)
    batches = make(corpus, objective=objective, packing=packing, length=length)
    max_sequences = batches.sequences_per_row
    for batch in (batches[0], batches[3]):
        assert all(array.dtype == np.int32 for array in batch.values())
        assert batch["next_sentence_labels"].shape == (16, max_sequences)
        for ids, types, positions, sequences, labels in zip(
            *(batch[name] for name in ("input_ids", "token_type_ids", "position_ids", "sequence_ids")),
            batch["next_sentence_labels"],
            strict=True,
        ):
            used, count = np.count_nonzero(sequences), int(sequences.max())
            assert not any(array[used:].any() for array in (ids, types, positions, sequences))
            assert (np.diff(sequences[:used]) >= 0).all()
            assert set(sequences[:used]) == set(range(1, count + 1))
            assert count <= max_sequences
            if objective == "none":
                assert (labels == -1).all()
            else:
                assert np.isin(labels[:count], [0, 1]).all()
                assert (labels[count:] == -1).all()
            for k in range(1, count + 1):
                here = sequences == k
                ends = np.flatnonzero(ids[here] == SEP)
                assert ids[here][0] == CLS
                assert np.count_nonzero(ids[here] == CLS) == 1
                assert ends[-1] == here.sum() - 1
                assert positions[here].tolist() == list(range(here.sum()))
                if objective == "none":
                    assert not types[here].any()
                else:
                    assert len(ends) == 2
                    assert (types[here] == (np.arange(here.sum()) > ends[0])).all()


def origins(rows):
    """The corpus positions of all text of rows of a `distinct` corpus."""
    ids = rows["input_ids"][rows["sequence_ids"] > 0]
    return ids[ids >= FIRST] - FIRST


def test_an_epoch_is_the_whole_corpus():
    batches = make(objective="none")
    for number in (0, 1):
        seen = np.bincount(origins(epoch(batches, number)), minlength=CORPUS.num_tokens)
        assert (seen > 0).mean() >= 0.97
        assert (seen > 1).mean() < 0.06  # what the sequences over a seam repeat


def test_two_epochs_lose_nothing_for_good():
    """What one epoch drops is random: after three, next to all of the text was seen, at seams as elsewhere."""
    batches = make(objective="none")
    seen = np.zeros(CORPUS.num_tokens, bool)
    for number in range(3):
        seen[origins(epoch(batches, number))] = True
    assert seen.mean() > 0.9995


def test_pairs_see_nearly_every_sentence():
    batches = make()
    seen = np.zeros(CORPUS.num_tokens + 1, np.int64)
    rows = epoch(batches)
    np.add.at(seen, origins(rows), 1)
    starts = CORPUS.sentences
    in_sentence = np.diff(np.concatenate([[0], np.cumsum(seen)])[starts])
    assert (in_sentence > 0).mean() >= 0.97
    assert (seen[:-1] > 0).mean() >= 0.9  # truncation takes the rest


def test_spans_tile_the_corpus_in_every_epoch():
    for documents in (1, 20, 1_500):
        batches = make(synthetic_corpus(documents))
        seams = []
        for number in range(3):
            ranges = [r for i in range(batches.num_blocks) for r in batches._ranges(module._EPOCH, number, i)]
            ranges = sorted((begin, end) for begin, end in ranges if begin < end)
            assert ranges[0][0] == 0
            assert ranges[-1][1] == batches.corpus.num_tokens
            assert all(x[1] == y[0] for x, y in itertools.pairwise(ranges))
            seams.append({begin for begin, _ in ranges} - {0})
        assert seams[0] != seams[1] != seams[2] != seams[0]  # elsewhere each epoch


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 100, 1_025])
def test_permutations_are_permutations(n):
    for key in (0, 1, 2**64 - 1):
        assert sorted(permuted(i, n, key) for i in range(n)) == list(range(n))
    assert 0 <= permuted(10**14, 10**15, 3) < 10**15


@pytest.mark.parametrize("n", [2, 3, 5, 7, 30])
def test_permutations_are_random(n):
    """Over keys, every place is equally likely, for one index and for the step from one index to the next."""
    keys = np.random.default_rng(0).integers(0, 2**64, 10_000, np.uint64).tolist()
    places = np.array([[permuted(i, n, key) for i in (0, 1, n - 1)] for key in keys])
    for counts, cells in (
        *((np.bincount(places[:, i], minlength=n), n) for i in range(3)),
        (np.bincount((places[:, 1] - places[:, 0]) % n, minlength=n)[1:], n - 1),
    ):
        expected = len(keys) / cells
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < cells - 1 + 5 * np.sqrt(2 * cells) + 5  # five standard deviations


def test_epochs_draw_their_pairs_anew():
    batches = make()
    first, second = epoch(batches, 0), epoch(batches, 1)

    def rows(epoch):
        return {row.tobytes() for row in epoch["input_ids"]}

    assert len(rows(first) & rows(second)) < 0.05 * len(rows(first))
    labels = first["next_sentence_labels"]
    assert 0.5 < (labels == 1).sum() / (labels >= 0).sum() < 0.75  # more than half: single sentences have no next


def test_a_tiny_corpus_is_drawn_anew_too():
    batches = make(corpus_of([6, 6], np.arange(2, 14)))
    drawn = {tuple(epoch(batches, number)["input_ids"].ravel().tolist()) for number in range(100)}
    assert len(drawn) > 90


def test_random_pairs_come_from_another_document():
    rows = epoch(make())
    owner = np.searchsorted(CORPUS.sentences[CORPUS.documents], np.arange(CORPUS.num_tokens), side="right") - 1
    checked = 0
    for ids, types, sequences, labels in zip(
        *(rows[name] for name in ("input_ids", "token_type_ids", "sequence_ids", "next_sentence_labels")), strict=True
    ):
        for k in np.flatnonzero(labels >= 0):
            text = (sequences == k + 1) & (ids >= FIRST)
            a, b = ids[text & (types == 0)] - FIRST, ids[text & (types == 1)] - FIRST
            assert (np.diff(a) == 1).all()
            assert (np.diff(b) == 1).all()
            assert (owner[a[0]] == owner[b[0]]) == (labels[k] == 0)
            if labels[k] == 0:
                assert b[0] > a[-1]
            checked += 1
    assert checked > 3_000


@pytest.mark.parametrize("length", [128, 512])
def test_little_is_padded_and_little_dropped(length):
    batches = make(synthetic_corpus(8_000), length=length)
    rows = epoch(batches)
    fill = (rows["sequence_ids"] > 0).mean()
    assert fill >= 0.95
    assert batches.dropped_share < 0.03
    assert abs(fill - batches.fill_share) < 0.02


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("lengths", [[1], [7], [5, 9, 20]])
def test_a_tiny_corpus_serves_endless_batches(objective, packing, lengths):
    for documents in ([len(lengths)], [1] * len(lengths)):
        batches = make(corpus_of(documents, lengths), batch_size=4, objective=objective, packing=packing)
        assert batches.rows_per_epoch >= 1
        assert batches.num_blocks == 1
        shapes = {tuple(array.shape for array in batches[step].values()) for step in range(50)}
        assert len(shapes) == 1
        if len(lengths) > 1:
            assert any(batches[step]["sequence_ids"].any() for step in range(50))


def test_an_empty_corpus_is_an_error():
    with pytest.raises(UserError, match="no text"):
        make(CorpusArrays(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(1, np.int64)))


@pytest.mark.parametrize(("max_rows", "batch_size"), [(40, 16), (32, 16), (10**9, 64)])
def test_validation_is_a_fixed_list(max_rows, batch_size):
    corpus = synthetic_corpus(60)
    config = DataConfig(length=128)
    keywords = dict(cls_id=CLS, sep_id=SEP, batch_size=batch_size, max_rows=max_rows, seed=0)
    found, again = (validation_batches(corpus, config, **keywords) for _ in range(2))
    stream = make(corpus, batch_size=batch_size, seed=0)
    rows = min(max_rows, stream.rows_per_epoch)
    assert len(found) == -(-rows // batch_size)
    for step, (batch, other) in enumerate(zip(found, again, strict=True)):
        assert same(batch, other)
        here = min(batch_size, rows - step * batch_size)
        assert all((array[:here] == stream[step][name][:here]).all() for name, array in batch.items())
        assert all(not array[here:].any() for name, array in batch.items() if name != "next_sentence_labels")
        assert (batch["next_sentence_labels"][here:] == -1).all()


def on_disk(folder, corpus):
    """The corpus, memory-mapped."""
    arrays = {}
    for field in dataclasses.fields(corpus):
        array = getattr(corpus, field.name)
        path = folder / field.name
        path.write_bytes(array.tobytes())
        arrays[field.name] = np.memmap(path, array.dtype, "r", shape=array.shape)
    return dataclasses.replace(corpus, **arrays)


@pytest.mark.slow
def test_start_up_does_not_grow_with_the_corpus(tmp_path):
    """100 times the text: the same allocations, within what fuller blocks and one more digit explain."""
    peaks = []
    for name, documents in (("small", 3_000), ("large", 300_000)):
        (tmp_path / name).mkdir()
        corpus = on_disk(tmp_path / name, synthetic_corpus(documents))
        tracemalloc.start()
        batches = make(corpus)
        batches[10**6]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert corpus.num_tokens > 80_000_000
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < corpus.num_sentences * 8 / 2  # not even the sentence offsets were copied


def test_workers_are_sent_file_names(tmp_path):
    corpus = on_disk(tmp_path, CORPUS)
    batches = make(corpus)
    sent = pickle.dumps(batches)
    assert len(sent) < 4_000
    assert same(pickle.loads(sent)[3], batches[3])
    assert same(pickle.loads(pickle.dumps(make()))[3], batches[3])  # a corpus in memory goes as it is
