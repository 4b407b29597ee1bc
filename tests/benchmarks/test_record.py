"""Flat records: what is added is found again, and a file says what it was measured on."""

import pytest

from bert_jax.benchmarks.record import Measurement, Results, describe_environment
from bert_jax.errors import UserError


@pytest.fixture
def results():
    made = Results("train", "A step", "seconds", {"dtype": "float32"}, environment=describe_environment())
    made.add_rounds("tiny", "bert_jax", "seconds", [3.0, 1.0, 2.0])
    made.add("tiny", "bert_jax", peak_bytes=12, parameter_bytes=None)
    made.add("tiny", "PyTorch", seconds=4.0)
    made.leave_out("base", "PyTorch", "no such kernel\nand more")
    made.notes["tiny"] = "2 rows"
    made.commands = ["python scripts/benchmark.py --suite=train"]
    return made


def test_what_is_added_is_found_again(results):
    assert results.measurements[0] == Measurement("train", "tiny", "bert_jax", "seconds", 3.0, 0)
    assert results.rounds("tiny", "bert_jax", "seconds") == [3.0, 1.0, 2.0]
    assert results.value("tiny", "bert_jax", "seconds") == 2.0  # the median
    assert results.by_side("tiny", "seconds") == {"bert_jax": 2.0, "PyTorch": 4.0}
    assert results.rounds("tiny", "PyTorch", "seconds") == []
    assert results.cases() == ["tiny", "base"]
    assert results.sides("tiny") == ["bert_jax", "PyTorch"]
    assert results.metrics("tiny") == ["seconds", "peak_bytes"]  # None is not recorded
    assert results.left_out == [{"case": "base", "side": "PyTorch", "reason": "no such kernel"}]
    with pytest.raises(KeyError):
        results.value("tiny", "bert_jax", "tokens_per_second")


def test_a_file_holds_everything(results, tmp_path):
    path = tmp_path / "benchmark" / "train.json"
    results.save(path)
    assert Results.load(path) == results
    lines = path.read_text().splitlines()
    assert sum('"metric": "seconds"' in line for line in lines) == 5  # a measurement a line
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        results.save(tmp_path / "file" / "train.json")


def test_an_environment_says_what_a_speed_depends_on():
    environment = describe_environment()
    assert {"date", "device", "processor", "threads", "glibc_tunables", "python", "commit"} <= environment.keys()
    assert "(cpu)" in environment["device"]
    assert environment["versions"].keys() >= {"bert_jax", "jax", "torch", "transformers"}


def test_results_of_another_call_of_the_suite_are_taken_in(results):
    other = Results("train", "A step", "seconds", {"rows": 8}, notes={"base": "8 rows"}, commands=["again"])
    other.add("base", "bert_jax", seconds=5.0)
    results.extend(other)
    assert results.cases() == ["tiny", "base"]
    assert results.value("base", "bert_jax", "seconds") == 5.0
    assert results.notes == {"tiny": "2 rows", "base": "8 rows"}
    assert results.commands == ["python scripts/benchmark.py --suite=train", "again"]


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", '{"suite": "train", "measurements": [{"side": 1}]}'])
def test_what_is_no_result(text, tmp_path):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserError, match=r"cannot read .*other\.json: it is no result of benchmark\.py"):
        Results.load(tmp_path / "other.json")
    with pytest.raises(UserError, match="there is no such file"):
        Results.load(tmp_path / "nothing.json")
