"""What is inside a model for one text: the attention of every head, and the states of every layer."""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from bert_jax.errors import UserError
from bert_jax.inference.rows import is_text_or_pair
from bert_jax.model.encoder import Bert
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import Intermediates, apply_and_collect
from bert_jax.model.parameters import body
from bert_jax.model.quantization import dequantize

MULTIPLE = 16  # rows are padded to a multiple of so many tokens, so that texts of many lengths compile few programs

if TYPE_CHECKING:
    from bert_jax.inference.predictor import Model


class Attentions(NamedTuple):
    """Where the heads of a model look in a text."""

    tokens: list[str]  # L, with [CLS] and [SEP]
    probabilities: np.ndarray  # float32 [layers, heads, L, L]: from each token to each


def attentions(model: "Model", text: str | tuple[str, str]) -> Attentions:
    """Returns the tokens of a text or a pair of texts, and the attention of each head from each of them to each.

    Raises:
      UserError: it is no text or pair.
    """
    ids, states = _states(model, text)
    tokens = [model.tokenizer.id_to_token(number) for number in ids]
    length = len(tokens)
    return Attentions(tokens, np.asarray(states.attentions[:, 0, :, :length, :length], np.float32))


def hidden_states(model: "Model", text: str | tuple[str, str]) -> np.ndarray:
    """Returns the states of a text or a pair of texts, float32 [layers + 1, L, D]: the embeddings' first.

    Raises:
      UserError: it is no text or pair.
    """
    ids, states = _states(model, text)
    layers = [states.embedded, *states.hidden]
    return np.stack([np.asarray(layer[0, : len(ids)], np.float32) for layer in layers])


def _states(model: "Model", text: str | tuple[str, str]) -> tuple[list[int], Intermediates]:
    """Runs the body on a text, cut as BERT does where it is too long; gives its ids and the states of a padded row."""
    if not is_text_or_pair(text):
        raise UserError(f"a text or a pair (first, second) is wanted, not {text!r:.80}")
    model._check_token_types([text])
    longest = model.config.max_position_embeddings
    (encoded,) = model.tokenizer.encode_inputs([text], longest)
    length = min(longest, -(-len(encoded.ids) // MULTIPLE) * MULTIPLE)
    ids = np.full((1, length), model.tokenizer.pad_id, np.int32)
    ids[0, : len(encoded.ids)] = encoded.ids
    lengths, first_lengths = np.array([[len(encoded.ids)], [encoded.token_type_ids.count(0)]], np.int32)
    return encoded.ids, _run(Bert(model.config, model.execution), body(model.params), ids, lengths, first_lengths)


@functools.partial(jax.jit, static_argnums=0)
def _run(bert: Bert, params: dict, ids: jax.Array, lengths: jax.Array, first_lengths: jax.Array) -> Intermediates:
    inputs = Inputs.unpacked(ids, lengths, first_lengths)
    return apply_and_collect(bert, dequantize(params, bert.execution.dtype), inputs)[1]
