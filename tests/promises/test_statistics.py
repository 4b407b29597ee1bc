"""Finished instances, as the training step sees them, have the distribution of create_pretraining_data.py's.

Both sides run on one corpus of some 100,000 tokens, sixty epochs each: the original as restated in `paper_instances`,
and PretrainingBatches -> PretrainingObjective.prepare. What is compared is a mean over the instances of an epoch; its
standard error comes from the spread between epochs, so that nothing need be assumed of instances that share text.
What is known of masking without a sample (how many, where, behind what) is compared with that.

Of the known differences, `paper_instances` restates the short target drawn for each pair, the random document that
is always another, and whole words up to the first that exceeds the number; the corpus has no [UNK].
"""

import dataclasses
import random
from functools import partial

import jax
import numpy as np
import pytest
from helpers.paper_instances import SIGMAS, assert_same_means, plain_mask, plain_number, plain_pairs
from helpers.synthetic_corpus import CLS, FIRST, SEP, synthetic_corpus

from bert_jax.config import DataConfig, ModelConfig
from bert_jax.pretraining import batches as module
from bert_jax.pretraining.batches import PretrainingBatches
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.training.step import row_keys, stream_key

pytestmark = pytest.mark.slow

L, V, MASK, RATE, EPOCHS = 128, 45, 4, 0.15, 60
WORD_EPOCHS = 20  # whole words deviate, if they do, by more
SPECIAL = (0, 1, CLS, SEP, MASK)
CONTINUATIONS = np.arange(V) >= 33  # three tokens in ten continue a word
WHERE = synthetic_corpus(400, distinct=True)  # its token at i is FIRST + i


def over_a_small_vocabulary(corpus):
    """Puts tokens below V into the documents, so that every entry is drawn often; a sentence begins with a word."""
    tokens = np.random.default_rng(0).integers(FIRST, V, corpus.num_tokens).astype(np.uint16)
    tokens[corpus.sentences[:-1]] = FIRST
    return dataclasses.replace(corpus, tokens=tokens)


CORPUS = over_a_small_vocabulary(WHERE)


@dataclasses.dataclass(frozen=True)
class Instances:
    """n sequences, one a row from its [CLS] on."""

    label: np.ndarray  # int [n]: 1 if B is random
    token_types: np.ndarray  # int [n, L]
    where: np.ndarray  # int [n, L]: position in the corpus; -1 of special tokens and padding
    before: np.ndarray  # int [n, L]: ids, none hidden
    after: np.ndarray  # int [n, L]: ids as the model sees them
    predicted: np.ndarray  # bool [n, L]

    @property
    def lengths(self):
        return (self.before > 0).sum(1)


def plain_epoch(seed, whole_word=False):
    """Makes one epoch by the original algorithm."""
    rng = random.Random(seed)
    tokens = CORPUS.tokens.tolist()
    continuations = CONTINUATIONS if whole_word else None
    pairs = list(plain_pairs(CORPUS, L, 0.1, rng))
    token_types, where, before, after, predicted = np.zeros((5, len(pairs), L), int)
    where -= 1
    for i, (a, b, _, _) in enumerate(pairs):
        ids = [CLS, *(tokens[t] for t in a), SEP, *(tokens[t] for t in b), SEP]
        where[i, 1 : len(a) + 1] = a
        where[i, len(a) + 2 : len(ids) - 1] = b
        token_types[i, len(a) + 2 : len(ids)] = 1
        before[i, : len(ids)] = ids
        predicted[i, plain_mask(ids, SPECIAL, MASK, V, RATE, rng, continuations)] = 1
        after[i, : len(ids)] = ids
    labels = np.array([label for _, _, label, _ in pairs])
    return Instances(labels, token_types, where, before, after, predicted.astype(bool))


def our_epochs(epochs, packing, whole_word=False):
    """Returns the instances of each epoch, through the batches and the masking of a training step."""
    config = DataConfig(length=L, packing=packing, whole_word=whole_word)
    seed = 7 + packing
    keywords = dict(cls_id=CLS, sep_id=SEP, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SPANS", 32)  # of this small text more than one block
        rows = PretrainingBatches(CORPUS, config, batch_size=1, **keywords).rows_per_epoch
        batches, wheres = (
            PretrainingBatches(corpus, config, batch_size=rows, **keywords) for corpus in (CORPUS, WHERE)
        )
    assert batches.num_blocks > 1
    objective = PretrainingObjective(ModelConfig(vocab_size=V), config, SPECIAL, MASK, tuple(CONTINUATIONS.tolist()))
    prepare = jax.jit(partial(objective.prepare, training=True))
    instances = []
    for step in range(epochs):
        batch = batches[step]
        prepared = jax.device_get(prepare(batch, row_keys(stream_key(seed, "prepare", step), batch)))
        instances.append(instances_of(prepared, wheres[step]["input_ids"]))
    return instances


def instances_of(prepared, where):
    """Takes a batch apart. `where`: its text as ids of the corpus WHERE; the draw does not depend on the tokens."""
    row, slot = np.nonzero(prepared["labels"] >= 0)
    position = prepared["positions"][row, slot]
    before, predicted = prepared["input_ids"].copy(), np.zeros(where.shape, bool)
    before[row, position], predicted[row, position] = prepared["labels"][row, slot], True
    where = np.where(before >= FIRST, where - FIRST, -1)
    assert predicted.sum() == len(row), "a position was drawn twice"
    assert (CORPUS.tokens[where[where >= 0]] == before[where >= 0]).all()

    inside = prepared["sequence_ids"] > 0
    place = prepared["position_ids"][inside]
    row, column = (index[place == 0] for index in np.nonzero(inside))  # of each [CLS]
    instance = np.cumsum(place == 0) - 1

    def unpacked(values, padding=0):
        result = np.full((len(row), L), padding, values.dtype)
        result[instance, place] = values[inside]
        return result

    return Instances(
        label=prepared["next_sentence_labels"][row, prepared["sequence_ids"][row, column] - 1],
        token_types=unpacked(prepared["token_type_ids"]),
        where=unpacked(where, padding=-1),
        before=unpacked(before),
        after=unpacked(prepared["input_ids"]),
        predicted=unpacked(predicted),
    )


@pytest.fixture(scope="module")
def by_the_paper():
    return [plain_epoch(seed) for seed in range(EPOCHS)]


@pytest.fixture(scope="module", params=[False, True], ids=["one a row", "packed"])
def ours(request):
    return our_epochs(EPOCHS, packing=request.param)


def means_of(quantities, epochs, theirs):
    """Returns {name: its mean in each epoch}; of what has many values also the share up to each eighth of `theirs`."""
    values, reference = ([quantities(epoch) for epoch in part] for part in (epochs, theirs))
    means = {}
    for name in values[0]:
        means[name] = [value[name].mean() for value in values]
        pooled = np.concatenate([value[name] for value in reference])
        eighths = np.unique(np.quantile(pooled, np.arange(1, 8) / 8, method="inverted_cdf"))
        if len(eighths) > 2:
            for bound in eighths[eighths < pooled.max()]:
                means[f"{name} <= {bound:.3g}"] = [(value[name] <= bound).mean() for value in values]
    return means


def pair_quantities(x):
    """{name: a value of each instance it applies to}: what was drawn before anything was hidden."""
    of_a, of_b = ((x.where >= 0) & (x.token_types == kind) for kind in (0, 1))
    a, b = of_a.sum(1), of_b.sum(1)
    start_a, start_b = (x.where[np.arange(len(a)), part.argmax(1)] for part in (of_a, of_b))
    sentence = np.searchsorted(CORPUS.sentences, start_b, side="right") - 1
    document_a, document_b = (
        np.searchsorted(CORPUS.sentences[CORPUS.documents], start, side="right") - 1 for start in (start_a, start_b)
    )
    random = x.label == 1
    assert ((document_a != document_b) == random).all(), "a label does not tell where B is from"
    size = np.diff(CORPUS.documents)[document_b]
    quantities = {
        "length": x.lengths,
        "full": x.lengths == L,
        "below half": x.lengths < L / 2,
        "A": a,
        "B": b,
        "longer of A and B": np.maximum(a, b),
        "A of random pairs": a[random],
        "B of random pairs": b[random],
        "B random": random,
        "A lies at": start_a / CORPUS.num_tokens,
        "random B lies at": start_b[random] / CORPUS.num_tokens,
        "random B's place in its document": ((sentence - CORPUS.documents[document_b] + 0.5) / size)[random],
        "sentences of random B's document": size[random],
    }
    for name, start, length in (("A", start_a, a), ("B", start_b, b)):
        quantities |= truncation(name, start, start + length)
    return quantities


def truncation(name, start, end):
    """Returns what the first and the last sentence of each piece [start, end) lost."""
    bounds = CORPUS.sentences
    front = start - bounds[np.searchsorted(bounds, start, side="right") - 1]
    back = bounds[np.searchsorted(bounds, end)] - end
    cut = (front > 0) | (back > 0)
    return {
        f"{name} lost its front": front > 0,
        f"{name} lost its end": back > 0,
        f"off the front of {name}": front[front > 0],
        f"off the end of {name}": back[back > 0],
        f"off one side of {name} more than off the other": np.abs(front - back)[cut],
    }


def mask_quantities(x):
    """{name: a value of each instance, or of each predicted token}: what was hidden."""
    text = x.where >= 0
    rank = (np.cumsum(text, 1) - 0.5) / text.sum(1, keepdims=True)
    before, after = x.before[x.predicted], x.after[x.predicted]
    return {
        "predictions": x.predicted.sum(1),
        "share of the sequence": x.predicted.sum(1) / x.lengths,
        "behind [MASK]": after == MASK,
        "kept": after == before,
        "random": (after != MASK) & (after != before),
        "place in the text": rank[x.predicted],
        "next to another": x.predicted[:, 1:][x.predicted[:, :-1]],
    }


def word_quantities(x):
    """{name: a value of each instance, or of each word}: what whole-word masking hid."""
    joined = continued(x)
    words = np.cumsum((x.where >= 0) & ~joined).reshape(joined.shape) * (x.where >= 0)  # 0 is no word
    size = np.bincount(words.ravel())[1:]
    hidden = np.bincount(words.ravel(), x.predicted.ravel())[1:] > 0
    return {
        "predictions": x.predicted.sum(1),
        "share of the sequence": x.predicted.sum(1) / x.lengths,
        "pieces of a hidden word": size[hidden],
        **{f"words of {pieces} hidden": hidden[size == pieces] for pieces in (1, 2, 3)},
    }


def continued(x):
    """bool [n, L]: the tokens that go on with the word of the token before them."""
    text = x.where >= 0
    joined = text & CONTINUATIONS[x.before]
    joined[:, 1:] &= text[:, :-1]
    return joined


def test_pairs_are_those_of_the_paper(by_the_paper, ours):
    assert_same_means(*(means_of(pair_quantities, epochs, by_the_paper) for epochs in (by_the_paper, ours)))


def test_an_epoch_has_the_papers_number_of_pairs(by_the_paper, ours):
    """But for one in sixty more, as each span of some 16 L tokens starts with a pair of its own, and one in a hundred
    fewer, as an epoch has a fixed number of rows. Were no sentences put back, a quarter would be missing."""
    theirs, here = (np.mean([len(epoch.label) for epoch in epochs]) for epochs in (by_the_paper, ours))
    assert abs(here / theirs - 1) < 0.03


def test_each_length_has_the_papers_number_of_predictions(ours):
    """Exactly. (In a packed row with many sequences P may bind; in none of these does it.)"""
    for x in ours:
        assert x.predicted.sum(1).tolist() == [plain_number(length, RATE) for length in x.lengths.tolist()]
    assert len(np.unique(np.concatenate([x.lengths for x in ours]))) > 110


def test_what_is_hidden_is_that_of_the_paper(by_the_paper, ours):
    assert_same_means(*(means_of(mask_quantities, epochs, by_the_paper) for epochs in (by_the_paper, ours)))


def test_predictions_are_uniform_over_the_text_of_a_sequence(ours):
    """At every position: m of the n text tokens of a sequence, each with probability m / n."""
    expected, variance, drawn = np.zeros((3, L))
    for x in ours:
        text = x.where >= 0
        assert not x.predicted[~text].any()
        share = text * (x.predicted.sum(1) / text.sum(1))[:, None]
        expected += share.sum(0)
        variance += (share * (1 - share)).sum(0)
        drawn += x.predicted.sum(0)
    error = np.sqrt(variance)[1:-1]  # [CLS] lies at 0, and only [SEP] at the end
    assert expected[0] == expected[-1] == 0
    assert (np.abs(drawn - expected)[1:-1] < SIGMAS * error).all()
    assert (error < 0.03 * expected[1:-1]).all()


def test_80_10_10_over_the_whole_vocabulary(ours):
    before = np.concatenate([x.before[x.predicted] for x in ours])
    after = np.concatenate([x.after[x.predicted] for x in ours])
    for x in ours:
        assert (x.before == x.after)[~x.predicted].all()
    shares = {"behind [MASK]": (after == MASK, 0.8 + 0.1 / V), "kept": (after == before, 0.1 + 0.1 / V)}
    for entry in set(range(V)) - {MASK}:
        shares[f"random {entry}"] = (after[before != entry] == entry, 0.1 / V)
    for name, (hits, expected) in shares.items():
        error = np.sqrt(expected * (1 - expected) / len(hits))
        assert abs(hits.mean() - expected) < SIGMAS * error, f"{name}: {hits.mean()}, not {expected} +- {error}"
        assert error < 0.03 * expected, f"{name}: {error} is too coarse to tell"


@pytest.fixture(scope="module")
def our_words():
    return our_epochs(WORD_EPOCHS, packing=False, whole_word=True)


def test_whole_words_are_hidden_together(our_words):
    for x in our_words:
        joined = continued(x)[:, 1:]
        assert joined.mean() > 0.1
        assert (x.predicted[:, 1:] == x.predicted[:, :-1])[joined].all()


def test_whole_words_are_those_of_the_paper(our_words):
    theirs = [plain_epoch(seed, whole_word=True) for seed in range(WORD_EPOCHS)]
    assert_same_means(*(means_of(word_quantities, epochs, theirs) for epochs in (theirs, our_words)))
