"""Lays several sequences into one row of L tokens (Krell et al. 2021), and writes rows out as arrays."""

from typing import NamedTuple

import numpy as np

from bert_jax.pretraining.pairs import NO_LABEL, Sequences


class Places(NamedTuple):
    """Says where n sequences lie, int64 [n] each."""

    row: np.ndarray
    slot: np.ndarray  # within the row, 0 to K - 1
    position: np.ndarray  # of the first token within the row


def sequences_per_row(length: int, packing: bool) -> int:
    """Returns K, the largest number of sequences in a row of `length` tokens."""
    return min(16, max(2, length // 16)) if packing else 1


def best_fit(lengths: np.ndarray, capacity: int, max_sequences: int) -> Places:
    """Places each sequence in the fullest row with room for it, the longest first.

    Rows that are open for more stand in lists by the room that they have left, and the bits of a number say which lists
    hold one. An example with L = 16: row 0 holds sequences of 9 and 4 tokens, row 1 one of 11, so `rows_by_room[3]` is
    [0], `rows_by_room[5]` is [1], and `open_rooms` is 0b101000. A sequence of 4 shifts that to 0b10: the lowest bit set
    is 1, so the least room that is enough is 4 + 1, and it goes to row 1, slot 1, position 16 - 5.

    Args:
      lengths: the tokens of each sequence, 1 to `capacity`, int [n]. Equal lengths keep their order.
      capacity: the number L of tokens of a row.
      max_sequences: the largest number K of sequences of a row.
    """
    order = np.argsort(-lengths, kind="stable")
    shortest = int(lengths.min(initial=capacity))
    rows, slots, positions = np.zeros((3, len(lengths)), np.int64)
    alone = int(np.count_nonzero(lengths + shortest > capacity)) if max_sequences > 1 else len(lengths)
    rows[order[:alone]] = np.arange(alone)  # nothing fits beside the longest

    placed: list[tuple[int, int, int]] = []
    filled = [1] * alone  # sequences of each row
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_rooms = 0
    for length in lengths[order[alone:]].tolist():
        fitting = open_rooms >> length
        if fitting:
            lowest_bit = (fitting & -fitting).bit_length() - 1
            room = length + lowest_bit
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                open_rooms ^= 1 << room
        else:
            room, row = capacity, len(filled)
            filled.append(0)
        placed.append((row, filled[row], capacity - room))
        filled[row] += 1
        room -= length
        if filled[row] < max_sequences and room >= shortest:
            rows_by_room[room].append(row)
            open_rooms |= 1 << room
    if placed:
        rows[order[alone:]], slots[order[alone:]], positions[order[alone:]] = np.array(placed).T
    return Places(rows, slots, positions)


def write_rows(
    tokens: np.ndarray,
    sequences: Sequences,
    places: Places,
    shape: tuple[int, int, int],
    cls_id: int,
    sep_id: int,
) -> dict[str, np.ndarray]:
    """Writes sequences into rows.

    Args:
      tokens: the corpus's token ids.
      sequences: the n sequences.
      places: the places of the sequences, as from `best_fit`.
      shape: the number of rows, L and K.
      cls_id: the id of [CLS].
      sep_id: the id of [SEP].

    Returns:
      int32 arrays: `input_ids`, `token_type_ids`, `position_ids`, `sequence_ids` [rows, L], 0 where nothing lies, and
      `next_sentence_labels` [rows, K], -1 where nothing lies.
    """
    rows, length, max_sequences = shape
    row, slot, position = places
    lengths = sequences.lengths
    input_ids, token_type_ids = _in_one_line(tokens, sequences, cls_id, sep_id)
    begin = np.cumsum(lengths) - lengths
    within = np.arange(len(input_ids)) - np.repeat(begin, lengths)
    target = within + np.repeat(row * length + position, lengths)
    values = {
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
        "position_ids": within,
        "sequence_ids": np.repeat(slot + 1, lengths),
    }
    batch = {}
    for name, value in values.items():
        flat = np.zeros(rows * length, np.int32)
        flat[target] = value
        batch[name] = flat.reshape(rows, length)
    labels = np.full((rows, max_sequences), NO_LABEL, np.int32)
    labels[row, slot] = sequences.label
    batch["next_sentence_labels"] = labels
    return batch


def _in_one_line(tokens: np.ndarray, sequences: Sequences, cls_id: int, sep_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Writes all sequences one after the other, as [CLS] piece [SEP] ...

    An example of one sequence of two pieces, tokens 7 8 and 4 5 6 of the corpus:

      ids          [CLS] 7 8 [SEP] 4 5 6 [SEP]
      token types    0   0 0   0   1 1 1   1
      has_cls        1   0       (of each piece)
      extent         4   4       (of each piece with its [CLS] and [SEP])
      text_start     1   4       (of each piece, in the line)

    Returns:
      Ids and token types, int [sum of lengths].
    """
    first_pieces = sequences.first[:-1]
    has_cls = np.zeros(len(sequences.start), np.int64)
    has_cls[first_pieces] = 1
    extent = sequences.length + 1 + has_cls
    text_start = np.cumsum(extent) - extent + has_cls
    tokens_before = np.cumsum(sequences.length) - sequences.length

    line = np.full(int(extent.sum()), sep_id, np.int32)
    line[text_start[first_pieces] - 1] = cls_id
    numbers = np.arange(int(sequences.length.sum()))
    origin = numbers + np.repeat(sequences.start - tokens_before, sequences.length)
    line[numbers + np.repeat(text_start - tokens_before, sequences.length)] = tokens[origin]

    is_pair = np.repeat(sequences.label != NO_LABEL, np.diff(sequences.first))  # A and B; otherwise all is A
    return line, np.repeat((1 - has_cls) * is_pair, extent)
