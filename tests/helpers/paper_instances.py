"""The original data generation (create_pretraining_data.py) in the plainest words, and how a test compares with it."""

import itertools

import numpy as np

SIGMAS = 4.5  # two-sided 7e-6 for each comparison of a statistic; seeds are fixed, so a test does not flicker


def plain_truncate(a, b, limit, rng):
    while len(a) + len(b) > limit:
        longer = a if len(a) > len(b) else b
        del longer[0 if rng.random() < 0.5 else -1]


def plain_pairs(corpus, length, short_rate, rng):
    """Yields (A, B, label, is short), A and B as positions in the corpus.

    Two deliberate differences from the original: the short target is drawn for each pair, not for each document, and
    the random document is always another one, not only in ten tries.
    """
    bounds = corpus.sentences.tolist()
    documents = [
        [list(range(bounds[s], bounds[s + 1])) for s in range(first, stop)]
        for first, stop in itertools.pairwise(corpus.documents.tolist())
    ]
    limit = length - 3
    for own, document in enumerate(documents):
        chunk, size, i = [], 0, 0
        while i < len(document):
            if not chunk:
                short = rng.random() < short_rate
                target = rng.randint(2, limit) if short else limit
            chunk.append(document[i])
            size += len(document[i])
            if i == len(document) - 1 or size >= target:
                cut = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
                a, b, label = list(itertools.chain(*chunk[:cut])), list(itertools.chain(*chunk[cut:])), 0
                if len(chunk) == 1 or rng.random() < 0.5:
                    label, b = 1, []
                    other = rng.choice([d for d in range(len(documents)) if d != own])
                    for sentence in documents[other][rng.randint(0, len(documents[other]) - 1) :]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - cut
                plain_truncate(a, b, limit, rng)
                yield a, b, label, short
                chunk, size = [], 0
            i += 1


def plain_number(length, mask_rate):
    """Predictions of a sequence. The original's limit, 20 at L = 128, is never reached: 15 % of 128 are 19."""
    return max(1, round(length * mask_rate))


def plain_mask(ids, special_ids, mask_id, vocab_size, mask_rate, rng, continuations=None):
    """Hides tokens of the list `ids`; with `continuations` (bool [V], "##") whole words.

    Two differences from the original's whole words, made here as in `choose_positions`: words are taken until the next
    would exceed the number (there: it is skipped and smaller ones follow), and a "##" that truncation left at the head
    of B is a word of its own (there: it belongs to the last word of A, on the other side of [SEP]).

    Returns: the predicted positions, in the order drawn.
    """
    words = []
    for position, token in enumerate(ids):
        if token in special_ids:
            continue
        if continuations is not None and continuations[token] and ids[position - 1] not in special_ids:
            words[-1].append(position)
        else:
            words.append([position])
    rng.shuffle(words)
    number, predicted = plain_number(len(ids), mask_rate), []
    for word in words:
        if len(word) > number:
            continue
        if len(predicted) + len(word) > number:
            break
        predicted += word
    for position in predicted:
        if rng.random() < 0.8:
            ids[position] = mask_id
        elif rng.random() < 0.5:
            ids[position] = rng.randrange(vocab_size)
    return predicted


def assert_same_means(theirs, ours, coarsest=0.03):
    """Compares {name: [its mean in each run]} by the paper and here; runs are independent.

    A difference of SIGMAS standard errors is a failure, and so is a standard error of more than `coarsest` of the
    value (of a share: of the smaller of it and its rest), which would tell too little.
    """
    assert theirs.keys() == ours.keys()
    failures = []
    for name in theirs:
        x, y = np.mean(theirs[name]), np.mean(ours[name])
        error = np.sqrt(sum(np.var(runs, ddof=1) / len(runs) for runs in (theirs[name], ours[name])))
        size = min(x, 1 - x) if x < 1 else x
        if not abs(x - y) < SIGMAS * error:  # nor if either is not a number
            failures.append(f"{name}: {x} by the paper, {y} here, standard error {error}")
        if not error < coarsest * size:
            failures.append(f"{name}: {error} is too coarse to tell, the value is {x}")
    assert not failures, "\n".join(failures)
