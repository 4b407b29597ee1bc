"""A model as one StableHLO file, which runs with JAX alone: weights inside, batch size and length free."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.interop.layout import Pretrained
from bert_jax.model import heads
from bert_jax.model.encoder import Bert
from bert_jax.model.inputs import Inputs
from bert_jax.model.parameters import POOLER, apply, body, part_names
from bert_jax.runtime.execution import Execution
from bert_jax.runtime.files import claim, refuse_foreign, write_whole
from bert_jax.tasks.table import TASKS
from bert_jax.text.tokenizer import FILES as TOKENIZER_FILES
from bert_jax.text.tokenizer import Tokenizer

FILES = ("model.stablehlo", "signature.json")
PLATFORMS = ("cpu", "cuda", "tpu")
INPUTS = ("input_ids", "token_type_ids", "attention_mask")  # of `transformers`
# By the head that each puts on the body; kinds of one head differ in what they make of its outputs.
_KIND_OF_HEAD = {task.kind.head: task.kind for task in TASKS.values()}


def save(directory: str | os.PathLike, model: Pretrained, tokenizer: Tokenizer) -> dict[str, list]:
    """Writes model.stablehlo, signature.json (what goes in and comes out) and the tokenizer.

    The program takes three int32 [B, L] in the order of `INPUTS` and returns a dict: `last_hidden_state` [B, L, D] and
    `pooler_output` [B, D] of the body alone; else `logits` ([B, L, V] of masked LM, [B, C] of classes and numbers,
    [B, L, C] of tags, [B] of choices), `next_sentence_logits` [B, 2], `start_logits` and `end_logits` [B, L]. float32.

    Returns:
      The shape of each output.

    Raises:
      OSError: the folder cannot be written.
      UserError: it holds files of these names that are not ours.
    """
    folder = Path(directory)
    refuse_foreign(folder, "program", FILES)
    refuse_foreign(folder, "tokenizer", TOKENIZER_FILES)
    program = exported(model)
    claim(folder, "program", FILES)
    write_whole(folder / "model.stablehlo", bytes(program.serialize()))
    out = jax.tree.unflatten(program.out_tree, program.out_avals)
    outputs = {name: [str(size) for size in output.shape] for name, output in out.items()}
    signature = {"inputs": {name: ["b", "l"] for name in INPUTS}, "outputs": outputs, "labels": list(model.labels)}
    signature |= {"platforms": list(PLATFORMS), "longest": model.config.max_position_embeddings}
    write_whole(folder / "signature.json", json.dumps(signature, indent=2) + "\n")
    tokenizer.save(folder)
    return outputs


def exported(model: Pretrained) -> jax.export.Exported:
    """Lowers the forward pass without dropout for `PLATFORMS`."""
    config = dataclasses.replace(model.config, attention="plain")
    params = jax.tree.map(jnp.asarray, model.params)
    labels = max(1, len(model.labels))

    def forward(input_ids: jax.Array, token_type_ids: jax.Array, attention_mask: jax.Array) -> dict[str, jax.Array]:
        positions = jnp.broadcast_to(jnp.arange(input_ids.shape[1], dtype=jnp.int32), input_ids.shape)
        return outputs(config, params, labels, Inputs(input_ids, token_type_ids, positions, attention_mask))

    scope = jax.export.SymbolicScope([f"l <= {config.max_position_embeddings}"])
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, l", scope=scope), jnp.int32)
    return jax.export.export(jax.jit(forward), platforms=PLATFORMS)(shape, shape, shape)


def outputs(config: ModelConfig, params: dict, labels: int, inputs: Inputs) -> dict[str, jax.Array]:
    """Returns what `save` says."""
    parts, positions = part_names(params), inputs.position_ids
    starts = jnp.zeros_like(positions[:, :1])
    for head in parts & _KIND_OF_HEAD.keys():
        kind = _KIND_OF_HEAD[head]
        return kind.exported_outputs(kind.network(config, labels, Execution()), {"params": params}, vars(inputs))
    if {"masked_language_model", "next_sentence"} <= parts:
        network = heads.BertForPreTraining(config)
        logits, pairs = apply(network, params, inputs, sequence_starts=starts, masked_positions=positions)
        return {"logits": logits, "next_sentence_logits": pairs[:, 0]}
    if "masked_language_model" in parts:
        return {"logits": apply(heads.BertForMaskedLM(config), params, inputs, masked_positions=positions)}
    if "next_sentence" in parts:
        network = heads.BertForNextSentencePrediction(config)
        return {"next_sentence_logits": apply(network, params, inputs, sequence_starts=starts)[:, 0]}
    bert, weights = Bert(config), body(params)
    hidden = apply(bert, weights, inputs, max_sequences=1)
    pooled = {"pooler_output": apply(bert, weights, hidden, starts, method="pool")[:, 0]} if POOLER in parts else {}
    return {"last_hidden_state": hidden, **pooled}
