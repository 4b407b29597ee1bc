r"""Checks that the figures in README.md and docs/ are those of the files in docs/benchmarks/.

  python scripts/check_figures.py            # says which figures are wrong, and exits with 1 if there are any
  python scripts/check_figures.py --write    # puts the right ones in their place, after a new measurement

A figure is a number with a comment behind it, which a reader of the page does not see:

  418<!--= train-cpu-2026-11-23; tiny*; bert_jax; seconds; ms --> ms

The comment names the file, and case, side and metric of its records (docs/benchmarks/README.md); then, if wanted, a
unit of `SCALES`, and `min`, `max` or `median`. The number has to be the record's, rounded to its own places.

- Case and side are patterns, as of file names. Without min, max or median they match one record: the one whose round is
  null. With one of these it is taken over all that match, or, if that is one, over its rounds.
- A side "A / B" is the quotient of the two.
- In metrics of a run (.jsonl) case is the step and side the split.

In a table, a row that has such a figure has nothing else with digits but its first cell, code and links. A table with
other rows that hold a number with a decimal point or a unit has, on a line before it, a remark that says where these
numbers come from: so no measured number is forgotten.

  <!-- no file: single runs, read from their last line -->
"""

from bert_jax.runtime import command
from bert_jax.runtime.files import write_whole

import fnmatch
import functools
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "docs" / "benchmarks"
SCALES = {"ms": 1e3, "s": 1, "GB": 1e-9, "MB": 1e-6, "%": 1e2, "million": 1e-6, "thousand": 1e-3}
CHOICES: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "median": statistics.median}
FIGURE = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)<!--=\s*(?P<marker>.*?)\s*-->")
NO_FIGURES = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|[A-Za-z_][\w.-]*\d[\w.-]*")  # code, links, names such as XQuAD1.1

NUMBER_IN_TABLE = re.compile(r"\d\.\d|\d ?(?:%|(?:ms|s|GB|MB|nats|times|minutes?|min|steps|million)\b)")
NO_FILE = re.compile(r"<!-- no file: \S.*-->")
SETTINGS = ROOT / "docs" / "configuration.md"  # its tables are made from the code, and nothing in them is measured

_WRITE = flags.DEFINE_bool("write", False, "put the right figures in their place")


@functools.cache
def read_records(name: str) -> dict[tuple[str, str, str], dict[int | None, float]]:
    """Reads a file of docs/benchmarks.

    Returns:
      The values of each (case, side, metric), by round.
    """
    path = BENCHMARKS / f"{name}.json"
    values: dict[tuple[str, str, str], dict[int | None, float]] = {}
    if path.exists():
        for record in json.loads(path.read_text())["measurements"]:
            key = record["case"], record["side"], record["metric"]
            values.setdefault(key, {})[record["round"]] = record["value"]
        return values
    for line in path.with_suffix(".jsonl").read_text().splitlines():
        metrics = json.loads(line)
        step, split = str(metrics.pop("step")), metrics.pop("split")
        values |= {(step, split, metric): {None: value} for metric, value in metrics.items()}
    return values


def figure_of(marker: str) -> float:
    """Returns the value that a marker names.

    Raises:
      ValueError: it names no record, or more than one.
    """
    name, case, side, metric, *options = [part.strip() for part in marker.split(";")]
    scale = 1.0
    choice = None
    for option in options:
        if option in SCALES:
            scale = SCALES[option]
        elif option in CHOICES:
            choice = CHOICES[option]
        else:
            raise ValueError(f"{option!r} is none of {', '.join([*SCALES, *CHOICES])}")
    numerator, _, denominator = side.partition(" / ")
    value = _value(name, case, numerator, metric, choice)
    return scale * (value / _value(name, case, denominator, metric, choice) if denominator else value)


def _value(name: str, case: str, side: str, metric: str, choice: Callable[[list[float]], float] | None) -> float:
    try:
        records = read_records(name)
    except FileNotFoundError:
        raise ValueError(f"docs/benchmarks has no {name}") from None
    matches = [
        values
        for (one_case, one_side, one_metric), values in records.items()
        if one_metric == metric and fnmatch.fnmatchcase(one_case, case) and fnmatch.fnmatchcase(one_side, side)
    ]
    if not matches or (len(matches) > 1 and choice is None):
        raise ValueError(f"{len(matches)} records are {name}; {case}; {side}; {metric}")
    if choice is None:
        return matches[0][None]
    if len(matches) > 1:
        return choice([values[None] for values in matches])
    return choice([value for number, value in matches[0].items() if number is not None])


def as_written(value: float, number: str) -> str:
    """Writes a value with the places, commas and exponent of a number of the page."""
    mantissa, exponent, _ = number.partition("e")
    places = len(mantissa.partition(".")[2])
    if not exponent:
        return f"{value:,.{places}f}"
    mantissa, _, exponent = f"{value:.{places}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def check_line(line: str) -> tuple[str, list[str]]:
    """Returns a line with the right figures, and the faults of the given one."""
    faults = []

    def right(match: re.Match[str]) -> str:
        number, marker = match["number"], match["marker"]
        try:
            expected = as_written(figure_of(marker), number)
        except (ValueError, KeyError) as error:
            faults.append(f"{match[0]}: {error}")
            return match[0]
        if expected != number:
            faults.append(f"{number} should be {expected} ({marker})")
        return expected + match[0][len(number) :]

    corrected = FIGURE.sub(right, line)
    if line.count("<!--=") != len(FIGURE.findall(line)):
        faults.append("a marker stands behind no number")
    if line.startswith("|") and "<!--=" in line and (left := re.findall(r"\d[\d.,]*", unmarked_cells(line))):
        faults.append(f"numbers without a record: {' '.join(left)}")
    return corrected, faults


def unmarked_cells(row: str) -> str:
    """Returns the cells of a row of a table but the first, without figures that have a marker, code and links."""
    return NO_FIGURES.sub("", FIGURE.sub("", row).strip("| \n").partition("|")[2])


def check_tables(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yields what is wrong with the tables of a page, and the number of the first line of the table, from 1."""
    remark = ""  # the last line with text before the table
    start = 0
    for number, line in enumerate([*lines, ""], 1):
        if line.startswith("|"):
            start = start or number
            continue
        if start:
            rows = [row for row in lines[start - 1 : number - 1] if "<!--=" not in row]
            numbers = any(NUMBER_IN_TABLE.search(unmarked_cells(row)) for row in rows)
            explained = NO_FILE.search(remark) is not None
            if numbers and not explained:
                yield start, "a table of numbers with neither markers nor a remark <!-- no file: WHY -->"
            if explained and not numbers:
                yield start, "the remark <!-- no file --> stands before a table that does not need it"
            start, remark = 0, ""
        remark = line if line.strip() else remark


def main(arguments: list[str]) -> None:
    """Checks the page that is named, or all, and exits with 1 if there are faults."""
    pages = [Path(page) for page in arguments[1:]] or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    count = wrong = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        corrected = []
        for number, fault in check_tables(text.splitlines()) if page.resolve() != SETTINGS else ():
            print(f"{page}:{number}: {fault}")
            wrong += 1
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            right, faults = check_line(line)
            corrected.append(right)
            count += line.count("<!--=")
            wrong += len(faults)
            for fault in faults:
                print(f"{page}:{number}: {fault}")
        if _WRITE.value and "".join(corrected) != text:
            write_whole(page, "".join(corrected))
    print(f"{count} figures, {wrong} faults")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    command.run(main, positional="PAGE")
