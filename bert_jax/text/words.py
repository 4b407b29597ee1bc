"""Words and characters of a text as a reader sees them: a character with its marks, a word with its characters.

The library `regex` knows Unicode's grapheme clusters (UAX #29): accents, vowel signs, variation selectors and the parts
of an emoji stay with the character that they change. The words are those of CoNLL-2003, in any script:

- letters and digits, with single marks between them (U.S, 1,000, well-known); any other mark, and any emoji, is a word;
- the genitive 's is a word;
- each Chinese character is a word, as BERT's tokenizer and Chinese data have it;
- what has no spaces in other scripts (Thai, Lao, Khmer, kana) is one word, as in BERT's tokenizer, up to a zero-width
  space;
- characters that cannot be seen (soft hyphens, joiners, marks of direction) belong to the word before them.
"""

import regex

Span = tuple[int, int]  # [start, stop) in characters of a text

_UNSEEN = r"[[\p{Cc}\p{Cf}]--[\s\u200b]]"  # BERT's tokenizer drops them; a zero-width space parts words
_CHARACTER = rf"\X{_UNSEEN}*+"
_CHINESE = r"\p{Han}"
_ALONE = r"\p{Mn}\p{Me}\p{Cc}\p{Cf}"  # a mark without a character, or what cannot be seen
_LETTER = rf"(?:[A-Za-z0-9_](?=[ -~])|(?=[\w--[{_CHINESE}{_ALONE}]]){_CHARACTER})"
_MARK = r"[[!-~\p{Pd}\p{WB=MidLetter}\p{WB=MidNumLet}]--\w]"
_GENITIVE = r"['\u2019]s\b"
_SEEN = rf"(?=[^\s{_ALONE}]){_CHARACTER}"
_WORD = regex.compile(rf"(?V1){_GENITIVE}|{_LETTER}++(?:(?!{_GENITIVE}){_MARK}{_LETTER}++)*+|{_SEEN}")
_CHARACTERS = regex.compile(rf"(?V1)\s|{_CHARACTER}")


def words(text: str) -> list[Span]:
    """Returns where the words of a text stand; none, if nothing in it can be seen."""
    return [match.span() for match in _WORD.finditer(text)]


def characters(text: str) -> list[Span]:
    """Returns where the characters of a text stand, each with its marks and what cannot be seen behind it.

    They follow each other without gaps.
    """
    return [match.span() for match in _CHARACTERS.finditer(text)]
