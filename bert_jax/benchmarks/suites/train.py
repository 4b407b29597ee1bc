"""How fast a pre-training step is beside `transformers` in PyTorch, at equal work and on real text.

Equal work: rows without padding, the same masked positions. Real text: sentence pairs of a corpus, which bert_jax packs
into full rows, and PyTorch pads to the longest of each batch; what counts is tokens that are no padding. The same
weights, no dropout; PyTorch is tried in several variants.
"""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from bert_jax.benchmarks.harness import (
    Side,
    check_same_loss,
    chosen_dtype,
    measure,
    on_gpu,
    peak_flops,
    start_sides,
    step_flops,
    time_is_up,
)
from bert_jax.benchmarks.jax_side import Batch, JaxPretraining, StepSetting, describe_attention, profiled, start_in
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
    dtype, has_text = chosen_dtype(dtype), (workdir / "tokenizer").exists() and (workdir / "config.json").exists()
    if has_text:  # else the figures of equal work would be lost
        Corpus.open(corpus_folder(read_run(workdir), workdir))
    metadata = {"dtype": dtype, "dropout": 0.0, "optimizer": "adamw", "peak_flops": {}}
    results = Results("train", "A pre-training step", "tokens_per_second", metadata)
    for size, rows in sized_rows(sizes, length).items():
        print(f"{size}: {rows} rows of {length}", flush=True)
        setting = StepSetting(size, rows, length, dtype, ModelConfig.vocab_size)
        batches = full_batches(setting.vocab_size, rows, length)
        compare_steps(results, EQUAL_WORK, setting, batches, batches, rounds)
        if profile:
            with tempfile.TemporaryDirectory() as folder:
                start_in(Path(folder) / "model", setting, batches)
                traces = workdir / "benchmark" / "profile" / size
                print(profiled(setting, batches, Path(folder) / "model", traces), flush=True)
        if has_text and not time_is_up():
            for case, by_length in ((TEXT, False), (TEXT_BY_LENGTH, True)):
                compare_steps(results, case, *text_batches(workdir, setting, by_length=by_length), rounds)
    return results


def compare_steps(
    results: Results, work: str, setting: StepSetting, batches: list[Batch], torch_batches: list[Batch], rounds: int
) -> None:
    """Measures a step of all sides on batches from before masking, which is at 15 %; PyTorch's may be others.

    Raises:
      UserError: PyTorch is missing, or the sides do not start with the same loss.
    """
    case, model = f"{setting.size}, {setting.rows} rows of {setting.length}, {work}", setting.model()
    with contextlib.ExitStack() as stack:
        start = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        beginning = start_in(start, setting, torch_batches)
        makes: dict[str, Callable[[], Side]] = {
            JaxPretraining.name: functools.partial(JaxPretraining, setting, batches, start)
        }
        for variant in STEP_VARIANTS["gpu" if on_gpu() else "cpu"]:
            make = functools.partial(TorchPretraining, variant, setting.dtype, start, beginning["masked"])
            makes[variant.name] = make

        def check(name: str, metadata: dict) -> None:
            if name != JaxPretraining.name or batches is torch_batches:
                check_same_loss(name, beginning["first_loss"], metadata["first_loss"], setting.dtype)

        sides = start_sides(stack, makes, results, case, check)
        peak = results.metadata["peak_flops"][case] = peak_flops(setting.dtype)
        of_side = dict.fromkeys(sides, torch_batches) | {JaxPretraining.name: batches}
        mean = lambda of, name: float(np.mean([of(batch) for batch in of_side[name]]))  # noqa: E731
        tokens = {name: mean(lambda batch: (batch["sequence_ids"] > 0).sum(), name) for name in sides}
        ideal = {name: mean(lambda batch: batch_flops(model, batch), name) / peak for name in sides}
        names = measure(results, case, sides, rounds, steps=STEPS, amounts=tokens, ideal=ideal)
        if len(names) == 1:
            raise UserError(f"nothing to compare with: {results.left_out}")
    for name in names:
        filled = tokens[name] / mean(lambda batch: batch["input_ids"].size, name)
        results.add(case, name, filled=filled, **sides[name].metadata["first_step"])
    max_sequences = batches[0]["next_sentence_labels"].shape[1]
    kernel = describe_attention(model, setting.dtype, setting.length, max_sequences)
    rows_per_second = setting.rows / results.value(case, JaxPretraining.name, "seconds")
    results.notes[case] = f"{rows_per_second:,.1f} rows a second; {kernel}"
    print(verdict(results, case), flush=True)


def batch_flops(model: ModelConfig, batch: Batch) -> float:
    """Returns the operations that the real tokens of a batch want; they have their share of the predictions."""
    ids = batch["sequence_ids"]
    lengths = np.concatenate([np.bincount(row)[1:] for row in ids])
    predicted = len(ids) * predictions_per_row(ids.shape[1], 0.15)
    return step_flops(model, lengths, predicted * lengths.sum() / ids.size)


def sized_rows(sizes: list[str], length: int) -> dict[str, int]:
    """Returns the rows a step for each SIZE or SIZE:ROWS; without ROWS, as many as keep this device busy.

    Raises:
      UserError: a size that does not exist, or is there twice.
    """
    usual, rows_of = ROWS_ON_GPU if jax.default_backend() == "gpu" else ROWS, {}
    for entry in sizes:
        size, _, rows = entry.partition(":")
        if size not in SIZES or (rows and not (rows.isdecimal() and int(rows))):
            raise UserError(f"sizes: {entry!r} wants to be SIZE or SIZE:ROWS, SIZE one of {', '.join(SIZES)}")
        if size in rows_of:
            raise UserError(f"sizes: {size} is there twice")
        rows_of[size] = int(rows) if rows else max(1, usual[size] * 128 // length)
    return rows_of


# ---- batches -------------------------------------------------------------------------------------


def full_batches(vocab_size: int, rows: int, length: int) -> list[Batch]:
    """Returns `STEPS` batches of random words, a pair of sentences in each row, no padding; before masking."""
    rng = np.random.default_rng(0)
    shape = (rows, length)
    second = np.arange(length) >= length // 2
    fixed = {
        "token_type_ids": np.broadcast_to(second, shape),
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
