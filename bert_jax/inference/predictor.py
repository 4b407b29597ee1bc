"""A loaded model that answers: what stands behind a [MASK], and whether one text follows another."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.model.heads import BertForPreTraining
from bert_jax.text.tokenizer import Tokenizer

MASK = "[MASK]"
SHORTEST = 16  # tokens; shorter inputs are padded to this


class Prediction(NamedTuple):
    """One proposal for a [MASK]."""

    token: str  # as it stands in the vocabulary: "##ing" continues the word before it
    score: float  # its probability
    text: str  # the text with this [MASK] replaced, other masks left


class _Row(NamedTuple):
    ids: list[int]  # [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
    first: int  # tokens up to and with the first [SEP]: they have token type 0, the others 1
    masks: list[int]  # positions of [MASK]


class Model:
    """Tokenizer, config and parameters; inference in float32 on the default device.

    Inputs are padded to powers of two (tokens, texts and masks), so that a stream of any lengths compiles a few times
    only: the logarithm of the longest length, not once per length.
    """

    def __init__(self, params: dict, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.params = jax.device_put(params)
        module = BertForPreTraining(config)
        self._fill = jax.jit(functools.partial(_fill, module), static_argnames=("entries", "top_k"))
        self._follow = jax.jit(functools.partial(_follow, module))

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Prediction]]:
        """The `top_k` most probable tokens for each [MASK] in the text, best first.

        Raises:
          UserError: the text has no [MASK], or one lies beyond the longest input that the model takes.
        """
        return _raised(self.fill_mask_batch([text], top_k)[0])

    def next_sentence(self, first: str, second: str) -> float:
        """The probability that `second` follows `first`. A pair that is too long loses the end of its longer text.

        Raises:
          UserError: one of them is empty.
        """
        return _raised(self.next_sentence_batch([(first, second)])[0])

    def fill_mask_batch(
        self,
        texts: Sequence[str],
        top_k: int = 5,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[list[list[Prediction]] | UserError]:
        """`fill_mask` of many texts, in their order; a text that has no answer gives its error in its place.

        Args:
          texts: they are batched by length, whatever their order.
          top_k: proposals for each mask.
          batch_size: texts that run at once.
          progress: told after each batch how many texts it answered.
        """
        if top_k < 1:
            raise UserError(f"top_k={top_k}: ask for at least 1")
        entries = self.tokenizer.vocab_size  # the model may have more: no token stands behind those
        rows = self._fill_rows(texts)
        answers: list = list(rows)  # where a row is an error, that is the answer
        for indices, inputs, masked in self._batches(rows, batch_size):
            found = self._fill(self.params, *inputs, masked, entries=entries, top_k=min(top_k, entries))
            scores, ids = map(np.asarray, found)
            for number, index in enumerate(indices):
                answers[index] = [
                    self._predictions(texts[index], mask, scores[number, mask], ids[number, mask])
                    for mask in range(len(rows[index].masks))
                ]
            progress(len(indices))
        return answers

    def next_sentence_batch(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[float | UserError]:
        """`next_sentence` of many pairs, in their order; a pair that has no answer gives its error in its place."""
        if self.config.type_vocab_size < 2:
            raise UserError(f"type_vocab_size={self.config.type_vocab_size}: the model does not tell two texts apart")
        rows = self._pair_rows(pairs)
        answers: list = list(rows)
        for indices, inputs, _ in self._batches(rows, batch_size):
            probabilities = np.asarray(self._follow(self.params, *inputs))
            for number, index in enumerate(indices):
                answers[index] = float(probabilities[number])
            progress(len(indices))
        return answers

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model in Hugging Face layout; see `bert_jax.interop.huggingface.save`."""
        huggingface.save(directory, self.params, self.config, self.tokenizer)

    def _fill_rows(self, texts: Sequence[str]) -> list[_Row | UserError]:
        # Masks are put in by id between the pieces of text: as many as `_predictions` finds, whatever an imported
        # tokenizer makes of the characters "[MASK]".
        pieces = [text.split(MASK) for text in texts]
        encoded = iter(self.tokenizer.encode_batch([piece for text in pieces for piece in text]))
        room = self.config.max_position_embeddings - 2
        rows: list[_Row | UserError] = []
        for text in pieces:
            ids = list(next(encoded))
            masks = []
            for _ in text[1:]:
                masks.append(len(ids) + 1)
                ids += [self.tokenizer.mask_id, *next(encoded)]
            if not masks:
                rows.append(UserError(f"no {MASK} in the text: write {MASK} where a token is wanted"))
            elif masks[-1] > room:
                rows.append(
                    UserError(f"a {MASK} is token {masks[-1]} of the text, the model reads {room}: shorten the text")
                )
            else:
                ids = [self.tokenizer.cls_id, *ids[:room], self.tokenizer.sep_id]
                rows.append(_Row(ids, len(ids), masks))
        return rows

    def _pair_rows(self, pairs: Sequence[tuple[str, str]]) -> list[_Row | UserError]:
        cls, sep = self.tokenizer.cls_id, self.tokenizer.sep_id
        encoded = self.tokenizer.encode_batch([text for pair in pairs for text in pair])
        rows: list[_Row | UserError] = []
        for first, second in zip(encoded[::2], encoded[1::2], strict=True):
            if not (first and second):
                rows.append(UserError(f"the {'second' if first else 'first'} text is empty"))
                continue
            first, second = truncate_pair(first, second, self.config.max_position_embeddings - 3)
            rows.append(_Row([cls, *first, sep, *second, sep], len(first) + 2, []))
        return rows

    def _batches(
        self, rows: Sequence[_Row | UserError], batch_size: int
    ) -> Iterator[tuple[list[int], tuple[np.ndarray, ...], np.ndarray]]:
        """Yields indices into rows; `ids` int32 [B, L], `lengths` and `firsts` int32 [B]; masks int32 [B, P]."""
        good = [index for index, row in enumerate(rows) if isinstance(row, _Row)]
        good.sort(key=lambda index: len(rows[index].ids), reverse=True)
        for start in range(0, len(good), batch_size):
            indices = good[start : start + batch_size]
            chosen = [rows[index] for index in indices]
            size = _power_of_two(len(chosen))
            length = min(_power_of_two(max(len(chosen[0].ids), SHORTEST)), self.config.max_position_embeddings)
            ids = np.full((size, length), self.tokenizer.pad_id, np.int32)
            lengths, firsts = np.zeros((2, size), np.int32)
            masks = max(1, *(len(row.masks) for row in chosen))
            masked = np.zeros((size, _power_of_two(masks)), np.int32)
            for number, row in enumerate(chosen):
                ids[number, : len(row.ids)] = row.ids
                masked[number, : len(row.masks)] = row.masks
                lengths[number], firsts[number] = len(row.ids), row.first
            yield indices, (ids, lengths, firsts), masked

    def _predictions(self, text: str, mask: int, scores: np.ndarray, ids: np.ndarray) -> list[Prediction]:
        pieces = text.split(MASK)
        left, right = MASK.join(pieces[: mask + 1]), MASK.join(pieces[mask + 1 :])
        predictions = []
        for score, entry in zip(scores, ids, strict=True):
            token = self.tokenizer.id_to_token(entry)
            filled = left.rstrip() + token[2:] if token.startswith("##") else left + token
            predictions.append(Prediction(token, float(score), filled + right))
        return predictions


def truncate_pair(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Takes tokens from the end of the longer of two until both fit into `room`; of equals, from the second.

    This is ``_truncate_seq_pair`` of the original ``run_classifier.py``, without its loop.
    """
    half = room // 2
    if len(first) + len(second) <= room:
        return first, second
    if len(second) <= half:
        return first[: room - len(second)], second
    if len(first) <= room - half:
        return first, second[: room - len(first)]
    return first[: room - half], second[:half]


def _fill(
    module: BertForPreTraining,
    params: dict,
    ids: jax.Array,
    lengths: jax.Array,
    firsts: jax.Array,
    masked: jax.Array,
    entries: int,
    top_k: int,
) -> tuple[jax.Array, jax.Array]:
    """Probabilities float32 [B, P, top_k] at the masked positions, and which of the first `entries` they belong to."""
    logits, _ = module.apply({"params": params}, *_inputs(ids, lengths, firsts), masked)
    return jax.lax.top_k(jax.nn.softmax(logits, axis=-1)[..., :entries], top_k)


def _follow(
    module: BertForPreTraining, params: dict, ids: jax.Array, lengths: jax.Array, firsts: jax.Array
) -> jax.Array:
    """Probabilities float32 [B] of label 0, "is next"."""
    inputs = _inputs(ids, lengths, firsts)
    _, logits = module.apply({"params": params}, *inputs, inputs[-1])  # XLA drops the unused masked-LM logits
    return jax.nn.softmax(logits[:, 0], axis=-1)[:, 0]


def _inputs(ids: jax.Array, lengths: jax.Array, firsts: jax.Array) -> tuple[jax.Array, ...]:
    """The arguments of `Bert` for one sequence a row: int32 [B, L] four times, and its start int32 [B, 1]."""
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    inside = positions < lengths[:, None]
    token_types = ((positions >= firsts[:, None]) & inside).astype(jnp.int32)
    return ids, token_types, positions, inside.astype(jnp.int32), jnp.zeros((ids.shape[0], 1), jnp.int32)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _raised(answer: Any) -> Any:
    if isinstance(answer, UserError):
        raise answer
    return answer
