"""Every config builds, every key is read, and a slip of the pen gets one line that names the nearest key."""

import dataclasses
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import bert_jax
from bert_jax import config as configs
from bert_jax.config import FinetuningConfig, PretrainingConfig, from_config_dict, to_config_dict
from bert_jax.errors import UserError
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.pretraining.packing import sequences_per_row
from bert_jax.runtime.execution import Execution
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.step import make_init, make_train_step

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "pretrain").glob("*.py"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases() -> list:
    """Returns each file with what its `get_config` takes, if it takes anything: a phase or a size."""
    arguments = {"phase": ("128", "512"), "size": ("base", "large")}
    parameters = []
    for path in FILES:
        takes = [*inspect.signature(load(path).get_config).parameters]
        given = arguments[takes[0]] if takes else ("",)
        parameters += [pytest.param(path, argument, id=f"{path.stem}{argument}") for argument in given]
    return parameters


@pytest.mark.slow
@pytest.mark.parametrize(("path", "argument"), cases())
def test_every_config_builds_down_to_the_train_step(path: Path, argument: str) -> None:
    get_config = load(path).get_config
    config = from_config_dict(PretrainingConfig, get_config(argument) if argument else get_config())
    assert f"--config=configs/pretrain/{path.name}" in load(path).__doc__, "a config opens with its command"
    objective = PretrainingObjective(config.model, config.data, (0, 1, 2, 3, 4), 4, (False,) * config.model.vocab_size)
    optimizer = make_optimizer(config.optimizer)
    state = jax.eval_shape(make_init(objective, optimizer, config.seed))
    rows = jax.ShapeDtypeStruct((config.batch_size, config.data.length), jnp.int32)
    names = ("input_ids", "token_type_ids", "position_ids", "sequence_ids")
    batch = dict.fromkeys(names, rows) | {
        "next_sentence_labels": jax.ShapeDtypeStruct((config.batch_size, 4), jnp.int32)
    }
    step = make_train_step(objective, optimizer, config)
    after, metrics = jax.eval_shape(step, state, batch, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["mlm_loss"].total.shape == ()


def test_the_published_sizes_have_a_config() -> None:
    assert {"quickstart", "modern", *configs.SIZES} <= {path.stem for path in FILES}


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize(("platform", "kernel"), [("gpu", "cudnn"), ("tpu", "splash")])
def test_the_modern_config_packs_without_dropout_and_so_meets_the_fast_kernels(
    size: str, platform: str, kernel: str
) -> None:
    config = from_config_dict(PretrainingConfig, load(ROOT / "configs/pretrain/modern.py").get_config(size))
    sizes = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    assert tuple(getattr(config.model, name) for name in sizes) == configs.SIZES[size]
    assert config.data.packing
    assert (config.model.hidden_dropout_prob, config.model.attention_probs_dropout_prob) == (0, 0)
    original = load(ROOT / f"configs/pretrain/{size}.py").get_config
    phases = [from_config_dict(PretrainingConfig, original(phase)) for phase in ("128", "512")]
    positions = [phase.total_steps * phase.batch_size * phase.data.length for phase in (config, *phases)]
    assert positions[0] == sum(positions[1:])

    execution = Execution.on([SimpleNamespace(platform=platform, compute_capability="9.0")], config.compute_dtype)
    rows = config.data.length, sequences_per_row(config.data.length, config.data.packing)
    assert (rows[1] > 1, execution.dtype) == (True, jnp.bfloat16)
    assert describe_kernel(config.model, execution, *rows) == f"attention: {kernel}"
    assert "attention_probs_dropout_prob" in describe_kernel(phases[1].model, execution, *rows)


def test_every_key_is_read() -> None:
    package = Path(bert_jax.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if path.parent.name != "config")
    kinds = [kind for kind in vars(configs).values() if dataclasses.is_dataclass(kind) and isinstance(kind, type)]
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    unread = [name for name in fields if not re.search(rf"\.{name}\b", code)]
    assert not unread


def test_config_dict_and_back() -> None:
    config = PretrainingConfig(total_epochs=2.0, batch_size=12)
    assert from_config_dict(PretrainingConfig, to_config_dict(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sise": 3}, "config key batch_sise is not known: did you mean batch_size?"),
        ({"model": {"hiden_size": 3}}, "config key model.hiden_size is not known: did you mean model.hidden_size?"),
        ({"batch_size": "many"}, "config key batch_size wants int, got 'many'"),
        ({"model": {"remat": 1}}, "config key model.remat wants bool, got 1"),
        ({"model": {"remat_saves": "all"}}, "model.remat_saves='all' is not known: choose nothing or products"),
        ({"total_epochs": 1.0}, "set exactly one of .*found total_steps and total_epochs"),
        ({"total_steps": 0}, "set exactly one of .*found none"),
        ({"accumulate": 7}, "batch_size=256 does not divide by accumulate=7"),
        ({"model": {"hidden_act": "swish"}}, "model.hidden_act='swish' is not known: choose gelu"),
        ({"model": {"num_attention_heads": 5}}, "model.hidden_size=768 does not divide by model.num_attention_heads=5"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name='adam' is not known: choose bert_adamw, adamw or lamb"),
        ({"schedule": {"name": "step"}}, "schedule.name='step' is not known"),
        ({"data": {"objective": "mlm"}}, "data.objective='mlm' is not known: choose nsp, sop or none"),
        ({"accumulate": 0}, "accumulate=0 is out of range: it must be at least 1"),
        ({"log_every": -1}, "log_every=-1 is out of range"),
        ({"total_steps": -3}, "total_steps=-3 is out of range: it must be between 0 and 2147483647"),
        ({"model": {"num_attention_heads": 0}}, "model.num_attention_heads=0 is out of range"),
        ({"data": {"mask_rate": 1.5}}, "data.mask_rate=1.5 is out of range: it must be between 0.001 and 0.999"),
        ({"data": {"validation_rows": 0}}, "data.validation_rows=0 is out of range"),
        ({"optimizer": {"b2": 1.0}}, "optimizer.b2=1.0 is out of range"),
        ({"schedule": {"warmup": 10.0}}, "schedule.warmup=10 steps do not fit into a run of 5 steps"),
        ({"compute_dtype": "float16"}, "compute_dtype='float16' is not known"),
    ],
)
def test_bad_values_are_told_in_one_line(change: dict, message: str) -> None:
    values = {"total_steps": 5, **change}
    with pytest.raises(UserError, match=message) as caught:
        from_config_dict(PretrainingConfig, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [("max_length", 0, "between 1 and 1000000"), ("stride", -1, "at least 0"), ("truncation", "", "choose")],
)
def test_bad_lengths_of_fine_tuning_are_refused(key: str, value: object, limit: str) -> None:
    with pytest.raises(UserError, match=f"{key}={value!r} is .*{limit}"):
        from_config_dict(FinetuningConfig, {"total_epochs": 3.0, key: value})


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.model.hiden_size=3", "config key model.hiden_size is not known: did you mean model.hidden_size?"),
        ("--config.batch_size=many", "--config.batch_size=many: a whole number is wanted, such as 16"),
    ],
)
def test_command_line_slips_are_one_line_and_a_failure(flag: str, message: str, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/pretrain.py", "--config=configs/pretrain/tiny.py", f"--workdir={tmp_path}/run"]
    result = subprocess.run([*command, flag], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
