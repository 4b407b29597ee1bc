r"""Draws the masked-LM loss of a pre-training run from its metrics.jsonl.

  python scripts/draw_run.py --metrics=runs/quickstart/metrics.jsonl --output=curve.svg
  python scripts/draw_run.py --metrics=docs/benchmarks/quickstart-cpu-2026-11-23.jsonl --unigram=6.699 \
      --output=docs/images/quickstart.svg
"""

from bert_jax.runtime import command
from bert_jax.runtime.files import refuse_foreign, whole_file

import json
from pathlib import Path

from absl import flags

from bert_jax.benchmarks.record import is_drawn
from bert_jax.errors import UserError

_METRICS = flags.DEFINE_string(
    "metrics", None, "metrics.jsonl of a run, as in --metrics=runs/quickstart/metrics.jsonl", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "picture that is written, as in --output=curve.svg", required=True)
_UNIGRAM = flags.DEFINE_float(
    "unigram", None, "cross-entropy of word frequencies, drawn as a line; printed when the run ends: --unigram=6.699"
)


def main(_: list[str]) -> None:
    """Reads the metrics and writes the picture."""
    output = Path(_OUTPUT.value)
    refuse_foreign(output.parent, "picture", [output.name], known=is_drawn(output))
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("a picture needs matplotlib: pip install matplotlib") from error
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bert_jax", "svg.fonttype": "none", "font.family": "sans-serif"})
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in Path(_METRICS.value).read_text(encoding="utf-8").splitlines()]
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for split, style, label in (
        ("train", {"color": "#9db8d9", "linewidth": 1.5}, "training batches"),
        ("validation", {"color": "#1f5fa8", "linewidth": 2, "marker": "o"}, "held-out text, 15 % masked"),
    ):
        points = [(line["step"], line["mlm_loss"]) for line in lines if line["split"] == split and "mlm_loss" in line]
        if not points:
            raise UserError(f"{_METRICS.value} has no masked-LM loss for {split} yet")
        axes.plot(*zip(*points, strict=True), label=label, **style)
    step, loss = points[-1]
    axes.annotate(f"{loss:.2f}", (step, loss), xytext=(8, -4), textcoords="offset points", color="#1f5fa8")
    if _UNIGRAM.value is not None:
        axes.axhline(_UNIGRAM.value, color="#777777", linestyle="--", label="word frequencies alone")
    axes.set(xlabel="step", ylabel="masked-LM loss (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.legend(frameon=False)
    with whole_file(output, "wb") as file:
        figure.savefig(file, format=output.suffix[1:] or "svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    command.run(main)
