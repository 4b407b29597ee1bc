"""Lays several sequences into one row of L tokens (Krell et al. 2021), and writes rows out as arrays."""

import numpy as np

from bert_jax.pretraining.pairs import NO_LABEL, Sequences


def sequences_per_row(length: int, packing: bool) -> int:
    """K: the most sequences that a row of `length` tokens holds."""
    return min(16, max(2, length // 16)) if packing else 1


def best_fit(lengths: np.ndarray, capacity: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best fit, longest first: each sequence goes to the fullest row with room for it.

    Args:
      lengths: int [n], each 1 to `capacity`. Equal lengths keep their order.
      capacity: L.
      most: K, sequences in a row at most.

    Returns:
      int64 [n] each: row, slot in the row (0 to K - 1), and first position in the row.
    """
    order = np.argsort(-lengths, kind="stable")
    shortest = int(lengths.min(initial=capacity))
    rows, slots, positions = np.zeros((3, len(lengths)), np.int64)
    alone = int(np.count_nonzero(lengths + shortest > capacity)) if most > 1 else len(lengths)
    rows[order[:alone]] = np.arange(alone)  # nothing fits beside the longest

    placed: list[tuple[int, int, int]] = []
    filled = [1] * alone
    rooms: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room they have left
    some = 0  # bit r is set where rooms[r] has a row
    for length in lengths[order[alone:]].tolist():
        fitting = some >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rooms[room].pop()
            if not rooms[room]:
                some ^= 1 << room
        else:
            room, row = capacity, len(filled)
            filled.append(0)
        placed.append((row, filled[row], capacity - room))
        filled[row] += 1
        room -= length
        if filled[row] < most and room >= shortest:
            rooms[room].append(row)
            some |= 1 << room
    if placed:
        rows[order[alone:]], slots[order[alone:]], positions[order[alone:]] = np.array(placed).T
    return rows, slots, positions


def lay_out(
    tokens: np.ndarray,
    sequences: Sequences,
    places: tuple[np.ndarray, np.ndarray, np.ndarray],
    shape: tuple[int, int, int],
    cls_id: int,
    sep_id: int,
) -> dict[str, np.ndarray]:
    """Writes sequences into rows.

    Args:
      tokens: the corpus's token ids.
      sequences: n sequences.
      places: row, slot and first position of each, [n] each, as from `best_fit`.
      shape: rows, L and K.
      cls_id: id of [CLS].
      sep_id: id of [SEP].

    Returns:
      int32 arrays: `input_ids`, `token_type_ids`, `position_ids`, `sequence_ids` [rows, L], 0 where nothing lies, and
      `next_sentence_labels` [rows, K], -1 where nothing lies.
    """
    rows, length, most = shape
    row, slot, position = places
    lengths = sequences.lengths
    input_ids, token_type_ids = _in_one_line(tokens, sequences, cls_id, sep_id)
    begin = np.cumsum(lengths) - lengths
    within = np.arange(len(input_ids)) - np.repeat(begin, lengths)
    where = within + np.repeat(row * length + position, lengths)
    values = {
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
        "position_ids": within,
        "sequence_ids": np.repeat(slot + 1, lengths),
    }
    batch = {}
    for name, value in values.items():
        flat = np.zeros(rows * length, np.int32)
        flat[where] = value
        batch[name] = flat.reshape(rows, length)
    labels = np.full((rows, most), NO_LABEL, np.int32)
    labels[row, slot] = sequences.label
    batch["next_sentence_labels"] = labels
    return batch


def _in_one_line(tokens: np.ndarray, sequences: Sequences, cls_id: int, sep_id: int) -> tuple[np.ndarray, np.ndarray]:
    """All sequences one after the other, as [CLS] piece [SEP] ...: their ids and token types, int [sum of lengths]."""
    heads = sequences.first[:-1]  # the pieces that [CLS] goes before
    leads = np.zeros(len(sequences.start), np.int64)
    leads[heads] = 1
    extent = sequences.length + 1 + leads  # of a piece with its [CLS] and [SEP]
    text = np.cumsum(extent) - extent + leads  # where its text goes
    ahead = np.cumsum(sequences.length) - sequences.length  # text tokens before it

    line = np.full(int(extent.sum()), sep_id, np.int32)
    line[text[heads] - 1] = cls_id
    each = np.arange(int(sequences.length.sum()))
    source = each + np.repeat(sequences.start - ahead, sequences.length)
    line[each + np.repeat(text - ahead, sequences.length)] = tokens[source]

    scored = np.repeat(sequences.label != NO_LABEL, np.diff(sequences.first))  # A and B; otherwise all is A
    return line, np.repeat((1 - leads) * scored, extent)
