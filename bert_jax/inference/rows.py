"""From texts to arrays: rows of token ids, and batches of them in few shapes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.batches import by_length, power_of_two
from bert_jax.tasks.rows import check_count
from bert_jax.text.tokenizer import Tokenizer

MASK = "[MASK]"


class TextRow(NamedTuple):
    """Holds one input of the model."""

    ids: list[int]  # [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
    first: int  # tokens up to and with the first [SEP]: they have token type 0, the others 1
    masks: list[int]  # positions of [MASK]


def fill_rows(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[TextRow | UserError]:
    """Makes a row for each text with [MASK] in it, of `max_length` tokens at most, or says what is wrong with it."""
    # Masks are put in by id between the pieces of text: as many as `filled` finds, whatever an imported
    # tokenizer makes of the characters "[MASK]".
    pieces = [text.split(MASK) for text in texts]
    encoded = iter(tokenizer.encode_batch([piece for text in pieces for piece in text]))
    room = max_length - 2
    rows: list[TextRow | UserError] = []
    for text in pieces:
        ids = list(next(encoded))
        masks = []
        for _ in text[1:]:
            masks.append(len(ids) + 1)
            ids += [tokenizer.mask_id, *next(encoded)]
        if not masks:
            rows.append(UserError(f"no {MASK} in the text: write {MASK} where a token is wanted"))
        elif masks[-1] > room:
            rows.append(
                UserError(f"a {MASK} is token {masks[-1]} of the text, the model reads {room}: shorten the text")
            )
        else:
            ids = [tokenizer.cls_id, *ids[:room], tokenizer.sep_id]
            rows.append(TextRow(ids, len(ids), masks))
    return rows


def pair_rows(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, max_length: int) -> list[TextRow | UserError]:
    """Makes a row for each pair of texts, cut as BERT does, or says what is wrong with the pair."""
    rows: list[TextRow | UserError] = []
    for ids, token_type_ids, _ in tokenizer.encode_inputs(pairs, max_length):
        first = token_type_ids.index(1)
        if first == 2:  # [CLS] [SEP]
            rows.append(UserError("the first text is empty"))
        elif first == len(ids) - 1:
            rows.append(UserError("the second text is empty"))
        else:
            rows.append(TextRow(ids, first, []))
    return rows


def token_rows(ids: Sequence[int], tokenizer: Tokenizer) -> list[TextRow]:
    """Makes a row for each token of a text without [CLS] and [SEP], in which that token is [MASK]."""
    whole = [tokenizer.cls_id, *ids, tokenizer.sep_id]
    places = range(1, len(ids) + 1)
    return [TextRow([*whole[:place], tokenizer.mask_id, *whole[place + 1 :]], len(whole), [place]) for place in places]


def filled(text: str, mask: int, token: str) -> str:
    """Returns the text with its [MASK] of that number replaced by an entry of the vocabulary, other masks left."""
    pieces = text.split(MASK)
    left, right = MASK.join(pieces[: mask + 1]), MASK.join(pieces[mask + 1 :])
    return (left.rstrip() + token[2:] if token.startswith("##") else left + token) + right


def row_batches(
    rows: Sequence[TextRow | UserError], batch_size: int, pad_id: int, max_length: int, platform: str
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """Yields the good rows by length: indices into `rows`, and `ids`, `lengths`, `firsts`, `masked` as in `compute`.

    Batches are those of `by_length`, and padded to a power of two of masks, so that a stream of any lengths compiles a
    few times only.
    """
    good = {index: row for index, row in enumerate(rows) if not isinstance(row, UserError)}
    numbered = list(good)
    lengths_of_good = np.array([len(row.ids) for row in good.values()], np.int64)
    for numbers, size, length in by_length(lengths_of_good, batch_size, max_length, platform):
        indices = [numbered[number] for number in numbers]
        chosen = [good[index] for index in indices]
        ids = np.full((size, length), pad_id, np.int32)
        lengths, firsts = np.zeros((2, size), np.int32)
        masks = max(1, *(len(row.masks) for row in chosen))
        masked = np.zeros((size, power_of_two(masks)), np.int32)
        for number, row in enumerate(chosen):
            ids[number, : len(row.ids)] = row.ids
            masked[number, : len(row.masks)] = row.masks
            lengths[number], firsts[number] = len(row.ids), row.first
        yield indices, {"ids": ids, "lengths": lengths, "firsts": firsts, "masked": masked}


def is_text(item: Any) -> bool:
    """Tells whether it is a text."""
    return isinstance(item, str)


def is_pair(item: Any) -> bool:
    """Tells whether it is two texts."""
    return isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item)


def is_text_or_pair(item: Any) -> bool:
    """Tells whether it is a text or two texts."""
    return isinstance(item, str) or is_pair(item)


def is_text_or_words(item: Any) -> bool:
    """Tells whether it is a text or a list of words."""
    return isinstance(item, str) or (isinstance(item, Sequence) and all(isinstance(word, str) for word in item))


def listed(items: Any, batch_size: int, is_good: Callable[[Any], bool], wanted: str) -> list[Any]:
    """Returns the items of any iterable in its order: a list, a generator, an array, a column of a table.

    Args:
      items: of Python, NumPy, pandas or pyarrow, which need not be installed.
      batch_size: is checked, too.
      is_good: tells whether an item, without the array around it, is what is wanted.
      wanted: what that is, in words.

    Raises:
      UserError: it is one text, a table, or has no order; or an item is not what is wanted, such as None or NaN.
    """
    check_count(batch_size, "batch_size", 1)
    if isinstance(items, str):
        raise UserError(f"a list of {wanted} is wanted, not a str: write [text] for a single one")
    if hasattr(items, "columns"):
        raise UserError(f"a list of {wanted} is wanted, not a {type(items).__name__}: give a column, table[name]")
    without_items = not isinstance(items, Iterable) or getattr(items, "ndim", 1) == 0
    if without_items or isinstance(items, bytes | Mapping | set | frozenset):
        raise UserError(f"a list of {wanted} is wanted, not a {type(items).__name__}")
    found = [_plain(item) for item in getattr(items, "to_pylist", lambda: items)()]
    for number, item in enumerate(found):
        if not is_good(item):
            raise UserError(f"a list of {wanted} is wanted: item {number} is {item!r:.80}")
    return found


def _plain(item: Any) -> Any:
    """Returns the list of an array or a column; other items as they are."""
    if isinstance(item, str | tuple | list):
        return item
    method = getattr(item, "tolist", None) or getattr(item, "to_list", None)
    return method() if method else item
