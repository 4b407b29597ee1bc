"""How fast texts of mixed lengths become vectors, beside `transformers` in PyTorch: from strings to float32 [N, D].

The same weights, texts and batch size, mean pooling, no gradients; the vectors are compared before anything is timed.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import JaxEmbedding, JaxExported, describe_attention
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.torch_side import EmbeddingVariant, TorchEmbedding
from bert_jax.errors import UserError
from bert_jax.experiments.parity import OUTPUT_TOLERANCE
from bert_jax.inference import export
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import Pretrained
from bert_jax.model.parameters import BODY, body
from bert_jax.runtime.machine import cores
from bert_jax.tasks.batches import TOKENS_A_CORE
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import Tokenizer

# Beside `Model.embed` in the type of all sides. PyTorch has no peer of the first: its int8 multiplies in eight bits,
# that of bert_jax keeps the matrices in them, for the memory.
JAX = "bert_jax"
IN_INT8 = "bert_jax, int8 matrices, bfloat16"
EXPORTED = "bert_jax, exported program, float32"
IN_CACHE = TOKENS_A_CORE * cores()  # as `Model.embed` has it on a CPU
_EVERYWHERE = (EmbeddingVariant(), EmbeddingVariant(by_length=False), EmbeddingVariant(compiled=True))
_IN_CACHE = tuple(EmbeddingVariant(max_tokens=IN_CACHE, compiled=compiled) for compiled in (False, True))
_FLASH = tuple(EmbeddingVariant("flash_attention_2", compiled=compiled) for compiled in (False, True))
EMBEDDING_VARIANTS = {
    "cpu": (*_EVERYWHERE, EmbeddingVariant("eager"), *_IN_CACHE),
    "gpu": (*_EVERYWHERE, *_FLASH),
}


def inference_suite(model: str, *, source: str, texts: int, batch_size: int, dtype: str, rounds: int) -> Results:
    """Measures all sides on texts drawn evenly from a source.

    Raises:
      UserError: no model, or fewer texts than asked for; PyTorch is missing; or the vectors differ.
    """
    if not model:
        raise UserError("suite inference needs a model: set --model=MODEL")
    chosen, dtype = evenly_chosen(source, texts), harness.chosen_dtype(dtype)
    whole, tokenizer = pretrained.load_pretrained(model)
    encoded = tokenizer.encode_inputs(chosen, whole.config.max_position_embeddings)
    lengths = [len(ids) for ids, *_ in encoded]
    case = f"{texts:,} texts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on average"
    metadata = {"dtype": dtype, "dropout": 0.0, "model": model, "source": source, "batch_size": batch_size}
    results = Results("inference", "Texts to vectors", "tokens_per_second", metadata)
    with tempfile.TemporaryDirectory() as folder:
        makes, dtypes = side_makers(Path(folder), whole, tokenizer, dtype, chosen, batch_size)
        vectors: list[np.ndarray] = []

        def check(name: str, metadata: dict) -> None:
            vectors.append(metadata["vectors"])
            try:
                check_same_vectors(name, vectors[0], vectors[-1], {dtype, dtypes[name]})
            except UserError as error:  # of some models eight bits are too few
                raise (harness.SideError(str(error)) if name == IN_INT8 else error) from error

        peaks = {its_dtype: harness.peak_flops(its_dtype) for its_dtype in set(dtypes.values())}
        flops = harness.step_flops(whole.config, lengths, predicted=0) / 3  # forward is a third of a step
        ideal = {name: flops / peaks[its_dtype] for name, its_dtype in dtypes.items()}
        harness.compare(results, case, makes, rounds, check, amounts=dict.fromkeys(makes, sum(lengths)), ideal=ideal)
    results.metadata["peak_flops"] = peaks
    kernel = describe_attention(whole.config, dtype, max(lengths), 1)
    results.notes[case] = f"batches of {batch_size} at most, {dtype}; {kernel}"
    return results


def side_makers(
    folder: Path, whole: Pretrained, tokenizer: Tokenizer, dtype: str, texts: list[str], batch_size: int
) -> tuple[dict[str, harness.Make], dict[str, str]]:
    """Writes a model and its exported body into `folder`; returns by name what makes a side, and its products' type."""
    huggingface.save(folder / "model", whole, tokenizer)
    export.save(folder / "exported", Pretrained({BODY: body(whole.params)}, whole.config), tokenizer)
    model_folder, work = folder / "model", (texts, batch_size)
    makes: dict[str, harness.Make] = {
        JAX: functools.partial(JaxEmbedding, model_folder, dtype, *work),
        IN_INT8: functools.partial(JaxEmbedding, model_folder, "int8", *work),
        EXPORTED: functools.partial(JaxExported, folder / "exported", *work),
    }
    for variant in EMBEDDING_VARIANTS["gpu" if harness.on_gpu() else "cpu"]:
        makes[variant.name] = functools.partial(TorchEmbedding, variant, model_folder, dtype, *work)
    return makes, dict.fromkeys(makes, dtype) | {IN_INT8: "bfloat16", EXPORTED: "float32"}


def evenly_chosen(source: str, number: int) -> list[str]:
    """Returns so many texts of a source, at equal distances: of each kind, if it has several one after the other."""
    documents = list(Documents(source))
    if len(documents) < number:
        raise UserError(f"{source} has {len(documents):,} texts: set --texts to no more")
    return [documents[index * len(documents) // number] for index in range(number)]


def check_same_vectors(name: str, reference: np.ndarray, vectors: np.ndarray, types: set[str]) -> None:
    """Raises UserError unless both sides make the same of each text; `types`: of the products of both."""
    difference = harness.share_of_largest(reference, vectors)
    if not difference <= (OUTPUT_TOLERANCE if types == {"float32"} else harness.BFLOAT16_TOLERANCE):
        raise UserError(f"{name} does not give the vectors of bert_jax: they differ by {difference:.2g} of the largest")
