"""Tables, pictures and the page: who is in them, how long the bars are, and what happens where none can be."""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bert_jax.benchmarks import benchmark as benchmark_module
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.report import FASTEST, JAX, OTHER, best_other, draw, page, shown, svg, table, verdict

ENVIRONMENT = {
    "date": "2026-11-22T17:02:37+00:00",
    "device": "1 x cpu (cpu)",
    "processor": "AMD EPYC",
    "threads": 2,
    "commit": "abc",
    "versions": {"bert_jax": "0.1.0", "jax": "0.10.2", "torch": "not installed"},
}
RATES = {"bert_jax": 1_500.4, "PyTorch eager": 3_000.0, "PyTorch sdpa": 750.0}
PUBLISHED = sorted(Path(__file__).parents[2].glob("docs/benchmarks/*.json"))


def results_of(compared="tokens_per_second", cases=("tiny, 64 rows of 128",), values=RATES):
    results = Results("train", "A step", compared, {"dtype": "float32"}, environment=ENVIRONMENT)
    for case in cases:
        for side, value in values.items():
            results.add(case, side, **{compared: value})
    return results


def texts(picture):
    return [each.text for each in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def bars_of(picture):
    """The colour and the width of each bar, in points."""
    path = r'd="M (\S+) \S+ \nL (\S+) \S+ \nL \S+ \S+ \nL \S+ \S+ \nz\n"[^>]*style="fill: (#\w+)"'
    colours = {JAX, FASTEST, OTHER}
    return [
        (colour, float(right) - float(left)) for left, right, colour in re.findall(path, picture) if colour in colours
    ]


# ---- tables --------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_each_side_and_says_how_they_compare():
    results = results_of()
    results.add("tiny, 64 rows of 128", "bert_jax", peak_bytes=3e9, seconds=0.0123456)
    results.add_rounds("tiny, 64 rows of 128", "bert_jax", "ratio", [0.4, 0.5, 0.7])
    results.notes["tiny, 64 rows of 128"] = "plain"
    results.leave_out("tiny, 64 rows of 128", "PyTorch flash", "not installed")
    lines = table(results).splitlines()
    assert lines[0] == "dtype float32"
    assert lines[1].split() == ["seconds", "tokens/s", "peak,", "MB", "times", "as", "good"]
    assert lines[2] == "tiny, 64 rows of 128; plain"
    assert lines[3].split() == ["bert_jax", "0.0123", "1,500", "3,000"]
    assert lines[4].split() == ["PyTorch", "eager", "3,000", "0.50", "(0.40", "to", "0.70)"]
    assert lines[5].split() == ["PyTorch", "sdpa", "750", "2.00"]
    assert lines[6] == "PyTorch flash: left out of tiny, 64 rows of 128: not installed"
    assert lines[3].index("1,500") + 5 == lines[4].index("3,000") + 5 == lines[5].index("750") + 3  # one column
    results.add("tiny, 64 rows of 128", "bert_jax", ratio=0.5)
    assert verdict(results, "tiny, 64 rows of 128") == "tiny, 64 rows of 128: 0.50 times as fast as PyTorch eager"


def test_less_is_better_for_seconds():
    results = results_of("seconds")
    assert best_other(results, "tiny, 64 rows of 128") == "PyTorch sdpa"
    assert [line.split()[-1] for line in table(results).splitlines()[-2:]] == ["2.00", "0.50"]


def test_cases_of_other_metrics_have_their_own_headings():
    results = results_of()
    results.add("the update", "bert_jax", update_share=0.05)
    results.add("tiny, 64 rows of 128", "bert_jax", filled=1.0)
    lines = table(results).splitlines()
    assert lines[-3].split() == ["update,", "%"]
    assert lines[-1].split() == ["bert_jax", "5.00"]


def test_a_single_metric_is_a_matrix():
    results = Results("parity", "t", "", {"model": "m"})
    for quantity in ("loss", "gradients"):
        for side in ("bert_jax float32", "PyTorch float32"):
            results.add(quantity, side, difference=2e-6)
    results.notes["loss"] = "within"
    lines = table(results).splitlines()
    assert lines[1].split() == ["difference", "bert_jax", "float32", "PyTorch", "float32"]
    assert [line.split() for line in lines[2:]] == [
        ["loss", "2.0e-06", "2.0e-06", "within"],
        ["gradients", "2.0e-06", "2.0e-06"],
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (123.45, "123"), (0.5, "0.500"), (0.0, "0.00"), (1e-5, "1.0e-05")]
)
def test_numbers_have_three_digits_that_count(value, text):
    assert shown(value) == text


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_results_are_drawn_and_printed(path, tmp_path):
    """Every published file has a table, and a picture with each side if sides can be compared."""
    results = Results.load(path)
    assert all(side in table(results) for case in results.cases() for side in results.sides(case))
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    if draw(copy).startswith("no picture"):
        assert not path.with_suffix(".svg").exists()
    else:
        sides = {side for case in results.cases() for side in results.by_side(case, results.compared)}
        assert sides <= set(texts(copy.with_suffix(".svg").read_text()))
        assert path.with_suffix(".svg").exists()


@pytest.mark.parametrize(("compared", "unit", "ratio"), [("tokens_per_second", "tokens/s", 0.5), ("seconds", "s", 2)])
def test_each_side_has_its_name_and_its_figure(compared, unit, ratio, tmp_path):
    path = tmp_path / "train.json"
    results_of(compared).save(path)
    assert draw(path) == f"drawn in {tmp_path / 'train'}.svg"
    drawn = texts((tmp_path / "train.svg").read_text())
    assert set(RATES) <= set(drawn)
    assert f"1,500 {unit},  {ratio:.2f} times the best other" in drawn  # the least or the most of the others
    assert f"3,000 {unit}" in drawn
    assert f"750 {unit}" in drawn


def test_the_small_print_says_what_it_ran_on():
    drawn = "\n".join(texts(svg(results_of())))
    for part in ("AMD EPYC, 1 x cpu (cpu), 2 threads, float32, 2026-11-22", "bert_jax 0.1.0, jax 0.10.2", "more is"):
        assert part in drawn
    assert "torch 0" not in drawn


def test_bars_are_as_long_as_their_values_and_show_whose_they_are():
    for compared, fastest in (("tokens_per_second", "PyTorch eager"), ("seconds", "PyTorch sdpa")):
        results = results_of(compared)
        results.add("b", "bert_jax x", **{compared: 1.0})
        results.add("b", "bert_jax y", **{compared: 4.0})
        drawn = bars_of(svg(results))
        longest = max(width for _, width in drawn)
        lengths = [width / longest for _, width in drawn]
        assert lengths == pytest.approx([1_500.4 / 3_000, 1, 0.25, 0.25, 1], abs=1e-3)  # to the scale of each group
        greys = [FASTEST if name == fastest else OTHER for name in RATES if name != "bert_jax"]
        assert [colour for colour, _ in drawn] == [JAX, *greys, JAX, JAX]


def test_many_groups_have_two_columns():
    groups = [f"group {number}" for number in range(9)]
    drawn = ElementTree.fromstring(svg(results_of(cases=groups, values={"side": 1.0})))
    headings = [each for each in drawn.iter("{http://www.w3.org/2000/svg}text") if each.text in groups]
    places = [(each.get("x"), each.get("y")) for each in headings]
    assert len(set(places)) == 9
    assert len({x for x, _ in places}) == 2
    assert len({y for _, y in places}) == 5


def test_the_same_figures_give_the_same_file():
    first = svg(results_of())
    assert svg(results_of()) == first
    assert "dc:date" not in first


def test_what_has_nothing_to_compare_has_no_picture(tmp_path):
    for results in (results_of(values={"bert_jax": 1.0}), results_of("seconds")):
        results.compared = results.compared if len(results.measurements) == 1 else ""
        results.save(tmp_path / "train.json")
        assert draw(tmp_path / "train.json") == "no picture: train has no sides to compare here"


def test_without_matplotlib_a_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(benchmark_module.SUITES, "train", lambda workdir: results_of())
    benchmark("train", tmp_path)
    path = tmp_path / "benchmark" / "train.json"
    assert path.exists()
    assert not path.with_suffix(".svg").exists()
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"no picture: pip install matplotlib, then python scripts/benchmark.py --picture={path}"


# ---- the page ------------------------------------------------------------------------------------


def test_a_page_has_every_table_with_its_command_and_what_was_skipped():
    results = results_of()
    results.commands = ["python scripts/benchmark.py --suite=train"]
    text = page([results], [("suite memory", "no time was left")], ["a figure of others"])
    assert table(results) in text
    for part in ("    python scripts/benchmark.py --suite=train", "AMD EPYC, 1 x cpu (cpu), 2 threads", "jax 0.10.2"):
        assert part in text
    assert "- suite memory: no time was left" in text
    assert "- a figure of others" in text
    assert "commit abc" in text
