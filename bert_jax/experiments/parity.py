"""How far this implementation is from `transformers` in PyTorch with the same weights, quantity by quantity.

The tests assert these differences, and `scripts/benchmark.py --suite=parity` shows them on the user's own device.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.interop.layout import Pretrained, disassemble
from bert_jax.model import heads
from bert_jax.model.encoder import Bert
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import apply_and_collect
from bert_jax.model.parameters import apply, body
from bert_jax.runtime.execution import Execution
from bert_jax.training.losses import binary_cross_entropy, cross_entropy, span_cross_entropy, squared_error
from bert_jax.training.objective import Mean

# Norm of the difference over the norm of the tensor, float32 on CPU. Both sides round each operation to 6e-8 and sum in
# another order, which adds up to some 1e-6 over the layers; a gradient goes the way twice. Ten times that is allowed:
# any real difference (tanh GELU: 1e-4, eps 1e-6: 1e-4, a dropped embedding: 1) is far beyond. Not to be loosened.
OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

Values = dict[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


def pretraining_loss(mlm: jax.Array, nsp: jax.Array, tokens: jax.Array, next_sentence: jax.Array) -> list[Mean]:
    """Returns the two means whose sum is the loss of pre-training."""
    return [cross_entropy(mlm, tokens), cross_entropy(nsp, next_sentence)]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Describes a class of Hugging Face's, the one of the same name here, and the loss of both.

    Attributes:
      outputs: those of PyTorch, by name, in the order of those here.
      labels: PyTorch's arguments, and the arrays of the batch that they take.
      loss: takes the outputs here and then the labels; gives the mean, or means whose sum is the loss.
      problem_type: of a sequence classification.
      for_tokens: how many of the outputs, the first ones, have a place for each token, [B, L, ...].
    """

    outputs: tuple[str, ...]
    labels: dict[str, str]
    loss: Callable[..., Mean | list[Mean]] = cross_entropy
    problem_type: str = ""
    for_tokens: int = 0

    def at_tokens(self, values: Values, inside: np.ndarray) -> Values:
        """Returns states, attentions and outputs at real tokens only: [tokens, ...] where there was [B, L, ...]."""
        whole = self.outputs[self.for_tokens :]
        return {name: array if name in whole else array[inside] for name, array in values.items()}


_LOGITS, _CLASSIFIER = ("logits",), "BertForSequenceClassification"
_PRETRAINING = {"labels": "tokens", "next_sentence_label": "next_sentence"}
_SPANS = {"start_positions": "starts", "end_positions": "ends"}
TASKS: dict[str, Architecture] = {
    "BertForPreTraining": Architecture(
        ("prediction_logits", "seq_relationship_logits"), _PRETRAINING, pretraining_loss, for_tokens=1
    ),
    "BertForMaskedLM": Architecture(_LOGITS, {"labels": "tokens"}, for_tokens=1),
    "BertForNextSentencePrediction": Architecture(_LOGITS, {"labels": "next_sentence"}),
    _CLASSIFIER: Architecture(_LOGITS, {"labels": "classes"}, cross_entropy, "single_label_classification"),
    f"{_CLASSIFIER}, multi_label": Architecture(
        _LOGITS, {"labels": "multi_label"}, binary_cross_entropy, "multi_label_classification"
    ),
    f"{_CLASSIFIER}, regression": Architecture(
        _LOGITS, {"labels": "numbers"}, lambda out, numbers: squared_error(out[:, 0], numbers), "regression"
    ),
    "BertForTokenClassification": Architecture(_LOGITS, {"labels": "tags"}, for_tokens=1),
    "BertForMultipleChoice": Architecture(_LOGITS, {"labels": "choices"}),
    "BertForQuestionAnswering": Architecture(("start_logits", "end_logits"), _SPANS, span_cross_entropy, for_tokens=2),
}


def example_batch(config: ModelConfig, lengths: list[int], labels: int = 3, seed: int = 1) -> Values:
    """Returns a padded batch of random tokens, both token types, and labels for every task.

    Args:
      config: the architecture.
      lengths: tokens of each row, [B]; L is the largest.
      labels: C.
      seed: of the draws.

    Returns:
      input_ids, token_type_ids, attention_mask int32 [B, L]; tokens and tags int32 [B, L], next_sentence, classes,
      choices, starts and ends int32 [B], multi_label float32 [B, C], numbers float32 [B]. A label of -1 does not count.
    """
    rng = np.random.default_rng(seed)
    rows, length = len(lengths), max(lengths)
    inside = np.arange(length) < np.array(lengths)[:, None]
    first = np.array([rng.integers(1, count) for count in lengths])
    ids = np.where(inside, rng.integers(1, config.vocab_size, (rows, length)), 0)
    starts = np.array([rng.integers(0, count) for count in lengths])
    batch = {
        "input_ids": ids,
        "token_type_ids": (np.arange(length) >= first[:, None]) & inside & (config.type_vocab_size > 1),
        "attention_mask": inside,
        "tokens": np.where(
            inside & (rng.random((rows, length)) < 0.3), rng.integers(0, config.vocab_size, ids.shape), -1
        ),
        "tags": np.where(inside & (rng.random((rows, length)) < 0.7), rng.integers(0, labels, ids.shape), -1),
        "next_sentence": rng.integers(0, 2, rows),
        "classes": rng.integers(0, labels, rows),
        "choices": rng.integers(0, 2, rows // 2),  # of rows taken in pairs
        "starts": starts,
        "ends": np.array([rng.integers(start, count) for start, count in zip(starts, lengths, strict=True)]),
    }
    return {name: np.asarray(value, np.int32) for name, value in batch.items()} | {
        "multi_label": rng.integers(0, 2, (rows, labels)).astype(np.float32),
        "numbers": rng.normal(size=rows).astype(np.float32),
    }


def jax_values(model: Pretrained, name: str, batch: Batch, dtype: Any = jnp.float32) -> Values:
    """Returns hidden states, attentions, pooled state, outputs, loss and gradients of a task of `TASKS`, by name.

    Everything that has a place for each token is given at real tokens only: padding does not matter.
    """
    task, architecture = TASKS[name], name.split(",")[0]
    inside = batch["attention_mask"] > 0
    rows, length = inside.shape
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), inside.shape)
    arrays = {key: jnp.asarray(array) for key, array in batch.items()}
    inputs = Inputs(arrays["input_ids"], arrays["token_type_ids"], jnp.asarray(positions), arrays["attention_mask"])
    execution, starts = Execution.here(jnp.dtype(dtype).name), jnp.zeros((rows, 1), jnp.int32)
    extra: dict[str, Any] = {}
    if architecture == "BertForMultipleChoice":
        inputs = inputs.map(lambda array: array.reshape(-1, 2, length))
    elif architecture not in ("BertForTokenClassification", "BertForQuestionAnswering", "BertForMaskedLM"):
        extra["sequence_starts"] = starts
    if architecture in ("BertForPreTraining", "BertForMaskedLM"):
        extra["masked_positions"] = positions
    labels = {"labels": len(model.labels)} if model.labels else {}
    network = getattr(heads, architecture)(model.config, **labels, execution=execution)

    def loss(params: dict) -> tuple[jax.Array, tuple]:
        out, states = apply_and_collect(network, params, inputs, **extra)
        out, pooled = list(out) if isinstance(out, tuple) else [out], None
        out[task.for_tokens :] = [each.reshape(len(each), -1) for each in out[task.for_tokens :]]  # one sequence a row
        if "pooler" in body(params):
            bert = Bert(model.config, execution)
            pooled = apply(bert, body(params), states.hidden[-1], starts, method="pool")[:, 0]
        means = task.loss(*out, *(arrays[label] for label in task.labels.values()))
        means = [means] if isinstance(means, Mean) else means
        return jnp.stack([mean.total / mean.count for mean in means]).sum(), (out, states, pooled)

    (total, (out, states, pooled)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
    values = {"hidden states 0": states.embedded}
    for index, (hidden, probabilities) in enumerate(zip(states.hidden, states.attentions, strict=True), 1):
        values[f"hidden states {index}"] = hidden
        values[f"attentions {index}"] = probabilities.swapaxes(1, 2)
    values |= dict(zip(task.outputs, out, strict=True))
    values = task.at_tokens({name: np.asarray(array, np.float32) for name, array in values.items()}, inside)
    values |= {"loss": np.asarray(total)} | ({} if pooled is None else {"pooled": np.asarray(pooled, np.float32)})
    gradients = disassemble(dataclasses.replace(model, params=jax.device_get(gradients)))
    return values | {f"gradient of {name}": array for name, array in gradients.items()}


def torch_values(
    directory: str | os.PathLike, name: str, batch: Batch, dtype: str = "float32", device: str = "cpu"
) -> Values:
    """Returns the same quantities from `transformers`, which loads the folder itself.

    Args:
      directory: in Hugging Face layout.
      name: of `TASKS`.
      batch: see `example_batch`.
      dtype: float64 or float32 throughout, or bfloat16 by autocast on float32 weights.
      device: PyTorch's name of it.

    Raises:
      UserError: PyTorch or transformers is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"{error.name} is needed to compare with: pip install torch transformers") from error
    task, architecture = TASKS[name], name.split(",")[0]
    transformers.utils.logging.disable_progress_bar()
    network = getattr(transformers, architecture).from_pretrained(directory, attn_implementation="eager")
    network = network.to(device, torch.float64 if dtype == "float64" else torch.float32).eval()
    inside = batch["attention_mask"] > 0

    def tensor(array: np.ndarray) -> Any:
        if np.issubdtype(array.dtype, np.floating):
            return torch.tensor(array, dtype=network.dtype, device=device)
        return torch.tensor(np.where(array < 0, -100, array), dtype=torch.long, device=device)  # as PyTorch passes over

    inputs = {key: tensor(batch[key]) for key in ("input_ids", "token_type_ids", "attention_mask")}
    if architecture == "BertForMultipleChoice":
        inputs = {key: value.reshape(-1, 2, value.shape[1]) for key, value in inputs.items()}
    labels = {key: tensor(batch[label]) for key, label in task.labels.items()}
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=dtype == "bfloat16"):
        output = network(**inputs, **labels, output_hidden_states=True, output_attentions=True)
        loss: Any = output.loss
        if architecture == "BertForQuestionAnswering":
            # With padding out of the softmax, as here; without padding it is PyTorch's own to the bit.
            outside = torch.tensor(~inside, device=device)
            logits = [output[key].masked_fill(outside, torch.finfo(output[key].dtype).min) for key in task.outputs]
            loss = sum(map(torch.nn.functional.cross_entropy, logits, labels.values())) / 2
        pooled = network.bert.pooler(output.hidden_states[-1]) if network.bert.pooler is not None else None
    loss.backward()
    array = lambda tensor: tensor.detach().cpu().to(torch.float64).numpy()  # noqa: E731
    values = {f"hidden states {index}": array(state) for index, state in enumerate(output.hidden_states)}
    for index, probabilities in enumerate(output.attentions, 1):
        values[f"attentions {index}"] = array(probabilities).swapaxes(1, 2)
    values = task.at_tokens(values | {key: array(output[key]) for key in task.outputs}, inside)
    values |= {"loss": array(loss)} | ({} if pooled is None else {"pooled": array(pooled)})
    gradients = {key: value.grad for key, value in network.named_parameters() if value.grad is not None}
    return values | {f"gradient of {key}": array(value) for key, value in gradients.items()}


def differences(got: Values, want: Values) -> dict[str, float]:
    """Returns the norm of the difference over the norm of what is wanted, for each of the wanted quantities.

    Some biases have a gradient of zero, because a constant added to every score changes no softmax: a key's, those of
    question answering and multiple choice. What either side computes there is rounding; it is measured against the
    gradient of the same module's weight.
    """
    shares = {}
    for name, reference in want.items():
        scale, weight = np.linalg.norm(reference), want.get(name.replace(".bias", ".weight"), reference)
        if scale < 1e-5 * np.linalg.norm(weight):
            scale = np.linalg.norm(weight)
        value = got[name].reshape(reference.shape).astype(np.float64)
        shares[name] = float(np.linalg.norm(value - reference) / scale)
    return shares


def beyond_tolerance(shares: dict[str, float]) -> dict[str, float]:
    """Returns the differences that are larger than float32 allows; not a number counts as such."""
    return {
        name: value
        for name, value in shares.items()
        if not value <= (GRADIENT_TOLERANCE if name.startswith("gradient") else OUTPUT_TOLERANCE)
    }
