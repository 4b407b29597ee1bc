"""Pictures of what the suites measured: horizontal bars, ours in colour and theirs in grey, as SVG.

print(draw(Path("runs/benchmark/train.json")))
"""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_jax.errors import UserError
from bert_jax.runtime.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, FASTEST, THEIRS = "#c2410c", "#6b7280", "#b6bbc4"
BAR, TEXT = 0.21, 8  # inches from bar to bar, and points
# Text stays text, so that it can be found and read aloud; and the same figures give the same file.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "bert_jax", "font.family": "sans-serif", "font.size": TEXT}


@dataclasses.dataclass(frozen=True)
class Bars:
    """What is drawn.

    Attributes:
      title: of the picture.
      unit: of the values.
      groups: by heading the value of each name; bars of a group share a scale. Where names begin with bert_jax, these
        are ours, and the others theirs; else all are ours.
      best: of theirs, which ours are compared with: the largest or the smallest value.
      compared: what ours are a multiple of.
    """

    title: str
    unit: str
    groups: dict[str, dict[str, float]]
    best: Callable = max
    compared: str = "the best of theirs"


def train_bars(found: dict[str, Any]) -> Bars:
    """Equal work at each size, then text."""
    groups = {}
    texts = {
        "equal_work": "without padding",
        "real_text": "of text: ours packed, theirs padded",
        "text_by_length": "of text: ours packed, theirs of like lengths",
    }
    for key, text in texts.items():
        for size, each in found.get(key, {}).items():
            groups[f"{size}, {each['rows']} rows of {each['length']} {text}"] = each["tokens_per_second"]
    return Bars("A pre-training step", "tokens/s", groups)


def inference_bars(found: dict[str, Any]) -> Bars:
    """All sides on the same texts."""
    tokens = found["tokens"]
    heading = (
        f"{found['texts']:,} texts of {tokens['least']} to {tokens['most']} tokens, {tokens['mean']:.0f} on average"
    )
    return Bars("Texts to vectors", "tokens/s", {heading: found["tokens_per_second"]})


def attention_bars(found: dict[str, Any]) -> Bars:
    """Forward in the first column, with its gradient in the second."""
    names = sorted(found["cases"], key=lambda name: name.endswith("backward"))
    groups = {name: found["cases"][name]["tokens_per_second"] for name in names}
    return Bars("Attention alone", "tokens/s", groups)


def input_bars(found: dict[str, Any]) -> Bars:
    """All sides."""
    heading = f"batches of {found['batch_size']} rows of {found['length']}, padding not counted"
    return Bars("Batches made on one core", "tokens/s", {heading: found["tokens_per_second"]})


def finetune_bars(found: dict[str, Any]) -> Bars:
    """Seconds a step of each task whose speed was measured."""
    speeds = {name: each["speed"]["seconds_a_step"] for name, each in found["tasks"].items() if each["speed"]}
    return Bars("A fine-tuning step", "s", speeds, min, "the time of the best of theirs")


def packing_bars(found: dict[str, Any]) -> Bars:
    """Each packer on each text."""
    groups = {
        f"{each['text']}, rows of {each['length']}": {
            name: 100 * packer["filled"] for name, packer in each["packers"].items()
        }
        for each in found["comparisons"]
    }
    return Bars("How full rows are packed", "%", groups, compared="the best of the others")


def corpus_bars(found: dict[str, Any]) -> Bars:
    """Vocabulary and corpus, on one core and on all."""
    groups = {
        f"{work}, {cores}": each["megabytes_per_second"]
        for work in ("vocabulary", "corpus")
        for cores, each in found[work].items()
    }
    return Bars("From text to tokens", "MB/s", groups)


def compile_bars(found: dict[str, Any]) -> Bars:
    """Each way at each size, compiled anew and found compiled."""
    groups = {
        f"{size}, {which} process": {name: sum(seconds[which].values()) for name, seconds in each["seconds"].items()}
        for size, each in found["first_step"].items()
        for which in ("first", "second")
    }
    return Bars("Until the first training step is done", "s", groups, min, "the time of the best of theirs")


def memory_bars(found: dict[str, Any]) -> Bars:
    """The whole process of each side at each size."""
    groups = {
        f"{size}, {each['rows']} rows of {found['length']}": {
            name: (side["peak_bytes"] or 0) / 1e9 for name, side in each["sides"].items()
        }
        for size, each in found["needs"].items()
    }
    return Bars("Memory of a process that trains", "GB", groups, min, "the memory of the best of theirs")


BARS: dict[str, Callable[[dict[str, Any]], Bars]] = {  # of the suites that have a picture, from their figures
    "input": input_bars,
    "train": train_bars,
    "inference": inference_bars,
    "finetune": finetune_bars,
    "attention": attention_bars,
    "packing": packing_bars,
    "corpus": corpus_bars,
    "compile": compile_bars,
    "memory": memory_bars,
}


def draw(result: Path) -> str:
    """Draws what `benchmark` saved as SUITE.json, into SUITE.svg beside it.

    Args:
      result: the file.

    Returns:
      A line for people: where the picture is, or why there is none.

    Raises:
      UserError: the file cannot be read, or is no result of a suite.
    """
    if not result.is_file():
        raise UserError(f"cannot draw {result}: there is no such file")
    try:
        found = json.loads(result.read_text())
        suite = found["suite"]
        bars = BARS[suite](found) if suite in BARS else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot draw {result}: it is no result of benchmark.py ({error!r})") from error
    if not bars or not bars.groups:
        return f"no picture: {suite} has no bars here"
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return f"no picture: pip install matplotlib, then python scripts/benchmark.py --picture={result}"
    path = result.with_suffix(".svg")
    write_whole(path, svg(bars, small_print(found)))
    return f"drawn in {path}"


def small_print(found: dict[str, Any]) -> str:
    """What the figures depend on, in two lines."""
    versions = [f"{name} {version}" for name, version in found["versions"].items() if version != "not installed"]
    setting = [
        found["processor"],
        found["device"],
        f"{found['threads']} threads",
        found.get("dtype"),
        found["date"][:10],
    ]
    return f"{', '.join(filter(None, setting))}\n{', '.join(versions)}"


def svg(bars: Bars, below: str) -> str:
    """The picture: groups one below the other, in two columns if there are many.

    Args:
      bars: what is drawn.
      below: small print.
    """
    import matplotlib
    from matplotlib.figure import Figure

    groups = list(bars.groups.items())
    columns = 1 if len(groups) <= 8 else 2
    most = -(-len(groups) // columns)
    parts = [groups[begin : begin + most] for begin in range(0, len(groups), most)]
    rows = max(sum(len(values) + 2 for _, values in part) for part in parts) - 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8 if columns == 1 else 11, BAR * rows + 1.2), layout="constrained")
        figure.suptitle(bars.title, x=0.01, ha="left", weight="bold", size=TEXT + 3)
        for axes, part in zip(figure.subplots(1, columns, squeeze=False)[0], parts, strict=True):
            draw_column(axes, part, rows, bars)
        figure.get_layout_engine().set(w_pad=0.1)  # inches, for readers whose font is wider
        note = f"Each group has its own scale; {'more' if bars.best is max else 'less'} is better."
        figure.supxlabel(f"{note}\n{below}", x=0.01, ha="left", size=TEXT - 2, color="#4b5563")
        figure.draw_without_rendering()  # where names are long, one pass leaves text beyond the edge
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def draw_column(axes: "Axes", groups: list[tuple[str, dict[str, float]]], rows: int, bars: Bars) -> None:
    """Groups in their order, a row for each heading and each bar, and an empty one between groups."""
    row, names = 0, {}
    for heading, values in groups:
        ours = [name for name in values if name.startswith("bert_jax")] or list(values)
        theirs = [value for name, value in values.items() if name not in ours]
        best = bars.best(theirs) if theirs else None
        axes.text(0, row, heading, weight="bold", va="center")
        for row, (name, value) in enumerate(values.items(), start=row + 1):  # noqa: B020
            names[row] = name
            colour = OURS if name in ours else FASTEST if value == best else THEIRS
            width = value / max(values.values())
            axes.barh(row, width, height=0.75, color=colour)
            shown = f"{value:,.0f}" if value >= 1_000 else f"{value:#.3g}".rstrip(".")
            beside = f",  {value / best:.2f} times {bars.compared}" if best and name == ours[0] else ""
            axes.text(width + 0.01, row, f"{shown} {bars.unit}{beside}", va="center")
        row += 2
    axes.set(xlim=(0, 1), ylim=(rows, -1), xticks=[], yticks=list(names), yticklabels=list(names.values()))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
