"""scripts/draw_run.py draws the curve of a run, and the picture in README.md is that of the published run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.subprocess
ROOT = Path(__file__).resolve().parents[2]


def draw(metrics: Path, output: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "draw_run.py"
    command = [sys.executable, str(script), f"--metrics={metrics}", f"--output={output}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_picture_of_the_readme_is_that_of_the_published_run(tmp_path):
    metrics = ROOT / "docs" / "benchmarks" / "quickstart-cpu-2026-11-23.jsonl"
    done = draw(metrics, tmp_path / "curve.svg", "--unigram=6.699")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "curve.svg").read_text()
    assert ">4.07</text>" in text
    assert "word frequencies alone" in text
    published = (ROOT / "docs" / "images" / "quickstart.svg").read_text()
    assert re.findall(r' d="([^"]*)"', text) == re.findall(r' d="([^"]*)"', published)  # all lines and points


def test_a_run_without_an_evaluation_gives_one_clear_line(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 50, "split": "train", "mlm_loss": 7.0}) + "\n")
    done = draw(metrics, tmp_path / "curve.svg")
    assert done.returncode == 1
    assert done.stderr == f"error: {metrics} has no masked-LM loss for validation yet\n"
    assert not (tmp_path / "curve.svg").exists()
