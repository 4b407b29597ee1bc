"""Where the time of a step goes."""

import jax
import jax.numpy as jnp
import pytest
from helpers.toy import CONFIG, Toy, toy_data, train

from bert_jax.training.profile import SKIPPED, TRACED, Cost, Profiler, by_module, cost_table, costs


def test_the_costliest_operation_comes_first_and_says_where_it_comes_from(tmp_path):
    def step(x):
        with jax.named_scope("large"):
            product = x @ x
        with jax.named_scope("small"):
            return jnp.sort(product[:8, :8], axis=0), product

    x = jnp.ones((1_000, 1_000))
    program = jax.jit(step).lower(x).compile()
    other = jax.jit(lambda x: x @ x @ x).lower(x).compile()
    jax.block_until_ready((program(x), other(x)))
    with jax.profiler.trace(tmp_path):
        for _ in range(3):
            jax.block_until_ready((program(x), other(x)))
    found = costs(tmp_path, [program.as_text()], 3)
    assert found[0].source.endswith("large/dot_general")
    assert found[0].calls == 1
    assert any("small" in each.source for each in found)
    assert sum("dot_general" in each.source for each in found) == 1  # nothing of the other program
    assert 0 < found[-1].milliseconds <= found[0].milliseconds


def test_modules_have_the_time_of_all_layers_forward_and_backward():
    sources = {
        "jit(train_step)/jvp(Model)/bert/encoder/layer_0/attention/query/dot_general": 1.0,
        "jit(train_step)/transpose(jvp(Model))/bert/encoder/layer_11/attention/query/transpose": 2.0,
        "jit(train_step)/jvp(Model)/bert/encoder/layer_0/attention/bqnh,bknh->bnqk/dot_general": 4.0,
        "jit(train_step)/jvp(Model)/head/jit(take)/gather": 93.0,
        "jit(train_step)/mul": 0.5,
        "": 0.25,
    }
    found = [Cost("fusion", source, milliseconds, 1.0) for source, milliseconds in sources.items()]
    assert by_module(found) == {
        "bert/encoder/layer_#/attention/query": 3.0,
        "bert/encoder/layer_#/attention": 4.0,
        "head": 93.0,
        "outside the model": 0.75,
    }
    modules = cost_table(found).partition("By module")[2].splitlines()[1:]
    assert [line.split()[-1] for line in modules] == [
        "head",
        "bert/encoder/layer_#/attention",
        "bert/encoder/layer_#/attention/query",
    ]


@pytest.mark.slow
def test_a_run_is_profiled_once_and_goes_on_as_it_would(tmp_path, capsys):
    want = train(Toy(), CONFIG, tmp_path / "plain", toy_data()).state
    assert "costliest" not in capsys.readouterr().out
    state = train(Toy(), CONFIG, tmp_path / "profiled", toy_data(), profile=True).state
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), state.params, want.params))
    printed = capsys.readouterr().out
    assert printed.count("The costliest of") == 1
    assert f"trace of {TRACED} steps" in printed
    assert list((tmp_path / "profiled" / "profile").glob("plugins/profile/*/*.xplane.pb"))
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_run_that_is_too_short_says_so(tmp_path, capsys):
    profiler = Profiler(tmp_path, wanted=True)
    for step in range(1, SKIPPED + 2):
        assert not profiler.after(step, (), [])
    profiler.close()
    assert f"before its step {SKIPPED + TRACED}" in capsys.readouterr().out
    with jax.profiler.trace(tmp_path):  # the trace was ended, or this would raise
        pass
