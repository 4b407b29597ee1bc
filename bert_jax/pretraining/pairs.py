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
from typing import Any, NamedTuple

import numpy as np

from bert_jax.config import DataConfig

NO_LABEL = -1  # of a sequence that no sentence objective scores


@dataclasses.dataclass(frozen=True)
class Sequences:
    """n sequences of P pieces of text; a sequence is [CLS] piece [SEP], or [CLS] piece [SEP] piece [SEP], ..."""

    start: np.ndarray  # int64 [P]: first token of the piece in the corpus
    length: np.ndarray  # int64 [P]: its tokens
    first: np.ndarray  # int64 [n + 1]: sequence i has the pieces first[i] to first[i + 1] - 1
    label: np.ndarray  # int32 [n]: 0 B follows A, 1 random (nsp) or swapped (sop), -1 none

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each sequence, [CLS] and [SEP]s included."""
        ends = np.concatenate([[0], np.cumsum(self.length + 1)])
        return 1 + np.diff(ends[self.first])


class _Window(NamedTuple):
    """The sentences that begin in a token range, and enough after them for the last sequence to run over the seam."""

    first: int  # the first sentence; below, sentences are counted from here
    count: int  # sentences that begin in the range
    offsets: list[int]  # token offset of sentence 0, 1, ...; the last entry is the end of the last sentence
    document: int  # the document of sentence 0
    ends: list[int]  # first sentence after document 0, 1, ... of the window, at most len(offsets) - 1


def draw_sequences(
    corpus: Any, ranges: Sequence[tuple[int, int]], config: DataConfig, rng: np.random.Generator
) -> Sequences:
    """Draws the sequences that start in the given token ranges.

    Args:
      corpus: `tokens`, `sentences`, `documents` and `num_documents` of a `text.corpus.Corpus`; no sentence and no
        document is empty. Reads the offsets of the ranges, and for each random B some twenty entries elsewhere.
      ranges: token ranges [from, to). A sequence belongs to the range where it starts and may end beyond it.
      config: reads `length` (L), `objective` and `short_rate`.
      rng: all randomness.

    Returns:
      Sequences of at most L tokens each. A corpus of one document has no other document for a random B: B then
      starts at a sentence of the same document that does not follow A.
    """
    windows = _windows(corpus, ranges, reach=config.length)
    if config.objective == "none":
        return _full_sentences(windows, config.length - 2)
    limit = config.length - 3
    put_back = config.objective == "nsp"
    found = [_chunks(window, limit, config.short_rate, put_back, rng) for window in windows]
    chunks = np.array([value for part in found for value in part], np.int64).reshape(-1, 7).T
    if config.objective == "nsp":
        starts, lengths, label = _next_sentence(corpus, chunks, rng)
    else:
        starts, lengths, label = _sentence_order(chunks, rng)
    starts, lengths = _truncate(starts, lengths, limit, rng)
    first = np.arange(0, 2 * len(label) + 1, 2)
    return Sequences(starts.ravel(), lengths.ravel(), first, label.astype(np.int32))


def _next_sentence(
    corpus: Any, chunks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chunks [7, n] -> starts and lengths of A and B [n, 2], and labels [n]: 1 where B was drawn elsewhere."""
    start, cut, stop, label, target, document, after = chunks
    begin, end = cut.copy(), stop.copy()
    drawn = np.flatnonzero(label)
    wanted = (target - (cut - start))[drawn]
    begin[drawn], end[drawn] = _random_next(corpus, document[drawn], after[drawn], wanted, rng)
    return np.stack([start, begin], 1), np.stack([cut - start, end - begin], 1), label


def _sentence_order(chunks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chunks [7, n] -> starts and lengths of A and B [m, 2], and labels [m]: 1 where they were swapped."""
    start, cut, stop = chunks[:3]
    cut = np.where(cut == stop, (start + stop) // 2, cut)  # a single sentence is split in its middle
    starts, lengths = np.stack([start, cut], 1), np.stack([cut - start, stop - cut], 1)
    both = lengths.min(1) > 0  # a single token has no middle: it is left out
    starts, lengths = starts[both], lengths[both]
    swapped = rng.random(len(starts)) < 0.5
    starts[swapped], lengths[swapped] = starts[swapped, ::-1], lengths[swapped, ::-1]
    return starts, lengths, swapped


def _windows(corpus: Any, ranges: Sequence[tuple[int, int]], reach: int) -> list[_Window]:
    """The windows of the ranges that have a sentence; two binary searches on the memory-mapped offsets serve all."""
    sentences, documents = np.asarray(corpus.sentences), np.asarray(corpus.documents)
    keys = np.array([(begin, end, end + reach) for begin, end in ranges], sentences.dtype)
    found = np.minimum(np.searchsorted(sentences, keys), len(sentences) - 1)
    owner = np.searchsorted(documents, found[:, 0].astype(documents.dtype), side="right") - 1
    windows = []
    for (first, stop, last), document in zip(found.tolist(), owner.tolist(), strict=True):
        if first == stop:
            continue
        offsets = sentences[first : last + 1].tolist()
        documents_here = document + 1 + np.searchsorted(documents[document + 1 : document + 1 + last - first], last)
        ends = np.minimum(documents[document + 1 : documents_here + 1], last) - first
        windows.append(_Window(first, stop - first, offsets, document, ends.tolist()))
    return windows


def _chunks(window: _Window, limit: int, short_rate: float, put_back: bool, rng: np.random.Generator) -> list[int]:
    """Cuts a window into chunks of sentences that reach a target length, each with a cut between A and the rest.

    Returns:
      For each chunk seven numbers in a row: token offsets of its start, cut and end; 1 if B is to be random; target
      length; document; and the sentence at the cut.
    """
    first, count, offsets, document, ends = window
    is_short, shorter, cuts, coins = rng.random((4, count))
    targets = np.where(is_short < short_rate, 2 + (shorter * (limit - 1)).astype(np.int64), limit).tolist()
    cuts, coins = cuts.tolist(), (coins < 0.5).tolist()
    found: list[int] = []
    i, which, end = 0, 0, ends[0]
    while i < count:
        while end <= i:
            which += 1
            end = ends[which]
        stop = bisect_left(offsets, offsets[i] + targets[i], i + 1, end)
        cut = i + 1 + int(cuts[i] * (stop - i - 1))  # A has 1 to n - 1 of n sentences; the only one if n = 1
        is_random = put_back and (cut == stop or coins[i])
        found += (offsets[i], offsets[cut], offsets[stop], is_random, targets[i], document + which, first + cut)
        i = cut if is_random else stop  # sentences that a random B replaced are used again
    return found


def _random_next(
    corpus: Any, document: np.ndarray, after: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair a random B: sentences of another document, from a random one on, until `target` tokens.

    Args: document: [n] the document of A; after: [n] the sentence after A; target: [n] tokens, may be 0 or less.
    Returns: token offsets [n] where B starts and ends.
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
    """[n]: the first sentence boundary at least `target` tokens after sentence `begin`, at most `stop`."""
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

    Args: starts, lengths: int64 [n, 2]. Returns: the same, with lengths.sum(1) <= limit.
    """
    excess = np.maximum(lengths.sum(1) - limit, 0)
    gap = lengths[:, 0] - lengths[:, 1]
    uneven = np.minimum(excess, np.abs(gap))  # these go off the longer one; the rest alternates, B first
    rest = excess - uneven
    off = np.stack([rest // 2 + uneven * (gap > 0), rest - rest // 2 + uneven * (gap < 0)], 1)
    return starts + rng.binomial(off, 0.5), lengths - off


def _full_sentences(windows: list[_Window], limit: int) -> Sequences:
    """Contiguous sentences up to `limit` tokens; where a document ends, a [SEP] and the next (Liu et al. 2019, 4.2).

    A sentence longer than `limit` is cut, and goes on in the next sequence.
    """
    start: list[int] = []
    length: list[int] = []
    first = [0]
    for _, count, offsets, _, ends in windows:
        position, stop, which = offsets[0], offsets[count], 0
        while position < stop:
            room = limit
            while room > 0 and which < len(ends):
                end = offsets[ends[which]]
                if position + room < end:
                    end = offsets[bisect_right(offsets, position + room) - 1]
                    if end <= position:
                        if len(start) > first[-1]:
                            break  # the next document's first sentence does not fit
                        end = position + room
                    room = 0
                else:
                    room -= end - position + 1
                    which += 1
                start.append(position)
                length.append(end - position)
                position = end
            first.append(len(start))
    labels = np.full(len(first) - 1, NO_LABEL, np.int32)
    return Sequences(np.array(start, np.int64), np.array(length, np.int64), np.array(first, np.int64), labels)
