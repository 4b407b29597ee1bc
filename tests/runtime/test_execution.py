"""Where a run computes is found out in one place, and can be another machine."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from bert_jax.config import MeshConfig
from bert_jax.errors import UserError
from bert_jax.runtime.execution import NO_MESH, Execution

ELSEWHERE = {
    "gpu": SimpleNamespace(platform="gpu", compute_capability="8.9"),
    "tpu": SimpleNamespace(platform="tpu"),
    "cpu": SimpleNamespace(platform="cpu"),
}


def test_this_process_is_described() -> None:
    found = Execution.here(mesh=MeshConfig())
    assert (found.platform, found.mesh.size) == (jax.default_backend(), len(jax.devices()))
    assert (found.process_count, found.process_index) == (1, 0)
    assert Execution.here().mesh is NO_MESH
    assert NO_MESH.size == 0


def test_one_of_several_processes_knows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 3)
    assert (Execution.here().process_count, Execution.here().process_index) == (4, 3)


@pytest.mark.parametrize(
    ("platform", "asked", "dtype"),
    [
        ("cpu", "auto", "float32"),
        ("gpu", "auto", "bfloat16"),
        ("tpu", "auto", "bfloat16"),
        ("cpu", "bfloat16", "bfloat16"),
        ("gpu", "float32", "float32"),
    ],
)
def test_the_compute_type_follows_from_the_platform_unless_it_is_given(platform: str, asked: str, dtype: str) -> None:
    assert Execution.on([ELSEWHERE[platform]], asked).dtype == jnp.dtype(dtype)


def test_devices_of_another_machine_say_what_they_are() -> None:
    found = Execution.on([ELSEWHERE["gpu"]], ahead_of_time=True)
    assert (found.platform, found.compute_capability, found.ahead_of_time) == ("gpu", 8.9, True)
    assert Execution.on([ELSEWHERE["tpu"]]).compute_capability == 0


def test_equal_executions_are_one_key() -> None:
    """Modules and objectives hold them, and JAX looks programs up by these."""
    one, other = (Execution.here(mesh=MeshConfig()) for _ in range(2))
    assert {one, other} == {one}
    assert Execution(jnp.bfloat16) == Execution("bfloat16") != Execution()


def test_a_mesh_must_fit_the_devices() -> None:
    with pytest.raises(UserError, match=r"mesh\.data=3 does not match the 1 devices here: set it to -1 or 1"):
        Execution.on(jax.devices()[:1], mesh=MeshConfig(data=3))
