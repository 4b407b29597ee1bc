"""The body of a loaded model: hidden states of texts, and a vector for each."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.errors import UserError
from bert_jax.inference import compute
from bert_jax.inference.loaded import LoadedModel, raised
from bert_jax.inference.rows import TextRow, is_text_or_pair, listed
from bert_jax.model.encoder import Bert
from bert_jax.tasks.rows import check_max_length

POOLINGS = ("mean", "cls", "pooler")
_TEXTS = "texts or pairs (first, second)"


class States(NamedTuple):
    """Holds the hidden states of some texts, in their order; L is the longest of them."""

    hidden: np.ndarray  # float32 [B, L, D], of the last layer
    pooled: np.ndarray | None  # float32 [B, D]; None if the model has no pooler
    attention_mask: np.ndarray  # int32 [B, L], 1 where a token is


class Embedder(LoadedModel):
    """Answers with the body alone: states and vectors."""

    def encode(self, texts: Iterable[str | tuple[str, str]], batch_size: int = 32) -> States:
        """Returns the hidden states of texts or pairs of texts; what is too long is cut as BERT does.

        Raises:
          UserError: what is given is no list of texts or pairs, or the model does not tell two texts apart.
        """
        texts = listed(texts, batch_size, is_text_or_pair, _TEXTS)
        rows = [raised(row) for row in self._text_rows(texts, self.config.max_position_embeddings)]
        longest = max((len(row.ids) for row in rows), default=0)
        hidden = np.zeros((len(rows), longest, self.config.hidden_size), np.float32)
        mask = np.zeros((len(rows), longest), np.int32)
        pooled = np.zeros((len(rows), self.config.hidden_size), np.float32) if "pooler" in self.parts else None
        module = Bert(self.config, self.execution)
        for indices, (states, vectors) in self._run(
            compute.states, module, rows, batch_size, pooled=pooled is not None
        ):
            for number, index in enumerate(indices):
                length = len(rows[index].ids)
                hidden[index, :length] = states[number, :length]
                mask[index, :length] = 1
            if pooled is not None:
                pooled[indices] = vectors[: len(indices)]
        return States(hidden, pooled, mask)

    def embed(
        self,
        texts: Iterable[str | tuple[str, str]],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> np.ndarray:
        """Returns a vector for each text or pair of texts (Reimers & Gurevych 2019, section 3).

        Args:
          texts: they are batched by length, whatever their order.
          pooling: of the last layer the "mean" over all tokens, [CLS] and [SEP] included, or the "cls" state; or the
            "pooler"'s output.
          normalize: to unit length.
          max_length: tokens, [CLS] and [SEP] included, after which texts are cut; 0 for all that the model takes.
            Models of sentence-transformers have been trained on fewer: `max_seq_length` in sentence_bert_config.json.
          batch_size: texts that run at once.
          progress: is called after each batch with the number of texts that it answered.

        Returns:
          float32 [N, D], in the order of the texts.

        Raises:
          UserError: an unknown pooling, a model without pooler, a length that the model does not take, or a text that
            has no vector.
        """
        vectors = self.embed_batch(
            texts, pooling, normalize=normalize, max_length=max_length, batch_size=batch_size, progress=progress
        )
        rows = [raised(vector) for vector in vectors]
        return np.stack(rows) if rows else np.zeros((0, self.config.hidden_size), np.float32)

    def embed_batch(
        self,
        texts: Iterable[str | tuple[str, str]],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        max_length: int = 0,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda answered: None,
    ) -> list[np.ndarray | UserError]:
        """Answers as `embed`, float32 [D] each; a text without a vector gives its error in its place."""
        if pooling not in POOLINGS:
            raise UserError(f"pooling={pooling!r} is not known: choose {', '.join(POOLINGS[:-1])} or {POOLINGS[-1]}")
        if pooling == "pooler":
            self.need("pooler", "pooling='pooler'")
        check_max_length(max_length, self.config)
        texts = listed(texts, batch_size, is_text_or_pair, _TEXTS)
        rows = self._text_rows(texts, max_length or self.config.max_position_embeddings)
        answers: list = list(rows)
        module = Bert(self.config, self.execution)
        outputs = self._run(
            compute.vectors, module, rows, batch_size, progress=progress, pooling=pooling, normalize=normalize
        )
        for indices, vectors in outputs:
            for number, index in enumerate(indices):
                answers[index] = vectors[number]
        return answers

    def _text_rows(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[TextRow | UserError]:
        faults = [self._fault_of_pair(not isinstance(text, str)) for text in texts]
        encoded = self.tokenizer.encode_inputs(texts, max_length)
        return [
            UserError(fault) if fault else TextRow(encoding.ids, encoding.token_type_ids.count(0), [])
            for fault, encoding in zip(faults, encoded, strict=True)
        ]
