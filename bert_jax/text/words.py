"""Words and characters of a text as a reader sees them: a character with its marks, a word with its characters.

The library `regex` knows Unicode's grapheme clusters (UAX #29): accents, vowel signs, variation selectors and the parts
of an emoji stay with the character that they change. The words are those of CoNLL-2003, in any script:

- letters and digits, with single marks between them (U.S, 1,000, well-known); any other mark, and any emoji, is a word;
- the genitive 's is a word;
- each Chinese character is a word, as BERT's tokenizer and Chinese data have it;
- what has no spaces in other scripts (Thai, Lao, Khmer, kana) is one word, as in BERT's tokenizer, up to a zero-width
  space;
- characters that cannot be seen (soft hyphens, joiners, marks of direction) belong to the word before them.

Words that training data has whole where these rules cut them (U.S., --, 10.) can be learned from it.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

import regex

Span = tuple[int, int]  # [start, stop) in characters of a text

_UNSEEN = r"[[\p{Cc}\p{Cf}]--[\s\u200b]]"  # BERT's tokenizer drops them; a zero-width space parts words
# The library looks back to the first of many flags at every one, so they are told here.
_FLAG = r"\p{GCB=Regional_Indicator}{2}[\p{GCB=Extend}\u200d]*+"
_CHARACTER = rf"(?:{_FLAG}|\X){_UNSEEN}*+"
_CHINESE = r"\p{Han}"
_ALONE = r"\p{Mn}\p{Me}\p{Cc}\p{Cf}"  # a mark without a character, or what cannot be seen
_NUMERIC = r"\p{No}\p{WB=Numeric}"  # in H2O with a small 2, and the Arabic decimal separator
_LETTER = rf"(?:[A-Za-z0-9_](?=[ -~])|(?=[[\w{_NUMERIC}]--[{_CHINESE}{_ALONE}]]){_CHARACTER})"
_MARK = r"[[!-~\p{Pd}\p{WB=MidLetter}\p{WB=MidNumLet}]--\w]"
_GENITIVE = r"['\u2019][sS]\b"
_SEEN = rf"(?=[^\s{_ALONE}]){_CHARACTER}"
_WORD = regex.compile(rf"(?V1){_GENITIVE}|{_LETTER}++(?:(?!{_GENITIVE}){_MARK}{_LETTER}++)*+|{_SEEN}")
_NUMBER = regex.compile(r"\d++")
_MOST_PIECES = 12  # of a learned word
_MOST_LEARNED = 2_000  # some 20 kB; each address on the web is a word of its own
_JOINING = regex.compile(r"(?V1)[\P{GCB=Other}--\s]")  # what may stand within a character
_CHARACTERS = regex.compile(rf"(?V1)\s|{_CHARACTER}")


def words(text: str, whole: Collection[str] = ()) -> list[Span]:
    """Returns where the words of a text stand; none, if nothing in it can be seen.

    Args:
      text: the text.
      whole: words that are not cut, as `learned_words` gives them; of several that begin at a place, the longest is.
    """
    pieces = [match.span() for match in _WORD.finditer(text)]
    return list(_joined(text, pieces, frozenset(whole))) if whole else pieces


def learned_words(sentences: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Returns the words that sentences have whole, more often than in parts, where `words` would cut them.

    Args:
      sentences: their words. They are gone through twice.

    Returns:
      The most frequent, in the order of their characters, with 0 in place of every number: "0." stands for "12.".
    """
    counts = Counter(itertools.chain.from_iterable(sentences))
    whole: Counter[str] = Counter()
    for word, count in counts.items():
        pieces = [] if word.isalnum() and word.isascii() else words(word)
        gapless = [0, *(stop for _, stop in pieces)] == [*(start for start, _ in pieces), len(word)]
        if gapless and 1 < len(pieces) <= _MOST_PIECES:
            whole[_form(word)] += count
    parted: Counter[str] = Counter()
    if whole:
        for sentence in sentences:
            triples = zip(sentence, sentence[1:], sentence[2:], strict=False)
            for joined in map("".join, itertools.chain(itertools.pairwise(sentence), triples)):
                if not (joined.isalnum() and joined.isascii()):
                    parted[_form(joined)] += 1
    kept = sorted(word for word, count in whole.items() if count > parted[word])
    return tuple(sorted(sorted(kept, key=lambda word: -whole[word])[:_MOST_LEARNED]))


def _joined(text: str, pieces: Sequence[Span], whole: frozenset[str]) -> Iterator[Span]:
    """Yields the pieces, with those that make a known word as one."""
    longest = _longest(whole)
    place = 0
    while place < len(pieces):
        start, stop = pieces[place]
        ends = [stop]
        for begin, end in pieces[place + 1 : place + longest.get(_form(text[start:stop]), 1)]:
            if begin != ends[-1]:
                break
            ends.append(end)
        while len(ends) > 1 and _form(text[start : ends[-1]]) not in whole:
            ends.pop()
        yield start, ends[-1]
        place += len(ends)


@functools.lru_cache(maxsize=8)
def _longest(whole: frozenset[str]) -> dict[str, int]:
    """Returns the most pieces that known words have, by their first piece."""
    longest: Counter[str] = Counter()
    for word in whole:
        for start, stop in words(word)[:1]:
            longest[word[start:stop]] = max(longest[word[start:stop]], len(words(word)))
    return longest


def _form(word: str) -> str:
    """Returns the word with 0 in place of every number."""
    return _NUMBER.sub("0", word)


def characters(text: str) -> list[Span]:
    """Returns where the characters of a text stand, each with its marks and what cannot be seen behind it.

    They follow each other without gaps.
    """
    return [match.span() for match in _CHARACTERS.finditer(text)]


def has_marks(text: str) -> bool:
    """Tells whether characters of a text may have marks, or what cannot be seen, behind them."""
    return _JOINING.search(text) is not None
