"""How fast batches are made for training, beside PyTorch's DataLoader, and how often training needs one.

Each side on one core, in a process of its own, in turns. Ours draws its pairs from the corpus on disk as training does;
theirs finds 20,000 of the same corpus in memory, drawn and cut before any clock runs. Theirs pads, and in one way masks
too: ours is masked on the device, within the step.
"""

import contextlib
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

from bert_jax.benchmarks.training_speed import comparison
from bert_jax.benchmarks.turns import SideError, SideProcess, in_turns, one_core, started
from bert_jax.config import DataConfig
from bert_jax.errors import UserError
from bert_jax.pretraining.batches import PretrainingBatches, iterate
from bert_jax.pretraining.run import corpus_folder, read_run
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer

SECONDS = 1.0  # of a turn, about
THEIR_ROWS = 20_000
LOADER_RATE = 1_500_000  # positions a second that packed pairs are to reach
INPUT_MARGIN = 20  # the loader on one core against what training takes; below, it may be what training waits for
PACKED = "bert_jax, nsp, packed"
WAYS = (
    "PyTorch, padded and masked by transformers",
    "PyTorch, padded by transformers",
    "PyTorch, padded beforehand, whole batches",
)


class Loading:
    """A side that takes batches: the next of its stream, so many in a turn as took `SECONDS` at first.

    Its facts are the seconds until it had the first, and of a turn the positions, padding included, and real tokens.
    """

    def __init__(self, prepare: Callable[[], Callable[[], Iterator]], inside: str) -> None:
        """Takes some.

        Args:
          prepare: gives the function that starts a stream of batches; what it does itself is not timed.
          inside: array of a batch that is above 0 where a token is.
        """
        with one_core():
            start = prepare()
            begin = time.perf_counter()
            self.stream = start()
            next(self.stream)
            first_batch = time.perf_counter() - begin
            begin, count, positions, tokens = time.perf_counter(), 0, 0, 0
            while time.perf_counter() - begin < SECONDS / 4:
                where = next(self.stream)[inside] > 0
                count, positions, tokens = count + 1, positions + math.prod(where.shape), tokens + int(where.sum())
        self.batches = 4 * count
        self.facts = {"first_batch": first_batch, "positions": 4 * positions, "tokens": 4 * tokens}

    def turn(self) -> None:
        with one_core():
            for _ in range(self.batches):
                next(self.stream)


def our_batches(workdir: Path, data: DataConfig) -> Callable[[], Iterator]:
    """As training gets them from `iterate`."""
    config = read_run(workdir)
    corpus = Corpus.open(corpus_folder(config, workdir))
    tokenizer = Tokenizer.load(workdir / "tokenizer")
    settings = dict(cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, batch_size=config.batch_size, seed=config.seed)
    return lambda: iterate(PretrainingBatches(corpus, data, **settings), 0)


def their_batches(workdir: Path, way: str) -> Callable[[], Iterator]:
    """Of a DataLoader, shuffled anew each epoch."""
    import transformers
    from torch.utils import data

    config = read_run(workdir)
    special = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(workdir / "tokenizer/tokenizer.json"), **special
    )
    rows: list[dict] = list(itertools.islice(drawn_pairs(workdir), THEIR_ROWS))
    if way == WAYS[0]:
        collate = transformers.DataCollatorForLanguageModeling(tokenizer)
    elif way == WAYS[1]:
        collate = transformers.DataCollatorWithPadding(tokenizer)
    else:
        whole = tokenizer.pad(rows, padding="max_length", max_length=config.data.length, return_tensors="pt")
        batches = data.BatchSampler(data.RandomSampler(rows), config.batch_size, drop_last=False)
        loader = data.DataLoader(Table(dict(whole)), batch_size=None, sampler=batches)
        return lambda: itertools.chain.from_iterable(itertools.repeat(loader))
    loader = data.DataLoader(rows, config.batch_size, shuffle=True, collate_fn=collate)
    return lambda: itertools.chain.from_iterable(itertools.repeat(loader))


@dataclasses.dataclass(frozen=True)
class Table:
    """Arrays [N, L] of which a list of rows is one batch."""

    arrays: dict[str, Any]

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        return {name: array[rows] for name, array in self.arrays.items()}


def drawn_pairs(workdir: Path) -> Iterator[dict[str, Any]]:
    """The rows of the run's corpus, a pair in each, as theirs keeps them."""
    config, tokenizer = read_run(workdir), Tokenizer.load(workdir / "tokenizer")
    data = dataclasses.replace(config.data, packing=False)
    corpus = Corpus.open(corpus_folder(config, workdir))
    ids = dict(cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id)
    batches = PretrainingBatches(corpus, data, **ids, batch_size=1, seed=config.seed)
    for step in range(batches.rows_per_epoch):
        row = {name: array[0].tolist() for name, array in batches[step].items()}
        if length := sum(row["sequence_ids"]):  # a block may have empty rows
            cut = {name: row[name][:length] for name in ("input_ids", "token_type_ids")}
            special = [int(token < len(SPECIAL_TOKENS)) for token in cut["input_ids"]]  # else the collator looks anew
            label = row["next_sentence_labels"][0]
            yield {**cut, "attention_mask": [1] * length, "special_tokens_mask": special, "next_sentence_label": label}


def input_suite(workdir: Path, _model: str, *, rounds: int) -> tuple[str, dict]:
    """The loader of the run in WORKDIR beside PyTorch's, and beside the run's training.

    Args:
      workdir: of a run that has trained.
      rounds: turns of each side.

    Raises:
      UserError: the run has no corpus, or no line of training.
    """
    config = read_run(workdir)
    Corpus.open(corpus_folder(config, workdir))
    trained, waited = training_speeds(workdir)
    with contextlib.ExitStack() as stack:
        sides, left_out = started_sides(stack, workdir, config.data)
        times = in_turns(sides, rounds)
        peak_bytes = {name: side.peak_bytes() for name, side in sides.items()}
    facts = {name: side.facts for name, side in sides.items()}
    found = comparison(times, 1, {name: each["tokens"] for name, each in facts.items()})
    positions = {name: facts[name]["positions"] / seconds for name, seconds in found["seconds_a_step"].items()}
    figures: dict[str, Any] = {
        "length": config.data.length,
        "batch_size": config.batch_size,
        "first_batch_seconds": {name: each["first_batch"] for name, each in facts.items()},
        "filled": {name: each["tokens"] / each["positions"] for name, each in facts.items()},
        "positions_per_second": positions,
        "peak_bytes": peak_bytes,
        "left_out": left_out,
        **found,
        "training": {"positions_per_second": trained, "input_wait": waited},
        "loader_over_training": next(iter(positions.values())) / statistics.median(trained),
    }
    return input_table(figures), figures


def started_sides(
    stack: contextlib.ExitStack, workdir: Path, data: DataConfig
) -> tuple[dict[str, SideProcess], dict[str, str]]:
    """By name, ours first; and why others are left out."""
    ours = {name: functools.partial(our_batches, workdir, setting) for name, setting in our_settings(data).items()}
    theirs = {way: functools.partial(their_batches, workdir, way) for way in WAYS}
    sides, left_out = {}, {}
    for name, prepare in (ours | theirs).items():
        try:
            inside = "sequence_ids" if name in ours else "attention_mask"
            sides[name] = stack.enter_context(started(functools.partial(Loading, prepare, inside)))
        except SideError as error:  # PyTorch is not installed
            if name in ours:
                raise
            left_out[name] = str(error).splitlines()[0]
    return sides, left_out


def our_settings(data: DataConfig) -> dict[str, DataConfig]:
    """What ours is measured in by name, first that of the run."""
    named = {
        PACKED: dataclasses.replace(data, objective="nsp", packing=True),
        "bert_jax, nsp, a pair a row": dataclasses.replace(data, objective="nsp", packing=False),
        "bert_jax, full sentences": dataclasses.replace(data, objective="none", packing=True),
    }
    of_run = next((name for name, setting in named.items() if setting == data), "bert_jax, as in this run")
    return {of_run: data, **named}


def training_speeds(workdir: Path) -> tuple[list[float], list[float]]:
    """`tokens_per_second`, which counts positions, and `input_wait` of each training line of WORKDIR/metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    if not speeds:
        raise UserError(f"{path} has no tokens_per_second yet: train for at least log_every steps")
    return speeds, [line["input_wait"] for line in lines if "input_wait" in line]


def input_table(found: dict[str, Any]) -> str:
    """Each side as a line of text, and what training takes."""
    lines = [
        f"batches of {found['batch_size']} rows of {found['length']}, on one core",
        f"{'':<44}{'tokens/s':>12}{'positions/s':>13}{'filled':>8}{'first, s':>10}{'spread':>8}{'peak GB':>9}"
        "  times as fast",
    ]
    rates = found["tokens_per_second"]
    ours = next(iter(rates))
    for name, rate in rates.items():
        line = f"  {name:<42}{rate:>12,.0f}{found['positions_per_second'][name]:>13,.0f}{found['filled'][name]:>8.1%}"
        line += f"{found['first_batch_seconds'][name]:>10.3f}{found['spread'][name]:>8.0%}"
        line += f"{(found['peak_bytes'][name] or math.nan) / 1e9:>9.2f}"
        line += "" if name == ours else f"  {rates[ours] / rate:.3g}"
        lines.append(line)
    lines += [f"  {name}: left out: {why}" for name, why in found["left_out"].items()]
    training, times = statistics.median(found["training"]["positions_per_second"]), found["loader_over_training"]
    lines += [
        f"{PACKED}: {verdict(found['positions_per_second'][PACKED], LOADER_RATE)} positions/s",
        f"{ours}: {verdict(times, INPUT_MARGIN)} times the {training:,.0f} positions/s that training took",
    ]
    if found["training"]["input_wait"]:
        lines.append(f"training waited for it {statistics.median(found['training']['input_wait']):.1%} of the time")
    return "\n".join(lines)


def verdict(value: float, wanted: float) -> str:
    """A figure, and whether it is what it should be at least."""
    shown = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return f"{shown}, which {'reaches' if value >= wanted else 'MISSES'} {wanted:,}"
