"""What is inside a loaded model for one text: the attention of every head, and the states of every layer."""

from typing import NamedTuple

import numpy as np

from bert_jax.errors import UserError
from bert_jax.inference import compute
from bert_jax.inference.embedder import Embedder
from bert_jax.inference.loaded import raised
from bert_jax.inference.rows import is_text_or_pair
from bert_jax.model.encoder import Bert
from bert_jax.model.intermediates import Intermediates


class Attentions(NamedTuple):
    """Holds where the heads of a model look in a text."""

    tokens: list[str]  # L, with [CLS] and [SEP]
    probabilities: np.ndarray  # float32 [layers, heads, L, L], from each token to each


class Inspector(Embedder):
    """Shows what is inside the layers of a model."""

    def attentions(self, text: str | tuple[str, str]) -> Attentions:
        """Returns the tokens of a text or a pair of texts, and the attention of each head from each of them to each.

        A text that is too long is cut as BERT does.

        Raises:
          UserError: it is no text or pair, or the model does not tell two texts apart.
        """
        ids, states = self._intermediates(text)
        tokens, length = [self.tokenizer.id_to_token(number) for number in ids], len(ids)
        return Attentions(tokens, np.asarray(states.attentions[:, 0, :, :length, :length]))

    def hidden_states(self, text: str | tuple[str, str]) -> np.ndarray:
        """Returns the states of a text or a pair of texts, float32 [layers + 1, L, D]; the first are the embeddings.

        A text that is too long is cut as BERT does.

        Raises:
          UserError: it is no text or pair, or the model does not tell two texts apart.
        """
        ids, states = self._intermediates(text)
        return np.concatenate([states.embedded[None], states.hidden])[:, 0, : len(ids)]

    def _intermediates(self, text: str | tuple[str, str]) -> tuple[list[int], Intermediates]:
        """Returns the ids of the text, and what the body makes of its row, padding included."""
        if not is_text_or_pair(text):
            raise UserError(f"a text or a pair (first, second) is wanted, not {text!r:.80}")
        (row,) = rows = [raised(row) for row in self._text_rows([text], self.config.max_position_embeddings)]
        ((_, states),) = self._run(compute.intermediates, Bert(self.config, self.execution), rows, batch_size=1)
        return row.ids, states
