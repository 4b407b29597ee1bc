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


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Describes a class of Hugging Face's, the one of the same name here, and the loss of both.

    Attributes:
      loss: (outputs here, batch) -> the means whose sum is the loss.
      outputs: those of PyTorch, by name, in the order of those here.
      for_tokens: those that have a place for each token, [B, L, ...].
      labels: PyTorch's arguments, and the arrays of the batch that they take.
      problem_type: of a sequence classification.
    """

    loss: Callable[[tuple[jax.Array, ...], Any], list[Mean]]
    outputs: tuple[str, ...]
    labels: dict[str, str]
    problem_type: str = ""
    for_tokens: tuple[str, ...] = ()

    def at_tokens(self, values: Values, inside: np.ndarray) -> Values:
        """Returns states, attentions and outputs at real tokens only: [tokens, ...] where there was [B, L, ...]."""
        whole = set(self.outputs) - set(self.for_tokens)
        return {name: array if name in whole else array[inside] for name, array in values.items()}


_CLASSES = {"labels": "classes"}
TASKS: dict[str, Architecture] = {
    "BertForPreTraining": Architecture(
        lambda out, batch: [
            cross_entropy(out[0], batch["tokens"]),
            cross_entropy(out[1][:, 0], batch["next_sentence"]),
        ],
        ("prediction_logits", "seq_relationship_logits"),
        {"labels": "tokens", "next_sentence_label": "next_sentence"},
        for_tokens=("prediction_logits",),
    ),
    "BertForMaskedLM": Architecture(
        lambda out, batch: [cross_entropy(out[0], batch["tokens"])],
        ("logits",),
        {"labels": "tokens"},
        for_tokens=("logits",),
    ),
    "BertForNextSentencePrediction": Architecture(
        lambda out, batch: [cross_entropy(out[0][:, 0], batch["next_sentence"])],
        ("logits",),
        {"labels": "next_sentence"},
    ),
    "BertForSequenceClassification": Architecture(
        lambda out, batch: [cross_entropy(out[0][:, 0], batch["classes"])],
        ("logits",),
        _CLASSES,
        "single_label_classification",
    ),
    "BertForSequenceClassification, multi_label": Architecture(
        lambda out, batch: [binary_cross_entropy(out[0][:, 0], batch["multi_label"])],
        ("logits",),
        {"labels": "multi_label"},
        "multi_label_classification",
    ),
    "BertForSequenceClassification, regression": Architecture(
        lambda out, batch: [squared_error(out[0][:, 0, 0], batch["numbers"])],
        ("logits",),
        {"labels": "numbers"},
        "regression",
    ),
    "BertForTokenClassification": Architecture(
        lambda out, batch: [cross_entropy(out[0], batch["tags"])],
        ("logits",),
        {"labels": "tags"},
        for_tokens=("logits",),
    ),
    "BertForMultipleChoice": Architecture(
        lambda out, batch: [cross_entropy(out[0], batch["choices"])], ("logits",), {"labels": "choices"}
    ),
    "BertForQuestionAnswering": Architecture(
        lambda out, batch: [span_cross_entropy(out[0], out[1], batch["starts"], batch["ends"])],
        ("start_logits", "end_logits"),
        {"start_positions": "starts", "end_positions": "ends"},
        for_tokens=("start_logits", "end_logits"),
    ),
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
    shape = inside.shape
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    arrays = {key: jnp.asarray(array) for key, array in batch.items()}
    tokens = arrays["input_ids"], arrays["token_type_ids"], jnp.asarray(positions), arrays["attention_mask"]
    inputs = Inputs(*tokens)
    execution = Execution.here(jnp.dtype(dtype).name)
    extra: dict[str, Any] = {}
    if architecture == "BertForMultipleChoice":
        inputs = inputs.map(lambda array: array.reshape(-1, 2, shape[1]))
    elif architecture not in ("BertForTokenClassification", "BertForQuestionAnswering", "BertForMaskedLM"):
        extra["sequence_starts"] = np.zeros((len(inside), 1), np.int32)
    if architecture in ("BertForPreTraining", "BertForMaskedLM"):
        extra["masked_positions"] = positions
    labels = {"labels": len(model.labels)} if model.labels else {}
    network = getattr(heads, architecture)(model.config, **labels, execution=execution)

    def loss(params: dict) -> tuple[jax.Array, tuple]:
        out, states = apply_and_collect(network, params, inputs, **extra)
        out, pooled = out if isinstance(out, tuple) else (out,), None
        if "pooler" in body(params):
            starts = jnp.zeros((shape[0], 1), jnp.int32)
            bert = Bert(model.config, execution)
            pooled = apply(bert, body(params), states.hidden[-1], starts, method="pool")[:, 0]
        means = [mean.total / mean.count for mean in task.loss(out, arrays)]
        return jnp.stack(means).sum(), (out, states, pooled)

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
    inputs, labels = _torch_arguments(task, architecture, batch, network)
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=dtype == "bfloat16"):
        output = network(**inputs, **labels, output_hidden_states=True, output_attentions=True)
        loss = _span_loss(output, inside, labels) if architecture == "BertForQuestionAnswering" else output.loss
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


def _torch_arguments(task: Architecture, architecture: str, batch: Batch, network: Any) -> tuple[dict, dict]:
    """Returns inputs and labels as PyTorch tensors; a label of -1 is -100 there."""
    import torch

    device, dtype = network.device, network.dtype
    inputs = {
        key: torch.tensor(batch[key], dtype=torch.long, device=device)
        for key in ("input_ids", "token_type_ids", "attention_mask")
    }
    if architecture == "BertForMultipleChoice":
        inputs = {key: value.reshape(-1, 2, value.shape[1]) for key, value in inputs.items()}
    labels = {}
    for key, label in task.labels.items():
        if np.issubdtype(batch[label].dtype, np.floating):
            labels[key] = torch.tensor(batch[label], dtype=dtype, device=device)
        else:
            labels[key] = torch.tensor(np.where(batch[label] < 0, -100, batch[label]), dtype=torch.long, device=device)
    return inputs, labels


def _span_loss(output: Any, inside: np.ndarray, labels: dict[str, Any]) -> Any:
    """Returns PyTorch's loss with padding out of the softmax, as here; without padding it is its own to the bit."""
    import torch

    outside = torch.tensor(~inside, device=output.start_logits.device)
    losses = [
        torch.nn.functional.cross_entropy(logits.masked_fill(outside, torch.finfo(logits.dtype).min), positions)
        for logits, positions in (
            (output.start_logits, labels["start_positions"]),
            (output.end_logits, labels["end_positions"]),
        )
    ]
    return sum(losses) / 2


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
