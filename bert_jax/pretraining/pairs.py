"""Draws sequences from the corpus: [CLS] A [SEP] B [SEP] for sentence objectives, [CLS] text [SEP] without one.

The algorithm is that of Devlin et al. 2018, section 3.1 and appendix A.2, and of `create_pretraining_data.py` in
google-research/bert, drawn anew each epoch. Two deliberate differences: the short target length is drawn for each pair
(there: once a document, so short pairs are more than `short_rate` of all), and the other document of a random B is
always another one (there: the same one after ten tries in vain).

A pair is three things: where A and B lie in the corpus, and a label. No token is read here.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from bert_jax.config import DataConfig
from bert_jax.text.corpus import CorpusArrays

NO_LABEL = -1  # of a sequence that no sentence objective scores


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Says where n sequences of P pieces of text lie in the corpus.

    A sequence is [CLS] piece [SEP], or [CLS] piece [SEP] piece [SEP], ...
    """

    start: np.ndarray  # int64 [P]: first token of the piece in the corpus
    length: np.ndarray  # int64 [P]: its tokens
    first: np.ndarray  # int64 [n + 1]: sequence i has the pieces first[i] to first[i + 1] - 1
    label: np.ndarray  # int32 [n]: 0 B follows A, 1 random (nsp) or swapped (sop), -1 none

    @property
    def lengths(self) -> np.ndarray:
        """Counts the tokens of each sequence, [CLS] and [SEP]s included, int64 [n]."""
        ends = np.concatenate([[0], np.cumsum(self.length + 1)])
        return 1 + np.diff(ends[self.first])


class _Window(NamedTuple):
    """Holds the sentences that begin in a token range, and as many more as the last sequence may run over its end."""

    first: int  # the first sentence; below, sentences are counted from here
    num_sentences: int  # that begin in the range
    offsets: list[int]  # token offset of sentence 0, 1, ...; the last entry is the end of the last sentence
    document: int  # the document of sentence 0
    ends: list[int]  # first sentence after document 0, 1, ... of the window, at most len(offsets) - 1


class Chunks(NamedTuple):
    """Holds n stretches of sentences of one document, each to become a pair; int64 [n] each."""

    start: np.ndarray  # token offset where A begins
    cut: np.ndarray  # token offset where A ends
    stop: np.ndarray  # token offset where the chunk ends, and with it B if B is to follow A
    is_random: np.ndarray  # 1 where B is to be drawn elsewhere
    target: np.ndarray  # tokens that A and B are to have together
    document: np.ndarray  # which the chunk belongs to
    sentence: np.ndarray  # that begins at the cut


def draw_sequences(
    corpus: CorpusArrays, ranges: Sequence[tuple[int, int]], config: DataConfig, rng: np.random.Generator
) -> Sequences:
    """Draws the sequences that start in the given token ranges.

    Args:
      corpus: the text, no sentence or document of which is empty. The offsets of the ranges are read, and for each
        random B some twenty entries elsewhere.
      ranges: the token ranges [from, to). A sequence belongs to the range where it starts and may end beyond it.
      config: the config, of which `length` (L), `objective` and `short_rate` are read.
      rng: the generator of all randomness.

    Returns:
      Sequences of at most L tokens each. A corpus of one document has no other document for a random B: B then
      starts at a sentence of the same document that does not follow A.
    """
    windows = _windows(corpus, ranges, reach=config.length)
    if config.objective == "none":
        return _full_sentences(windows, config.length - 2)
    limit = config.length - 3
    chunks = _chunks(windows, limit, config.short_rate, config.objective == "nsp", rng)
    if config.objective == "nsp":
        starts, lengths, label = _next_sentence(corpus, chunks, rng)
    else:
        starts, lengths, label = _sentence_order(chunks, rng)
    starts, lengths = _truncate(starts, lengths, limit, rng)
    first = np.arange(0, 2 * len(label) + 1, 2)
    return Sequences(starts.ravel(), lengths.ravel(), first, label.astype(np.int32))


def _next_sentence(
    corpus: CorpusArrays, chunks: Chunks, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns starts and lengths of A and B [n, 2], and labels [n]: 1 where B was drawn elsewhere."""
    begin, end = chunks.cut.copy(), chunks.stop.copy()  # of B
    random = np.flatnonzero(chunks.is_random)
    first_length = chunks.cut - chunks.start
    target = (chunks.target - first_length)[random]
    begin[random], end[random] = _random_next(corpus, chunks.document[random], chunks.sentence[random], target, rng)
    return np.stack([chunks.start, begin], 1), np.stack([first_length, end - begin], 1), chunks.is_random


def _sentence_order(chunks: Chunks, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns starts and lengths of A and B [m, 2], and labels [m]: 1 where they were swapped."""
    start, stop = chunks.start, chunks.stop
    cut = np.where(chunks.cut == stop, (start + stop) // 2, chunks.cut)  # a single sentence is split in its middle
    starts, lengths = np.stack([start, cut], 1), np.stack([cut - start, stop - cut], 1)
    both = lengths.min(1) > 0  # a single token has no middle: it is left out
    starts, lengths = starts[both], lengths[both]
    swapped = rng.random(len(starts)) < 0.5
    starts[swapped], lengths[swapped] = starts[swapped, ::-1], lengths[swapped, ::-1]
    return starts, lengths, swapped


def _windows(corpus: CorpusArrays, ranges: Sequence[tuple[int, int]], reach: int) -> list[_Window]:
    """Returns the windows of the ranges that have a sentence, by two binary searches on the memory-mapped offsets."""
    sentences, documents = np.asarray(corpus.sentences), np.asarray(corpus.documents)
    keys = np.array([(begin, end, end + reach) for begin, end in ranges], sentences.dtype)
    bounds = np.minimum(np.searchsorted(sentences, keys), len(sentences) - 1)
    owner = np.searchsorted(documents, bounds[:, 0].astype(documents.dtype), side="right") - 1
    windows = []
    for (first, stop, last), document in zip(bounds.tolist(), owner.tolist(), strict=True):
        if first == stop:
            continue
        offsets = sentences[first : last + 1].tolist()
        documents_here = document + 1 + np.searchsorted(documents[document + 1 : document + 1 + last - first], last)
        ends = np.minimum(documents[document + 1 : documents_here + 1], last) - first
        windows.append(_Window(first, stop - first, offsets, document, ends.tolist()))
    return windows


def _chunks(windows: list[_Window], limit: int, short_rate: float, put_back: bool, rng: np.random.Generator) -> Chunks:
    """Cuts windows into chunks of sentences that reach a target length, and each chunk into A and the rest.

    With `put_back`, half of the chunks get a random B, and the sentences that it replaces are used again.
    """
    rows = [row for window in windows for row in _chunks_of(window, limit, short_rate, put_back, rng)]
    columns = np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * len(Chunks._fields))
    return Chunks(*columns.reshape(-1, len(Chunks._fields)).T)


def _chunks_of(
    window: _Window, limit: int, short_rate: float, put_back: bool, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Returns the chunks of a window, each with the fields of `Chunks`."""
    first, count, offsets, document, ends = window
    is_short, shorter, cuts, coins = rng.random((4, count))
    targets = np.where(is_short < short_rate, 2 + (shorter * (limit - 1)).astype(np.int64), limit).tolist()
    cuts, coins = cuts.tolist(), (coins < 0.5).tolist()
    chunks: list[tuple[int, ...]] = []
    i, which, end = 0, 0, ends[0]
    while i < count:
        while end <= i:
            which += 1
            end = ends[which]
        stop = bisect_left(offsets, offsets[i] + targets[i], i + 1, end)
        cut = i + 1 + int(cuts[i] * (stop - i - 1))  # A has 1 to n - 1 of n sentences; the only one if n = 1
        is_random = put_back and (cut == stop or coins[i])
        chunks.append((offsets[i], offsets[cut], offsets[stop], is_random, targets[i], document + which, first + cut))
        i = cut if is_random else stop
    return chunks


def _random_next(
    corpus: CorpusArrays, document: np.ndarray, after: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a random B for each pair: sentences of another document, from a random one on, until `target` tokens.

    Args:
      corpus: the text, which is read at some twenty places for each pair.
      document: the document of A [n].
      after: the sentence after A [n].
      target: the tokens of B [n], which may be 0 or less.
      rng: the generator of all randomness.

    Returns:
      Token offsets [n] where B starts and ends.
    """
    sentences, documents = np.asarray(corpus.sentences), np.asarray(corpus.documents)
    which, where = rng.random((2, len(document)))
    others = corpus.num_documents - 1
    if others:
        other = (which * others).astype(np.int64)
        other += other >= document
        begin, stop = documents[other], documents[other + 1]
        begin = begin + (where * (stop - begin)).astype(np.int64)
    else:
        begin, stop = np.broadcast_to(documents[:2, None], (2, len(document)))
        begin = begin + (where * np.maximum(stop - begin - 1, 1)).astype(np.int64)
        begin += begin >= after
    return sentences[begin], sentences[_reach(sentences, begin, stop, target)]


def _reach(sentences: np.ndarray, begin: np.ndarray, stop: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the first sentence boundary at least `target` tokens after sentence `begin`, at most `stop`, [n]."""
    goal = sentences[begin] + target
    low, high = begin + 1, np.minimum(stop, begin + np.maximum(target, 1))  # a sentence has at least one token
    while (low < high).any():
        middle = (low + high) // 2
        reached = sentences[middle] >= goal
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return high


def _truncate(
    starts: np.ndarray, lengths: np.ndarray, limit: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Takes tokens off the longer of A and B (B, if equal) until both fit; each off the front or the end, evenly.

    Args:
      starts: the first tokens of A and B, int64 [n, 2].
      lengths: the lengths of A and B, int64 [n, 2].
      limit: the largest number of tokens of A and B together.
      rng: the generator that draws the ends that tokens are taken off.

    Returns:
      Starts and lengths, with lengths.sum(1) <= limit.
    """
    excess = np.maximum(lengths.sum(1) - limit, 0)
    gap = lengths[:, 0] - lengths[:, 1]
    uneven = np.minimum(excess, np.abs(gap))  # these go off the longer one; the rest alternates, B first
    rest = excess - uneven
    off = np.stack([rest // 2 + uneven * (gap > 0), rest - rest // 2 + uneven * (gap < 0)], 1)
    return starts + rng.binomial(off, 0.5), lengths - off


def _full_sentences(windows: list[_Window], limit: int) -> Sequences:
    """Draws sequences of contiguous sentences, up to `limit` tokens (Liu et al. 2019, 4.2)."""
    pieces: list[tuple[int, int]] = []
    first = [0]
    for window in windows:
        document_ends = [window.offsets[end] for end in window.ends]
        position, stop = window.offsets[0], window.offsets[window.num_sentences]
        while position < stop:
            pieces += _sequence_at(position, window.offsets, document_ends, limit)
            position = pieces[-1][1]
            first.append(len(pieces))
    start, end = np.array(pieces, np.int64).reshape(-1, 2).T
    labels = np.full(len(first) - 1, NO_LABEL, np.int32)
    return Sequences(start, end - start, np.array(first, np.int64), labels)


def _sequence_at(position: int, offsets: list[int], document_ends: list[int], limit: int) -> list[tuple[int, int]]:
    """Returns the pieces, as (start, end) in tokens, of the sequence that starts at a token.

    Where a document ends, a [SEP] and the next document follow. A sentence longer than `limit` is cut, and goes on in
    the next sequence.
    """
    pieces: list[tuple[int, int]] = []
    room = limit
    for number in range(bisect_right(document_ends, position), len(document_ends)):
        end = document_ends[number]
        if position + room < end:  # not all of the document
            end = offsets[bisect_right(offsets, position + room) - 1]
            if end > position:
                pieces.append((position, end))
            elif not pieces:
                pieces.append((position, position + room))
            break
        pieces.append((position, end))
        room -= end - position + 1
        position = end
        if room <= 0:
            break
    return pieces
