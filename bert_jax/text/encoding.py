"""Turns raw documents into token ids: cleans, splits into sentences, encodes. Each process of a build does this."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencex
import tokenizers

from bert_jax.text.cleaning import Cleaning
from bert_jax.text.tokenizer import WORD_LIMIT, Tokenizer

_PIECE = 4_096  # characters: a longer "sentence" is cut before it is encoded
_PORTION = 1 << 17  # characters encoded at once
_CACHED_WORDS = 1 << 18  # about 40 MB
# White space to Python, which the tokenizer removes without a gap.
_NO_GAP = re.compile("[\x0b\x0c\x1c-\x1f\x85]")


@dataclasses.dataclass
class EncodedDocuments:
    """Holds the D kept documents of a batch, with S sentences in all."""

    tokens: np.ndarray  # uint16 or uint32 [tokens]
    sentence_lengths: np.ndarray  # int64 [S], in tokens
    sentence_counts: np.ndarray  # int64 [D], in sentences
    hashes: list[int]  # [D]
    characters: list[int]  # [D]
    text_bytes: list[int]  # [D]
    dropped: collections.Counter  # what is not here, by reason
    cut: collections.Counter  # what was too long, by kind


class DocumentEncoder:
    """Turns batches of raw documents into `EncodedDocuments`.

    The library cuts one word at a time and remembers none; words repeat, so their ids are kept here (measured on
    movie_reviews: the whole build takes half the time, same ids).

    Args:
      tokenizer_json: the tokenizer; a special token's name in a text is plain text to this copy of it.
      cleaning: the cleaning of a document; duplicates are the caller's business.
      language: the ISO 639 code for the sentence splitter; one that it does not know gets its general rules.
      longest: the largest number of tokens of a sentence; longer ones are cut, between words where possible.
      dtype: the type of the tokens.
    """

    def __init__(self, tokenizer_json: str, cleaning: Cleaning, language: str, longest: int, dtype: type) -> None:
        """Makes the tokenizer from its file's text, so that an encoder's arguments are cheap to send to a process."""
        self._tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_json))
        self._tokenizer.backend.encode_special_tokens = True
        self._continuation = self._tokenizer.is_continuation.tolist()
        self._cleaning = cleaning
        self._language = language
        self._longest = longest
        self._dtype = dtype
        self._words: dict[str, list[int]] = {}

    def __call__(self, documents: list[str]) -> EncodedDocuments:
        """Encodes some documents, in order."""
        dropped, cut = collections.Counter(), collections.Counter()
        cleaned = list(self._cleaning.documents(documents, dropped))
        sentences = [self._split(document.text, cut) for document in cleaned]
        ids = self._ids(itertools.chain.from_iterable(sentences), cut)
        kept, rows, counts = [], [], []
        for document, pieces in zip(cleaned, sentences, strict=True):
            fitting = self._fitting(itertools.islice(ids, len(pieces)), cut)
            if not fitting:
                dropped["no tokens"] += 1
                continue
            kept.append(document)
            rows += fitting
            counts.append(len(fitting))
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return EncodedDocuments(
            tokens=np.fromiter(itertools.chain.from_iterable(rows), self._dtype, int(lengths.sum())),
            sentence_lengths=lengths,
            sentence_counts=np.array(counts, np.int64),
            hashes=[document.hash for document in kept],
            characters=[len(document.text) for document in kept],
            text_bytes=[document.text_bytes for document in kept],
            dropped=dropped,
            cut=cut,
        )

    def _split(self, text: str, cut: collections.Counter) -> list[str]:
        """Returns the sentences of a document, none longer than `_PIECE` characters."""
        if not self._cleaning.control_characters:
            text = _NO_GAP.sub("", text)
        sentences = []
        for sentence in sentencex.segment(self._language, text):  # pyright: ignore[reportAttributeAccessIssue]
            if len(sentence) <= _PIECE:
                sentences.append(sentence)
            else:
                cut[f"sentences of over {_PIECE:,} characters"] += 1
                sentences += _pieces(sentence)
        return sentences

    def _ids(self, sentences: Iterable[str], cut: collections.Counter) -> Iterator[list[int]]:
        """Yields the ids of each sentence, encoded in portions of bounded size."""
        portion, size = [], 0
        for sentence in sentences:
            portion.append(sentence.split())
            size += len(sentence)
            if size >= _PORTION:
                yield from self._encode(portion, cut)
                portion, size = [], 0
        yield from self._encode(portion, cut)

    def _encode(self, sentences: list[list[str]], cut: collections.Counter) -> list[list[int]]:
        """Returns the ids of sentences, given as words."""
        known = self._words
        if len(known) > _CACHED_WORDS:
            known.clear()
        new = list(set(itertools.chain.from_iterable(sentences)).difference(known))
        known.update(zip(new, self._tokenizer.encode_batch(new), strict=True))
        long = [word for word in new if len(word) > WORD_LIMIT]
        for word in long:
            if self._tokenizer.unk_id in known[word]:
                # A script without spaces, mostly: as a whole, it would be lost in one [UNK].
                cut[f"runs of over {WORD_LIMIT} characters without a space"] += 1
                parts = [word[start : start + WORD_LIMIT] for start in range(0, len(word), WORD_LIMIT)]
                known[word] = list(itertools.chain.from_iterable(self._tokenizer.encode_batch(parts)))
        rows = [list(itertools.chain.from_iterable(map(known.__getitem__, words))) for words in sentences]
        for word in long:  # forgotten, so that the count above does not depend on what a process saw before
            del known[word]
        return rows

    def _fitting(self, ids: Iterator[list[int]], cut: collections.Counter) -> list[list[int]]:
        """Returns the sentences of a document without the empty ones, and with those over the longest cut."""
        rows = []
        for row in ids:
            if len(row) > self._longest:
                cut[f"sentences of over {self._longest} tokens"] += 1
            while len(row) > self._longest:
                end = self._longest
                while end > self._longest // 2 and self._continuation[row[end]]:
                    end -= 1
                if self._continuation[row[end]]:  # one word, longer than half a sentence
                    end = self._longest
                rows.append(row[:end])
                row = row[end:]
            if row:
                rows.append(row)
        return rows


def _pieces(sentence: str) -> Iterator[str]:
    """Cuts at the last white space within each `_PIECE` characters, or anywhere if there is none."""
    start = 0
    while start < len(sentence):
        end = start + _PIECE
        if end < len(sentence):
            space = max(sentence.rfind(mark, start + 1, end) for mark in " \n")
            end = space if space > 0 else end
        yield sentence[start:end]
        start = end
