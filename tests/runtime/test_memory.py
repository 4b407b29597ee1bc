"""Memory that does not suffice is told in one line, with what was asked, what fits and what helps."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy import CONFIG, Toy, toy_data, train

from bert_jax.runtime import memory
from bert_jax.errors import UserError
from bert_jax.runtime.memory import check_program, device_memory, out_of_memory_told
from bert_jax.training.forward import Forward
from bert_jax.training.loop import memory_remedy


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (
            lambda: jnp.zeros((1 << 20, 1 << 20)).block_until_ready(),
            r"out of memory \(4,398\.0 GB were asked for\): do",
        ),
        (lambda: np.zeros((1 << 24, 1 << 24)), r"out of memory \(allocate 2\.00 PiB\): do less"),
    ],
    ids=["jax", "numpy"],
)
def test_what_libraries_raise_becomes_a_line(work, words) -> None:
    with pytest.raises(UserError, match=words), out_of_memory_told("do less"):
        work()


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_told("do less"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def program(kept: int, work: int) -> SimpleNamespace:
    sizes = dict(argument_size_in_bytes=kept, output_size_in_bytes=kept, alias_size_in_bytes=kept)
    return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=work, **sizes))


@pytest.mark.parametrize(
    ("kept", "work", "words"),
    [
        (10**9, 6 * 10**9, None),
        (
            10**9,
            28 * 10**9,
            "32 rows at once needs 29.0 GB and each device has 8.0 GB; about 8 rows at once would fit: do",
        ),
        (9 * 10**9, 10**9, "not even one row would fit: do less"),
    ],
)
def test_a_step_that_cannot_fit_is_refused_with_the_rows_that_would(kept, work, words) -> None:
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 8 * 10**9})
    if words is None:
        check_program(program(kept, work), [device] * 4, 32, "do less")
        return
    with pytest.raises(UserError, match=words):
        check_program(program(kept, work), [device] * 4, 32, "do less")


def test_the_devices_of_a_cpu_share_its_memory(monkeypatch) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: 8 * 10**9)
    device = SimpleNamespace(platform="cpu")
    check_program(program(10**9, 10**9), [device] * 4, 32, "")
    with pytest.raises(UserError, match=r"this machine has 8\.0 GB"):
        check_program(program(10**9, 10**9), [device] * 5, 32, "")
    monkeypatch.undo()
    assert device_memory(jax.devices("cpu")[0]) > 10**8


def test_training_refuses_a_step_that_cannot_fit_before_it_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: 100)
    remedy = (
        r"lower batch_size=8, or keep it and raise accumulate=1; shorter rows \(data\.length\) and model\.remat=true"
    )
    with pytest.raises(UserError, match=rf"a step with 8 rows at once needs .* has 0\.0 MB; .*: {remedy}"):
        train(Toy(), CONFIG, tmp_path, toy_data())
    assert "accumulate=2" in memory_remedy(dataclasses.replace(CONFIG, accumulate=2))


def test_predictions_that_do_not_fit_name_the_batch(monkeypatch) -> None:
    def exhausted(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 80000000000 bytes.")

    monkeypatch.setattr(jax, "device_get", exhausted)
    with pytest.raises(UserError, match=r"out of memory \(80\.0 GB were asked for\): lower batch_size, or max_length"):
        next(Forward(lambda params, batch: batch, jax.sharding.Mesh(np.array(jax.devices()[:1]), "data"))({}, [1.0]))
