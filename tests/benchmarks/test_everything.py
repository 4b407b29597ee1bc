"""All that a device can: in order, in time, each result written as it is made, and one page at the end."""

import json
import re
import sys

import pytest
from helpers.in_this_process import in_this_process

from bert_jax.benchmarks import benchmark, everything, harness
from bert_jax.benchmarks.everything import Step, plan
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import attention, corpus, quickstart
from bert_jax.errors import UserError


def test_a_gpu_proves_itself_first():
    steps = plan("gpu", "text")
    assert [step.suite for step in steps[:7]] == ["attention", "parity", *["train"] * 3, "quickstart", "train"]
    assert steps[0].settings == {"rounds": 0}  # kernels against plain attention, before anything is timed
    speed = [(step.settings["sizes"], step.settings["length"]) for step in steps[:7] if step.suite == "train"]
    assert sorted(speed) == [(["base"], 128), (["base"], 512), (["base"], 1024), (["large"], 512)]
    assert sum(step.minutes for step in steps[:7]) <= 10


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_a_plan_has_every_suite_with_all_of_its_settings(backend):
    steps = plan(backend, "text")
    assert {step.suite for step in steps} == set(benchmark.SUITES)
    for step in steps:
        assert step.settings.keys() == set(benchmark.settings_of(benchmark.SUITES[step.suite]))


def results_of(suite, case="c"):
    results = Results(suite, suite, "seconds")
    results.add(case, "bert_jax", seconds=1.0)
    results.add(case, "PyTorch", seconds=2.0)
    return results


def test_what_lacks_a_model_a_run_or_time_is_skipped_and_a_failure_ends_nothing(tmp_path, monkeypatch, capsys):
    steps = [
        Step("train", 1.0, {"case": "small"}),
        Step("inference", 1.0, {}, needs="model"),
        Step("input", 1.0, {}, needs="run"),
        Step("parity", 1.0, {}),
        Step("memory", 1.0, {}),
        Step("train", 1.0, {"case": "large"}),
        Step("corpus", 100.0, {}),
    ]

    def broken():
        written = Results.load(tmp_path / "benchmark" / "train.json")
        assert written.cases() == ["small"]  # as soon as it was made
        raise RuntimeError("out of memory\nat length")

    def refused():
        raise UserError("PyTorch is needed")

    suites = {"train": lambda *, case: results_of("train", case), "parity": broken, "memory": refused}
    monkeypatch.setattr(everything, "plan", lambda backend, source: steps)
    monkeypatch.setattr(benchmark, "SUITES", benchmark.SUITES | suites)
    path = everything.everything(tmp_path, "", minutes=5, source="text")
    assert path == tmp_path / "benchmark" / "results.md"
    text = path.read_text()
    assert Results.load(tmp_path / "benchmark" / "train.json").cases() == ["small", "large"]
    assert text.count("--suite=train") == 2
    skipped = dict(re.findall(r"- `.*--suite=(\w+).*`: (.*)", text))
    assert skipped == {
        "inference": "it needs a model: set --model=MODEL",
        "input": f"{tmp_path} is not the folder of a run that has trained",
        "parity": "RuntimeError: out of memory",
        "memory": "PyTorch is needed",
        "corpus": "it may take 100 minutes, and 5.0 are left",
    }
    assert "skipped: python scripts/benchmark.py --suite=inference" in capsys.readouterr().out


def test_timed_results_replace_a_mere_check(tmp_path):
    check, timed, parts = results_of("attention"), results_of("attention", "d"), {}
    check.compared = ""
    for results in (check, timed):
        results.environment = {"processor": "", "device": "", "threads": 1, "date": "", "versions": {}}
        everything.keep_part(parts, results, tmp_path)
    assert Results.load(tmp_path / "benchmark" / "attention.json").cases() == ["d"]


@pytest.fixture
def tiny(monkeypatch, text_file):
    """A machine on which the suites without a training step take a moment; those have tests of their own."""
    monkeypatch.setattr(harness, "started", in_this_process)
    monkeypatch.setattr(harness, "peak_flops", lambda dtype: 1e9)
    monkeypatch.setattr(attention, "HEADS", {"toy": (2, 8)})
    monkeypatch.setattr(attention, "FILLINGS", {"packed": attention.packed_rows})
    monkeypatch.setattr(attention, "lengths_and_positions", lambda: ((16,), 64))
    monkeypatch.setattr(corpus, "VOCAB_SIZE", 300)
    monkeypatch.setattr(corpus, "CORES", {"one core": harness.one_core})  # on all, it starts processes
    monkeypatch.setattr(quickstart, "losses", lambda source: {20: 9.0, 40: 8.0})
    return str(text_file)


@pytest.mark.slow
@pytest.mark.torch
def test_the_real_plan_runs_to_its_end(tiny, tmp_path, monkeypatch):
    """Without a model or a run: what is left runs, and is on the page."""
    steps = [step for step in plan("cpu", tiny) if step.suite not in ("parity", "train", "compile", "memory")]
    for step in steps:
        step.settings.update({"rounds": 1} if step.settings.get("rounds") else {})
    monkeypatch.setattr(everything, "plan", lambda backend, source: steps)
    text = everything.everything(tmp_path, "", minutes=1_000, source=tiny).read_text()
    ran = {path.stem for path in (tmp_path / "benchmark").glob("*.json")}
    assert ran == {"attention", "quickstart", "corpus"}
    assert set(re.findall(r"- `.*--suite=(\w+)", text)) == {"inference", "input", "finetune"}
    for suite in ran:
        results = Results.load(tmp_path / "benchmark" / f"{suite}.json")
        assert all(f"    {command}" in text for command in results.commands)


# ---- the quickstart's loss -----------------------------------------------------------------------


def test_the_quickstart_is_held_against_the_kept_losses(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(quickstart, "losses", lambda source: {20: 9.0, 40: 8.0})
    alone = quickstart.quickstart_suite(source="text")
    assert [alone.sides(case) for case in alone.cases()] == [["bert_jax on cpu"]] * 2
    alone.save(quickstart.KEPT)
    monkeypatch.setattr(quickstart, "losses", lambda source: {20: 9.009, 40: 9.0})
    results = quickstart.quickstart_suite(source="text")
    assert results.by_side("step 20", "loss") == {"bert_jax on cpu": 9.009, "bert_jax on cpu, kept": 9.0}
    assert results.notes == {"step 20": "1.0e-03 apart, within 2e-02", "step 40": "1.2e-01 apart, BEYOND 2e-02"}
    other = quickstart.quickstart_suite(source="another text")  # of which nothing is kept
    assert other.sides("step 20") == ["bert_jax on cpu"]


def test_losses_are_those_of_the_quickstarts_run(tmp_path, monkeypatch):
    """The command trains; what it leaves in metrics.jsonl is read."""
    ran = []
    lines = [{"step": 20, "split": "train", "loss": 9.5}, {"step": 20, "split": "validation", "loss": 8.5}]
    write = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'metrics.jsonl').write_text(sys.argv[2])"
    )

    def command(workdir, source, *flags):
        ran.append((source, flags))
        return [sys.executable, "-c", write, str(workdir), "\n".join(map(json.dumps, lines))]

    monkeypatch.setattr(quickstart, "quickstart_command", command)
    assert quickstart.losses("text") == {20: 9.5}
    assert ran == [("text", ("--config.total_steps=200", "--config.log_every=20"))]
    monkeypatch.setattr(quickstart, "quickstart_command", lambda *_: [sys.executable, "-c", "raise SystemExit('no')"])
    with pytest.raises(UserError, match="the quickstart ended with status 1: no"):
        quickstart.losses("text")
