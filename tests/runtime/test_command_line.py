"""What a user types wrong is told in one line that names what was meant, and --help tells all there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.config.files import config_file_values
from bert_jax.errors import UserError, did_you_mean
from bert_jax.runtime.command_line import describe

ROOT = Path(__file__).parents[2]

# The flags of scripts/finetune.py, and what becomes of each of many command lines, in one process.
LINES = """
import contextlib, io, json, sys
from absl import flags
from bert_jax.config import FinetuningConfig
from bert_jax.errors import UserError
from bert_jax.runtime import command_line
holder = command_line.define_config(FinetuningConfig, "config file")
flags.DEFINE_string("workdir", None, "folder of the run", required=True)
flags.DEFINE_enum("part", "train", ["train", "validation"], "part of the data")
flags.DEFINE_integer("seeds", 1, "number of runs", lower_bound=1)
answers = []
for line in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            command_line.parse([sys.argv[0], *line], positional="")
            config = command_line.read_config(FinetuningConfig, holder)
        answers.append([0, f"{config.batch_size} {config.tensorboard} {config.model.classifier_dropout}"])
    except UserError as error:
        answers.append([1, str(error)])
    except SystemExit as end:
        answers.append([end.code, printed.getvalue()])
print(json.dumps(answers))
"""
FILE, WORKDIR = f"--config={ROOT}/configs/finetune/glue.py:mrpc", "--workdir=none"
PRETRAINING = f"--config={ROOT}/configs/pretrain/tiny.py"
SEEDS = "it must be between 0 and 4294967295"
WRONG = {
    "config.batch_size=16": "'config.batch_size=16' is no flag: did you mean --config.batch_size=16?",
    "batch_size=16": "'batch_size=16' is no flag: did you mean --config.batch_size=16?",
    "\u2013workdir=x": "'\u2013workdir=x' is no flag: did you mean --workdir=x?",
    "stray": "'stray' belongs to no flag: the script takes flags alone",
    "--batch_size=16": "flag --batch_size is not known: did you mean --config.batch_size?",
    "--colour=red": "flag --colour is not known (see --help)",
    "--config.learning_rate=1": "config key learning_rate is not known: did you mean optimizer.learning_rate?",
    "--config.model.learning_rate=1": "learning_rate is not known: did you mean optimizer.learning_rate?",
    "--config.Dropout=0": "config key Dropout is not known: did you mean model.hidden_dropout_prob?",
    "--config.zebra=1": "config key zebra is not known",
    "--config.optimizer=adamw": "config key optimizer='adamw' sets no value: optimizer is the section of name,",
    "--config.batch_size=1e3": "--config.batch_size=1e3: a whole number is wanted: did you mean 1000?",
    "--config.optimizer.b1=high": "--config.optimizer.b1=high: a number is wanted, such as",
    "--config.tensorboard=no": "--config.tensorboard=no: true or false is wanted: did you mean false?",
    "--config.optimizer.name=AdamW": "choose bert_adamw, adamw or lamb; did you mean adamw?",
    "--config.total_epochs=inf": "total_epochs=inf is out of range: it must be between 0 and 2147483647",
    "--config.total_minutes=1e300": "total_minutes=1e+300 is out of range: it must be between 0 and 100000000",
    "--config.optimizer.b1=1": "optimizer.b1=1.0 is out of range: it must be between 0 and 0.999999999",
    "--config.seed=-1": f"seed=-1 is out of range: {SEEDS}",
    "--config.seed=99999999999999999999": SEEDS,
    "--part=Validation": "--part=Validation is not known: did you mean validation? There are train, validation",
    "--seeds=few": "--seeds=few: a positive integer is wanted",
}


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, ...], tuple[int, str]]:
    """The status and the message of each command line."""
    lines = [(FILE, WORKDIR, word) for word in WRONG]
    lines += [
        (PRETRAINING, WORKDIR),
        (FILE, WORKDIR),
        (FILE, "--workdir="),
        (),
        ("workdir=x",),
        ("--help",),
        (FILE, "-h"),
    ]
    lines += [
        (FILE, WORKDIR, "--noconfig.tensorboard", "--config.model.classifier_dropout=0.5", "--config.batch_size=1_000")
    ]
    command = [sys.executable, "-c", LINES, json.dumps(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(zip(lines, map(tuple, json.loads(done.stdout)), strict=True))


@pytest.mark.subprocess
@pytest.mark.parametrize("word", WRONG)
def test_what_is_wrong_is_told_in_one_line(answers, word: str) -> None:
    status, message = answers[FILE, WORKDIR, word]
    assert (status, message.count("\n")) == (1, 0)
    assert WRONG[word] in message
    assert word not in ("--config.zebra=1", "--colour=red") or "did you mean" not in message  # nothing is near


@pytest.mark.subprocess
def test_a_config_of_another_script_is_called_so(answers) -> None:
    message = f"{PRETRAINING.removeprefix('--config=')} is a config of scripts/pretrain.py"
    assert answers[PRETRAINING, WORKDIR] == (1, message)


@pytest.mark.subprocess
def test_flags_set_keys(answers) -> None:
    found = {
        " ".join(line[2:]): answer for line, answer in answers.items() if answer[0] == 0 and line[1:2] == (WORKDIR,)
    }
    assert found[""] == (0, "32 True None")
    (changed,) = [answer for words, answer in found.items() if words]
    assert changed == (0, "1000 False 0.5")


@pytest.mark.subprocess
def test_all_that_is_required_is_named(answers) -> None:
    message = "--config is required: config file; --workdir is required: folder of the run (see --help)"
    assert answers[()] == (1, message)
    assert answers[FILE, "--workdir="] == (1, "--workdir is required: folder of the run (see --help)")
    assert answers["workdir=x",] == (1, "'workdir=x' is no flag: did you mean --workdir=x?")


@pytest.mark.subprocess
def test_help_ends_well_and_has_what_the_file_sets(answers) -> None:
    status, text = answers["--help",]
    assert status == 0
    assert "--config.batch_size=256 (int, between 1 and 1000000): rows of a step" in text
    status, text = answers[FILE, "-h"]
    assert status == 0
    assert "--config.batch_size=32 (int, between 1 and 1000000; default 256): rows of a step" in text
    assert "--config.optimizer.learning_rate=5e-05 (float, at least 0; default 0.0001): peak" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no config file .*small.py: did you mean .*smal.py"),
        ("import nonexistent_module", "smal.py, line 1: ModuleNotFoundError: No module named 'nonexistent_module'"),
        ("def get_config():\n    x = 1\n    return x / 0", "smal.py, line 3: ZeroDivisionError: division by zero"),
        ("def get_config(:\n", "smal.py, line 1: "),
        ("x = 1", "smal.py is no config file: it has no function get_config"),
        ("def get_config(): return 3", "get_config returns int, and not a ConfigDict"),
    ],
)
def test_config_files_that_fail(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "smal.py").write_text(text or "")
    with pytest.raises(UserError, match=message) as caught:
        config_file_values(str(tmp_path / ("smal.py" if text else "small.py")))
    assert "\n" not in str(caught.value)


def test_arguments_of_config_files(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def get_config(): return {'seed': 3}")
    assert config_file_values(str(tmp_path / "one.py")) == {"seed": 3}
    with pytest.raises(UserError, match=r"one.py takes no argument: leave out :mrpc"):
        config_file_values(f"{tmp_path / 'one.py'}:mrpc")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("glue.py:squad", "glue.py has no task 'squad': give configs/finetune/squad.py:squad"),
        ("glue.py:conll2003", "glue.py has no task 'conll2003': give configs/finetune/conll2003.py"),
        ("squad.py:rte", "squad.py has no task 'rte': give configs/finetune/glue.py:rte"),
        ("glue.py:SST-2", "glue.py has no task 'SST-2': did you mean glue.py:sst2? It has cola, sst2"),
        ("choice.py:foo", "choice.py has no task 'foo': It has swag, race"),
        ("reviews.py:sst2", "reviews.py has no task 'sst2': give configs/finetune/glue.py:sst2"),
    ],
)
def test_a_config_file_takes_its_own_tasks_alone(file: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^configs/finetune/{re.escape(message)}"):
        config_file_values(f"{ROOT}/configs/finetune/{file}")


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("RTE", ("wnli", "rte", "qnli"), "rte"),
        ("clasification", ("custom:classification", "mrpc"), "custom:classification"),
        ("text1", ("text", "label"), "text"),
        ("learning_rate", ("initial_attention", "batch_size"), ""),
        ("foo", (), ""),
    ],
)
def test_the_nearest_name_or_none(given: str, known: tuple[str, ...], expected: str) -> None:
    assert did_you_mean(given, known) == (f": did you mean {expected}?" if expected else "")


def test_errors_of_the_system_name_the_file_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("")
    with pytest.raises(OSError) as caught:
        (tmp_path / "review.txt").read_text()
    path = tmp_path / "review.txt"
    assert describe(caught.value) == f"{path}: no such file or directory: did you mean {tmp_path}/reviews.txt?"
    assert describe(OSError(28, "No space left on device")) == "No space left on device"
