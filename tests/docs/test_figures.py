"""The figures in README.md and docs/ are those of the files in docs/benchmarks/."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.subprocess
ROOT = Path(__file__).resolve().parents[2]
SPEC = "train-cpu-2026-11-23; tiny*; bert_jax; seconds; ms"


def check(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, ROOT / "scripts" / "check_figures.py", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_all_figures_of_the_pages_agree_with_their_records():
    status, output = check()
    assert status == 0, output
    assert int(output.split(" figures")[0].split()[-1]) > 50  # the markers are there and were read


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f"A step takes 418<!--= {SPEC} --> ms.", ""),
        (f"A step takes 417.9<!--= {SPEC} --> ms.", ""),
        (f"A step takes 428<!--= {SPEC} --> ms.", "428 should be 418"),
        ("It is 0.97<!--= train-cpu-2026-11-23; tiny*; bert_jax; ratio; min --> times as fast.", ""),
        ("4.074<!--= quickstart-cpu-2026-11-23; 4456; validation; mlm_loss --> nats", ""),
        ("1.1e-6<!--= parity-minilm-cpu-2026-11-23; *; *; difference -->", "records are"),
        ("418<!--= train-cpu-1999-01-01; tiny*; bert_jax; seconds; ms -->", "has no train-cpu-1999-01-01"),
        ("418<!--= train-cpu-2026-11-23; tiny*; nobody; seconds; ms -->", "0 records are"),
        (f"418 <!--= {SPEC} -->", "stands behind no number"),
        (f"| tiny, 64 rows of 128 | 418<!--= {SPEC} --> ms | `--rounds=5` |", ""),
        (f"| tiny, 64 rows of 128 | 418<!--= {SPEC} --> ms | 410 ms |", "numbers without a record: 410"),
        ("| tiny | 418 ms |", "neither markers nor a remark"),
        ("| tiny | 0.97 |", "neither markers nor a remark"),
        ("<!-- no file: a single run -->\n\n| tiny | 418 ms |", ""),
        ("<!-- no file: -->\n\n| tiny | 418 ms |", "neither markers nor a remark"),
        ("<!-- no file: a single run -->\n\nWords.\n\n| tiny | 418 ms |", "neither markers nor a remark"),
        (f"| tiny | 418<!--= {SPEC} --> ms |\n| mini | 750 ms |", "neither markers nor a remark"),
        ("<!-- no file: a single run -->\n\n| `batch_size` | rows of a step, 1 or more |", "does not need it"),
    ],
)
def test_a_figure_is_held_against_its_record(tmp_path, line, fault):
    page = tmp_path / "page.md"
    page.write_text(line)
    status, output = check(page)
    assert status == bool(fault)
    assert fault in output


def test_the_output_in_the_readme_is_that_of_the_published_run():
    lines = (ROOT / "docs" / "benchmarks" / "quickstart-cpu-2026-11-23.jsonl").read_text().splitlines()
    record = json.loads(lines[-1])
    (shown,) = re.findall(r"^step +([\d,]+)  validation: (.*)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert int(shown[0].replace(",", "")) == record["step"]
    numbers = dict(part.split(" ") for part in shown[1].split(", "))
    assert numbers == {name: f"{record[name]:.4g}" for name in numbers}


def test_a_page_that_is_not_there_is_told_in_a_line(tmp_path):
    assert check(tmp_path / "page.md") == (1, f"error: {tmp_path}/page.md: no such file or directory\n")


def test_write_puts_the_right_figure_in_place_and_leaves_the_rest(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"first\nIt takes 1<!--= {SPEC} --> ms.\nlast")
    check("--write", page)
    assert page.read_text() == f"first\nIt takes 418<!--= {SPEC} --> ms.\nlast"
    assert check(page)[0] == 0
