"""Every key says what it is for, and the lists of keys follow from it."""

import dataclasses
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.config import FinetuningConfig, ModelConfig, PretrainingConfig
from bert_jax.config.fields import Section, keys, names, option
from bert_jax.config.reference import help_text, markdown_table
from bert_jax.errors import UserError
from bert_jax.finetuning.run import KEPT_FIELDS
from bert_jax.interop import google, huggingface
from bert_jax.pretraining.run import SHAPING_FIELDS
from bert_jax.training.workdir import changeable

ROOT = Path(__file__).parents[2]
CONFIGS = [PretrainingConfig, FinetuningConfig]


@dataclasses.dataclass(frozen=True)
class Example(Section):
    path = "example."

    rate: float | None = option(None, role="data", help="a rate", at_least=0, at_most=1)
    count: int = option(1, role="weights", help="a count", at_least=1)
    form: str = option("", role="data", help="a | form", choices=("", "round", "square"))


@pytest.mark.parametrize("section", CONFIGS)
def test_every_key_has_a_role_and_a_help(section: type) -> None:
    for key in keys(section):
        assert key.option.help, key.name
        assert not key.option.help.endswith("."), key.name
        assert key.default is None or isinstance(key.default, key.kind), key.name


def test_a_key_without_role_and_help_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Bare(Section):
        number: int = 3

    with pytest.raises(TypeError, match=r"number has no role and no help: declare it with option\(\)"):
        Bare()
    with pytest.raises(TypeError, match="number"):
        list(keys(Bare))
    with pytest.raises(ValueError, match="role 'size' is not known: choose one of weights, "):
        option(3, role="size", help="a number")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(rate=1.5), r"example\.rate=1\.5 is out of range: it must be between 0 and 1"),
        (dict(rate=float("nan")), r"example\.rate=nan is out of range"),
        (dict(count=0), r"example\.count=0 is out of range: it must be at least 1"),
        (dict(form="flat"), r"""example\.form='flat' is not known: choose "", round or square"""),
    ],
)
def test_values_that_are_not_allowed_are_refused(values: dict, message: str) -> None:
    Example(rate=1, count=1, form="round")
    with pytest.raises(UserError, match=message):
        Example(**values)


def test_lists_that_follow_from_the_roles() -> None:
    sizes = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
    shaping = sizes | {"max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps"}
    dropouts = {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"}
    computation = {"scan_layers", "remat", "remat_saves", "attention"}
    assert set(SHAPING_FIELDS) == shaping
    assert set(KEPT_FIELDS) == dropouts | computation
    assert set(huggingface._COMPUTATION_FIELDS) == computation
    in_google = shaping | dropouts | {"initializer_range"}
    assert set(google._FIELDS) == in_google - {"classifier_dropout", "layer_norm_eps"}
    assert {field.name for field in dataclasses.fields(ModelConfig)} == in_google | computation


@pytest.mark.parametrize("section", CONFIGS)
def test_what_may_change_when_a_run_goes_on(section: type) -> None:
    durations = {"total_steps", "total_epochs", "total_tokens", "total_minutes"}
    watching = {"log_every", "eval_every", "checkpoint_every", "keep_checkpoints", "tensorboard"}
    errors = {"data.errors"} if section is PretrainingConfig else set()
    assert set(changeable(section)) == durations | watching | {"mesh.data"} | errors
    assert set(names(section, "run_length")) == durations


def test_tables_hold_every_key() -> None:
    assert help_text(Example).splitlines() == [
        "--config.rate=None (float | None, between 0 and 1): a rate",
        "--config.count=1 (int, at least 1): a count",
        '--config.form= ("", round or square): a | form',
    ]
    assert markdown_table(Example).splitlines()[2:] == [
        "| `example.rate` | `None` | float \\| None, between 0 and 1 | a rate |",
        "| `example.count` | `1` | int, at least 1 | a count |",
        '| `example.form` | `""` | "", round or square | a \\| form |',
    ]


def test_the_page_of_the_docs_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "document_configuration.py"))
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert script["with_tables"](text) == text, "run scripts/document_configuration.py"
    for section in CONFIGS:
        for key in keys(section):
            assert f"| `{key.name}` |" in text, key.name


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(("script", "section"), [("pretrain", PretrainingConfig), ("finetune", FinetuningConfig)])
def test_help_lists_every_key(script: str, section: type) -> None:
    command = [sys.executable, f"scripts/{script}.py", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    text = " ".join(text.split())
    for key in keys(section):
        assert f"--config.{key.name}={key.default} (" in text, key.name
        assert " ".join(key.option.help.split()[:3]) in text, key.name
