"""Writes and opens a corpus on disk: token ids with sentence and document offsets, memory-mapped.

DIR/header.json           written last: a folder without it is no corpus
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
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_jax.errors import UserError
from bert_jax.runtime.files import parse_json
from bert_jax.text.tokenizer import Tokenizer

VERSION = 1
HEADER = "header.json"
SPLITS = ("train", "validation")


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

    Its arrays are views of the files: opening takes no time or memory, however large they are.
    """

    token_counts: np.ndarray  # int64 [V], of this split
    header: dict

    @classmethod
    def open(
        cls, directory: str | os.PathLike[str], split: str = "train", tokenizer: Tokenizer | None = None
    ) -> "Corpus":
        """Opens DIR.

        Raises:
          UserError: there is no finished corpus, no such split, a file has the wrong size, or the corpus was built with
            another tokenizer than `tokenizer`.
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
        sizes = header["splits"][split]
        folder = os.path.join(directory, split)
        return cls(
            tokens=_map(folder, "tokens", header["dtype"], sizes["tokens"]),
            sentences=_map(folder, "sentences", "int64", sizes["sentences"] + 1),
            documents=_map(folder, "documents", "int64", sizes["documents"] + 1),
            token_counts=_map(folder, "token_counts", "int64", header["vocab_size"]),
            header=header,
        )


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
    path = os.path.join(directory, HEADER)
    try:
        with open(path, encoding="utf-8") as file:
            header = json.load(file)
    except FileNotFoundError as error:
        raise UserError(
            f"no finished corpus in {directory}: {HEADER} is missing (a build that was interrupted?); "
            "run scripts/build_corpus.py"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if header.get("version") != VERSION:
        raise UserError(
            f"{path} is of version {header.get('version')}, this code reads {VERSION}: build the corpus again"
        )
    return header


def token_type(vocab_size: int) -> type[np.unsignedinteger]:
    """Returns the smallest type that holds every id."""
    return np.uint16 if vocab_size <= 65_535 else np.uint32


def _map(folder: str, name: str, dtype: str, length: int) -> np.ndarray:
    path = os.path.join(folder, f"{name}.bin")
    expected = length * np.dtype(dtype).itemsize
    try:
        size = os.path.getsize(path)
    except OSError as error:
        raise UserError(f"corpus file {path} is missing: build the corpus again") from error
    if size != expected:
        raise UserError(f"corpus file {path} has {size:,} bytes instead of {expected:,}: build the corpus again")
    if length == 0:  # nothing can be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r", shape=(length,))


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
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_tokens = 0

    def __enter__(self) -> "SplitWriter":
        os.makedirs(self._folder)
        for name in ("tokens", "sentences", "documents", "token_counts"):
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
        self._files["sentences"].write(np.int64(self._tokens).tobytes())
        self._files["documents"].write(np.int64(self._sentences).tobytes())
        self._files["token_counts"].write(self.token_counts.tobytes())
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {"documents": self.documents, "sentences": self._sentences, "tokens": self._tokens}

    def _flush(self) -> None:
        if not self._waiting:
            return
        tokens = np.concatenate([tokens for tokens, _ in self._waiting]).astype(self._dtype, copy=False)
        lengths = np.concatenate([lengths for _, lengths in self._waiting])
        sentences = np.array([len(lengths) for _, lengths in self._waiting])
        self._files["tokens"].write(tokens.tobytes())
        self._files["sentences"].write((np.cumsum(lengths) - lengths + self._tokens).astype(np.int64).tobytes())
        self._files["documents"].write((np.cumsum(sentences) - sentences + self._sentences).astype(np.int64).tobytes())
        self.token_counts += np.bincount(tokens, minlength=len(self.token_counts))
        self._tokens += len(tokens)
        self._sentences += len(lengths)
        self._waiting, self._waiting_tokens = [], 0
