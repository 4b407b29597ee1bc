"""The comparison of attention alone: both sides attend within the same sequences, or nothing is timed."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.test_training_speed import products
from helpers.in_this_process import in_this_process

from bert_jax.benchmarks import attention_speed as module
from bert_jax.benchmarks.attention_speed import (
    BACKENDS,
    KINDS,
    Case,
    Ours,
    Theirs,
    difference,
    drawn_rows,
    reference,
)
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.errors import UserError
from bert_jax.model.kernels import plain
from bert_jax.model.kernels.plain import scaled_dot_product_attention
from bert_jax.model.kernels.splash import SPLASH
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

SIDES = {"plain": functools.partial(Ours, "plain")}
SIDES |= {backend: functools.partial(Theirs, backend) for backend in BACKENDS["cpu"]}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "HEADS", {"toy": (2, 8)})
    monkeypatch.setattr(module, "lengths_and_positions", lambda: ((16,), 64))
    monkeypatch.setattr(module, "calls_a_turn", lambda: 2)
    monkeypatch.setattr(module, "started", in_this_process)
    monkeypatch.setattr(module, "peak_flops", lambda dtype: 1e9)


def case_of(kind, gradient=True):
    return Case("toy", kind, drawn_rows(kind, 4, 16), gradient)


# --------------------------------------------------------------------------------------------------------------- rows


def test_rows_are_what_their_names_say():
    full, padded, packed = (drawn_rows(kind, 64, 128) for kind in KINDS)
    assert (full == 1).all()
    lengths = padded.sum(axis=1)
    assert set(np.unique(padded)) == {0, 1}
    assert lengths.max() == 128
    assert lengths.min() >= 32
    assert len(set(lengths)) > 10
    assert (np.diff(padded, axis=1) <= 0).all()  # padding comes last
    for row in packed:
        steps = np.diff(row)
        assert row[0] == 1
        assert set(steps[steps != 0]) <= {1, -row.max()}  # one behind the other, then padding
        _, counts = np.unique(row[row > 0], return_counts=True)
        assert len(counts) >= 2
        assert counts.min() >= 16
        assert counts.max() <= 64
    assert (packed > 0).mean() > 0.7


def test_operations_are_those_of_the_products():
    """Of full rows all that the step multiplies; of others the squares of the sequences' lengths."""
    case, mask = case_of("full"), AttentionPattern().mask(jnp.ones((4, 16), jnp.int32))
    *inputs, weights = case.arrays()
    forward = lambda *inputs: scaled_dot_product_attention(*inputs, mask)[0]  # noqa: E731
    assert case_of("full", gradient=False).flops == products(jax.make_jaxpr(forward)(*inputs).jaxpr)
    both = jax.make_jaxpr(lambda *inputs: jax.vjp(forward, *inputs)[1](weights))(*inputs)
    assert case.flops == products(both.jaxpr)
    ids = np.array([[1, 1, 1, 2, 2, 0], [1, 2, 3, 3, 3, 3]], np.int32)
    assert Case("toy", "packed", ids, False).flops == 4 * 2 * 8 * (9 + 4 + 1 + 1 + 16)


# ---------------------------------------------------------------------------------------------------------- the check


@pytest.mark.parametrize("side", SIDES)
def test_each_side_attends_as_plain_attention_does(side):
    cases = [case_of(kind, gradient) for kind in KINDS for gradient in (False, True)]
    made = SIDES[side]("float32", cases)
    assert not made.facts["left_out"]
    for case in cases:
        found, want = made.facts["results"][case.name], reference(case)
        assert len(found) == (4 if case.gradient else 1)
        assert not difference(case, found, want, "float32")
        for number in range(len(found)):
            wrong = [each + (0.01 * np.abs(each).max() if number == i else 0) for i, each in enumerate(found)]
            assert "differs by 0.0" in difference(case, wrong, want, "float32")


def test_the_reference_lets_no_sequence_look_at_another():
    case = case_of("packed", gradient=False)
    query, key, value = (each.astype(np.float64) for each in case.arrays()[:3])
    (found,) = reference(case)
    for row, ids in enumerate(case.sequence_ids):
        for number in range(1, ids.max() + 1):
            mine = ids == number
            powers = np.exp(np.einsum("qnh,knh->nqk", query[row, mine], key[row, mine]) / np.sqrt(8))
            want = np.einsum("nqk,knh->qnh", powers / powers.sum(axis=2, keepdims=True), value[row, mine])
            np.testing.assert_allclose(found[row, mine], want, atol=1e-6)


def other_kernel(monkeypatch, attend):
    """Lets the model take a kernel that is given the ids."""
    kernel = dataclasses.replace(SPLASH, attend=lambda *arguments: attend(*arguments[:-1]))
    monkeypatch.setattr(module, "choose_kernel", lambda *_, **__: (kernel, ""))
    monkeypatch.setitem(module.KERNELS, "splash", kernel)


def test_the_attention_suite(tmp_path, monkeypatch, capsys):
    """With another kernel that leaves padding as it finds it, NaN or not: what padding holds is not compared."""

    def attend(query, key, value, ids):
        output = scaled_dot_product_attention(query, key, value, AttentionPattern().mask(ids))[0]
        return jnp.where((ids > 0)[:, :, None, None], output, jnp.nan)

    other_kernel(monkeypatch, attend)
    figures = benchmark("attention", tmp_path, rounds=3)
    assert len(figures["cases"]) == 6
    for name, found in figures["cases"].items():
        rates = found["tokens_per_second"]
        assert list(rates) == ["bert_jax splash", "bert_jax plain", "PyTorch flash", "PyTorch math"]
        assert found["fastest_of_theirs"].startswith("PyTorch")
        assert found["ratio"] == rates["bert_jax splash"] / rates[found["fastest_of_theirs"]]
        assert len(found["ratio_by_round"]) == 3
        kind, work = name.split(", ")[2:]
        assert name == f"toy, 4 x 16, {kind}, {work}"
        case = case_of(kind, work != "forward")
        tokens = (case.sequence_ids > 0).sum()
        assert rates["PyTorch math"] == pytest.approx(tokens / found["seconds_a_step"]["PyTorch math"])
        used = case.flops / 1e9 / found["seconds_a_step"]["bert_jax plain"]
        assert found["utilisation"]["bert_jax plain"] == pytest.approx(used)
        assert found["peak_bytes_of_shape"].keys() == rates.keys()
        assert found["programs"].keys() == {"bert_jax splash", "bert_jax plain"}
        scores = 4 * 2 * 16 * 16 * 4  # bytes of [B, N, L, L], which the plain kernel writes
        assert found["programs"]["bert_jax plain"]["temporary_bytes"] >= scores
        assert found["programs"]["bert_jax plain"]["seconds"] > 0
    assert json.loads((tmp_path / "benchmark" / "attention.json").read_text())["cases"] == figures["cases"]
    assert "toy, 4 x 16, packed, forward and backward" in capsys.readouterr().out


@pytest.mark.parametrize("blind", ["padded", "packed"])
def test_a_kernel_that_ignores_the_sequences_is_refused(blind, tmp_path, monkeypatch, capsys):
    def attend(query, key, value, ids):
        return plain.attend(query, key, value, jnp.ones((1, 1, 1, 1), bool), Execution())

    other_kernel(monkeypatch, attend)
    monkeypatch.setattr(module, "KINDS", (blind,))
    cases, printed = benchmark("attention", tmp_path, rounds=1)["cases"], capsys.readouterr().out
    for name, found in cases.items():
        assert "bert_jax splash" not in found["tokens_per_second"]
        assert "the output differs by" in found["left_out"]["bert_jax splash"]
        assert f"bert_jax splash does not attend as plain attention does at {name}" in printed


def test_a_gradient_that_ignores_the_sequences_is_refused(tmp_path, monkeypatch):
    def attend(query, key, value, ids):
        exact = scaled_dot_product_attention(query, key, value, AttentionPattern().mask(ids))[0]
        blind = scaled_dot_product_attention(query, key, value, jnp.ones((1, 1, 1, 1), bool))[0]
        return jax.lax.stop_gradient(exact - blind) + blind

    other_kernel(monkeypatch, attend)
    monkeypatch.setattr(module, "KINDS", ("packed",))
    forward, backward = benchmark("attention", tmp_path, rounds=1)["cases"].values()
    assert "bert_jax splash" in forward["tokens_per_second"]
    assert "the gradient of the query differs" in backward["left_out"]["bert_jax splash"]


def test_gradients_count_at_padding_too():
    case = case_of("padded", gradient=True)
    found = reference(case)
    padding = case.sequence_ids == 0
    assert padding.any()
    for number, quantity in enumerate(
        ("output", "gradient of the query", "gradient of the key", "gradient of the value")
    ):
        wrong = [np.where(padding[..., None, None] & (number == i), 1e3, each) for i, each in enumerate(found)]
        assert (f"the {quantity} differs" in difference(case, wrong, found, "float32")) == (number > 0)


# ------------------------------------------------------------------------------------------------------ what cannot be


def test_a_side_that_cannot_do_a_case_is_left_out_of_it(tmp_path, monkeypatch, capsys):
    def attend(query, key, value, ids):
        raise RuntimeError("not enough memory\nat length")

    other_kernel(monkeypatch, attend)
    monkeypatch.setattr(module, "KINDS", ("packed",))
    monkeypatch.setattr(module, "BACKENDS", {"cpu": ("flash", "efficient")})  # the second is there on GPUs alone
    for found in benchmark("attention", tmp_path, rounds=1)["cases"].values():
        assert list(found["tokens_per_second"]) == ["bert_jax plain", "PyTorch flash"]
        assert found["left_out"]["bert_jax splash"] == "not enough memory"
        assert "PyTorch efficient" in found["left_out"]
    assert "bert_jax splash: left out of 2 cases: not enough memory" in capsys.readouterr().out
    monkeypatch.setattr(module, "BACKENDS", {"cpu": ("efficient",)})
    with pytest.raises(UserError, match="no two sides to compare"):
        benchmark("attention", tmp_path, rounds=1)
