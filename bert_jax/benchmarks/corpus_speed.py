"""How fast text becomes a vocabulary and a corpus, beside `tokenizers`, whose WordPiece is that of `transformers`.

Ours does more: it reads the source, cleans the text, splits it into sentences and writes a corpus to disk. Theirs finds
the cleaned documents in memory, and leaves its ids there. Each side has a process of its own on one core and another on
all, and they take turns.
"""

import contextlib
import functools
import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bert_jax.benchmarks.turns import in_turns, one_core, started
from bert_jax.errors import UserError
from bert_jax.text.build import build_corpus
from bert_jax.text.corpus import SPLITS, Corpus
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import Tokenizer, train_tokenizer

VOCAB_SIZE = 8_192
DOCUMENTS_AT_ONCE = 1_000  # that theirs encodes, as `datasets.map` hands them out
TOLERANCE = 1e-3  # of the tokens: ours cuts a run of over 100 characters without a space, theirs gives it up as [UNK]
CORES = {"one core": one_core, "all cores": contextlib.nullcontext}


class Work:
    """A side whose turn is one call."""

    def __init__(self, work: Callable[[], Any], cores: str) -> None:
        """Works once, to know what comes out; `cores` is one of `CORES`."""
        self._work, self._cores = work, CORES[cores]
        self.facts = {"found": self.turn()}

    def turn(self) -> Any:
        with self._cores():
            return self._work()


def our_vocabulary(source: str) -> list[str]:
    """The entries that `train_tokenizer` finds."""
    return train_tokenizer(Documents(source), VOCAB_SIZE).tokens


def their_vocabulary(documents: list[str]) -> list[str]:
    """The entries that `BertWordPieceTokenizer` finds."""
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(documents, vocab_size=VOCAB_SIZE, show_progress=False)
    return list(tokenizer.get_vocab())


def our_corpus(source: str, tokenizer: str) -> np.ndarray:
    """int64 [V]: how often each token is in the corpus that `build_corpus` writes, in as many processes as cores."""
    with tempfile.TemporaryDirectory() as folder:
        build_corpus(source, Tokenizer.load(tokenizer), folder, verbose=False)
        return sum(np.array(Corpus.open(folder, split).token_counts) for split in SPLITS)


def their_corpus(documents: list[str], tokenizer: str) -> np.ndarray:
    """int64 [V]: how often each token is in the ids that `encode_batch_fast` makes, in as many threads as cores."""
    backend = tokenizers.Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))
    ids = []
    for begin in range(0, len(documents), DOCUMENTS_AT_ONCE):
        found = backend.encode_batch_fast(documents[begin : begin + DOCUMENTS_AT_ONCE], add_special_tokens=False)
        ids.append(np.fromiter(itertools.chain.from_iterable(each.ids for each in found), np.uint16))
    return np.bincount(np.concatenate(ids), minlength=backend.get_vocab_size())


def corpus_suite(_workdir: Path, _model: str, *, source: str, rounds: int) -> tuple[str, dict]:
    """Both sides on a source.

    Args:
      source: SOURCE.
      rounds: turns of each side.

    Raises:
      UserError: the source is bad or empty, or both sides do not find the same tokens.
    """
    documents = Documents(source)
    texts = list(documents)
    megabytes = documents.report.text_bytes / 1e6
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, VOCAB_SIZE).save(folder)
        (ours, theirs), vocabulary = compared(
            functools.partial(our_vocabulary, source), functools.partial(their_vocabulary, texts), megabytes, rounds
        )
        counts, corpus = compared(
            functools.partial(our_corpus, source, folder),
            functools.partial(their_corpus, texts, folder),
            megabytes,
            rounds,
        )
    check_same_tokens(*counts)
    tokens = int(counts[0].sum())
    for each in corpus.values():
        each["tokens_per_second"] = {name: tokens / seconds for name, seconds in each["seconds"].items()}
    figures = {
        "source": source,
        "documents": len(texts),
        "megabytes": megabytes,
        "tokens": tokens,
        "vocab_size": len(ours),
        "entries_in_common": len(set(ours) & set(theirs)) / len(ours),
        "vocabulary": vocabulary,
        "corpus": corpus,
    }
    return corpus_table(figures), figures


def compared(
    ours: Callable[[], Any], theirs: Callable[[], Any], megabytes: float, rounds: int
) -> tuple[list[Any], dict[str, dict]]:
    """What both sides find, ours first, and the figures on one core and on all."""
    works = {"bert_jax": ours, "tokenizers": theirs}
    with contextlib.ExitStack() as stack:
        sides = {
            # Ours as the scripts run it; theirs would lose by it, whose threads allocate side by side.
            f"{name} {cores}": stack.enter_context(
                started(functools.partial(Work, work, cores), keep_memory=work is ours)
            )
            for cores in CORES
            for name, work in works.items()
        }
        times = in_turns(sides, rounds)
        peak_bytes = {name: side.peak_bytes() for name, side in sides.items()}
    figures = {}
    for cores in CORES:
        each = {name: times[f"{name} {cores}"] for name in works}
        seconds = {name: statistics.median(values) for name, values in each.items()}
        figures[cores] = {
            "seconds": seconds,
            "spread": {name: (max(values) - min(values)) / seconds[name] for name, values in each.items()},
            "megabytes_per_second": {name: megabytes / value for name, value in seconds.items()},
            "peak_bytes": {name: peak_bytes[f"{name} {cores}"] for name in works},
            "ratio": seconds["tokenizers"] / seconds["bert_jax"],
            "ratio_by_round": [b / a for a, b in zip(*each.values(), strict=True)],
        }
    return [sides[f"{name} one core"].facts["found"] for name in works], figures


def check_same_tokens(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises UserError unless both sides have found each token [V] as often, but for a few."""
    different = float(np.abs(ours - theirs).sum() / theirs.sum())
    if not different <= TOLERANCE:
        raise UserError(
            f"both sides do not cut the text alike: {different:.2%} of the tokens differ. Are there long runs of "
            "letters without a space in it?"
        )


def corpus_table(found: dict[str, Any]) -> str:
    """Each side as a line of text."""
    lines = [
        f"{found['documents']:,} documents, {found['megabytes']:.1f} MB, {found['tokens']:,} tokens of a vocabulary of "
        f"{found['vocab_size']:,}, {found['entries_in_common']:.1%} of which theirs has too",
        f"{'':<36}{'seconds':>9}{'MB/s':>8}{'tokens/s':>12}{'spread':>8}{'GB':>6}  times as fast",
    ]
    for work in ("vocabulary", "corpus"):
        for cores, each in found[work].items():
            for name, seconds in each["seconds"].items():
                line = f"  {f'{work}, {name}, {cores}':<34}{seconds:>9.2f}{each['megabytes_per_second'][name]:>8.1f}"
                rate = each.get("tokens_per_second")
                line += f"{rate[name]:>12,.0f}" if rate else f"{'':>12}"
                line += f"{each['spread'][name]:>8.0%}"
                line += f"{each['peak_bytes'][name] / 1e9:>6.1f}" if each["peak_bytes"][name] else f"{'':>6}"
                if name == "tokenizers":
                    rounds = each["ratio_by_round"]
                    line += f"  {each['ratio']:.2f} ({min(rounds):.2f} to {max(rounds):.2f})"
                lines.append(line)
    return "\n".join([*lines, "GB: the most that the side's process had, without those that it starts"])
