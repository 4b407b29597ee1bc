"""A loaded model that answers: what stands behind a [MASK], whether one text follows another, vectors of texts."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained, parts_of
from bert_jax.model.encoder import Bert
from bert_jax.model.heads import BertForMaskedLM, BertForNextSentencePrediction
from bert_jax.text.tokenizer import Tokenizer

MASK = "[MASK]"
SHORTEST = 16  # tokens; shorter inputs are padded to this
POOLINGS = ("mean", "cls", "pooler")


class Prediction(NamedTuple):
    """One proposal for a [MASK]."""

    token: str  # as it stands in the vocabulary: "##ing" continues the word before it
    score: float  # its probability
    text: str  # the text with this [MASK] replaced, other masks left


class States(NamedTuple):
    """What the encoder makes of some texts, in their order; L is the longest of them."""

    hidden: np.ndarray  # float32 [B, L, D], of the last layer
    pooled: np.ndarray | None  # float32 [B, D]; None if the model has no pooler
    attention_mask: np.ndarray  # int32 [B, L], 1 where a token is


class _Row(NamedTuple):
    ids: list[int]  # [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
    first: int  # tokens up to and with the first [SEP]: they have token type 0, the others 1
    masks: list[int]  # positions of [MASK]


class Model:
    """Tokenizer, config and parameters; inference in float32 on the default device.

    Inputs are padded to powers of two (tokens, texts and masks), so that a stream of any lengths compiles a few times
    only: the logarithm of the longest length, not once per length.
    """

    def __init__(self, model: Pretrained, tokenizer: Tokenizer) -> None:
        self.config = model.config
        self.tokenizer = tokenizer
        self.labels = model.labels
        self.problem_type = model.problem_type
        self.params = jax.device_put(model.params)
        self.parts = parts_of(model.params)  # what it has besides the body: "pooler" and the heads
        self._fill = jax.jit(functools.partial(_fill, BertForMaskedLM(model.config)), static_argnames="top_k")
        self._follow = jax.jit(functools.partial(_follow, BertForNextSentencePrediction(model.config)))
        self._encode = jax.jit(functools.partial(_encode, Bert(model.config)), static_argnames="pooled")
        self._embed = jax.jit(functools.partial(_embed, Bert(model.config)), static_argnames=("pooling", "normalize"))

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Prediction]]:
        """The `top_k` most probable tokens for each [MASK] in the text, best first.

        Raises:
          UserError: the text has no [MASK], or one lies beyond the longest input that the model takes.
        """
        if not isinstance(text, str):
            raise UserError("fill_mask takes one text; for a list of texts there is fill_mask_batch")
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
        self._need("masked_language_model", "fill_mask")
        _check(texts, batch_size, lambda text: isinstance(text, str), "texts")
        if top_k < 1:
            raise UserError(f"top_k={top_k}: ask for at least 1")
        rows = self._fill_rows(texts)
        answers: list = list(rows)  # where a row is an error, that is the answer
        for indices, inputs, masked in self._batches(rows, batch_size):
            found = self._fill(self.params, *inputs, masked, top_k=min(top_k, self.config.vocab_size))
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
        self._need("next_sentence", "next_sentence")
        _check(pairs, batch_size, _is_pair, "pairs (first, second)")
        self._check_token_types(pairs)
        rows = self._pair_rows(pairs)
        answers: list = list(rows)
        for indices, inputs, _ in self._batches(rows, batch_size):
            probabilities = np.asarray(self._follow(self.params, *inputs))
            for number, index in enumerate(indices):
                answers[index] = float(probabilities[number])
            progress(len(indices))
        return answers

    def encode(self, texts: Sequence[str | tuple[str, str]], batch_size: int = 32) -> States:
        """Hidden states of texts or pairs of texts; what is too long is cut as BERT does."""
        rows = self._text_rows(texts, self.config.max_position_embeddings, batch_size)
        longest = max((len(row.ids) for row in rows), default=0)
        hidden = np.zeros((len(rows), longest, self.config.hidden_size), np.float32)
        mask = np.zeros((len(rows), longest), np.int32)
        pooled = np.zeros((len(rows), self.config.hidden_size), np.float32) if "pooler" in self.parts else None
        for indices, inputs, _ in self._batches(rows, batch_size):
            states, vectors = self._encode(self.params, *inputs, pooled=pooled is not None)
            for number, index in enumerate(indices):
                length = len(rows[index].ids)
                hidden[index, :length] = states[number, :length]
                mask[index, :length] = 1
            if pooled is not None:
                pooled[indices] = vectors[: len(indices)]
        return States(hidden, pooled, mask)

    def embed(
        self,
        texts: Sequence[str | tuple[str, str]],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> np.ndarray:
        """A vector for each text or pair of texts (Reimers & Gurevych 2019, section 3).

        Args:
          texts: they are batched by length, whatever their order.
          pooling: of the last layer the "mean" over all tokens, [CLS] and [SEP] included, or the "cls" state; or the
            "pooler"'s output.
          normalize: to unit length.
          max_length: tokens, [CLS] and [SEP] included, after which texts are cut; 0 for all that the model takes.
            Models of sentence-transformers have been trained on fewer: `max_seq_length` in sentence_bert_config.json.
          batch_size: texts that run at once.
          progress: told after each batch how many texts it answered.

        Returns:
          float32 [N, D], in the order of the texts.

        Raises:
          UserError: an unknown pooling, a model without pooler, or a length that the model does not take.
        """
        if pooling not in POOLINGS:
            raise UserError(f"pooling={pooling!r} is not known: choose {', '.join(POOLINGS[:-1])} or {POOLINGS[-1]}")
        if pooling == "pooler":
            self._need("pooler", "pooling='pooler'")
        most = self.config.max_position_embeddings
        if max_length > most:
            raise UserError(f"max_length={max_length} is longer than the position table of the model: at most {most}")
        rows = self._text_rows(texts, max_length or most, batch_size)
        vectors = np.zeros((len(rows), self.config.hidden_size), np.float32)
        for indices, inputs, _ in self._batches(rows, batch_size):
            found = self._embed(self.params, *inputs, pooling=pooling, normalize=normalize)
            vectors[indices] = found[: len(indices)]
            progress(len(indices))
        return vectors

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model in Hugging Face layout; see `bert_jax.interop.huggingface.save`."""
        model = Pretrained(self.params, self.config, self.labels, self.problem_type)
        huggingface.save(directory, model, self.tokenizer)

    def _need(self, part: str, purpose: str) -> None:
        if part not in self.parts:
            has = f"it has the body and {', '.join(sorted(self.parts))}" if self.parts else "it has the body only"
            raise UserError(f"{purpose} needs a model with {part}: {has}")

    def _check_token_types(self, texts: Sequence[str | tuple[str, str]]) -> None:
        if self.config.type_vocab_size < 2 and not all(isinstance(text, str) for text in texts):
            raise UserError(f"type_vocab_size={self.config.type_vocab_size}: the model does not tell two texts apart")

    def _text_rows(self, texts: Sequence[str | tuple[str, str]], max_length: int, batch_size: int) -> list[_Row]:
        _check(
            texts, batch_size, lambda text: isinstance(text, str) or _is_pair(text), "texts or pairs (first, second)"
        )
        self._check_token_types(texts)
        encoded = self.tokenizer.encode_inputs(texts, max_length)
        return [_Row(each.ids, each.token_type_ids.count(0), []) for each in encoded]

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
        rows: list[_Row | UserError] = []
        for ids, token_type_ids, _ in self.tokenizer.encode_inputs(pairs, self.config.max_position_embeddings):
            first = token_type_ids.index(1)
            if first == 2:  # [CLS] [SEP]
                rows.append(UserError("the first text is empty"))
            elif first == len(ids) - 1:
                rows.append(UserError("the second text is empty"))
            else:
                rows.append(_Row(ids, first, []))
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


def _fill(
    module: BertForMaskedLM,
    params: dict,
    ids: jax.Array,
    lengths: jax.Array,
    firsts: jax.Array,
    masked: jax.Array,
    top_k: int,
) -> tuple[jax.Array, jax.Array]:
    """Probabilities float32 [B, P, top_k] at the masked positions, and whose they are."""
    logits = module.apply({"params": params}, *_inputs(ids, lengths, firsts), masked_positions=masked)
    return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top_k)


def _follow(
    module: BertForNextSentencePrediction, params: dict, ids: jax.Array, lengths: jax.Array, firsts: jax.Array
) -> jax.Array:
    """Probabilities float32 [B] of label 0, "is next"."""
    starts = jnp.zeros((ids.shape[0], 1), jnp.int32)
    logits = module.apply({"params": params}, *_inputs(ids, lengths, firsts), sequence_starts=starts)
    return jax.nn.softmax(logits[:, 0], axis=-1)[:, 0]


def _encode(
    module: Bert, params: dict, ids: jax.Array, lengths: jax.Array, firsts: jax.Array, pooled: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Hidden states float32 [B, L, D] and, if wanted, pooled states [B, D]."""
    variables = {"params": params["bert"]}
    hidden = module.apply(variables, *_inputs(ids, lengths, firsts))
    starts = jnp.zeros((ids.shape[0], 1), jnp.int32)
    return hidden, module.apply(variables, hidden, starts, method="pool")[:, 0] if pooled else None


def _embed(
    module: Bert,
    params: dict,
    ids: jax.Array,
    lengths: jax.Array,
    firsts: jax.Array,
    pooling: str,
    normalize: bool,
) -> jax.Array:
    """Vectors float32 [B, D]."""
    hidden, pooled = _encode(module, params, ids, lengths, firsts, pooled=pooling == "pooler")
    if pooling == "mean":
        inside = jnp.arange(ids.shape[1]) < lengths[:, None]
        # A row of the padded batch has no tokens: its mean is thrown away, and must only not divide by 0.
        pooled = jnp.where(inside[:, :, None], hidden, 0).sum(1) / jnp.maximum(lengths, 1)[:, None]
    elif pooling == "cls":
        pooled = hidden[:, 0]
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True) if normalize else pooled


def _inputs(ids: jax.Array, lengths: jax.Array, firsts: jax.Array) -> tuple[jax.Array, ...]:
    """The four arguments of `Bert`, int32 [B, L], for one sequence a row."""
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    inside = positions < lengths[:, None]
    token_types = ((positions >= firsts[:, None]) & inside).astype(jnp.int32)
    return ids, token_types, positions, inside.astype(jnp.int32)


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(text, str) for text in item)


def _check(items: Any, batch_size: int, is_good: Callable[[Any], bool], wanted: str) -> None:
    """Raises UserError for what a list of texts is not, before anything runs."""
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: at least 1 is wanted")
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise UserError(f"a list of {wanted} is wanted, not a {type(items).__name__}: write [text] for a single one")
    for number, item in enumerate(items):
        if not is_good(item):
            raise UserError(f"a list of {wanted} is wanted: item {number} is {item!r:.80}")


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _raised(answer: Any) -> Any:
    if isinstance(answer, UserError):
        raise answer
    return answer
