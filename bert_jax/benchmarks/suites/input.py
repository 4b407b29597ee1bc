"""How fast batches are made for training, beside PyTorch's DataLoader, and how often training needs one.

Each side on one core. Bert_jax draws its pairs from the corpus on disk as training does; PyTorch finds 20,000 of the
same corpus in memory, drawn and cut before any clock runs. PyTorch pads, and in one variant masks too: the batches of
bert_jax are masked on the device, within the step.
"""

import dataclasses
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.benchmarks import harness
from bert_jax.benchmarks.record import Results
from bert_jax.config import DataConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.batches import PretrainingBatches, iterate
from bert_jax.pretraining.run import corpus_folder, read_run
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

SECONDS = 1.0  # of a round, about
TORCH_ROWS = 20_000
LOADER_RATE = 1_500_000  # positions a second that packed pairs are to reach
INPUT_MARGIN = 20  # the loader on one core against what training takes; below, it may be what training waits for
PACKED = "bert_jax, nsp, packed"
VARIANTS = (
    "PyTorch, padded and masked by transformers",
    "PyTorch, padded by transformers",
    "PyTorch, padded beforehand, whole batches",
)


class Loading:
    """A side that takes batches: the next of its stream, so many in a round as took `SECONDS` at first.

    Its metadata are the seconds until it had the first, and of a round the positions, padding included, and tokens.
    """

    def __init__(self, prepare: Callable[[], Callable[[], Iterator]], inside: str) -> None:
        """Takes some of the stream that what `prepare` gives starts; array `inside` is above 0 where a token is."""
        with harness.one_core():
            start = prepare()
            begin = time.perf_counter()
            self.stream = start()
            next(self.stream)
            first_seconds = time.perf_counter() - begin
            begin, count, positions, tokens = time.perf_counter(), 0, 0, 0
            while time.perf_counter() - begin < SECONDS / 4:
                where = next(self.stream)[inside] > 0
                count, positions, tokens = count + 1, positions + math.prod(where.shape), tokens + int(where.sum())
        self.batches = 4 * count
        figures = {"first_seconds": first_seconds, "filled": tokens / positions}
        self.metadata = {"figures": figures, "positions": 4 * positions, "tokens": 4 * tokens}

    def run(self) -> None:
        """Takes the next batches."""
        with harness.one_core():
            for _ in range(self.batches):
                next(self.stream)


def jax_batches(workdir: Path, data: DataConfig) -> Callable[[], Iterator]:
    """Returns what starts a stream of batches as training gets them from `iterate`."""
    config = read_run(workdir)
    return lambda: iterate(batches_of_run(workdir, data, config.batch_size, config.seed), 0)


def batches_of_run(workdir: Path, data: DataConfig, batch_size: int, seed: int) -> PretrainingBatches:
    """Returns batches of the corpus of a run."""
    corpus, tokenizer = Corpus.open(corpus_folder(read_run(workdir), workdir)), Tokenizer.load(workdir / "tokenizer")
    ids = tokenizer.cls_id, tokenizer.sep_id
    return PretrainingBatches(corpus, data, cls_id=ids[0], sep_id=ids[1], batch_size=batch_size, seed=seed)


def torch_batches(workdir: Path, variant: str) -> Callable[[], Iterator]:
    """Returns what starts a stream of batches of a DataLoader, shuffled anew each epoch."""
    import transformers
    from torch.utils import data

    config = read_run(workdir)
    special = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(workdir / "tokenizer/tokenizer.json"), **special
    )
    rows: Any = list(itertools.islice(drawn_pairs(workdir), TORCH_ROWS))
    if variant == VARIANTS[2]:
        whole = tokenizer.pad(rows, padding="max_length", max_length=config.data.length, return_tensors="pt")
        table: Any = Table(dict(whole))
        batches = data.BatchSampler(data.RandomSampler(rows), config.batch_size, drop_last=False)
        loader = data.DataLoader(table, batch_size=None, sampler=batches)
    else:
        masks = variant == VARIANTS[0]
        collator = transformers.DataCollatorForLanguageModeling if masks else transformers.DataCollatorWithPadding
        loader = data.DataLoader(rows, config.batch_size, shuffle=True, collate_fn=collator(tokenizer))
    return lambda: itertools.chain.from_iterable(itertools.repeat(loader))


@dataclasses.dataclass(frozen=True)
class Table:
    """Arrays [N, L] of which a list of rows is one batch."""

    arrays: dict[str, Any]

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        """Returns the batch."""
        return {name: array[rows] for name, array in self.arrays.items()}


def drawn_pairs(workdir: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of the run's corpus, a pair in each, as PyTorch keeps them."""
    config = read_run(workdir)
    batches = batches_of_run(workdir, dataclasses.replace(config.data, packing=False), 1, config.seed)
    for step in range(batches.rows_per_epoch):
        row = {name: array[0].tolist() for name, array in batches[step].items()}
        if length := sum(row["sequence_ids"]):  # a block may have empty rows
            cut = {name: row[name][:length] for name in ("input_ids", "token_type_ids")}
            special = [int(token < len(SPECIAL_TOKENS)) for token in cut["input_ids"]]  # else the collator looks anew
            label = row["next_sentence_labels"][0]
            yield {**cut, "attention_mask": [1] * length, "special_tokens_mask": special, "next_sentence_label": label}


def input_suite(workdir: Path, *, rounds: int) -> Results:
    """Measures the loader of the run in WORKDIR beside PyTorch's, and beside the run's training.

    Raises:
      UserError: the run has no corpus, or no line of training.
    """
    config = read_run(workdir)
    Corpus.open(corpus_folder(config, workdir))
    trained, waited = training_speeds(workdir)
    metadata = {"length": config.data.length, "batch_size": config.batch_size}
    results = Results("input", "Batches made on one core", "tokens_per_second", metadata)
    case, training = f"batches of {config.batch_size} rows of {config.data.length}", "training of this run"
    makes: dict[str, harness.Make] = {
        name: functools.partial(Loading, functools.partial(jax_batches, workdir, data), "sequence_ids")
        for name, data in jax_settings(config.data).items()
    }
    for variant in VARIANTS:  # without PyTorch, they are left out
        make = functools.partial(torch_batches, workdir, variant)
        makes[variant] = functools.partial(Loading, make, "attention_mask")
    sides = harness.compare(results, case, makes, rounds, amount="tokens")
    for name, metadata in sides.items():
        rate = metadata["positions"] / results.value(case, name, "seconds")
        results.add(case, name, positions_per_second=rate)
    results.add_rounds(training, "bert_jax", "positions_per_second", trained)
    if waited:
        results.add_rounds(training, "bert_jax", "input_wait", waited)
    rate = results.by_side(case, "positions_per_second")
    first, median = next(iter(sides)), statistics.median(trained)
    over_training = rate[first] / median
    results.add(training, "bert_jax", loader_over_training=over_training)
    results.notes[case] = f"{PACKED}: {goal(rate[PACKED], LOADER_RATE)} positions/s"
    share = f", which waited for it {statistics.median(waited):.1%} of the time" if waited else ""
    times = goal(over_training, INPUT_MARGIN)
    results.notes[training] = f"{first}: {times} times the {median:,.0f} positions/s that training took{share}"
    return results


def jax_settings(data: DataConfig) -> dict[str, DataConfig]:
    """Returns by name the settings in which bert_jax is measured, first that of the run."""
    named = {
        PACKED: dataclasses.replace(data, objective="nsp", packing=True),
        "bert_jax, nsp, a pair a row": dataclasses.replace(data, objective="nsp", packing=False),
        "bert_jax, full sentences": dataclasses.replace(data, objective="none", packing=True),
    }
    of_run = next((name for name, setting in named.items() if setting == data), "bert_jax, as in this run")
    return {of_run: data, **named}


def training_speeds(workdir: Path) -> tuple[list[float], list[float]]:
    """Returns positions a second and `input_wait` of each training line of WORKDIR/metrics.jsonl; it must have one."""
    path = workdir / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    if not speeds:
        raise UserError(f"{path} has no tokens_per_second yet: train for at least log_every steps")
    return speeds, [line["input_wait"] for line in lines if "input_wait" in line]


def goal(value: float, wanted: float) -> str:
    """Returns a figure, and whether it is what it should be at least."""
    shown = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return f"{shown}, which {'reaches' if value >= wanted else 'MISSES'} {wanted:,}"
