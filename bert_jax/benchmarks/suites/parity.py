"""How far bert_jax and PyTorch are from PyTorch in float64, in float32 and bfloat16 on this machine's device."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import numbered_vocabulary
from bert_jax.benchmarks.record import Results
from bert_jax.config import model_config
from bert_jax.experiments.parity import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    differences,
    example_batch,
    jax_values,
    torch_values,
)
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import Pretrained, with_heads
from bert_jax.model import heads
from bert_jax.model.inputs import Inputs
from bert_jax.text.tokenizer import Tokenizer

TASK = "BertForPreTraining"


def parity_suite(model: str) -> Results:
    """Measures how far each quantity is off: norm of the difference over the tensor's, the largest of all layers.

    Heads of pre-training that the model lacks are drawn; without a model, all weights of one of the size mini.
    """
    pretrained_model, tokenizer = model_to_compare(model)
    length = min(128, pretrained_model.config.max_position_embeddings)
    batch = example_batch(pretrained_model.config, [length, *range(3, length, max(1, length // 7))])
    device = "cuda" if harness.on_gpu() and _has_cuda() else "cpu"
    shape = f"{len(batch['input_ids'])} rows of up to {length} tokens"
    metadata = {"model": model or "random", "batch": shape, "pytorch_device": device}
    results = Results("parity", "Distance from PyTorch in float64", "", metadata)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        huggingface.save(directory, pretrained_model, tokenizer)
        wanted = torch_values(directory, TASK, batch, "float64")
        for dtype in ("float32", "bfloat16"):
            for side, values in (
                ("bert_jax", jax_values(pretrained_model, TASK, batch, jnp.dtype(dtype))),
                ("PyTorch", torch_values(directory, TASK, batch, dtype, device)),
            ):
                for quantity, difference in largest(differences(values, wanted)).items():
                    results.add(quantity, f"{side} {dtype}", difference=difference)
    note_verdicts(results)
    return results


def model_to_compare(model: str) -> tuple[Pretrained, Tokenizer]:
    """Returns MODEL with both heads of pre-training, or random weights, and its vocabulary."""
    config = model_config("mini")
    if model:
        loaded, tokenizer = pretrained.load_pretrained(model)
        config = loaded.config
    else:
        tokenizer = numbered_vocabulary(config.vocab_size)
    ids, starts = jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 1), jnp.int32)
    init = functools.partial(heads.BertForPreTraining(config).init, sequence_starts=starts, masked_positions=starts)
    drawn = jax.device_get(jax.jit(init)(jax.random.key(0), Inputs(ids, ids, ids, ids))["params"])
    return Pretrained(with_heads(model, loaded.params, drawn) if model else drawn, config), tokenizer


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def largest(of_tensors: dict[str, float]) -> dict[str, float]:
    """Returns the largest difference among the layers and among the parameters."""
    groups: dict[str, float] = {}
    for name, value in of_tensors.items():
        group = "gradients" if name.startswith("gradient") else name.rstrip(" 0123456789")
        groups[group] = float(np.maximum(groups.get(group, 0.0), value))  # which keeps what is not a number
    return groups


def note_verdicts(results: Results) -> None:
    """Notes of each quantity whether float32 is within the tolerances of the tests."""
    for quantity in results.cases():
        limit = GRADIENT_TOLERANCE if quantity == "gradients" else OUTPUT_TOLERANCE
        within = results.value(quantity, "bert_jax float32", "difference") <= limit
        results.notes[quantity] = f"float32 {'within' if within else 'BEYOND'} {limit:.0e}"
