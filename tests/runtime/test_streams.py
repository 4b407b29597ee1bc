"""Printing never ends a run: a reader that is gone, a full disk or a closed stream is passed over."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.subprocess

SCRIPT = """
import sys
from bert_jax.runtime import command, streams

def talk(_):
    for number in range(20_000):
        print("line", number, "\\x0f")  # the byte of SIGTERM, in whosever pipe it may come
        print("complaint", number, file=sys.stderr)
    open(end, "w").write("came to its end")

def answer(_):
    with streams.answers() as target:
        for number in range(20_000):
            target.write(f"answer ä {number}\\n")

work, end = sys.argv.pop(), sys.argv.pop()  # what a script has are flags
command.run(globals()[work])
"""


def status(tmp_path, what: str, redirection: str) -> int:
    (tmp_path / "script.py").write_text(SCRIPT)
    line = f'set -o pipefail; "$0" script.py "$PWD/end" {what} {redirection}'
    done = subprocess.run(["bash", "-c", line, sys.executable], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode


@pytest.mark.parametrize(
    "redirection", ["2>&1 | head -n 1", "2>&1 | true", ">/dev/full 2>&1", ">&- 2>&-", "<&- >&-  2>/dev/null"]
)
def test_a_run_that_talks_to_nobody_comes_to_its_end(tmp_path, redirection) -> None:
    assert status(tmp_path, "talk", redirection) == 0
    assert (tmp_path / "end").read_text() == "came to its end"


def test_answers_that_nobody_reads_end_quietly_as_those_of_any_filter(tmp_path) -> None:
    assert status(tmp_path, "answer", "| head -n 1") == 128 + 13
    assert status(tmp_path, "answer", ">all") == 0
    assert (tmp_path / "all").read_text().count("ä") == 20_000
    assert status(tmp_path, "answer", ">/dev/full 2>error") == 1
    assert "No space left on device" in (tmp_path / "error").read_text()
    for others in ("", "<&-"):
        assert status(tmp_path, "answer", f"{others} >&- 2>error") == 1
        assert (tmp_path / "error").read_text().startswith("error: standard output is closed, and the answers would")


def test_help_that_nobody_reads_ends_well(tmp_path) -> None:
    assert status(tmp_path, '--help "$PWD/end" talk', ">/dev/full") == 0
