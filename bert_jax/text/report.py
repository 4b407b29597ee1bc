"""Counts what a build saw while it runs, for printing and saving when it ends."""

import collections
import dataclasses
import sys
from collections.abc import Iterable

import numpy as np
import tqdm


@dataclasses.dataclass
class Report:
    """Holds counts over one pass through a source; `dropped` and `cut` map a reason to how often it applied."""

    bytes_total: int = 0  # of the source; 0 if not known
    bytes_read: int = 0  # of the source, so far
    documents_read: int = 0
    documents: int = 0  # kept
    characters: int = 0  # of the kept documents, after cleaning
    text_bytes: int = 0  # of the kept documents, after cleaning, in UTF-8
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    cut: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    sentences: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    splits: dict = dataclasses.field(default_factory=dict)  # name: documents, sentences, tokens
    seconds: float = 0.0
    # Sentences by length in tokens (index 1 is one token); documents by the power of two below their length in tokens.
    sentence_lengths: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(129, np.int64))
    document_lengths: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(40, np.int64))

    def add_read(self, size: int) -> None:
        """Counts bytes of the source that were read."""
        self.bytes_read += size

    def add_lengths(self, sentences: np.ndarray, documents: np.ndarray) -> None:
        """Counts the token lengths of some sentences [S] and documents [D], all at least 1."""
        self.sentences += len(sentences)
        self.tokens += int(sentences.sum())
        counts = np.bincount(sentences, minlength=len(self.sentence_lengths))
        if len(counts) > len(self.sentence_lengths):
            self.sentence_lengths = np.pad(self.sentence_lengths, (0, len(counts) - len(self.sentence_lengths)))
        self.sentence_lengths += counts
        powers = np.frexp(documents)[1] - 1
        self.document_lengths += np.bincount(powers, minlength=len(self.document_lengths))

    def to_dict(self) -> dict:
        """Returns plain numbers for report.json."""
        return {
            "bytes_read": self.bytes_read,
            "documents_read": self.documents_read,
            "documents": self.documents,
            "characters": self.characters,
            "text_bytes": self.text_bytes,
            "sentences": self.sentences,
            "tokens": self.tokens,
            "unknown_tokens": self.unknown_tokens,
            "unknown_share": self.unknown_tokens / max(1, self.tokens),
            "characters_per_token": self.characters / max(1, self.tokens),
            "splits": self.splits,
            "dropped": dict(self.dropped),
            "cut": dict(self.cut),
            "sentence_length_histogram": _buckets(self.sentence_lengths, _SENTENCE_EDGES),
            "document_length_histogram": _buckets(self.document_lengths, range(len(self.document_lengths)), power=True),
            "seconds": round(self.seconds, 3),
            "megabytes_per_second": round(self.text_bytes / 1e6 / max(1e-9, self.seconds), 3),
        }

    def table(self) -> str:
        """Describes the report in lines for people."""
        numbers = self.to_dict()
        rows = [
            ("documents", f"{self.documents:,} kept of {self.documents_read:,}"),
            ("sentences", f"{self.sentences:,}"),
            ("tokens", f"{self.tokens:,}"),
            ("unknown tokens", f"{100 * numbers['unknown_share']:.3f} %"),
            ("text", f"{self.text_bytes / 1e6:,.1f} MB, {numbers['characters_per_token']:.2f} characters a token"),
            ("time", f"{self.seconds:.1f} s, {numbers['megabytes_per_second']:.1f} MB/s"),
        ]
        for name, split in self.splits.items():
            rows.append((name, f"{split['documents']:,} documents, {split['tokens']:,} tokens"))
        rows += [(f"dropped: {reason}", f"{count:,}") for reason, count in sorted(self.dropped.items())]
        rows += [(f"cut: {reason}", f"{count:,}") for reason, count in sorted(self.cut.items())]
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:<{width}}  {value}" for name, value in rows]
        lines += _bars("sentence length in tokens", numbers["sentence_length_histogram"])
        lines += _bars("document length in tokens", numbers["document_length_histogram"])
        return "\n".join(lines)


_SENTENCE_EDGES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)


def _buckets(counts: np.ndarray, edges: Iterable[int], power: bool = False) -> dict[str, int]:
    """Sums counts between edges; the empty buckets at both ends are left out."""
    edges = list(edges)
    ends = [*edges[1:], len(counts)]
    names = [
        f"{2**a}-{2**b - 1}" if power else (f"{a}" if b == a + 1 else f"{a}-{b - 1}")
        for a, b in zip(edges, ends, strict=True)
    ]
    sums = [int(counts[a:b].sum()) for a, b in zip(edges, ends, strict=True)]
    filled = [bucket for bucket, count in enumerate(sums) if count]
    if not filled:
        return {}
    return dict(zip(names[filled[0] : filled[-1] + 1], sums[filled[0] : filled[-1] + 1], strict=True))


def _bars(title: str, histogram: dict[str, int]) -> list[str]:
    """Draws a histogram in characters."""
    largest = max(histogram.values(), default=1)
    width = max((len(name) for name in histogram), default=0)
    bars = [
        f"    {name:>{width}}  {count:>12,}  {'#' * round(40 * count / largest)}" for name, count in histogram.items()
    ]
    return [f"  {title}", *bars]


def progress_bar(title: str, shown: bool) -> tqdm.tqdm:
    """Makes a bar of the bytes of a source, with the time left where their total is known."""
    interval = 0.1 if sys.stderr.isatty() else 5.0  # seconds; a log file should not fill with bars
    return tqdm.tqdm(unit="B", unit_scale=True, desc=title, disable=None if shown else True, mininterval=interval)


def advance(bar: tqdm.tqdm, report: Report) -> None:
    """Moves the bar to where the report is."""
    bar.total = report.bytes_total or None
    bar.update(report.bytes_read - bar.n)
