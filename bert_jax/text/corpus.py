"""Writes and opens a corpus on disk: token ids with sentence and document offsets, memory-mapped.

DIR/header.json           written last: a folder without it is no corpus; the CRC-32 of each file below stands in it
DIR/report.json
DIR/train, DIR/validation
    tokens.bin            uint16 (uint32 when V > 65,535) [tokens], without special tokens
    sentences.bin         int64 [S+1]: token offset of each sentence, then the number of tokens
    documents.bin         int64 [D+1]: sentence offset of each document, then the number of sentences
    token_counts.bin      int64 [V]
"""

import contextlib
import dataclasses
import json
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_jax.runtime import checksums
from bert_jax.errors import UserError
from bert_jax.runtime.files import parse_json, read_json
from bert_jax.text.tokenizer import Tokenizer

VERSION = 1
HEADER = "header.json"
SPLITS = ("train", "validation")
_CHECKED = 1 << 26  # bytes of a file whose content is checked whenever it is opened
# The files of a split, and which size in the header says how long they are; of token_counts, it is the vocabulary's.
_COUNTED = {"tokens": "tokens", "sentences": "sentences", "documents": "documents", "token_counts": ""}


@dataclasses.dataclass(frozen=True)
class CorpusArrays:
    """Holds the arrays that pre-training draws its sequences from."""

    tokens: np.ndarray  # uint16 or uint32 [tokens]
    sentences: np.ndarray  # int64 [S+1]
    documents: np.ndarray  # int64 [D+1]

    @property
    def num_tokens(self) -> int:
        """Counts the tokens."""
        return len(self.tokens)

    @property
    def num_sentences(self) -> int:
        """Counts the sentences, S."""
        return len(self.sentences) - 1

    @property
    def num_documents(self) -> int:
        """Counts the documents, D."""
        return len(self.documents) - 1


@dataclasses.dataclass(frozen=True)
class Corpus(CorpusArrays):
    """Holds one split of a corpus on disk.

    Its arrays are views of the files: opening takes little time and no memory, however large they are.
    """

    token_counts: np.ndarray  # int64 [V], of this split
    header: dict

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        split: str = "train",
        tokenizer: Tokenizer | None = None,
        *,
        verify: bool = False,
    ) -> "Corpus":
        """Opens DIR.

        The content of files of up to 64 MiB (32 million tokens) is checked, which takes less than a tenth of a second.

        Args:
          directory: the folder DIR.
          split: "train" or "validation".
          tokenizer: the tokenizer that the corpus must have been built with; None for any.
          verify: whether to check the content of larger files, too.

        Raises:
          UserError: there is no finished corpus, no such split, a file is damaged, or the corpus was built with another
            tokenizer than `tokenizer`.
        """
        header = read_header(directory)
        if tokenizer is not None and tokenizer.hash != header["tokenizer_hash"]:
            raise UserError(
                f"corpus {directory} was built with another tokenizer (V={header['vocab_size']:,}, hash "
                f"{header['tokenizer_hash'][:12]}) than this one (V={tokenizer.vocab_size:,}, hash "
                f"{tokenizer.hash[:12]}): "
                "use that tokenizer, or build the corpus again"
            )
        if split not in header["splits"]:
            raise UserError(f"corpus {directory} has no split {split!r}: choose one of {', '.join(header['splits'])}")
        largest = math.inf if verify else _CHECKED
        arrays = {name: _map(Path(directory), split, name, header, largest) for name in _COUNTED}
        found = cls(**arrays, header=header)
        found._check_offsets(Path(directory, split), largest)
        return found

    def _check_offsets(self, folder: Path, largest: float) -> None:
        """Raises UserError where tokens, sentences, documents and counts do not fit each other."""
        for name, offsets, end in (
            ("sentences", self.sentences, self.num_tokens),
            ("documents", self.documents, self.num_sentences),
        ):
            rises = offsets.nbytes > largest or bool((np.diff(offsets) >= 0).all())
            if offsets[0] != 0 or offsets[-1] != end or not rises:
                raise _damaged(folder / f"{name}.bin", f"its offsets do not rise from 0 to {end:,}")
        if self.tokens.nbytes <= largest and self.num_tokens:
            highest = int(self.tokens.max())
            if highest >= len(self.token_counts):
                raise _damaged(folder / "tokens.bin", f"token id {highest:,} is beyond V={len(self.token_counts):,}")
        if self.token_counts.min() < 0 or self.token_counts.sum() != self.num_tokens:
            raise _damaged(folder / "token_counts.bin", f"the counts do not add up to {self.num_tokens:,}")


def is_corpus(directory: str | os.PathLike[str]) -> bool:
    """Says whether a folder holds a finished corpus, of whatever version."""
    try:
        header = parse_json(Path(directory, HEADER).read_bytes())
    except (OSError, ValueError):
        return False
    return {"version", "tokenizer_hash", "splits"} <= set(header)


def read_header(directory: str | os.PathLike[str]) -> dict:
    """Returns the header of a finished corpus.

    Raises:
      UserError: there is none, or it is of another version.
    """
    path = Path(directory, HEADER)
    try:
        header = read_json(path)
    except FileNotFoundError as error:
        raise UserError(
            f"no finished corpus in {directory}: {HEADER} is missing (a build that was interrupted?); "
            "run scripts/build_corpus.py"
        ) from error
    except UserError as error:
        raise UserError(f"{error}: build the corpus again") from error
    if header.get("version") != VERSION:
        raise UserError(
            f"{path} is of version {header.get('version')}, this code reads {VERSION}: build the corpus again"
        )
    try:
        sizes = [header["splits"][split][name] for split in header["splits"] for name in set(_COUNTED.values()) - {""}]
        numbers = [header["vocab_size"], *sizes]
        whole = all(type(number) is int and number >= 0 for number in numbers) and header["vocab_size"] > 0
        whole = whole and header["dtype"] == np.dtype(token_type(header["vocab_size"])).name
        whole = whole and isinstance(header["tokenizer_hash"], str) and isinstance(header.get("checksums", {}), dict)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: sizes, type or hash are missing or wrong: build the corpus again")
    return header


def identity(directory: str | os.PathLike[str]) -> str:
    """Says in a line what a corpus holds; no two corpora have the same. Empty for those built without checksums."""
    header = read_header(directory)
    if "checksums" not in header:
        return ""
    sizes = header["splits"].values()
    documents, tokens = (sum(each[name] for each in sizes) for name in ("documents", "tokens"))
    code = zlib.crc32(json.dumps(header["checksums"], sort_keys=True).encode())
    return f"{documents:,} documents, {tokens:,} tokens, CRC-32 {checksums.as_text(code)}"


def token_type(vocab_size: int) -> type[np.unsignedinteger]:
    """Returns the smallest type that holds every id."""
    return np.uint16 if vocab_size <= 65_535 else np.uint32


def _map(directory: Path, split: str, name: str, header: dict, largest: float) -> np.ndarray:
    """Maps a file whose size is right, and, if it has at most `largest` bytes, whose content is."""
    path = directory / split / f"{name}.bin"
    dtype = header["dtype"] if name == "tokens" else "int64"
    counted = _COUNTED[name]
    length = header["splits"][split][counted] + (name != "tokens") if counted else header["vocab_size"]
    expected = length * np.dtype(dtype).itemsize
    try:
        size = path.stat().st_size
        if size != expected:
            raise UserError(f"corpus file {path} has {size:,} bytes instead of {expected:,}: build the corpus again")
        wanted = header.get("checksums", {}).get(f"{split}/{path.name}")
        if wanted is None and "checksums" in header:
            raise _damaged(path.parents[1] / HEADER, f"it has no checksum of {path.name}")
        if wanted is not None and size <= largest and checksums.of_file(path) != wanted:
            raise _damaged(path, f"its CRC-32 is not {wanted}, as when it was written")
        if length == 0:  # nothing can be mapped
            return np.zeros(0, dtype)
        return np.memmap(path, dtype, mode="r", shape=(length,))
    except OSError as error:
        raise UserError(f"corpus file {path} cannot be read ({error.strerror}): build the corpus again") from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"corpus file {path} is damaged ({reason}): build the corpus again of the same text; if it is that of a run, "
        "remove its folder, and the run does so"
    )


class SplitWriter:
    """Writes the files of one split, document by document."""

    _FLUSH = 1 << 20  # tokens

    def __init__(self, folder: str | os.PathLike[str], dtype: type[np.unsignedinteger], vocab_size: int) -> None:
        """Writes nothing yet: entering the context makes the folder and its files."""
        self.documents = 0
        self.token_counts = np.zeros(vocab_size, np.int64)
        self._sentences, self._tokens = 0, 0  # written
        self._dtype = dtype
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._codes = dict.fromkeys(_COUNTED, 0)  # the CRC-32 of what was written
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_tokens = 0

    def __enter__(self) -> "SplitWriter":
        os.makedirs(self._folder)
        for name in _COUNTED:
            self._files[name] = open(os.path.join(self._folder, f"{name}.bin"), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk, which the write that met it has reported
                file.close()

    def add(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Appends a document: tokens [tokens] in sentences of `lengths` [S], S >= 1."""
        self._waiting.append((tokens, lengths))
        self._waiting_tokens += len(tokens)
        self.documents += 1
        if self._waiting_tokens >= self._FLUSH:
            last = self._waiting.pop()  # always kept back for `pop`
            self._flush()
            self._waiting, self._waiting_tokens = [last], len(last[0])

    def pop(self) -> tuple[np.ndarray, np.ndarray]:
        """Takes the last document back."""
        self.documents -= 1
        return self._waiting.pop()

    def finish(self) -> dict[str, int]:
        """Ends the files, forces them to the disk, and returns the sizes for the header."""
        self._flush()
        self._write("sentences", np.int64(self._tokens))
        self._write("documents", np.int64(self._sentences))
        self._write("token_counts", self.token_counts)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {"documents": self.documents, "sentences": self._sentences, "tokens": self._tokens}

    def checksums(self) -> dict[str, str]:
        """Returns the CRC-32 of each file that `finish` has ended, by its path in the corpus, for the header."""
        folder = Path(self._folder).name
        return {f"{folder}/{name}.bin": checksums.as_text(code) for name, code in self._codes.items()}

    def _write(self, name: str, array: np.ndarray | np.int64) -> None:
        content = array.tobytes()
        self._codes[name] = zlib.crc32(content, self._codes[name])
        self._files[name].write(content)

    def _flush(self) -> None:
        if not self._waiting:
            return
        tokens = np.concatenate([tokens for tokens, _ in self._waiting]).astype(self._dtype, copy=False)
        lengths = np.concatenate([lengths for _, lengths in self._waiting])
        sentences = np.array([len(lengths) for _, lengths in self._waiting])
        self._write("tokens", tokens)
        self._write("sentences", (np.cumsum(lengths) - lengths + self._tokens).astype(np.int64))
        self._write("documents", (np.cumsum(sentences) - sentences + self._sentences).astype(np.int64))
        self.token_counts += np.bincount(tokens, minlength=len(self.token_counts))
        self._tokens += len(tokens)
        self._sentences += len(lengths)
        self._waiting, self._waiting_tokens = [], 0
