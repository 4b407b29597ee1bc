"""How fast a pre-training step is beside `transformers` in PyTorch, at equal work and on real text.

Equal work: rows without padding, the same masked positions. Real text: sentence pairs of a corpus, which ours packs
into full rows, and theirs pads to the longest of each batch; what counts is tokens that are no padding. The same
weights, no dropout; theirs is tried in several ways. The sides take turns, each in its own process.
"""

import contextlib
import dataclasses
import functools
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.benchmarks.our_step import Batch, Step, StepSetting, profiled, start_in
from bert_jax.benchmarks.their_step import WAYS, Theirs
from bert_jax.benchmarks.turns import SideError, in_turns, started
from bert_jax.config import SIZES, DataConfig, ModelConfig
from bert_jax.errors import UserError
from bert_jax.experiments.parity import OUTPUT_TOLERANCE
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.model.layers import precision
from bert_jax.pretraining.batches import PretrainingBatches
from bert_jax.pretraining.masking import predictions_per_row
from bert_jax.pretraining.run import corpus_folder, read_run
from bert_jax.runtime.execution import Execution
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

STEPS = 4  # that a side has before the next has its turn
GROUPED = 50  # batches whose rows the Trainer of transformers sorts by length, where it is told to
ROWS = {"tiny": 64, "mini": 32, "small": 16, "medium": 8, "base": 8, "large": 2}  # of 128 tokens, on a CPU
ROWS_ON_GPU = {"tiny": 512, "mini": 512, "small": 512, "medium": 512, "base": 256, "large": 128}


def step_flops(config: ModelConfig, lengths: np.ndarray, predicted: float) -> float:
    """Floating-point operations that one training step wants: forward, and twice that backward.

    Of the matrix products alone (Chowdhery et al. 2022, appendix B), and of real tokens alone: what a side computes on
    padding, or between sequences that share a row, is its own loss.

    Args:
      config: of the model.
      lengths: tokens of each sequence.
      predicted: positions that the vocabulary's logits are wanted of.
    """
    width, layers, lengths = config.hidden_size, config.num_hidden_layers, np.asarray(lengths, float)
    dense = 4 * width**2 + 2 * width * config.intermediate_size
    attention = 2 * lengths * width
    head = width**2 + width * config.vocab_size
    return 3 * 2 * (layers * float((lengths * (dense + attention)).sum()) + predicted * head)


def peak_flops(dtype: str, seconds: float = 1.0) -> float:
    """Operations a second of a large matrix product on this machine's device: the best of several."""
    # A product that gives bfloat16 is no faster than one of float32 for XLA on a CPU; on a GPU it is, and calls queue.
    size, given, calls = (2048, "float32", 1) if jax.default_backend() == "cpu" else (8192, dtype, 16)
    left, right = (jax.random.normal(jax.random.key(i), (size, size), jnp.dtype(dtype)) for i in (0, 1))
    settings = dict(precision=precision(left.dtype), preferred_element_type=jnp.dtype(given))
    product = jax.jit(functools.partial(jnp.dot, **settings))
    product(left, right).block_until_ready()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        found = [product(left, right) for _ in range(calls)]
        found[-1].block_until_ready()
        best = min(best, (time.perf_counter() - begin) / calls)
    return 2 * size**3 / best


def chosen_dtype(dtype: str = "auto") -> str:
    """In which both sides compute: float32 or bfloat16."""
    return {"auto": "float32" if jax.default_backend() == "cpu" else "bfloat16"}.get(dtype, dtype)


# --- equal work


def equal_work(setting: StepSetting, rounds: int) -> dict[str, Any]:
    """Ours and each of theirs on rows of random words without padding."""
    batches = full_batches(setting.vocab_size, setting.rows, setting.length)
    return measured(setting, batches, batches, rounds)


def measured(setting: StepSetting, our_batches: list[Batch], their_batches: list[Batch], rounds: int) -> dict[str, Any]:
    """The figures of a step on batches that are masked at 15 %; each side takes its own.

    Raises:
      UserError: PyTorch is missing, or the sides do not start with the same loss.
    """
    model, execution = setting.model(), Execution.here(setting.dtype)
    times, facts = timed_sides(setting, our_batches, their_batches, rounds)
    batches, peak = dict.fromkeys(times, their_batches) | {Step.name: our_batches}, peak_flops(setting.dtype)
    mean = lambda of, name: float(np.mean([of(batch) for batch in batches[name]]))  # noqa: E731
    tokens = {name: mean(lambda batch: (batch["sequence_ids"] > 0).sum(), name) for name in times}
    ideal = {name: mean(lambda batch: batch_flops(model, batch), name) / peak for name in times}
    max_sequences = our_batches[0]["next_sentence_labels"].shape[1]
    return {
        "rows": setting.rows,
        "length": setting.length,
        "peak_flops": peak,
        "attention": describe_kernel(model, execution, setting.length, max_sequences),
        "filled": {name: tokens[name] / mean(lambda batch: batch["input_ids"].size, name) for name in times},
        **comparison(times, len(our_batches), tokens, ideal),
        **facts,
    }


def timed_sides(
    setting: StepSetting, our_batches: list[Batch], their_batches: list[Batch], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of the turns of each side, and what else was seen of them."""
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        start = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        beginning = start_in(start, setting, their_batches)
        ours = stack.enter_context(started(functools.partial(Step, setting, our_batches, start)))
        if our_batches is their_batches:
            check_same_loss(Step.name, beginning["first_loss"], ours.facts["first_loss"], setting.dtype)
        sides = {Step.name: ours}
        for way in WAYS["gpu" if jax.default_backend() == "gpu" else "cpu"]:
            make = functools.partial(Theirs, way, setting.dtype, start, beginning["masked"])
            try:
                sides[way.name] = stack.enter_context(started(make))
            except SideError as error:  # a kernel that is not installed here
                left_out[way.name] = str(error).splitlines()[0]
                continue
            check_same_loss(way.name, beginning["first_loss"], sides[way.name].facts["first_loss"], setting.dtype)
        times = in_turns(sides, rounds, left_out=left_out)
        if len(times) == 1:
            raise UserError(f"nothing to compare with: {left_out}")
        peak_bytes = {name: sides[name].peak_bytes() for name in times}
    return times, {
        "first_step_seconds": {name: sides[name].facts["first_step"] for name in times},
        "peak_bytes": peak_bytes,
        "left_out": left_out,
    }


def batch_flops(model: ModelConfig, batch: Batch) -> float:
    """Operations that the real tokens of a batch want; they have their share of the predicted positions."""
    ids = batch["sequence_ids"]
    lengths = np.concatenate([np.bincount(row)[1:] for row in ids])
    predicted = len(ids) * predictions_per_row(ids.shape[1], 0.15)
    return step_flops(model, lengths, predicted * lengths.sum() / ids.size)


def full_batches(vocab_size: int, rows: int, length: int) -> list[Batch]:
    """`STEPS` batches of random words, a pair of sentences in each row, without padding; before masking."""
    rng = np.random.default_rng(0)
    shape = (rows, length)
    second = np.arange(length) >= length // 2
    fixed = {
        "token_type_ids": np.broadcast_to(second, shape),
        "position_ids": np.broadcast_to(np.arange(length), shape),
        "sequence_ids": np.ones(shape),
    }
    fixed = {name: np.ascontiguousarray(array, np.int32) for name, array in fixed.items()}
    found = []
    for _ in range(STEPS):
        ids = rng.integers(len(SPECIAL_TOKENS), vocab_size, shape, np.int32)
        ids[:, 0], ids[:, [length // 2 - 1, -1]] = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
        found.append({**fixed, "input_ids": ids, "next_sentence_labels": rng.integers(0, 2, (rows, 1), np.int32)})
    return found


def check_same_loss(name: str, ours: float, theirs: float, dtype: str) -> None:
    """Raises UserError unless both sides give the first batch the same loss: else they would not be comparable."""
    tolerance = OUTPUT_TOLERANCE if dtype == "float32" else 1e-2  # bfloat16 has 8 bits
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        raise UserError(f"{name} does not start as bert_jax does: the first loss is {ours:.7g} and {theirs:.7g}")


def comparison(
    times: dict[str, list[float]], steps: int, tokens: dict[str, float], ideal: dict[str, float] | None = None
) -> dict[str, Any]:
    """The figures of one comparison.

    Args:
      times: seconds of each turn of each side; ours are those whose names begin with bert_jax, and the first counts.
      steps: of a turn.
      tokens: real ones in a step, of each side.
      ideal: seconds that the products of a step would take at the rate of a large one, of each side; None: it has none.
    """
    ours = next(iter(times))
    seconds = {name: statistics.median(each) / steps for name, each in times.items()}
    rates = {name: tokens[name] / each for name, each in seconds.items()}
    found: dict[str, Any] = {
        "seconds_of_turns": times,
        "seconds_a_step": seconds,
        "spread": {name: (max(each) - min(each)) / statistics.median(each) for name, each in times.items()},
        "tokens_per_second": rates,
    }
    if ideal:
        found["utilisation"] = {name: ideal[name] / each for name, each in seconds.items()}
    if theirs := [name for name in rates if not name.startswith("bert_jax")]:
        fastest = max(theirs, key=rates.get)
        more = tokens[ours] / tokens[fastest]
        by_round = [more * b / a for a, b in zip(times[ours], times[fastest], strict=True)]
        found |= {"fastest_of_theirs": fastest, "ratio": rates[ours] / rates[fastest], "ratio_by_round": by_round}
    return found


# --- real text


def real_text(workdir: Path, setting: StepSetting, rounds: int, *, by_length: bool) -> dict[str, Any]:
    """Ours on packed rows and theirs on padded ones, of the corpus of the run in WORKDIR.

    With `by_length`, theirs are batches of rows of like lengths, as `group_by_length` of its Trainer lays them.
    """
    corpus = Corpus.open(corpus_folder(read_run(workdir), workdir))
    tokenizer = Tokenizer.load(workdir / "tokenizer")
    ids = dict(cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, batch_size=setting.rows, seed=0)
    packed, padded = (
        PretrainingBatches(corpus, DataConfig(length=setting.length, packing=packing), **ids)
        for packing in (True, False)
    )
    ours, theirs = (
        [batches[step * (batches.rows_per_epoch // setting.rows) // STEPS] for step in range(STEPS)]  # of a whole epoch
        for batches in (packed, padded)
    )
    if by_length:
        theirs = evenly_spread([padded[step] for step in range(GROUPED)], STEPS)
    theirs = [trimmed(batch) for batch in theirs]
    return measured(dataclasses.replace(setting, vocab_size=tokenizer.vocab_size), ours, theirs, rounds)


def evenly_spread(batches: list[Batch], steps: int) -> list[Batch]:
    """Of the batches that these make when their rows are sorted by length, so many, at equal distances."""
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    order = np.argsort(-(rows["sequence_ids"] > 0).sum(axis=1), kind="stable").reshape(len(batches), -1)
    chosen = [order[(2 * step + 1) * len(order) // (2 * steps)] for step in range(steps)]
    return [{name: array[numbers] for name, array in rows.items()} for numbers in chosen]


def trimmed(batch: Batch) -> Batch:
    """Without the columns that are padding in every row."""
    longest = int((batch["sequence_ids"] > 0).any(axis=0).sum())
    return {name: array if name == "next_sentence_labels" else array[:, :longest] for name, array in batch.items()}


# --- suite train

HEADINGS = {
    "equal_work": "Equal work",
    "real_text": "Text: ours packed, theirs padded to a batch's longest",
    "text_by_length": "Text: ours packed, theirs padded, in batches of like lengths",
}


def training_suite(
    workdir: Path, _model: str, *, sizes: list[str], length: int, dtype: str, rounds: int, profile: bool
) -> tuple[str, dict]:
    """Equal work at each of the sizes; and, where WORKDIR is that of a pre-training run, its text.

    Args:
      workdir: of a run, or any.
      sizes: SIZE or SIZE:ROWS; without ROWS, as many as keep this device busy.
      length: L.
      dtype: float32 or bfloat16, of the products of both; auto: bfloat16 on a GPU, else float32.
      rounds: turns of each side.
      profile: also traces our step at equal work, into WORKDIR/benchmark/profile/SIZE.
    """
    dtype, has_text = chosen_dtype(dtype), (workdir / "tokenizer").exists() and (workdir / "config.json").exists()
    if has_text:  # else the figures of equal work would be lost
        Corpus.open(corpus_folder(read_run(workdir), workdir))
    figures: dict[str, Any] = {"dtype": dtype, "dropout": 0.0, "optimizer": "adamw", **{key: {} for key in HEADINGS}}
    for size, number in sized_rows(sizes, length).items():
        print(f"{size}: {number} rows of {length}", flush=True)
        setting = StepSetting(size, number, length, dtype, ModelConfig.vocab_size)
        figures["equal_work"][size] = found = equal_work(setting, rounds)
        print(f"{size}: {found['ratio']:.2f} times as fast as {found['fastest_of_theirs']}", flush=True)
        if profile:
            print(profile_step(setting, workdir / "benchmark" / "profile" / size), flush=True)
        if has_text:
            for key, by_length in (("real_text", False), ("text_by_length", True)):
                figures[key][size] = found = real_text(workdir, setting, rounds, by_length=by_length)
                print(f"{HEADINGS[key]}: {found['ratio']:.2f} times {found['fastest_of_theirs']}", flush=True)
    tables = [f"{heading}\n{training_table(figures[key])}" for key, heading in HEADINGS.items() if figures[key]]
    return "\n\n".join([f"{dtype}, no dropout, AdamW", *tables]), figures


def profile_step(setting: StepSetting, folder: Path) -> str:
    """Traces some steps into `folder`; the costliest operations as lines of text."""
    batches = full_batches(setting.vocab_size, setting.rows, setting.length)
    with tempfile.TemporaryDirectory() as temporary:
        start_in(Path(temporary) / "model", setting, batches)
        return profiled(setting, batches, Path(temporary) / "model", folder)


def sized_rows(sizes: list[str], length: int) -> dict[str, int]:
    """Rows a step for each SIZE or SIZE:ROWS; without ROWS, as many of `length` tokens as keep this device busy."""
    usual, found = ROWS_ON_GPU if jax.default_backend() == "gpu" else ROWS, {}
    for each in sizes:
        size, _, rows = each.partition(":")
        if size not in SIZES or (rows and not (rows.isdecimal() and int(rows))):
            raise UserError(f"sizes: {each!r} wants to be SIZE or SIZE:ROWS, SIZE one of {', '.join(SIZES)}")
        if size in found:
            raise UserError(f"sizes: {size} is there twice")
        found[size] = int(rows) if rows else max(1, usual[size] * 128 // length)
    return found


def training_table(found: dict[str, dict]) -> str:
    """Each side of each comparison as a line of text."""
    lines = [
        f"{'':<52}{'ms a step':>10}{'tokens/s':>11}{'filled':>8}{'of peak':>9}{'spread':>8}{'peak GB':>8}"
        "  times as fast"
    ]
    for size, each in found.items():
        ours, seconds = next(iter(each["seconds_a_step"])), each["seconds_a_step"]
        compiled = each["first_step_seconds"][ours]["compile"]
        compiling = f"ours compiled in {compiled:.1f} s, {each['attention']}"
        lines.append(f"{size}, {each['rows']} rows of {each['length']}; {compiling}")
        for name in seconds:
            rate = each["tokens_per_second"]
            line = f"  {name:<50}{1e3 * seconds[name]:>10.1f}{rate[name]:>11,.0f}"
            line += f"{each['filled'][name]:>8.0%}{each['utilisation'][name]:>9.0%}{each['spread'][name]:>8.0%}"
            line += f"{(each['peak_bytes'][name] or math.nan) / 1e9:>8.1f}"
            if name != ours:
                line += f"  {rate[ours] / rate[name]:.2f}"
            if name == each["fastest_of_theirs"]:
                line += f" ({min(each['ratio_by_round']):.2f} to {max(each['ratio_by_round']):.2f})"
            lines.append(line)
        lines += [f"  {name}: left out: {why}" for name, why in each["left_out"].items()]
    return "\n".join(lines)
