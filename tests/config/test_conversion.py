"""Values from files, from Python and from the command line become a config, or one line that says what is wrong."""

import dataclasses
import importlib
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags

from bert_jax.config import (
    CleaningConfig,
    DataConfig,
    FinetuningConfig,
    MeshConfig,
    PretrainingConfig,
    from_config_dict,
    to_config_dict,
    with_overrides,
)
from bert_jax.config.fields import Section, keys, option
from bert_jax.errors import UserError
from bert_jax.text.cleaning import Cleaning
from bert_jax.text.sources import TextSource

ROOT = Path(__file__).parents[2]
TEXT_KEYS = ("source", "column", "errors", "document_per_file", "data_dir")
CLEANING_KEYS = (
    *("html_tags", "html_entities", "control_characters", "unicode_form"),
    *("minimum_length", "letters", "drop_duplicates"),
)


@dataclasses.dataclass(frozen=True)
class Inner(Section):
    path = "inner."

    text: str | None = option(None, role="data", help="a text")
    rate: float | None = option(None, role="data", help="a rate")


@dataclasses.dataclass(frozen=True)
class Outer(Section):
    count: int | None = option(None, role="data", help="a count")
    switch: bool = option(True, role="data", help="a switch")
    total_steps: int = option(0, role="run_length", help="steps")
    total_minutes: float = option(7.5, role="run_length", help="minutes")
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Outer()),
        ({"count": 3}, Outer(count=3)),
        ({"count": None, "inner": {"text": "a", "rate": 1}}, Outer(inner=Inner("a", 1.0))),
    ],
)
def test_keys_that_may_be_none(values: dict, expected: Outer) -> None:
    config = from_config_dict(Outer, values)
    assert config == expected
    assert type(config.inner.rate) is type(expected.inner.rate)
    assert from_config_dict(Outer, to_config_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, r"config key count wants int \| None, got True"),
        ({"count": 1.5}, r"config key count wants int \| None, got 1\.5"),
        ({"inner": {"text": 3}}, r"config key inner\.text wants str \| None, got 3"),
        ({"inner": {"rate": True}}, r"config key inner\.rate wants float \| None, got True"),
        ({"inner": 3}, "config key inner=3 sets no value: inner is the section of text, rate"),
        ({"switch": 1}, "config key switch wants bool, got 1"),
    ],
)
def test_values_of_another_type_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_config_dict(Outer, values)


# A script with the flags of scripts/pretrain.py, around a config with keys of all kinds.
SCRIPT = """
import dataclasses, json, sys
sys.path.insert(0, {tests!r})
from bert_jax.runtime import command
from config.test_conversion import Outer
flag = command.define_config(Outer, "config file")
command.run(lambda _: print(json.dumps(dataclasses.asdict(command.read_config(Outer, flag)))))
"""
CONFIG_FILE = """
import sys
sys.path.insert(0, {tests!r})
from bert_jax.config import to_config_dict
from config.test_conversion import Outer
def get_config(): return to_config_dict(Outer())
"""


def by_flags(tmp_path: Path, *flags: str) -> subprocess.CompletedProcess:
    for name, text in (("script.py", SCRIPT), ("file.py", CONFIG_FILE)):
        (tmp_path / name).write_text(text.format(tests=str(ROOT / "tests")))
    command = [sys.executable, tmp_path / "script.py", f"--config={tmp_path / 'file.py'}", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.subprocess
def test_flags_set_keys_that_are_none_and_replace_the_duration_of_the_file(tmp_path: Path) -> None:
    flags = ("count=3", "inner.text=5", "inner.rate=1", "switch=False", "total_steps=60")
    done = by_flags(tmp_path, *(f"--config.{flag}" for flag in flags))
    assert done.returncode == 0, done.stderr
    inner = {"text": "5", "rate": 1.0}
    expected = {"count": 3, "switch": False, "total_steps": 60, "total_minutes": 0, "inner": inner}
    assert json.loads(done.stdout) == expected

    refused = by_flags(tmp_path, "--config.count=1.5")
    assert refused.returncode == 1
    assert refused.stderr == "error: --config.count=1.5: a whole number is wanted, such as 16\n"
    below_a_value = by_flags(tmp_path, "--config.switch.x=1")
    assert below_a_value.stderr == "error: config key switch is a value and has no keys: found switch.x\n"


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("flags", "total_steps"),
    [
        (["--config.total_steps=3"], 3),  # replaces the file's total_minutes
        (["--config.total_minutes=0", "--config.total_steps=3"], 3),  # as it had to be said before
        (["--config.total_epochs=2", "--config.total_steps=3"], None),
    ],
)
def test_durations_on_the_command_line_of_pretraining(tmp_path: Path, flags: list[str], total_steps) -> None:
    command = [sys.executable, "scripts/pretrain.py", "--config=configs/pretrain/quickstart.py"]
    command += [f"--workdir={tmp_path / 'run'}", f"--config.data.source={tmp_path / 'none.txt'}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1  # there is no text
    if total_steps is None:
        assert "set exactly one of" in done.stderr
        assert "found total_steps and total_epochs" in done.stderr
        assert not (tmp_path / "run").exists()
    else:
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert (config["total_steps"], config["total_minutes"]) == (total_steps, 0)


CONFIG = PretrainingConfig(total_minutes=7.5)


def test_overrides_by_dotted_key() -> None:
    overrides = {"optimizer.learning_rate": 3e-5, "model.hidden_size": 64, "model.num_attention_heads": 2}
    changed = with_overrides(CONFIG, {**overrides, "data.cleaning.minimum_length": 40, "mesh": MeshConfig(1)})
    assert changed.optimizer == dataclasses.replace(CONFIG.optimizer, learning_rate=3e-5)
    assert changed.model == dataclasses.replace(CONFIG.model, hidden_size=64, num_attention_heads=2)
    assert changed.data.cleaning.minimum_length == 40
    assert changed.mesh.data == 1
    assert PretrainingConfig(total_minutes=7.5) == CONFIG
    assert with_overrides(CONFIG, {}) == CONFIG


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.learning_rat": 1.0}, "optimizer.learning_rat is not known: did you mean optimizer.learning_rate?"),
        ({"optimiser.b1": 0.5}, "config key optimiser.b1 is not known: did you mean optimizer.b1?"),
        ({"seed.x": 1}, "config key seed is a value and has no keys: found seed.x"),
        ({"seed": "1"}, "config key seed wants int, got '1'"),
        ({"model": 3}, "config key model=3 sets no value: model is the section of vocab_size, "),
        ({"optimizer.b2": 1.0}, "optimizer.b2=1.0 is out of range"),
        ({"total_steps": 60, "total_epochs": 1.0}, "set exactly one of .* found total_steps and total_epochs"),
        ({"total_minutes": 0.0}, "set exactly one of .* found none of them"),
    ],
)
def test_overrides_that_cannot_be(overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_overrides(CONFIG, overrides)


def test_a_duration_replaces_that_of_the_config() -> None:
    changed = with_overrides(CONFIG, {"total_steps": 60})
    assert changed == dataclasses.replace(CONFIG, total_steps=60, total_minutes=0.0)
    finetuning = FinetuningConfig(total_epochs=3.0)
    assert with_overrides(finetuning, {"total_epochs": 4}).total_epochs == 4.0


@pytest.fixture
def source_flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The module scripts/source_flags.py; the flags that it defines are gone afterwards."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("source_flags")
    yield module
    for flag in flags.FLAGS.flags_by_module_dict()[module.__name__]:
        delattr(flags.FLAGS, flag.name)
    del sys.modules[module.__name__]


def test_the_flags_of_text_are_its_keys_with_their_defaults_and_choices(source_flags: types.ModuleType) -> None:
    defined = {flag.name: flag for flag in flags.FLAGS.flags_by_module_dict()[source_flags.__name__]}
    expected = {key.name: key for key in keys(CleaningConfig)}
    expected |= {key.name: key for key in keys(DataConfig) if key.name in TEXT_KEYS}
    assert defined.keys() == expected.keys() == set(TEXT_KEYS) | set(CLEANING_KEYS)
    for name, key in expected.items():
        assert (defined[name].default or "") == (key.default or ""), name
        assert tuple(getattr(defined[name].parser, "enum_values", None) or ()) == key.option.choices, name
        assert key.option.help in defined[name].help


def test_flags_and_keys_describe_the_same_text(source_flags: types.ModuleType) -> None:
    flags.FLAGS(["script"])
    assert source_flags.text_source() == TextSource("") == TextSource.of(DataConfig())
    words = ["--source=a.csv", "--column=body", "--errors=replace", "--noletters", "--minimum_length=40"]
    flags.FLAGS(["script", *words, "--unicode_form=", "--data_dir=d"])
    cleaning = CleaningConfig(letters=False, minimum_length=40, unicode_form="")
    data = DataConfig(source="a.csv", column="body", errors="replace", data_dir="d", cleaning=cleaning)
    assert source_flags.text_source() == TextSource.of(data)
    assert TextSource.of(data) == TextSource(
        "a.csv", "body", "replace", data_dir="d", cleaning=Cleaning(letters=False, minimum_length=40, unicode_form="")
    )
