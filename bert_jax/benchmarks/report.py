"""What people see of results: a table, a picture and a page; each made by one function for every suite.

print(draw(Path("runs/benchmark/train.json")))
"""

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bert_jax.benchmarks.record import Results, is_drawn
from bert_jax.runtime.files import refuse_foreign, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JAX, FASTEST, OTHER = "#c2410c", "#6b7280", "#b6bbc4"  # colours of bars
BAR, TEXT = 0.21, 8  # inches from bar to bar, and points
# Text stays text, so that it can be found and read aloud; and the same figures give the same file.
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "bert_jax", "font.family": "sans-serif", "font.size": TEXT}


class Metric(NamedTuple):
    """How a metric is shown."""

    heading: str  # of its column; its unit, if it has one, comes last
    unit: str = ""  # in pictures
    scale: float = 1.0  # that its values are multiplied with
    best: Callable = max  # which of several values is the better one: `max` or `min`


SHARES = {"filled": "filled", "utilization": "of peak", "spread": "spread", "input_wait": "waited"}
SHARES |= {"update_share": "update"}
FIRST = ("seconds", "tokens_per_second", "positions_per_second", "megabytes_per_second", *SHARES, "peak_bytes")


def metric_named(name: str) -> Metric:
    """Returns how a metric is shown, from its name, which ends with its unit."""
    stem, _, unit = name.rpartition("_")
    if name in SHARES:
        return Metric(f"{SHARES[name]}, %", "%", 100)
    if unit == "seconds":
        return Metric(f"{stem}, s" if stem else name, "s", best=min)
    if unit == "bytes":
        return Metric(f"{stem}, MB", "MB", 1e-6, min)
    rate = name.replace("_per_second", "/s").replace("megabytes", "MB")
    return Metric(rate, rate)


def shown(value: float, scale: float = 1.0) -> str:
    """Returns a number with three digits that count, or all before the point."""
    value *= scale
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:#.3g}".rstrip(".")


# ---- tables --------------------------------------------------------------------------------------


def table(results: Results) -> str:
    """Returns all measurements as lines of text.

    Where nothing is compared and there is a single metric, each case is a line and each side a column; else each side
    of each case is a line, and each metric a column. The last column says how many times as fast (or as small) the
    first side is.
    """
    cases = results.cases()
    metrics = {metric for case in cases for metric in results.metrics(case)}
    lines = [", ".join(f"{name} {value}" for name, value in results.metadata.items() if isinstance(value, str))]
    if len(metrics) == 1 and not results.compared:
        lines += _matrix(results, metrics.pop())
    else:
        for columns, group in itertools.groupby(cases, key=lambda case: tuple(_columns(results, case))):
            lines += _block(results, list(group), columns)
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in results.left_out:
        reasons.setdefault((each["side"], each["reason"]), []).append(each["case"])
    for (side, reason), left in reasons.items():
        lines.append(f"{side}: left out of {left[0] if len(left) == 1 else f'{len(left)} cases'}: {reason}")
    return "\n".join(filter(None, lines))


def _columns(results: Results, case: str) -> list[str]:
    """Returns the metrics of a case in the order of `FIRST`, others last; the ratio has a place of its own."""
    present = [metric for metric in results.metrics(case) if metric != "ratio"]
    return [metric for metric in FIRST if metric in present] + [m for m in present if m not in FIRST]


def _matrix(results: Results, metric: str) -> list[str]:
    sides = list(dict.fromkeys(m.side for m in results.measurements))
    lines = [f"{metric_named(metric).heading:<28}" + "".join(f"{side:>24}" for side in sides)]
    for case in results.cases():
        values = results.by_side(case, metric)
        cells = [shown(values[side]) if side in values else "" for side in sides]
        line = f"{case:<28}" + "".join(f"{cell:>24}" for cell in cells)
        lines.append(f"{line}   {results.notes.get(case, '')}".rstrip())
    return lines


def _block(results: Results, cases: list[str], columns: tuple[str, ...]) -> list[str]:
    """Returns the lines of cases that have the same metrics."""
    wide = max([48, *(len(side) for case in cases for side in results.sides(case))]) + 2
    described = [metric_named(metric) for metric in columns]
    widths = [max(10, len(metric.heading)) + 2 for metric in described]
    headings = "".join(f"{metric.heading:>{width}}" for metric, width in zip(described, widths, strict=True))
    compared = any(len(results.by_side(case, results.compared)) > 1 for case in cases)
    lines = [f"{'':<{wide}}{headings}" + ("  times as good" if compared else "")]
    for case in cases:
        lines.append(f"{case}; {results.notes[case]}" if case in results.notes else case)
        for side in results.sides(case):
            line = f"  {side:<{wide - 2}}"
            for name, metric, width in zip(columns, described, widths, strict=True):
                value = results.by_side(case, name).get(side)
                line += f"{'' if value is None else shown(value, metric.scale):>{width}}"
            lines.append((line + _times(results, case, side)).rstrip())
    return lines


def _times(results: Results, case: str, side: str) -> str:
    """Returns how many times as good as a side the first one is; of the best other one, by round too."""
    values, best = results.by_side(case, results.compared), metric_named(results.compared).best
    first = next(iter(values), side)
    if side == first or side not in values:
        return ""
    quotient = values[first] / values[side] if best is max else values[side] / values[first]
    rounds = results.rounds(case, first, "ratio") if side == best_other(results, case) else []
    return f"  {quotient:.2f}" + (f" ({min(rounds):.2f} to {max(rounds):.2f})" if rounds else "")


def best_other(results: Results, case: str) -> str | None:
    """Returns the best of the sides that are not the project's own; None if there is none."""
    values = results.by_side(case, results.compared)
    others = {side: value for side, value in values.items() if not side.startswith("bert_jax")}
    best = metric_named(results.compared).best
    return best(others, key=others.get) if others else None


def verdict(results: Results, case: str) -> str:
    """Returns how the first side of a case compares with the best other one, as a line for people."""
    first, ratio = results.sides(case)[0], "ratio"
    if first not in results.by_side(case, ratio):
        return f"{case}: nothing to compare with"
    return f"{case}: {results.value(case, first, ratio):.2f} times as fast as {best_other(results, case)}"


# ---- pictures ------------------------------------------------------------------------------------


def draw(path: Path) -> str:
    """Draws what a suite saved as SUITE.json, into SUITE.svg beside it.

    Args:
      path: of the JSON.

    Returns:
      A line for people: where the picture is, or why there is none.

    Raises:
      UserError: the file cannot be read, or is no result of a suite.
    """
    results = Results.load(path)
    if not any(len(results.by_side(case, results.compared)) > 1 for case in results.cases()):
        return f"no picture: {results.suite} has no sides to compare here"
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return f"no picture: pip install matplotlib, then python scripts/benchmark.py --picture={path}"
    picture = path.with_suffix(".svg")
    refuse_foreign(picture.parent, "benchmark", [picture.name], known=is_drawn(picture))
    write_whole(picture, svg(results))
    return f"drawn in {picture}"


def svg(results: Results) -> str:
    """Returns the picture: a group of bars for each case, one below the other, in two columns if there are many."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    metric = metric_named(results.compared)
    groups = [(case, values) for case in results.cases() if (values := results.by_side(case, results.compared))]
    columns = 1 if len(groups) <= 8 else 2
    per_column = -(-len(groups) // columns)
    parts = [groups[begin : begin + per_column] for begin in range(0, len(groups), per_column)]
    rows = max(sum(len(values) + 2 for _, values in part) for part in parts) - 1
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.1)  # inches, for readers whose font is wider
        figure = Figure(figsize=(8 if columns == 1 else 11, BAR * rows + 1.2), layout=layout)
        figure.suptitle(results.title, x=0.01, ha="left", weight="bold", size=TEXT + 3)
        for axes, part in zip(figure.subplots(1, columns, squeeze=False)[0], parts, strict=True):
            _draw_column(axes, part, rows, metric)
        note = f"Each group has its own scale; {'more' if metric.best is max else 'less'} is better."
        small_print = f"{note}\n{describe(results.environment, results.metadata.get('dtype', ''))}"
        figure.supxlabel(small_print, x=0.01, ha="left", size=TEXT - 2, color="#4b5563")
        figure.draw_without_rendering()  # where names are long, one pass leaves text beyond the edge
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _draw_column(axes: "Axes", groups: list[tuple[str, dict[str, float]]], rows: int, metric: Metric) -> None:
    """Draws groups in their order: a row for each heading and each bar, and an empty one between groups."""
    row, names = 0, {}
    for heading, values in groups:
        own = [side for side in values if side.startswith("bert_jax")]
        others = [value for side, value in values.items() if side not in own]
        best = metric.best(others) if others else None
        axes.text(0, row, heading, weight="bold", va="center")
        for row, (side, value) in enumerate(values.items(), start=row + 1):  # noqa: B020
            names[row] = side
            colour = JAX if side in own else FASTEST if value == best else OTHER
            width = value / max(values.values())
            axes.barh(row, width, height=0.75, color=colour)
            beside = f",  {value / best:.2f} times the best other" if best and side == next(iter(own), None) else ""
            axes.text(width + 0.01, row, f"{shown(value, metric.scale)} {metric.unit}{beside}", va="center")
        row += 2
    axes.set(xlim=(0, 1), ylim=(rows, -1), xticks=[], yticks=list(names), yticklabels=list(names.values()))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def describe(environment: dict[str, Any], dtype: str = "") -> str:
    """Returns what figures depend on, in two lines."""
    machine = [environment["processor"], environment["device"], f"{environment['threads']} threads", dtype]
    versions = [f"{name} {each}" for name, each in environment["versions"].items() if each != "not installed"]
    return f"{', '.join(filter(None, [*machine, environment['date'][:10]]))}\n{', '.join(versions)}"


# ---- the page ------------------------------------------------------------------------------------


def page(parts: list[Results], skipped: list[tuple[str, str]], to_beat: Sequence[str] = ()) -> str:
    """Returns one page in Markdown of what several suites have measured, and of what was skipped and why.

    Args:
      parts: results, the most telling first.
      skipped: what did not run, and the reason.
      to_beat: figures of others to compare with, a line each.
    """
    lines = ["# Results", ""]
    if parts:
        environment = parts[-1].environment
        lines += [*describe(environment).splitlines(), f"commit {environment['commit'] or 'unknown'}", ""]
    for results in parts:
        lines += [f"## {results.title}", "", f"{results.environment['date']}:", ""]
        lines += [f"    {command}" for command in results.commands] + ["", "```", table(results), "```", ""]
    if to_beat:
        lines += ["## To beat", "", *(f"- {line}" for line in to_beat), ""]
    if skipped:
        lines += ["## Skipped", "", *(f"- {name}: {reason}" for name, reason in skipped), ""]
    return "\n".join(lines)
