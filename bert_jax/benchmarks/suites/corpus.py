"""How fast text becomes a vocabulary and a corpus, beside `tokenizers`, whose WordPiece is that of `transformers`.

Bert_jax does more: it reads the source, cleans the text, splits it into sentences and writes a corpus to disk. The
other side finds the cleaned documents in memory, and leaves its ids there. Both on one core and on all.
"""

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.record import Results
from bert_jax.errors import UserError
from bert_jax.text.build import build_corpus
from bert_jax.text.corpus import SPLITS, Corpus
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import Tokenizer, train_tokenizer

VOCAB_SIZE = 8_192
DOCUMENTS_AT_ONCE = 1_000  # that `tokenizers` encodes, as `datasets.map` hands them out
# Of the tokens: bert_jax cuts a run of over 100 characters without a space, `tokenizers` gives it up as [UNK].
TOLERANCE = 1e-3
CORES = {"one core": harness.one_core, "all cores": contextlib.nullcontext}


class Work:
    """A side whose run is one call."""

    def __init__(self, work: Callable[[], Any], cores: str) -> None:
        """Works once, to know what comes out; `cores` is one of `CORES`."""
        self._work, self._cores = work, CORES[cores]
        self.metadata = {"result": self.run()}

    def run(self) -> Any:
        """Calls and returns what comes out."""
        with self._cores():
            return self._work()


def jax_vocabulary(source: str) -> list[str]:
    """Returns the entries that `train_tokenizer` makes."""
    return train_tokenizer(Documents(source), VOCAB_SIZE).tokens


def peer_vocabulary(documents: list[str]) -> list[str]:
    """Returns the entries that `BertWordPieceTokenizer` makes."""
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(documents, vocab_size=VOCAB_SIZE, show_progress=False)
    return list(tokenizer.get_vocab())


def jax_corpus(source: str, tokenizer: str) -> np.ndarray:
    """Returns int64 [V]: how often each token is in the corpus of `build_corpus`, in as many processes as cores."""
    with tempfile.TemporaryDirectory() as folder:
        build_corpus(source, Tokenizer.load(tokenizer), folder, verbose=False)
        return np.sum([Corpus.open(folder, split).token_counts for split in SPLITS], axis=0)


def peer_corpus(documents: list[str], tokenizer: str) -> np.ndarray:
    """Returns int64 [V]: how often each token is in the ids of `encode_batch_fast`, in as many threads as cores."""
    backend = tokenizers.Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))
    ids = []
    for begin in range(0, len(documents), DOCUMENTS_AT_ONCE):
        encoded = backend.encode_batch_fast(documents[begin : begin + DOCUMENTS_AT_ONCE], add_special_tokens=False)
        ids.append(np.fromiter(itertools.chain.from_iterable(each.ids for each in encoded), np.uint16))
    return np.bincount(np.concatenate(ids), minlength=backend.get_vocab_size())


def corpus_suite(*, source: str, rounds: int) -> Results:
    """Measures both sides on a source.

    Raises:
      UserError: the source is bad or empty, or both sides do not find the same tokens.
    """
    documents = Documents(source)
    texts = list(documents)
    results = Results("corpus", "From text to tokens", "megabytes_per_second", {"source": source})
    megabytes = documents.report.text_bytes / 1e6
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, VOCAB_SIZE).save(folder)
        own, peer = functools.partial(jax_vocabulary, source), functools.partial(peer_vocabulary, texts)
        entries, peer_entries = compare(results, "vocabulary", own, peer, megabytes, rounds)
        own, peer = functools.partial(jax_corpus, source, folder), functools.partial(peer_corpus, texts, folder)
        counts, peer_counts = compare(results, "corpus", own, peer, megabytes, rounds)
    check_same_tokens(counts, peer_counts)
    tokens, common = int(counts.sum()), len(set(entries) & set(peer_entries)) / len(entries)
    for case in (f"corpus, {cores}" for cores in CORES):
        for name, seconds in results.by_side(case, "seconds").items():
            results.add(case, name, tokens_per_second=tokens / seconds)
    results.metadata |= {"documents": len(texts), "megabytes": megabytes, "tokens": tokens}
    results.metadata |= {"vocab_size": len(entries), "entries_in_common": common}
    results.notes["vocabulary, one core"] = (
        f"{len(texts):,} documents, {megabytes:.1f} MB, {tokens:,} tokens of a vocabulary of {len(entries):,}, "
        f"{common:.1%} of which tokenizers has too; peak without the processes that a side starts"
    )
    return results


def compare(
    results: Results, work: str, own: Callable[[], Any], peer: Callable[[], Any], megabytes: float, rounds: int
) -> list[Any]:
    """Measures both sides on one core and on all; returns what both make, bert_jax first."""
    for cores in CORES:
        makes = {name: functools.partial(Work, call, cores) for name, call in (("bert_jax", own), ("tokenizers", peer))}
        # bert_jax as the scripts run it; its peer would lose by it, whose threads allocate side by side.
        figures: dict[str, Any] = dict(
            own_arenas=["tokenizers"], amounts=dict.fromkeys(makes, megabytes), rate="megabytes_per_second"
        )
        sides = harness.compare(results, f"{work}, {cores}", makes, rounds, **figures)
    return [metadata["result"] for metadata in sides.values()]


def check_same_tokens(counts: np.ndarray, peer_counts: np.ndarray) -> None:
    """Raises UserError unless both sides have found each token [V] as often, but for a few."""
    different = float(np.abs(counts - peer_counts).sum() / peer_counts.sum())
    if not different <= TOLERANCE:
        raise UserError(
            f"both sides do not cut the text alike: {different:.2%} of the tokens differ. Are there long runs of "
            "letters without a space in it?"
        )
