"""How fast a pre-training step is beside `transformers` in PyTorch, at equal work and on real text.

Equal work: rows without padding, the same masked positions. Real text: sentence pairs of a corpus, which bert_jax packs
into full rows, and PyTorch pads to the longest of each batch; what counts is tokens that are no padding. The same
weights, no dropout; PyTorch is tried in several variants.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.jax_side import Batch, JaxPretraining, StepSetting, describe_attention, profiled, start_of
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import verdict
from bert_jax.benchmarks.suites.input import batches_of_run
from bert_jax.benchmarks.torch_side import STEP_VARIANTS, TorchPretraining
from bert_jax.config import SIZES, DataConfig, ModelConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.masking import predictions_per_row
from bert_jax.pretraining.run import corpus_folder, read_run
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

STEPS = 4  # of a side in a round
GROUPED = 50  # batches whose rows the Trainer of transformers sorts by length, where it is told to
ROWS = {"tiny": 64, "mini": 32, "small": 16, "medium": 8, "base": 8, "large": 2}  # of 128 tokens, on a CPU
ROWS_ON_GPU = {"tiny": 512, "mini": 512, "small": 512, "medium": 512, "base": 256, "large": 128}
EQUAL_WORK = "equal work"
TEXT = "text: packed here, padded in PyTorch"
TEXT_BY_LENGTH = "text: packed here, padded in batches of like lengths in PyTorch"


def train_suite(workdir: Path, *, sizes: list[str], length: int, dtype: str, rounds: int, profile: bool) -> Results:
    """Measures equal work at each of the sizes; and, where WORKDIR is that of a pre-training run, its text.

    Raises:
      UserError: PyTorch is missing, or the sides do not start with the same loss.
    """
    dtype = harness.chosen_dtype(dtype)
    has_text = all((workdir / name).exists() for name in ("tokenizer", "config.json"))
    if has_text:  # else the figures of equal work would be lost
        Corpus.open(corpus_folder(read_run(workdir), workdir))
    metadata = {"dtype": dtype, "dropout": 0.0, "optimizer": "adamw", "peak_flops": {}}
    results = Results("train", "A pre-training step", "tokens_per_second", metadata)
    for setting in step_settings(sizes, length, dtype):
        batches = full_batches(setting.vocab_size, setting.rows, length)
        compare_steps(results, EQUAL_WORK, setting, batches, batches, rounds)
        if profile:
            with start_of(setting, batches) as (start, _):
                print(profiled(setting, batches, start, workdir / "benchmark" / "profile" / setting.size), flush=True)
        if has_text and not harness.time_is_up():
            for case, by_length in ((TEXT, False), (TEXT_BY_LENGTH, True)):
                compare_steps(results, case, *text_batches(workdir, setting, by_length=by_length), rounds)
    return results


def compare_steps(
    results: Results, work: str, setting: StepSetting, batches: list[Batch], torch_batches: list[Batch], rounds: int
) -> None:
    """Measures a step of all sides on batches from before masking, which is at 15 %; PyTorch's may be others."""
    case, model, own = f"{setting.case}, {work}", setting.model(), JaxPretraining.name
    peak = results.metadata["peak_flops"][case] = harness.peak_flops(setting.dtype)
    with start_of(setting, torch_batches) as (start, beginning):
        makes: dict[str, harness.Make] = {own: functools.partial(JaxPretraining, setting, batches, start)}
        for variant in STEP_VARIANTS["gpu" if harness.on_gpu() else "cpu"]:
            masked = beginning["masked"]
            makes[variant.name] = functools.partial(TorchPretraining, variant, setting.dtype, start, masked)

        def check(name: str, metadata: dict) -> None:
            if name != own or batches is torch_batches:
                harness.check_same_loss(name, beginning["first_loss"], metadata["first_loss"], setting.dtype)

        def means(number_of: Callable[[Batch], float]) -> dict[str, float]:
            numbers = {name: batches if name == own else torch_batches for name in makes}
            return {name: float(np.mean([number_of(batch) for batch in each])) for name, each in numbers.items()}

        tokens = means(lambda batch: (batch["sequence_ids"] > 0).sum())
        ideal = means(lambda batch: batch_flops(model, batch) / peak)
        sides = harness.compare(results, case, makes, rounds, check, steps=STEPS, amounts=tokens, ideal=ideal)
        if len(sides) == 1:
            raise UserError(f"nothing to compare with: {results.left_out}")
    positions = means(lambda batch: batch["input_ids"].size)
    for name in sides:
        results.add(case, name, filled=tokens[name] / positions[name])
    kernel = describe_attention(model, setting.dtype, setting.length, batches[0]["next_sentence_labels"].shape[1])
    rows_per_second = setting.rows / results.value(case, own, "seconds")
    results.notes[case] = f"{rows_per_second:,.1f} rows a second; {kernel}"
    print(verdict(results, case), flush=True)


def batch_flops(model: ModelConfig, batch: Batch) -> float:
    """Returns the operations that the real tokens of a batch want; they have their share of the predictions."""
    ids = batch["sequence_ids"]
    lengths = np.concatenate([np.bincount(row)[1:] for row in ids])
    predicted = len(ids) * predictions_per_row(ids.shape[1], 0.15)
    return harness.step_flops(model, lengths, predicted * lengths.sum() / ids.size)


def step_settings(sizes: list[str], length: int, dtype: str) -> Iterator[StepSetting]:
    """Yields the step of each SIZE or SIZE:ROWS, and says so; without ROWS, as many as keep this device busy."""
    usual, rows_of = ROWS_ON_GPU if harness.on_gpu() else ROWS, {}
    for entry in sizes:
        size, _, rows = entry.partition(":")
        if size not in SIZES or (rows and not (rows.isdecimal() and int(rows))):
            raise UserError(f"sizes: {entry!r} wants to be SIZE or SIZE:ROWS, SIZE one of {', '.join(SIZES)}")
        if size in rows_of:
            raise UserError(f"sizes: {size} is there twice")
        rows_of[size] = int(rows) if rows else max(1, usual[size] * 128 // length)
    for size, rows in rows_of.items():
        setting = StepSetting(size, rows, length, dtype, ModelConfig.vocab_size)
        print(setting.case, flush=True)
        yield setting


# ---- batches -------------------------------------------------------------------------------------


def full_batches(vocab_size: int, rows: int, length: int) -> list[Batch]:
    """Returns `STEPS` batches of random words, a pair of sentences in each row, no padding; before masking."""
    rng, shape = np.random.default_rng(0), (rows, length)
    fixed = {
        "token_type_ids": np.broadcast_to(np.arange(length) >= length // 2, shape),
        "position_ids": np.broadcast_to(np.arange(length), shape),
        "sequence_ids": np.ones(shape),
    }
    fixed = {name: np.ascontiguousarray(array, np.int32) for name, array in fixed.items()}
    batches = []
    for _ in range(STEPS):
        ids = rng.integers(len(SPECIAL_TOKENS), vocab_size, shape, np.int32)
        ids[:, 0], ids[:, [length // 2 - 1, -1]] = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
        batches.append({**fixed, "input_ids": ids, "next_sentence_labels": rng.integers(0, 2, (rows, 1), np.int32)})
    return batches


def text_batches(
    workdir: Path, setting: StepSetting, *, by_length: bool
) -> tuple[StepSetting, list[Batch], list[Batch]]:
    """Returns packed rows for bert_jax and padded ones for PyTorch, of the corpus of the run in WORKDIR.

    With `by_length`, PyTorch's are batches of rows of like lengths, as `group_by_length` of its Trainer lays them. The
    setting comes back with the vocabulary of the run.
    """
    packed, padded = (
        batches_of_run(workdir, DataConfig(length=setting.length, packing=packing), setting.rows, seed=0)
        for packing in (True, False)
    )
    packed_batches, padded_batches = (
        [batches[step * (batches.rows_per_epoch // setting.rows) // STEPS] for step in range(STEPS)]  # of a whole epoch
        for batches in (packed, padded)
    )
    if by_length:
        padded_batches = evenly_spread([padded[step] for step in range(GROUPED)], STEPS)
    setting = dataclasses.replace(setting, vocab_size=Tokenizer.load(workdir / "tokenizer").vocab_size)
    return setting, packed_batches, [trimmed(batch) for batch in padded_batches]


def evenly_spread(batches: list[Batch], steps: int) -> list[Batch]:
    """Returns so many of the batches that these make when their rows are sorted by length, at equal distances."""
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    order = np.argsort(-(rows["sequence_ids"] > 0).sum(axis=1), kind="stable").reshape(len(batches), -1)
    chosen = [order[(2 * step + 1) * len(order) // (2 * steps)] for step in range(steps)]
    return [{name: array[numbers] for name, array in rows.items()} for numbers in chosen]


def trimmed(batch: Batch) -> Batch:
    """Returns a batch without the columns that are padding in every row."""
    longest = int((batch["sequence_ids"] > 0).any(axis=0).sum())
    return {name: array if name == "next_sentence_labels" else array[:, :longest] for name, array in batch.items()}
