"""Trains, loads and applies WordPiece vocabularies with the `tokenizers` library (Devlin et al. 2018, section 3)."""

import collections
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

from bert_jax.errors import UserError
from bert_jax.runtime.files import claim, write_whole
from bert_jax.text.cleaning import without_surrogates
from bert_jax.text.tokenizer_files import (
    SPECIAL_NAMES,
    SPECIAL_TOKENS,
    WORD_LIMIT,
    empty_backend,
    file_of,
    read_backend,
    wordpiece,
)

FILES = ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")  # that `save` writes
_MAX_WORDS = 1 << 19  # different words counted in training; about 500 MB at the most, measured with 12 M words
_INPUTS_AT_ONCE = 256  # the library's encodings take about 110 bytes a token, and nothing is cut yet
_Item = TypeVar("_Item")


class Encoded(NamedTuple):
    """Holds one input of a model, [CLS] A [SEP] or [CLS] A [SEP] B [SEP]: L tokens, and three lists of L."""

    ids: list[int]
    token_type_ids: list[int]  # 0 up to and with the first [SEP], 1 behind it
    offsets: list[tuple[int, int]]  # (start, stop) in characters of the token's own text; (0, 0) for [CLS] and [SEP]


class Tokenizer:
    """Holds a WordPiece vocabulary of V entries and the rules that cut text into them.

    Attributes:
      backend: the `tokenizers.Tokenizer`, which adds [CLS] A [SEP] B [SEP] when asked for special tokens.
      vocab_size: V, one more than the largest id.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Takes the library's tokenizer over, without its padding and truncation.

        Raises:
          UserError: it is not WordPiece, or lacks a special token.
        """
        if not isinstance(backend.model, models.WordPiece):
            raise UserError(f"the tokenizer is not WordPiece but {type(backend.model).__name__}: BERT's is needed")
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        ids_in_use = backend.get_vocab(with_added_tokens=True).values()
        self.vocab_size = max(ids_in_use, default=-1) + 1
        if self.vocab_size > 2 * len(ids_in_use):
            raise UserError(f"the vocabulary has {len(ids_in_use)} tokens, and an id of {self.vocab_size - 1}")
        ids = {token: backend.token_to_id(token) for token in SPECIAL_TOKENS}
        if missing := [token for token, number in ids.items() if number is None]:
            raise UserError(f"the vocabulary lacks {', '.join(missing)}")
        self.special_ids: tuple[int, ...] = tuple(number for number in ids.values() if number is not None)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = self.special_ids
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls_id), ("[SEP]", self.sep_id)],
        )

    @classmethod
    def from_vocabulary(
        cls,
        vocabulary: list[str],
        *,
        lower_case: bool = True,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
    ) -> "Tokenizer":
        """Makes a tokenizer whose id i is `vocabulary[i]`.

        Args:
          vocabulary: the tokens [V].
          lower_case: whether to lower-case text.
          strip_accents: whether to remove accents; None does so where text is lower-cased.
          split_chinese: whether each Chinese character is a word.

        Raises:
          UserError: a special token is missing.
        """
        return cls(wordpiece(vocabulary, lower_case, strip_accents, split_chinese))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Tokenizer":
        """Reads a folder with `tokenizer.json` or `vocab.txt`.

        What `tokenizer_config.json`, if there, says of case, accents and Chinese characters holds, also where
        `tokenizer.json` says otherwise: so `transformers` has it. Where neither says it, text is lower-cased, unless
        the vocabulary is full of capitals, which is said.

        Raises:
          UserError: there is no tokenizer, it cannot be read, or it is not BERT's; names the file.
        """
        folder = Path(directory)
        backend = read_backend(folder)
        try:
            return cls(backend)
        except UserError as error:
            raise UserError(f"{file_of(folder)}: {error}") from error

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes `FILES`, as `tokenizers` and `transformers` load them; UserError if they are there and not ours."""
        directory = os.fspath(directory)
        normalizer = self._settings
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            "model_max_length": 512,
            "clean_up_tokenization_spaces": True,
            **SPECIAL_NAMES,
        }
        files = {
            "vocab.txt": "".join(f"{token}\n" for token in self.tokens),
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
            "special_tokens_map.json": json.dumps(SPECIAL_NAMES, indent=2) + "\n",
            "tokenizer.json": self.backend.to_str(pretty=True),
        }
        try:
            claim(Path(directory), "tokenizer", files)
            for name, text in files.items():
                write_whole(Path(directory, name), text)
        except OSError as error:
            raise UserError(f"cannot write the tokenizer to {directory}: {error.strerror or error}") from error

    @functools.cached_property
    def _settings(self) -> dict:
        """Returns the normaliser's settings, as tokenizer.json names them."""
        settings = json.loads(self.backend.to_str())
        normalizer = settings.get("normalizer") or {}
        if normalizer.get("type") != "BertNormalizer":
            raise UserError("the tokenizer's normaliser is not BertNormalizer")
        return {**normalizer, "max_input_chars_per_word": settings["model"]["max_input_chars_per_word"]}

    @property
    def lower_case(self) -> bool:
        """Says whether text is lower-cased."""
        return self._settings["lowercase"]

    @functools.cached_property
    def tokens(self) -> list[str]:
        """Lists the vocabulary by id, [V]; an id without a token has an empty one."""
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        tokens = [""] * self.vocab_size
        for token, number in vocabulary.items():
            tokens[number] = token
        return tokens

    @functools.cached_property
    def is_token(self) -> np.ndarray:
        """Says which ids have a token, bool [V]: those of a line that is blank, or stands again below, have none."""
        return np.array([bool(token) for token in self.tokens])

    @functools.cached_property
    def is_continuation(self) -> np.ndarray:
        """Says which tokens go on with the word of the token before them (they begin with ##), bool [V]."""
        return np.array([token.startswith("##") and len(token) > 2 for token in self.tokens])

    @functools.cached_property
    def hash(self) -> str:
        """Returns the sha256 of the vocabulary and of the rules that decide ids, to which a corpus is bound."""
        settings = dict(self._settings)
        if settings["strip_accents"] is None:
            settings["strip_accents"] = settings["lowercase"]
        text = json.dumps([self.tokens, sorted(settings.items())], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without [CLS] and [SEP]; "[MASK]" in a text is the mask token."""
        texts = [without_surrogates(text) for text in texts]
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_inputs(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[Encoded]:
        """Encodes texts as [CLS] A [SEP] and pairs as [CLS] A [SEP] B [SEP], in their order, unpadded.

        A text that is too long loses its end; a pair is cut by `truncate_pair`. "[MASK]" or "[SEP]" written in a text
        is that token, as in `transformers`, and has an offset like any word.

        Args:
          texts: the texts and pairs; a token of the answer takes about 170 bytes, so a large set goes in by parts.
          max_length: the largest L, [CLS] and [SEP] counted.

        Raises:
          UserError: `max_length` leaves no room for a token of each text.
        """
        pairs = any(not isinstance(text, str) for text in texts)
        least = 5 if pairs else 3
        if max_length < least:
            kind = "a pair of texts" if pairs else "a text"
            raise UserError(f"max_length={max_length} is too small: {kind} with [CLS] and [SEP] needs at least {least}")
        inputs: list[Encoded] = []
        for start in range(0, len(texts), _INPUTS_AT_ONCE):
            some = [(text,) if isinstance(text, str) else text for text in texts[start : start + _INPUTS_AT_ONCE]]
            flat = [without_surrogates(text) for parts in some for text in parts]
            encodings = iter(self.backend.encode_batch(flat, add_special_tokens=False))
            inputs += [self._joined([next(encodings) for _ in parts], max_length) for parts in some]
        return inputs

    def _joined(self, encodings: list[tokenizers.Encoding], max_length: int) -> Encoded:
        """Joins the encodings of one text or of two to one input."""
        room = max_length - 1 - len(encodings)
        ids = _truncated([encoding.ids for encoding in encodings], room)
        offsets = _truncated([encoding.offsets for encoding in encodings], room)
        joined = Encoded([self.cls_id], [0], [(0, 0)])
        for number, (part, places) in enumerate(zip(ids, offsets, strict=True)):
            joined.ids.extend([*part, self.sep_id])
            joined.token_type_ids.extend([number] * (len(part) + 1))
            joined.offsets.extend([*places, (0, 0)])
        return joined

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token; None if it is not in the vocabulary."""
        return self.backend.token_to_id(token)

    def id_to_token(self, number: int) -> str:
        """Returns the token of an id.

        Raises:
          IndexError: there is none.
        """
        token = self.backend.id_to_token(int(number))
        if token is None:
            raise IndexError(f"the vocabulary has no id {number}")
        return token

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Returns the text of some ids, its words joined again."""
        return self.backend.decode([int(number) for number in ids], skip_special_tokens=skip_special_tokens)


def truncate_pair(first: list[_Item], second: list[_Item], room: int) -> tuple[list[_Item], list[_Item]]:
    """Takes tokens from the end of the longer of two until both fit into `room`; of equals, from the second.

    This is ``_truncate_seq_pair`` of the original ``run_classifier.py``, without its loop.
    """
    half = room // 2
    if len(first) + len(second) <= room:
        return first, second
    if len(second) <= half:
        return first[: room - len(second)], second
    if len(first) <= room - half:
        return first, second[: room - len(first)]
    return first[: room - half], second[:half]


def train_tokenizer(
    documents: Iterable[str],
    vocab_size: int,
    *,
    lower_case: bool = True,
    strip_accents: bool | None = None,
    min_frequency: int = 2,
    limit_alphabet: int | None = None,
) -> Tokenizer:
    """Trains a WordPiece vocabulary. The same text gives the same vocabulary, whatever the number of threads.

    Ids: [PAD] [UNK] [CLS] [SEP] [MASK], then the alphabet, then its characters inside words (##a), then merged pieces,
    the most frequent first. A text of few words gives fewer than `vocab_size` entries.

    Memory is bounded: of a text with more than half a million different words, the rarest are forgotten on the way.

    Args:
      documents: the text, which is read once.
      vocab_size: the largest V.
      lower_case: whether to lower-case text, as in bert-base-uncased.
      strip_accents: whether to remove accents; None does so where text is lower-cased, as BERT does.
      min_frequency: the least number of times that a character or pair must be seen to get an entry.
      limit_alphabet: the largest number of characters, the most frequent; None keeps all.

    Raises:
      UserError: no text, or `vocab_size` is below what the alphabet alone needs (the least size is named).
    """
    words = _count_words(documents, empty_backend(lower_case, strip_accents))
    alphabet, inside = _alphabet(words, min_frequency, limit_alphabet)
    least = len(SPECIAL_TOKENS) + len(alphabet) + len(inside)
    if not words:
        raise UserError("no text to train a vocabulary on: the source has no documents, or all were dropped")
    if vocab_size < least:
        raise UserError(
            f"vocab_size={vocab_size} is smaller than the alphabet: the text has {len(alphabet)} characters seen at "
            f"least {min_frequency} times, which with their forms inside words and the special tokens need {least} "
            f"entries; choose vocab_size>={least}, a higher min_frequency, or limit_alphabet"
        )
    # The library numbers ##a, ##b, ... in the order of a randomly seeded hash map, and breaks ties between equally
    # frequent pairs by number. Named as special tokens they are numbered first, in our order.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *inside],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(_repeated(words), trainer)
    trained = backend.get_vocab(with_added_tokens=False)
    merged = sorted(trained.keys() - {*SPECIAL_TOKENS, *alphabet, *inside}, key=trained.__getitem__)
    vocabulary = [*SPECIAL_TOKENS, *alphabet, *inside, *merged]
    return Tokenizer.from_vocabulary(vocabulary, lower_case=lower_case, strip_accents=strip_accents)


def _count_words(documents: Iterable[str], backend: tokenizers.Tokenizer) -> collections.Counter:
    """Counts how often the text has each word, as BERT's normaliser and pre-tokenizer see words."""
    words: collections.Counter = collections.Counter()
    raw: collections.Counter = collections.Counter()  # between white space: each is normalised once, not at every use

    def fold() -> None:
        for word, count in raw.items():
            for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(word)):
                words[piece] += count
        raw.clear()
        rarest = 1
        while len(words) > _MAX_WORDS:
            for word in [word for word, count in words.items() if count <= rarest]:
                del words[word]
            rarest += 1

    for text in documents:
        parts = text.split()
        if max(map(len, parts), default=0) > WORD_LIMIT:
            # A script without spaces gives huge "words", and the trainer work that grows with their square.
            parts = [word[start : start + WORD_LIMIT] for word in parts for start in range(0, len(word), WORD_LIMIT)]
        raw.update(parts)
        if len(raw) > _MAX_WORDS // 4:
            fold()
    fold()
    return words


def _alphabet(words: collections.Counter, min_frequency: int, limit: int | None) -> tuple[list[str], list[str]]:
    """Returns the characters that get an entry, and those inside words with ## before, in code point order."""
    counts: collections.Counter = collections.Counter()
    inside = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        inside.update(word[1:])
    frequent = [character for character, count in counts.items() if count >= min_frequency]
    frequent.sort(key=lambda character: (-counts[character], character))
    alphabet = sorted(frequent[:limit])
    return alphabet, [f"##{character}" for character in alphabet if character in inside]


def _repeated(words: collections.Counter) -> Iterator[str]:
    """Yields the words as a text with each as often as counted: the trainer takes no counts."""
    for word, count in words.items():
        for start in range(0, count, 2_000):
            yield " ".join([word] * min(2_000, count - start))


def _truncated(parts: list[list[_Item]], room: int) -> Sequence[list[_Item]]:
    return truncate_pair(parts[0], parts[1], room) if len(parts) == 2 else [parts[0][:room]]
