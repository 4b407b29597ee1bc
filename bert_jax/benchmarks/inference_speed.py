"""How fast texts of mixed lengths become vectors, beside `transformers` in PyTorch: from strings to float32 [N, D].

The same weights, texts and batch size, mean pooling, no gradients; the vectors are compared before anything is timed.
Each side in its own process, in turns.
"""

import contextlib
import dataclasses
import functools
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bert_jax
from bert_jax.benchmarks.training_speed import chosen_dtype, comparison, peak_flops, step_flops
from bert_jax.benchmarks.turns import Side, SideError, SideProcess, in_turns, started
from bert_jax.errors import UserError
from bert_jax.experiments.parity import OUTPUT_TOLERANCE
from bert_jax.finetuning.batches import TOKENS_A_CORE
from bert_jax.inference import export
from bert_jax.inference.rows import Row, row_batches
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import Pretrained
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.model.parameters import BODY, body
from bert_jax.runtime.machine import cores
from bert_jax.text.sources import Documents
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run theirs.

    Attributes:
      attention: as `transformers` names it.
      by_length: texts are sorted by length first, so that batches have next to no padding.
      compiled: by torch.compile, for shapes of any length.
      most_tokens: of a batch, padding included; 0: any number. On a CPU few are faster.
    """

    attention: str = "sdpa"
    by_length: bool = True
    compiled: bool = False
    most_tokens: int = 0

    @property
    def name(self) -> str:
        order = "by length" if self.by_length else "in their order"
        several = f", {self.most_tokens:,} tokens at once" if self.most_tokens else ""
        return f"PyTorch {self.attention}, texts {order}{several}" + (", compiled" if self.compiled else "")


IN_CACHE = TOKENS_A_CORE * cores()  # as `Model.embed` has it on a CPU
WAYS = {
    "cpu": (
        Way(),
        Way("eager"),
        Way(by_length=False),
        Way(compiled=True),
        Way(most_tokens=IN_CACHE),
        Way(most_tokens=IN_CACHE, compiled=True),
    ),
    "gpu": (
        Way(),
        Way(by_length=False),
        Way(compiled=True),
        Way("flash_attention_2"),
        Way("flash_attention_2", compiled=True),
    ),
}
# Beside `Model.embed` in the type of both sides. PyTorch has no peer of the first: its int8 multiplies in eight bits,
# ours keeps the matrices in them, for the memory.
OURS = "bert_jax"
IN_INT8 = "bert_jax, int8 matrices, bfloat16"
EXPORTED = "bert_jax, exported program, float32"


class Ours:
    """`Model.embed`."""

    def __init__(self, folder: Path, dtype: str, texts: list[str], batch_size: int) -> None:
        """Compiles what the texts need."""
        self.model, self.texts, self.batch_size = bert_jax.load(str(folder), dtype), texts, batch_size
        config, begin = self.model.config, time.perf_counter()
        self.facts = {"vectors": self.turn(), "first_seconds": time.perf_counter() - begin, "config": config}
        encoded = self.model.tokenizer.encode_inputs(texts, config.max_position_embeddings)
        self.facts["lengths"] = lengths = [len(ids) for ids, *_ in encoded]
        self.facts["attention"] = describe_kernel(config, self.model.execution, max(lengths), 1)
        self.facts["parameter_bytes"] = sum(leaf.nbytes for leaf in jax.tree.leaves(self.model.params))

    def turn(self) -> np.ndarray:
        return self.model.embed(self.texts, batch_size=self.batch_size)

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has had of its device, where JAX tells: not on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


class Exported:
    """The program of `convert.py --format=stablehlo`, as a server runs it, on the batches of `Model.embed`."""

    def __init__(self, folder: Path, texts: list[str], batch_size: int) -> None:
        """Compiles what the texts need of the program in `folder`."""
        self.forward = jax.jit(jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes())).call)
        self.longest = json.loads((folder / "signature.json").read_text())["longest"]
        self.tokenizer, self.texts, self.batch_size = Tokenizer.load(folder), texts, batch_size
        begin = time.perf_counter()
        self.facts = {"vectors": self.turn(), "first_seconds": time.perf_counter() - begin}

    def turn(self) -> np.ndarray:
        encoded = self.tokenizer.encode_inputs(self.texts, self.longest)
        rows, found = [Row(each.ids, len(each.ids), []) for each in encoded], {}
        batching = self.batch_size, self.tokenizer.pad_id, self.longest, jax.default_backend()
        for numbers, (ids, lengths, _), _ in row_batches(rows, *batching):
            mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)
            hidden = np.asarray(self.forward(ids, np.zeros_like(ids), mask)["last_hidden_state"])
            sums = np.einsum("bld,bl->bd", hidden, mask)
            found |= {number: sums[row] / lengths[row] for row, number in enumerate(numbers)}
        return np.stack([found[number] for number in range(len(rows))])

    def device_peak_bytes(self) -> int | None:
        """As of `Ours`."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


class Theirs:
    """What an expert writes: fast tokenizer, batches padded to their longest, inference mode."""

    def __init__(self, way: Way, folder: Path, dtype: str, texts: list[str], batch_size: int) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(f"{error.name} is needed to compare with: pip install torch transformers") from error
        self.way, self.texts, self.batch_size = way, texts, batch_size
        self.device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
        torch.set_float32_matmul_precision("highest")
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()  # it tells of each head that the body does without
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        network = transformers.BertModel.from_pretrained(folder, attn_implementation=way.attention)
        self.longest = network.config.max_position_embeddings
        self.network = network.to(self.device, getattr(torch, dtype)).eval()
        self.forward = torch.compile(self.network, dynamic=True) if way.compiled else self.network
        begin = time.perf_counter()
        self.facts = {"vectors": self.turn(), "first_seconds": time.perf_counter() - begin}

    def turn(self) -> np.ndarray:
        import torch

        ids = self.tokenizer(self.texts, truncation=True, max_length=self.longest)["input_ids"]
        order = list(range(len(ids)))
        if self.way.by_length:
            order.sort(key=lambda number: -len(ids[number]))
        vectors = np.zeros((len(ids), self.network.config.hidden_size), np.float32)
        with torch.inference_mode():
            while order:
                most = self.way.most_tokens // len(ids[order[0]]) or 1 if self.way.most_tokens else self.batch_size
                chosen, order = order[: min(most, self.batch_size)], order[min(most, self.batch_size) :]
                inputs = self.tokenizer.pad({"input_ids": [ids[number] for number in chosen]}, return_tensors="pt")
                mask = inputs["attention_mask"].to(self.device)
                hidden = self.forward(inputs["input_ids"].to(self.device), attention_mask=mask).last_hidden_state
                pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
                vectors[chosen] = pooled.float().cpu().numpy()
        return vectors

    def device_peak_bytes(self) -> int | None:
        """The most memory that it has had of a GPU."""
        import torch

        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None


def inference_suite(
    _workdir: Path, model: str, *, source: str, texts: int, batch_size: int, dtype: str, rounds: int
) -> tuple[str, dict]:
    """Both sides on texts drawn evenly from a source.

    Args:
      model: MODEL.
      source: SOURCE.
      texts: how many.
      batch_size: texts at once.
      dtype: float32 or bfloat16, in which both compute; auto: bfloat16 on a GPU, else float32.
      rounds: turns of each side.

    Raises:
      UserError: no model, or fewer texts than asked for; PyTorch is missing; or the vectors differ.
    """
    if not model:
        raise UserError("suite inference needs a model: set --model=MODEL")
    chosen = evenly_chosen(source, texts)
    dtype = chosen_dtype(dtype)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        makes = prepared(folder, model, dtype, chosen, batch_size)
        sides, left_out = checked_sides(stack, makes)
        times = in_turns(sides, rounds, left_out=left_out)
        peak_bytes = {name: sides[name].peak_bytes() for name in times}
    facts = {name: sides[name].facts for name in times}
    lengths, config = facts[OURS]["lengths"], facts[OURS]["config"]
    peaks = {its_dtype: peak_flops(its_dtype) for its_dtype in {makes[name][1] for name in times}}
    flops = step_flops(config, lengths, predicted=0) / 3  # forward is a third of a step
    ideal = {name: flops / peaks[makes[name][1]] for name in times}
    figures: dict[str, Any] = {
        "dtype": dtype,
        "dropout": 0.0,
        "attention": facts[OURS]["attention"],
        "texts": len(lengths),
        "batch_size": batch_size,
        "tokens": {"mean": float(np.mean(lengths)), "least": min(lengths), "most": max(lengths)},
        "peak_flops": peaks,
        "first_seconds": {name: each["first_seconds"] for name, each in facts.items()},
        "peak_bytes": peak_bytes,
        "parameter_bytes": {name: facts[name]["parameter_bytes"] for name in (OURS, IN_INT8) if name in facts},
        "left_out": left_out,
        **comparison(times, 1, dict.fromkeys(times, sum(lengths)), ideal),
    }
    return inference_table(figures), figures


def prepared(
    folder: Path, model: str, dtype: str, texts: list[str], batch_size: int
) -> dict[str, tuple[Callable[[], Side], str]]:
    """Writes MODEL and its exported body into `folder`; by name what makes a side, and the type of its products."""
    whole, tokenizer = pretrained.load_pretrained(model)
    huggingface.save(folder / "model", whole, tokenizer)
    export.save(folder / "exported", Pretrained({BODY: body(whole.params)}, whole.config), tokenizer)
    backend, work = "gpu" if jax.default_backend() == "gpu" else "cpu", (texts, batch_size)
    return {
        OURS: (functools.partial(Ours, folder / "model", dtype, *work), dtype),
        IN_INT8: (functools.partial(Ours, folder / "model", "int8", *work), "bfloat16"),
        EXPORTED: (functools.partial(Exported, folder / "exported", *work), "float32"),
        **{way.name: (functools.partial(Theirs, way, folder / "model", dtype, *work), dtype) for way in WAYS[backend]},
    }


def checked_sides(
    stack: contextlib.ExitStack, makes: dict[str, tuple[Callable[[], Side], str]]
) -> tuple[dict[str, SideProcess], dict[str, str]]:
    """Starts the sides that can be, which make the same vectors as the first; and why the others are left out."""
    sides: dict[str, SideProcess] = {}
    left_out: dict[str, str] = {}
    for name, (make, dtype) in makes.items():
        try:
            side = stack.enter_context(started(make))
        except SideError as error:  # a kernel that is not installed here
            if name == OURS:
                raise
            left_out[name] = str(error).splitlines()[0]
            continue
        try:
            ours, types = sides.get(OURS, side), {dtype, makes[OURS][1]}
            check_same_vectors(name, ours.facts["vectors"], side.facts["vectors"], types)
        except UserError as error:
            if name != IN_INT8:
                raise
            left_out[name] = str(error)  # of some models eight bits are too few
            continue
        sides[name] = side
    return sides, left_out


def evenly_chosen(source: str, number: int) -> list[str]:
    """So many texts of a source, at equal distances from first to last: of each kind, if it has several in turn."""
    found = list(Documents(source))
    if len(found) < number:
        raise UserError(f"{source} has {len(found):,} texts: set --texts to no more")
    return [found[index * len(found) // number] for index in range(number)]


def check_same_vectors(name: str, ours: np.ndarray, theirs: np.ndarray, types: set[str]) -> None:
    """Raises UserError unless both sides make the same of each text; `types`: of the products of both."""
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not difference <= (OUTPUT_TOLERANCE if types == {"float32"} else 0.05):  # bfloat16 has 8 bits
        raise UserError(f"{name} does not give the vectors of bert_jax: they differ by {difference:.2g} of the largest")


def inference_table(found: dict[str, Any]) -> str:
    """Each side as a line of text."""
    tokens = found["tokens"]
    lines = [
        f"{found['texts']:,} texts of {tokens['least']} to {tokens['most']} tokens, {tokens['mean']:.0f} on average; "
        f"batches of {found['batch_size']} at most, {found['dtype']}; {found['attention']}",
        f"{'':<52}{'seconds':>9}{'tokens/s':>11}{'of peak':>9}{'first':>8}{'spread':>8}{'peak GB':>9}  times as fast",
    ]
    rates = found["tokens_per_second"]
    for name, rate in rates.items():
        line = f"  {name:<50}{found['seconds_a_step'][name]:>9.2f}{rate:>11,.0f}{found['utilisation'][name]:>9.0%}"
        line += f"{found['first_seconds'][name]:>8.1f}{found['spread'][name]:>8.0%}"
        line += f"{(found['peak_bytes'][name] or math.nan) / 1e9:>9.1f}"
        line += "" if name == OURS else f"  {rates[OURS] / rate:.2f}"
        if name == found["fastest_of_theirs"]:
            line += f" ({min(found['ratio_by_round']):.2f} to {max(found['ratio_by_round']):.2f})"
        lines.append(line)
    held = (f"{name} {nbytes / 1e6:,.0f} MB" for name, nbytes in found["parameter_bytes"].items())
    lines.append(f"  parameters on the device: {'; '.join(held)}")
    return "\n".join([*lines, *(f"  {name}: left out: {why}" for name, why in found["left_out"].items())])
