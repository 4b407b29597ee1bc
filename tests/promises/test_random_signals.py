"""A signal at any moment ends any command with its number, without a traceback, and the work goes on from there.

A few trials here; `pytest tests/promises/test_random_signals.py --trials=50` makes 50 of each command.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from helpers import random_model
from helpers.runs import ROOT, metric_lines, pretraining_command, saved_state

from bert_jax.interop import huggingface
from bert_jax.text.corpus import Corpus

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IMPORTED = 0.4  # seconds after which a script answers signals; before, Python does


class Command(NamedTuple):
    """A command, and what is wrong with what it has left: after a signal, and at its end."""

    words: list[str]
    whole: Callable[[], str]
    forget: Callable[[], object]


def left_over(*folders: Path) -> list[str]:
    return [str(path) for folder in folders for path in folder.rglob(".*.tmp")]


def stopped(command: Command, number: int, seconds: float) -> tuple[int, str, float]:
    """Returns the status, what it printed as errors, and the seconds from the signal to the end."""
    process = subprocess.Popen(
        command.words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        # As a terminal or a scheduler does: to the process alone, or to all that it has started.
        random.choice([os.kill, os.killpg])(process.pid, number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors, time.monotonic() - began


def run_to_the_end(command: Command) -> None:
    done = subprocess.run(command.words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert command.whole() == ""


def campaign(command: Command, trials: int) -> None:
    """Sends signals at random moments, until the command has come to its end `trials` times or has been stopped."""
    duration, wrong, slowest = 4.0, [], 0.0
    if trials:
        run_to_the_end(command)  # its programs are compiled
        command.forget()
        began = time.monotonic()
        run_to_the_end(command)
        duration = time.monotonic() - began
        command.forget()
    for trial in range(trials or 1):
        number, moment = random.choice(SIGNALS), random.uniform(IMPORTED, duration)
        status, errors, seconds = stopped(command, number, moment)
        print(
            f"{signal.Signals(number).name} after {moment:.2f} s: {status} in {seconds:.1f} s, {errors[-90:]!r}",
            flush=True,
        )
        slowest = max(slowest, seconds)
        ended_before = status == 0 and seconds < 1  # or so shortly after that it had nothing more to do
        # -number: while Python itself starts or ends; a shell says 128 + number then, too.
        fault = "" if ended_before or status in (128 + number, -number) else f"status {status}"
        fault = fault or ("a traceback" if "Traceback" in errors else "") or command.whole()
        if status == 0:
            command.forget()
        if fault:
            wrong.append(f"trial {trial}, {signal.Signals(number).name} after {moment:.2f} s: {fault}\n{errors}")
    print(f"{trials} trials of {duration:.1f} s each, the slowest answer took {slowest:.1f} s")
    assert not wrong, f"{len(wrong)} of {trials}:\n" + "\n".join(wrong)
    assert slowest < 30
    run_to_the_end(command)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    random.seed(time.time_ns())
    # Behind nohup or in the background of a shell some are ignored, and a command keeps to that.
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_pretraining(finished, text_file, tmp_path, trials) -> None:
    straight, _ = finished
    workdir, moved = tmp_path / "run", iter(range(10**6))

    def whole() -> str:
        if left_over(workdir):
            return f"left {left_over(workdir)}"
        if not (workdir / "model").exists():
            return ""
        if metric_lines(workdir) != metric_lines(straight):
            return "other metrics than those of a straight run"
        first, second = saved_state(workdir, 40), saved_state(straight, 40)
        equal = jax.tree.map(np.array_equal, first, second)
        return "" if jax.tree.all(equal) else "other bits than those of a straight run"

    def forget() -> None:
        if workdir.exists():
            workdir.rename(tmp_path / f"run{next(moved)}")

    campaign(Command(pretraining_command(text_file, tmp_path, workdir), whole, forget), trials)


def test_finetuning(tmp_path, trials) -> None:
    if not trials:
        pytest.skip("a campaign: pytest --trials=10")
    huggingface.save(tmp_path / "body", random_model.random_model(), random_model.tokenizer())
    for split in ("train", "validation"):
        rows = "".join(f"{text} film,{label}\n" for text, label in (("good", "yes"), ("bad", "no")) * 40)
        (tmp_path / f"{split}.csv").write_text("text,label\n" + rows)
    workdir, moved = tmp_path / "run", iter(range(10**6))
    words = [sys.executable, str(ROOT / "scripts" / "finetune.py"), f"--workdir={workdir}"]
    words += ["--config=configs/finetune/custom.py:classification", f"--config.init_from={tmp_path / 'body'}"]
    words += [f"--config.data.{split}={tmp_path / split}.csv" for split in ("train", "validation")]
    words += [
        "--config.max_length=16",
        "--config.batch_size=8",
        "--config.eval_every=5",
        "--config.tensorboard=False",
    ]
    scores = []

    def whole() -> str:
        if left_over(workdir):
            return f"left {left_over(workdir)}"
        if (workdir / "finished.json").exists():
            scores.append(json.loads((workdir / "scores.json").read_text()))
        return "" if scores[:1] == scores[-1:] else f"other scores: {scores}"

    def forget() -> None:
        if workdir.exists():
            workdir.rename(tmp_path / f"run{next(moved)}")

    campaign(Command(words, whole, forget), trials)


def test_corpus(text_file, tmp_path, trials) -> None:
    random_model.tokenizer().save(tmp_path / "tokenizer")
    source, output = tmp_path / "text.txt", tmp_path / "corpus"
    source.write_text(text_file.read_text() * 100)
    words = [sys.executable, str(ROOT / "scripts" / "build_corpus.py"), f"--source={source}", "--processes=2"]
    words += [f"--tokenizer={tmp_path / 'tokenizer'}", f"--output={output}", "--nodrop_duplicates"]
    found = []

    def whole() -> str:
        if left_over(output):
            return f"left {left_over(output)}"
        if (output / "header.json").exists():
            found.append(sum(Corpus.open(output, split).num_documents for split in ("train", "validation")))
        return "" if found[:1] == found[-1:] else f"other numbers of documents: {found}"

    def forget() -> None:
        """A corpus that is there is replaced."""

    campaign(Command(words, whole, forget), trials)


def test_prediction(tmp_path, trials) -> None:
    huggingface.save(tmp_path / "model", random_model.random_model(), random_model.tokenizer())
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("the [MASK] film was good .\n" * 20_000)
    words = [sys.executable, str(ROOT / "scripts" / "predict.py"), "fill-mask", f"--model={tmp_path / 'model'}"]
    words += [f"--input={source}", f"--output={output}", "--window=200", "--top_k=1"]

    def whole() -> str:
        text = output.read_text() if output.exists() else ""
        if text and not text.endswith("\n"):
            return "a torn line"
        answers = [json.loads(line) for line in text.splitlines()]
        return "" if all(set(answer) == {"masks"} for answer in answers) else "other answers"

    campaign(Command(words, whole, lambda: output.unlink(missing_ok=True)), trials)
