"""Words and characters as a reader sees them, in many scripts; written out, and by what `unicodedata` says of them."""

import itertools
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies

from bert_jax.text.words import characters, has_marks, learned_words, words

LETTERS_AND_MARKS = (
    "aZ9_é'\u2019-.,!()$ \n\t\u00a0e\u0301हिन्दीมี北京タ한❤\ufe0f👍🏽\u200d👩\u00ad\u200b\u200f\ufeff\x01שָׁ"
)


def cut(text):
    return "|".join(text[start:stop] for start, stop in words(text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("हिन्दी में, दिल्ली।", "हिन्दी|में|,|दिल्ली|।"),
        (unicodedata.normalize("NFD", "Beyoncé saw José."), unicodedata.normalize("NFD", "Beyoncé|saw|José|.")),
        ("שָׁלוֹם עולם", "שָׁלוֹם|עולם"),
        ("السَّلامُ عليكم", "السَّلامُ|عليكم"),
        ("สวัสดีครับ ไทย\u200bครับ", "สวัสดีครับ|ไทย|ครับ"),
        ("ភាសាខ្មែរ", "ភាសាខ្មែរ"),
        ("한국어 단어", "한국어|단어"),
        ("I saw 北京。 タワーへ行く", "I|saw|北|京|。|タワーへ|行|く"),
        ("🇩🇪🇫🇷🇩a", "🇩🇪|🇫🇷|🇩|a"),
        ("ok👍🏽ok ❤️ 👨\u200d👩\u200d👧 🇩🇪🇫🇷 1️⃣", "ok|👍🏽|ok|❤️|👨\u200d👩\u200d👧|🇩🇪|🇫🇷|1️⃣"),
        ("soft\u00adhyphen, a\u200db", "soft\u00adhyphen|,|a\u200db"),
        ("John\u2019s AT&T\u2013shares 1/2", "John|\u2019s|AT&T\u2013shares|1/2"),
        ("H\u2082O, 2\u00bd x\u00b2", "H\u2082O|,|2\u00bd|x\u00b2"),
        ("\u0663\u066b\u0661", "\u0663\u066b\u0661"),
        ("", ""),
        (" \n\t", ""),
        ("\u200b\u200d\ufeff\x01", ""),
        ("\ufe0f \u0301", ""),
    ],
)
def test_words(text, wanted):
    assert cut(text) == wanted


@hypothesis.given(strategies.text(strategies.sampled_from(LETTERS_AND_MARKS) | strategies.characters(), max_size=30))
def test_no_mark_is_parted_from_its_character(text):
    """Whatever is seen is in one word, and a mark is where the character before it is."""
    places = words(text)
    assert all(start < stop for start, stop in places)
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(places))
    word_of = {place: number for number, span in enumerate(places) for place in range(*span)}
    for place, character in enumerate(text):
        kind = unicodedata.category(character)
        if not character.isspace() and kind not in ("Mn", "Me", "Cc", "Cf"):
            assert place in word_of
        if place and kind in ("Mn", "Mc", "Me") and unicodedata.category(text[place - 1])[0] in "LMN":
            assert word_of.get(place) == word_of.get(place - 1)


@hypothesis.given(strategies.text(strategies.sampled_from(LETTERS_AND_MARKS) | strategies.characters(), max_size=30))
def test_characters_leave_nothing_out(text):
    assert "".join(text[start:stop] for start, stop in characters(text)) == text
    assert has_marks(text) or len(characters(text)) == len(text)
    assert [start for start, _ in characters(text)][1:] == [stop for _, stop in characters(text)][:-1]


def test_characters_have_their_marks():
    assert not has_marks("José\u2019s 北京。\n")
    text = unicodedata.normalize("NFD", "José") + " ❤️\u00ad x\u200d"
    assert [text[start:stop] for start, stop in characters(text)] == [
        "J",
        "o",
        "s",
        "e\u0301",
        " ",
        "❤️\u00ad",
        " ",
        "x\u200d",
    ]


def cut_with(text, learned):
    return "|".join(text[start:stop] for start, stop in words(text, learned))


SENTENCES = [
    ["The", "U.S.", "won", "10.", "--", "well", "done", "."],
    ["He", "saw", "Rome", "."],
    ["1.", "Rome", "2.", "Corp.", "of", "5"],
    ["...", "the", "Corp", ".", "and", "Corp", "."],
]


def test_words_of_training_stay_whole():
    learned = learned_words(SENTENCES)
    # Corp. is more often in parts; 0 is any number.
    assert learned == ("--", "...", "0.", "U.S.")
    assert cut_with("The U.S., No. 7. Rome--the Corp...", learned) == "The|U.S.|,|No|.|7.|Rome|--|the|Corp|..."
    assert cut_with("U.S. U.S U. S.", learned) == "U.S.|U.S|U|.|S|."
    assert cut_with("", learned) == ""


def test_sentences_are_cut_as_they_were():
    for sentence in SENTENCES[:2]:
        assert cut_with(" ".join(sentence), learned_words(SENTENCES)).split("|") == sentence


def test_the_longest_learned_word_counts():
    assert cut_with("U.S.-led U.S.-", ("U.S.", "U.S.-led")) == "U.S.-led|U.S.|-"
    assert cut_with("北京大学 北京", ("北京", "北京大学")) == "北京大学|北京"


def test_what_is_learned_stays_small():
    sentences = [[f"http://a.b/{'x' * number}"] for number in range(3_000)] + [["U.S."]] * 2
    learned = learned_words(sentences)
    assert len(learned) == 2_000
    assert "U.S." in learned
    assert learned_words([]) == learned_words([["a", "b"], []]) == ()
    assert learned_words([["New York", " ", "\u200b", "-" * 50]]) == ()


@pytest.mark.parametrize("text", ["🇩🇪" * 25_000, "a" + "\u0301" * 50_000, "北京" * 25_000, "--" * 25_000])
def test_long_texts_of_one_kind_are_cut(text):
    """In a moment: where the time grew with the square of the length, this would take minutes."""
    assert sum(stop - start for start, stop in words(text, ("--", "北京大学"))) == len(text)
    assert characters(text)[-1][1] == len(text)
