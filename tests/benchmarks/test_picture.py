"""Pictures of the suites' figures: who is in them, how long the bars are, and what happens where none can be."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from bert_jax.benchmarks import benchmark as benchmark_module
from bert_jax.benchmarks import picture as module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.picture import BARS, FASTEST, OURS, THEIRS, Bars, draw, svg
from bert_jax.errors import UserError

SETTING = {
    "date": "2026-11-22T17:02:37+00:00",
    "device": "1 x cpu (cpu)",
    "processor": "AMD EPYC",
    "threads": 2,
    "versions": {"bert_jax": "0.1.0", "jax": "0.10.2", "torch": "not installed"},
}
RATES = {"bert_jax": 1_500.4, "PyTorch eager": 3_000.0, "PyTorch sdpa": 750.0}
SIZE = {"rows": 64, "length": 128, "tokens_per_second": RATES}
FIGURES = {
    "input": {"length": 128, "batch_size": 16, "tokens_per_second": RATES},
    "train": {"equal_work": {"tiny": SIZE}, "real_text": {"tiny": SIZE}},
    "inference": {"texts": 8, "tokens": {"least": 6, "most": 512, "mean": 199.5}, "tokens_per_second": RATES},
    "finetune": {"tasks": {"mrpc": {"speed": {"seconds_a_step": RATES}}, "stsb": {"speed": None}}},
    "attention": {
        "cases": {f"BERT-base, 8 x 128, full, {work}": {"tokens_per_second": RATES} for work in ("backward", "forward")}
    },
    "packing": {
        "comparisons": [
            {"text": "pairs", "length": 128, "packers": {name: {"filled": rate / 100} for name, rate in RATES.items()}}
        ]
    },
    "corpus": {work: {"one core": {"megabytes_per_second": RATES}} for work in ("vocabulary", "corpus")},
    "compile": {
        "first_step": {
            "tiny": {
                "seconds": {
                    name: {which: {"trace": rate - 1, "run": 1} for which in ("first", "second")}
                    for name, rate in RATES.items()
                }
            }
        }
    },
    "memory": {
        "length": 128,
        "needs": {
            "tiny": {"rows": 64, "sides": {name: {"peak_bytes": 1e9 * rate} for name, rate in RATES.items()}},
        },
    },
}
UNITS = {"finetune": "s", "packing": "%", "corpus": "MB/s", "compile": "s", "memory": "GB"}
COMPARED = {
    "s": "the time of the best of theirs",
    "GB": "the memory of the best of theirs",
    "%": "the best of the others",
}


def saved(folder, suite):
    path = folder / f"{suite}.json"
    path.write_text(json.dumps({"suite": suite, **SETTING, **FIGURES.get(suite, {})}))
    return path


def texts(picture):
    return [each.text for each in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def bars_of(picture):
    """The colour and the width of each bar, in points."""
    path = r'd="M (\S+) \S+ \nL (\S+) \S+ \nL \S+ \S+ \nL \S+ \S+ \nz\n"[^>]*style="fill: (#\w+)"'
    colours = {OURS, FASTEST, THEIRS}
    return [
        (colour, float(right) - float(left)) for left, right, colour in re.findall(path, picture) if colour in colours
    ]


@pytest.mark.parametrize("suite", FIGURES)
def test_each_side_has_its_name_and_its_figure(suite, tmp_path):
    assert draw(saved(tmp_path, suite)) == f"drawn in {tmp_path / suite}.svg"
    found = texts((tmp_path / f"{suite}.svg").read_text())
    assert set(RATES) <= set(found)
    unit = UNITS.get(suite, "tokens/s")
    ratio = "2.00" if unit in ("s", "GB") else "0.50"  # of the least or the most of theirs
    assert f"1,500 {unit},  {ratio} times {COMPARED.get(unit, 'the best of theirs')}" in found
    assert f"3,000 {unit}" in found
    assert f"750 {unit}" in found
    assert sum(" times the " in text for text in found) == len(BARS[suite](FIGURES[suite]).groups)


def test_the_small_print_says_what_it_ran_on(tmp_path):
    draw(saved(tmp_path, "train"))
    found = "\n".join(texts((tmp_path / "train.svg").read_text()))
    for part in ("AMD EPYC, 1 x cpu (cpu), 2 threads, 2026-11-22", "bert_jax 0.1.0, jax 0.10.2", "more is better"):
        assert part in found
    assert "torch" not in found


def test_bars_are_as_long_as_their_values_and_show_whose_they_are():
    for best, fastest in ((max, "PyTorch eager"), (min, "PyTorch sdpa")):
        found = bars_of(svg(Bars("a title", "s", {"a": RATES, "b": {"x": 1.0, "y": 4.0}}, best), "below"))
        longest = max(width for _, width in found)
        lengths = [width / longest for _, width in found]
        assert lengths == pytest.approx([1_500.4 / 3_000, 1, 0.25, 0.25, 1], abs=1e-3)  # to the scale of each group
        greys = [FASTEST if name == fastest else THEIRS for name in RATES if name != "bert_jax"]
        assert [colour for colour, _ in found] == [OURS, *greys, OURS, OURS]


def test_many_groups_have_two_columns():
    groups = {f"group {number}": {f"side {number}": 1.0} for number in range(9)}
    found = ElementTree.fromstring(svg(Bars("a title", "s", groups), "below"))
    headings = [each for each in found.iter("{http://www.w3.org/2000/svg}text") if each.text in groups]
    places = [(each.get("x"), each.get("y")) for each in headings]
    assert len(set(places)) == 9
    assert len({x for x, _ in places}) == 2
    assert len({y for _, y in places}) == 5


def test_the_same_figures_give_the_same_file(tmp_path):
    path = saved(tmp_path, "train")
    draw(path)
    first = path.with_suffix(".svg").read_bytes()
    draw(path)
    assert path.with_suffix(".svg").read_bytes() == first
    assert b"dc:date" not in first


def test_without_matplotlib_a_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(benchmark_module.SUITES, "inference", lambda *_: ("the table", FIGURES["inference"]))
    benchmark("inference", tmp_path)
    path = tmp_path / "benchmark" / "inference.json"
    assert path.exists()
    assert not path.with_suffix(".svg").exists()
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"no picture: pip install matplotlib, then python scripts/benchmark.py --picture={path}"


def test_a_suite_draws_what_it_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(benchmark_module.SUITES, "inference", lambda *_: ("the table", FIGURES["inference"]))
    benchmark("inference", tmp_path)
    assert "PyTorch sdpa" in texts((tmp_path / "benchmark" / "inference.svg").read_text())
    assert f"drawn in {tmp_path / 'benchmark' / 'inference.svg'}" in capsys.readouterr().out


def test_what_has_no_bars_and_what_is_no_result(tmp_path):
    assert draw(saved(tmp_path, "parity")) == "no picture: parity has no bars here"
    assert set(module.BARS) <= set(benchmark_module.SUITES)
    (tmp_path / "other.json").write_text("[]")
    for name, why in (("other.json", "it is no result of benchmark.py"), ("nothing.json", "there is no such file")):
        with pytest.raises(UserError, match=f"cannot draw .*{name}: {why}"):
            draw(tmp_path / name)
