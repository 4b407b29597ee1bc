"""Reads the files of a tokenizer as `transformers` reads them, and refuses by name what is not BERT's WordPiece."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bert_jax.errors import UserError
from bert_jax.runtime.files import parse_json, read_json

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIAL_NAMES = dict(
    zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True)
)
WORD_LIMIT = 100  # characters; a longer word is [UNK], as in `transformers` (above 200 in Google's code)
SETTINGS_FILE = "tokenizer_config.json"
# Classes of `transformers` that are BERT's tokenizer under another name, and those that are whatever tokenizer.json is.
_BERT = re.compile(
    r"(Bert|DistilBert|MobileBert|ConvBert|SqueezeBert|RetriBert|Electra|LayoutLM|Lxmert|DPR\w+)Tokenizer"
)
_ANY = ("PreTrainedTokenizer", "TokenizersBackend")
_CAPITALS = 0.05  # share of entries with capitals from which a vocabulary is of cased text


def file_of(directory: Path) -> Path:
    """Returns the file with the vocabulary.

    Raises:
      UserError: there is none.
    """
    for name in ("tokenizer.json", "vocab.txt"):
        if (directory / name).exists():
            return directory / name
    raise UserError(f"no tokenizer in {str(directory)!r}: it holds neither tokenizer.json nor vocab.txt")


def read_backend(directory: Path) -> tokenizers.Tokenizer:
    """Reads a folder with `tokenizer.json` or `vocab.txt`; see `Tokenizer.load`.

    Raises:
      UserError: a file cannot be read, or says that it is not BERT's tokenizer; names it.
    """
    file = file_of(directory)
    settings = _read_settings(directory)
    generic = _check_class(directory, settings, file)
    _check_settings(directory / SETTINGS_FILE, settings)
    if file.name == "tokenizer.json":
        backend = _read_whole(file)
        if not generic:
            _apply_settings(backend, settings)
        return backend
    if (directory / "added_tokens.json").exists() or _adds_tokens(settings):
        raise UserError(f"{directory}: added tokens are not read without tokenizer.json: save it with a fast tokenizer")
    vocabulary = read_utf8(file).rstrip("\n").split("\n")  # an empty line at the end is no token
    lower_case = settings.get("do_lower_case")
    if lower_case is None:
        lower_case = _guess_lower_case(file, vocabulary)
    return wordpiece(
        vocabulary, lower_case, settings.get("strip_accents"), _given(settings, "tokenize_chinese_chars", True)
    )


def wordpiece(
    vocabulary: list[str], lower_case: bool, strip_accents: bool | None, split_chinese: bool
) -> tokenizers.Tokenizer:
    """Makes BERT's tokenizer of a list of tokens; of one that stands twice the last place is its id."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    backend = empty_backend(lower_case, strip_accents, split_chinese)
    backend.model = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=WORD_LIMIT)
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
    return backend


def empty_backend(lower_case: bool, strip_accents: bool | None, split_chinese: bool = True) -> tokenizers.Tokenizer:
    """Makes BERT's tokenizer without a vocabulary."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=lower_case, strip_accents=strip_accents, handle_chinese_chars=split_chinese
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def read_utf8(file: Path) -> str:
    """Returns the text of a file, without a byte order mark, its lines ended by a line feed.

    Raises:
      UserError: it cannot be read, or is not UTF-8.
    """
    try:
        content = file.read_bytes()
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        hint = "it is UTF-16: " if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise UserError(f"{file}: byte {error.start} is not UTF-8: {hint}save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error


# ---- what is BERT's ------------------------------------------------------------------------------


def _read_settings(directory: Path) -> dict[str, Any]:
    return read_json(directory / SETTINGS_FILE) if (directory / SETTINGS_FILE).exists() else {}


def _check_class(directory: Path, settings: dict[str, Any], file: Path) -> bool:
    """Raises UserError for a class that is not BERT's; says whether it is one that follows tokenizer.json alone."""
    name, source = settings.get("tokenizer_class"), directory / SETTINGS_FILE
    if name is None and (directory / "config.json").exists():
        source = directory / "config.json"
        name = read_json(source).get("tokenizer_class")
    if name is None or (isinstance(name, str) and _BERT.fullmatch(name.removesuffix("Fast"))):
        return False
    if isinstance(name, str) and name.removesuffix("Fast") in _ANY and file.name == "tokenizer.json":
        return True
    raise UserError(
        f"{source}: tokenizer_class is {json.dumps(name)}, which cuts text in another way than BERT's: only "
        "BertTokenizer and its like are supported"
    )


def _check_settings(file: Path, settings: dict[str, Any]) -> None:
    wanted = {**SPECIAL_NAMES, "do_basic_tokenize": True}
    wanted |= {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}  # of BertJapaneseTokenizer
    for key, value in wanted.items():
        given = settings.get(key)
        given = given.get("content") if isinstance(given, dict) else given
        if given not in (None, value):
            raise UserError(f"{file}: {key} is {json.dumps(given)}, and only {json.dumps(value)} is supported")
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if not isinstance(settings.get(key), bool | None):
            raise UserError(f"{file}: {key} is {json.dumps(settings[key])}, and true or false is wanted")
    if "AutoTokenizer" in (settings.get("auto_map") or ()):
        raise UserError(f"{file}: auto_map names a tokenizer in Python code of the model's own, which is not run")


def _adds_tokens(settings: dict[str, Any]) -> bool:
    """Says whether there are tokens that `transformers` cuts out of a text first, besides those of BERT."""
    entries = settings.get("added_tokens_decoder") or {}
    values = entries.values() if isinstance(entries, dict) else entries
    return any(not isinstance(entry, dict) or entry.get("content") not in SPECIAL_TOKENS for entry in values)


def _read_whole(file: Path) -> tokenizers.Tokenizer:
    text = read_utf8(file)
    try:
        settings = parse_json(text.encode())
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # `tokenizers` raises Exception itself
        raise UserError(f"{file} cannot be read as a tokenizer: {error}") from error
    model = settings.get("model") or {}
    if not isinstance(backend.model, models.WordPiece):
        raise UserError(f"{file}: the tokenizer is not WordPiece but {type(backend.model).__name__}: BERT's is needed")
    found = {
        "normalizer": (settings.get("normalizer") or {}).get("type"),
        "pre_tokenizer": (settings.get("pre_tokenizer") or {}).get("type"),
        "model.unk_token": model.get("unk_token"),
        "model.continuing_subword_prefix": model.get("continuing_subword_prefix"),
    }
    wanted = ("BertNormalizer", "BertPreTokenizer", "[UNK]", "##")
    for (key, value), right in zip(found.items(), wanted, strict=True):
        if value != right:
            raise UserError(f"{file}: {key} is {json.dumps(value)}, and only BERT's is supported: {json.dumps(right)}")
    if not _puts_cls_and_sep(settings.get("post_processor")):
        raise UserError(f"{file}: post_processor does not make [CLS] A [SEP] B [SEP], as BERT's does")
    return backend


def _puts_cls_and_sep(processor: dict[str, Any] | None) -> bool:
    """Says whether [CLS] A [SEP] and [CLS] A [SEP] B [SEP] are made, with token types 0 and 1; so it is by default."""
    if processor is None:
        return True
    if processor["type"] == "BertProcessing":
        return processor["cls"][0] == "[CLS]" and processor["sep"][0] == "[SEP]"
    if processor["type"] != "TemplateProcessing":
        return False
    single = [("SpecialToken", "[CLS]", 0), ("Sequence", "A", 0), ("SpecialToken", "[SEP]", 0)]
    wanted = {"single": single, "pair": [*single, ("Sequence", "B", 1), ("SpecialToken", "[SEP]", 1)]}
    return all(
        [(kind, part["id"], part["type_id"]) for piece in processor[name] for kind, part in piece.items()] == pieces
        for name, pieces in wanted.items()
    )


def _apply_settings(backend: tokenizers.Tokenizer, settings: dict[str, Any]) -> None:
    normalizer = backend.normalizer
    assert isinstance(normalizer, normalizers.BertNormalizer)
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=normalizer.clean_text,
        handle_chinese_chars=_given(settings, "tokenize_chinese_chars", normalizer.handle_chinese_chars),
        strip_accents=settings.get("strip_accents", normalizer.strip_accents),
        lowercase=_given(settings, "do_lower_case", normalizer.lowercase),
    )


def _given(settings: dict[str, Any], key: str, default: bool) -> bool:
    value = settings.get(key)
    return default if value is None else value


def _guess_lower_case(file: Path, vocabulary: list[str]) -> bool:
    """Tells by the vocabulary whether it is of lower-cased text, where no file records it; says so if it is not."""
    # The Chinese vocabulary of lower-cased text holds <S> and <T>: what is in brackets is no word.
    capitals = [token for token in vocabulary if token != token.lower() and not re.fullmatch(r"\[.+\]|<.+>", token)]
    lower_case = len(capitals) <= _CAPITALS * len(vocabulary)
    if capitals:
        read = "text is lower-cased, so that they never occur" if lower_case else "text keeps its case"
        warnings.warn(
            f"{file}: {len(capitals):,} of {len(vocabulary):,} entries have capitals, such as {capitals[0]}, and no "
            f"{SETTINGS_FILE} says do_lower_case: {read}",
            stacklevel=2,
        )
    return lower_case
