"""What happens to a document before it is split into sentences: repair, normalise, and say whether it stays."""

import dataclasses
import hashlib
import html
import re
import unicodedata

import numpy as np

from bert_jax.errors import UserError

# Breaks end a line (two of them a paragraph, which the sentence splitter respects); inline marks just go.
_BREAK = re.compile(r"<(?:br|hr|p|/p)\s*/?>", re.IGNORECASE)
_INLINE = re.compile(r"</?(?:i|b|u|em|strong|span|sup|sub|small)>", re.IGNORECASE)
# Lone surrogates (from JSON escapes) are no text: no UTF-8 holds them.
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LETTER = re.compile(r"[^\W\d_]")


def _control_replacements() -> dict[str, str]:
    """Vertical tab and form feed are spaces; 0x80-0x9f is mis-decoded Windows-1252 (HTML 5 reads it so too)."""
    replacements = {"\x0b": " ", "\x0c": " "}
    for code in range(0x80, 0xA0):
        replacements[chr(code)] = bytes([code]).decode("cp1252", errors="ignore")
    return replacements


_CONTROL_REPLACEMENTS = _control_replacements()


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What is done to each document, in this order; every step can be turned off."""

    html_tags: bool = True  # <br>, <hr> and <p> become line ends; <i>, <b>, <em> and their like are removed
    html_entities: bool = True  # &amp; becomes &
    control_characters: bool = True  # removed (0x80-0x9f is read as the Windows-1252 that it nearly always is)
    unicode_form: str = "NFC"  # NFC, NFKC, NFD, NFKD; empty leaves the text as it is
    minimum_length: int = 1  # in characters, after the steps above; shorter documents are dropped
    letters: bool = True  # documents without a single letter are dropped
    drop_duplicates: bool = True  # documents equal to an earlier one are dropped

    def __post_init__(self) -> None:
        if self.unicode_form not in ("", "NFC", "NFKC", "NFD", "NFKD"):
            raise UserError(f"unicode form {self.unicode_form!r} is not known: choose NFC, NFKC, NFD, NFKD or none")

    def clean(self, text: str) -> str:
        """The document, repaired and normalised; empty if nothing is left."""
        text = without_surrogates(text)
        if self.html_tags and "<" in text:
            text = _INLINE.sub("", _BREAK.sub("\n", text))
        if self.html_entities and "&" in text:
            text = html.unescape(text)
        if self.control_characters:
            text = _CONTROL.sub(lambda match: _CONTROL_REPLACEMENTS.get(match[0], ""), text)
        if self.unicode_form:
            text = unicodedata.normalize(self.unicode_form, text)
        return text.strip()

    def fault(self, text: str) -> str:
        """Why a cleaned document is dropped (duplicates apart); empty if it stays."""
        if not text:
            return "empty"
        if len(text) < self.minimum_length:
            return f"shorter than {self.minimum_length} characters"
        if self.letters and not _LETTER.search(text):
            return "no letters"
        return ""


def without_surrogates(text: str) -> str:
    """The text with U+FFFD, of which BERT's tokenizer makes nothing, for each lone surrogate; no longer, no shorter."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def document_hash(text: str) -> int:
    """64 bits that name a document: for finding duplicates and for choosing the validation split."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


class SeenDocuments:
    """Remembers the hashes of documents in 128 MiB, however many there are.

    A table of 2^21 buckets of 8 hashes each. A full bucket forgets its oldest hash, so a duplicate may be missed (about
    0.02 % of them among 4 million documents, 2 % among 8 million); a new document is taken for a duplicate only
    if two 64-bit hashes agree (3e-6 in all for 10 million documents).
    """

    BUCKETS = 1 << 21
    WAYS = 8

    def __init__(self) -> None:
        self._table = np.zeros((self.BUCKETS, self.WAYS), np.uint64)  # pages are taken when first written
        self._next = np.zeros(self.BUCKETS, np.uint8)

    def add(self, code: int) -> bool:
        """True if `code` was there already."""
        bucket = code % self.BUCKETS
        code = code or 1  # 0 marks a free place
        row = self._table[bucket]
        if code in row.tolist():
            return True
        place = int(self._next[bucket])
        row[place] = code
        self._next[bucket] = (place + 1) % self.WAYS
        return False
