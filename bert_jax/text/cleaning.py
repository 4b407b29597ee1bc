"""Cleans documents before they are split into sentences: repairs, normalises, and drops some.

The stages are two, because a corpus is cleaned in several processes: `Cleaning.documents` needs nothing but the
documents themselves, and `Deduplicator` sees all of them in their order.
"""

import dataclasses
import hashlib
import html
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_jax.config import CleaningConfig
from bert_jax.text.report import Report

# Breaks end a line (two of them a paragraph, which the sentence splitter respects); inline marks just go.
_BREAK = re.compile(r"<(?:br|hr|p|/p)\s*/?>", re.IGNORECASE)
_INLINE = re.compile(r"</?(?:i|b|u|em|strong|span|sup|sub|small)>", re.IGNORECASE)
# Lone surrogates (from JSON escapes) are no text: no UTF-8 holds them.
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LETTER = re.compile(r"[^\W\d_]")
_MOST_MARKS = 100  # on one letter
# Python's search is fast for a range, then for a set of the basic plane; a set of several planes would take minutes. Of
# the other planes any character is suspected to be a mark.
_BASIC_MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.combining(chr(code)))
_HIGH = "\U00010000-\U0010ffff"
_MANY_MARKS = re.compile(
    f"[\u0300-\U0010ffff](?<![^{_BASIC_MARKS}{_HIGH}])(?:[{_BASIC_MARKS}]|[{_HIGH}]){{{_MOST_MARKS - 1}}}"
)


def _control_replacements() -> dict[str, str]:
    """Maps vertical tab and form feed to spaces, and 0x80-0x9f to the Windows-1252 that it nearly always is."""
    replacements = {"\x0b": " ", "\x0c": " "}
    for code in range(0x80, 0xA0):
        replacements[chr(code)] = bytes([code]).decode("cp1252", errors="ignore")
    return replacements


_CONTROL_REPLACEMENTS = _control_replacements()


class CleanDocument(NamedTuple):
    """Holds a document that stays, after cleaning."""

    text: str
    hash: int  # `document_hash` of the text
    text_bytes: int  # in UTF-8


@dataclasses.dataclass(frozen=True)
class Cleaning(CleaningConfig):
    """Cleans documents as its config says, and says which are dropped."""

    def clean(self, text: str) -> str:
        """Returns the document, repaired and normalised; empty if nothing is left."""
        text = without_surrogates(text)
        if self.html_tags and "<" in text:
            text = _INLINE.sub("", _BREAK.sub("\n", text))
        if self.html_entities and "&" in text:
            text = html.unescape(text)
        if self.control_characters:
            text = _CONTROL.sub(lambda match: _CONTROL_REPLACEMENTS.get(match[0], ""), text)
        if self.unicode_form:
            text = normalized(self.unicode_form, text)
        return text.strip()

    def fault(self, text: str) -> str:
        """Says why a cleaned document is dropped (duplicates apart); empty if it stays."""
        if not text:
            return "empty"
        if len(text) < self.minimum_length:
            return f"shorter than {self.minimum_length} characters"
        if self.letters and not _LETTER.search(text):
            return "no letters"
        return ""

    def documents(self, raw: Iterable[str], dropped: Counter[str]) -> Iterator[CleanDocument]:
        """Yields the documents that stay, cleaned, and counts the others in `dropped` by reason (duplicates apart)."""
        for text in map(self.clean, raw):
            if fault := self.fault(text):
                dropped[fault] += 1
            else:
                yield CleanDocument(text, document_hash(text), len(text.encode("utf-8")))


def normalized(form: str, text: str) -> str:
    """Returns a Unicode normal form in time that is linear in the text.

    Marks on one letter are sorted, which takes the square of their number; so a run of more than `_MOST_MARKS` of them,
    which no script has, is sorted in parts.
    """
    if text.isascii():
        return text
    ends = (match.end() for match in _MANY_MARKS.finditer(text) if all(map(unicodedata.combining, match[0])))
    parts = (text[start:stop] for start, stop in itertools.pairwise([0, *ends, len(text)]))
    return "".join(unicodedata.normalize(form, part) for part in parts)  # pyright: ignore[reportArgumentType]


def without_surrogates(text: str) -> str:
    """Replaces each lone surrogate by U+FFFD, of which BERT's tokenizer makes nothing; the length stays."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def document_hash(text: str) -> int:
    """Returns 64 bits that name a document: for finding duplicates and for choosing the validation split."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


class Deduplicator:
    """Counts the documents of a stream in a report, and drops those that came before."""

    def __init__(self, drop_duplicates: bool, report: Report) -> None:
        """Starts with no document seen.

        Args:
          drop_duplicates: whether to drop them; otherwise every document stays.
          report: the report that counts the documents that stay and those dropped.
        """
        self._seen = SeenDocuments() if drop_duplicates else None
        self._report = report

    def keeps(self, code: int, characters: int, text_bytes: int) -> bool:
        """Counts a document, given its hash and its size; returns whether it stays."""
        if self._seen and self._seen.add(code):
            self._report.dropped["duplicate"] += 1
            return False
        self._report.documents += 1
        self._report.characters += characters
        self._report.text_bytes += text_bytes
        return True


class SeenDocuments:
    """Remembers the hashes of documents in 128 MiB, however many there are.

    They stand in a table of 2^21 buckets of 8 hashes each. A full bucket forgets its oldest hash, so a duplicate may be
    missed (about 0.02 % of them among 4 million documents, 2 % among 8 million); a new document is taken for a
    duplicate only if two 64-bit hashes agree (3e-6 in all for 10 million documents).
    """

    BUCKETS = 1 << 21
    WAYS = 8

    def __init__(self) -> None:
        """Starts with an empty table."""
        self._table = np.zeros((self.BUCKETS, self.WAYS), np.uint64)  # pages are taken when first written
        self._next = np.zeros(self.BUCKETS, np.uint8)

    def add(self, code: int) -> bool:
        """Adds a hash; returns True if it was there already."""
        bucket = code % self.BUCKETS
        code = code or 1  # 0 marks a free place
        row = self._table[bucket]
        if code in row.tolist():
            return True
        place = int(self._next[bucket])
        row[place] = code
        self._next[bucket] = (place + 1) % self.WAYS
        return False
