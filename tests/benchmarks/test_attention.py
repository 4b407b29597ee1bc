"""The comparison of attention alone: both sides attend within the same sequences, or nothing is timed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.in_this_process import in_this_process
from helpers.products import products

from bert_jax.benchmarks import harness, jax_side
from bert_jax.benchmarks.benchmark import benchmark
from bert_jax.benchmarks.jax_side import JaxAttention, reference_attention
from bert_jax.benchmarks.record import Results
from bert_jax.benchmarks.suites import attention as module
from bert_jax.benchmarks.suites.attention import FILLINGS, Case, beyond_tolerance, differences, packed_rows
from bert_jax.benchmarks.torch_side import BACKENDS, TorchAttention
from bert_jax.errors import UserError
from bert_jax.model.kernels import plain
from bert_jax.model.kernels.plain import scaled_dot_product_attention
from bert_jax.model.kernels.splash import SPLASH
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

SIDES = {"plain": functools.partial(JaxAttention, "plain")}
SIDES |= {backend: functools.partial(TorchAttention, backend) for backend in BACKENDS["cpu"]}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "HEADS", {"toy": (2, 8)})
    monkeypatch.setattr(module, "lengths_and_positions", lambda: ((16,), 64))
    monkeypatch.setattr(module, "calls_per_round", lambda: 2)
    monkeypatch.setattr(harness, "started", in_this_process)
    monkeypatch.setattr(harness, "peak_flops", lambda dtype: 1e9)


def case_of(kind, gradient=True):
    return Case("toy", kind, FILLINGS[kind](4, 16), gradient)


# --------------------------------------------------------------------------------------------------------------- rows


def test_rows_are_what_their_names_say():
    full, padded, packed = (draw(64, 128) for draw in FILLINGS.values())
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


def wrong_at(case, outputs, wanted):
    """What is wrong of a side's results, as the suite says it."""
    return beyond_tolerance(differences(case, outputs, wanted), "float32")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("side", SIDES)
def test_each_side_attends_as_plain_attention_does(side):
    cases = [case_of(kind, gradient) for kind in FILLINGS for gradient in (False, True)]
    made = SIDES[side]("float32", cases, 1)
    assert not made.metadata["left_out"]
    for case in cases:
        outputs, wanted = made.metadata["results"][case.name], reference_attention(case)
        assert len(outputs) == (4 if case.gradient else 1)
        assert not wrong_at(case, outputs, wanted)
        for number in range(len(outputs)):
            wrong = [array + (0.01 * np.abs(array).max() if number == i else 0) for i, array in enumerate(outputs)]
            assert "differs by 0.0" in wrong_at(case, wrong, wanted)


def test_the_reference_lets_no_sequence_look_at_another():
    case = case_of("packed", gradient=False)
    query, key, value = (each.astype(np.float64) for each in case.arrays()[:3])
    (output,) = reference_attention(case)
    for row, ids in enumerate(case.sequence_ids):
        for number in range(1, ids.max() + 1):
            mine = ids == number
            powers = np.exp(np.einsum("qnh,knh->nqk", query[row, mine], key[row, mine]) / np.sqrt(8))
            want = np.einsum("nqk,knh->qnh", powers / powers.sum(axis=2, keepdims=True), value[row, mine])
            np.testing.assert_allclose(output[row, mine], want, atol=1e-6)


def exact_attention(query, key, value, ids):
    """What every kernel is to give."""
    return scaled_dot_product_attention(query, key, value, AttentionPattern().mask(ids))[0]


def other_kernel(monkeypatch, attend):
    """Lets the model take a kernel that is given the ids."""
    kernel = dataclasses.replace(SPLASH, attend=lambda *arguments: attend(*arguments[:-1]))
    monkeypatch.setattr(module, "preferred_kernel", lambda *_: ("splash", ""))
    monkeypatch.setitem(jax_side.KERNELS, "splash", kernel)


@pytest.mark.slow
@pytest.mark.torch
def test_the_attention_suite(tmp_path, monkeypatch, capsys):
    """With another kernel that leaves padding as it finds it, NaN or not: what padding holds is not compared."""

    def attend(query, key, value, ids):
        output = scaled_dot_product_attention(query, key, value, AttentionPattern().mask(ids))[0]
        return jnp.where((ids > 0)[:, :, None, None], output, jnp.nan)

    other_kernel(monkeypatch, attend)
    results = benchmark("attention", tmp_path, rounds=3)
    assert len(results.cases()) == 6
    assert [case.endswith("backward") for case in results.cases()] == [False] * 3 + [True] * 3
    for name in results.cases():
        rates, seconds = (results.by_side(name, metric) for metric in ("tokens_per_second", "seconds"))
        assert list(rates) == ["bert_jax splash", "bert_jax plain", "PyTorch flash", "PyTorch math"]
        best = max(rates["PyTorch flash"], rates["PyTorch math"])
        assert results.value(name, "bert_jax splash", "ratio") == pytest.approx(rates["bert_jax splash"] / best)
        assert len(results.rounds(name, "bert_jax splash", "ratio")) == 3
        kind, work = name.split(", ")[2:]
        assert name == f"toy, 4 x 16, {kind}, {work}"
        case = case_of(kind, work != "forward")
        tokens = (case.sequence_ids > 0).sum()
        assert rates["PyTorch math"] == pytest.approx(tokens / seconds["PyTorch math"])
        used = case.flops / 1e9 / seconds["bert_jax plain"]
        assert results.value(name, "bert_jax plain", "utilization") == pytest.approx(used)
        assert results.by_side(name, "peak_bytes").keys() == rates.keys()
        temporaries = results.by_side(name, "temporary_bytes")
        assert temporaries.keys() == {"bert_jax splash", "bert_jax plain"}
        scores = 4 * 2 * 16 * 16 * 4  # bytes of [B, N, L, L], which the plain kernel writes
        assert temporaries["bert_jax plain"] >= scores
        assert results.value(name, "bert_jax plain", "compile_seconds") > 0
        assert max(results.by_side(name, "output_difference").values()) <= 1e-5
        assert ("gradient_difference" in results.metrics(name)) == (work != "forward")
    assert Results.load(tmp_path / "benchmark" / "attention.json") == results
    assert "toy, 4 x 16, packed, forward and backward" in capsys.readouterr().out


@pytest.mark.slow
def test_kernels_are_checked_without_any_timing(tmp_path, monkeypatch):
    """Of the project's sides alone, which is what a new device is to show first; PyTorch need not be there."""
    other_kernel(monkeypatch, exact_attention)
    monkeypatch.setattr(module, "TorchAttention", None)
    results = benchmark("attention", tmp_path, rounds=0)
    assert len(results.cases()) == 6
    for name in results.cases():
        assert results.sides(name) == ["bert_jax splash", "bert_jax plain"]
        assert "seconds" not in results.metrics(name)
        assert max(results.by_side(name, "output_difference").values()) <= 1e-5
    assert not (tmp_path / "benchmark" / "attention.svg").exists()


def left_out_of(results, side):
    """The reasons for which a side is missing, by case."""
    return {each["case"]: each["reason"] for each in results.left_out if each["side"] == side}


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("blind", ["padded", "packed"])
def test_a_kernel_that_ignores_the_sequences_is_refused(blind, tmp_path, monkeypatch, capsys):
    def attend(query, key, value, ids):
        return plain.attend(query, key, value, jnp.ones((1, 1, ids.shape[1], ids.shape[1]), bool), Execution())

    other_kernel(monkeypatch, attend)
    monkeypatch.setattr(module, "FILLINGS", {blind: FILLINGS[blind]})
    results, printed = benchmark("attention", tmp_path, rounds=1), capsys.readouterr().out
    reasons = left_out_of(results, "bert_jax splash")
    assert reasons.keys() == set(results.cases())
    for name, reason in reasons.items():
        assert "bert_jax splash" not in results.by_side(name, "tokens_per_second")
        assert results.value(name, "bert_jax splash", "output_difference") > 0.01
        assert "the output differs by" in reason
        assert f"bert_jax splash does not attend as plain attention does at {name}" in printed


@pytest.mark.slow
@pytest.mark.torch
def test_a_gradient_that_ignores_the_sequences_is_refused(tmp_path, monkeypatch):
    def attend(query, key, value, ids):
        exact = scaled_dot_product_attention(query, key, value, AttentionPattern().mask(ids))[0]
        blind = scaled_dot_product_attention(query, key, value, jnp.ones((1, 1, ids.shape[1], ids.shape[1]), bool))[0]
        return jax.lax.stop_gradient(exact - blind) + blind

    other_kernel(monkeypatch, attend)
    monkeypatch.setattr(module, "FILLINGS", {"packed": packed_rows})
    results = benchmark("attention", tmp_path, rounds=1)
    forward, backward = results.cases()
    assert "bert_jax splash" in results.by_side(forward, "tokens_per_second")
    assert "the gradient of the query differs" in left_out_of(results, "bert_jax splash")[backward]


def test_gradients_count_at_padding_too():
    case = case_of("padded", gradient=True)
    wanted = reference_attention(case)
    padding = case.sequence_ids == 0
    assert padding.any()
    for number, quantity in enumerate(
        ("output", "gradient of the query", "gradient of the key", "gradient of the value")
    ):
        wrong = [np.where(padding[..., None, None] & (number == i), 1e3, each) for i, each in enumerate(wanted)]
        assert (f"the {quantity} differs" in wrong_at(case, wrong, wanted)) == (number > 0)


# ------------------------------------------------------------------------------------------------------ what cannot be


@pytest.mark.slow
@pytest.mark.torch
def test_a_side_that_cannot_do_a_case_is_left_out_of_it(tmp_path, monkeypatch, capsys):
    def attend(query, key, value, ids):
        raise RuntimeError("not enough memory\nat length")

    other_kernel(monkeypatch, attend)
    monkeypatch.setattr(module, "FILLINGS", {"packed": packed_rows})
    monkeypatch.setattr(module, "BACKENDS", {"cpu": ("flash", "efficient")})  # the second is there on GPUs alone
    results = benchmark("attention", tmp_path, rounds=1)
    for name in results.cases():
        assert list(results.by_side(name, "tokens_per_second")) == ["bert_jax plain", "PyTorch flash"]
        assert left_out_of(results, "bert_jax splash")[name] == "not enough memory"
        assert name in left_out_of(results, "PyTorch efficient")
    assert "bert_jax splash: left out of 2 cases: not enough memory" in capsys.readouterr().out
    monkeypatch.setattr(module, "BACKENDS", {"cpu": ("efficient",)})
    with pytest.raises(UserError, match="no two sides to compare"):
        benchmark("attention", tmp_path, rounds=1)
