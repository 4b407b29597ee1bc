"""The pages name files, headings and commands that exist."""

import ast
import functools
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

from bert_jax.config import FinetuningConfig, PretrainingConfig, TrainingConfig
from bert_jax.config.conversion import check_key, overridden, value_of
from bert_jax.config.fields import keys
from bert_jax.config.files import config_file_values
from bert_jax.errors import UserError
from bert_jax.inference.lines import LINE_TASKS
from bert_jax.tasks.table import task_named

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOMS = [path.name for path in (ROOT / "bert_jax").iterdir() if path.is_dir()]
CODE_PATH = re.compile(rf"(?<![\w/.-])(?:(?:bert_jax|configs|docs|scripts|tests)|(?:{'|'.join(ROOMS)}))/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
CODE = [path for room in ("configs", "scripts") for path in sorted((ROOT / room).rglob("*"))]
DOCUMENTS = [*PAGES, *(path for path in CODE if path.suffix in (".py", ".sh"))]
SECTIONS = {"scripts/pretrain.py": PretrainingConfig, "scripts/finetune.py": FinetuningConfig}
TO_BE_WRITTEN = ("NAME", "*")  # a recipe names a file that its reader writes


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def slug(heading: str) -> str:
    """The anchor that code hosts and MyST give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {slug(line.lstrip("#").replace("`", "")) for line in text.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_exist(page):
    bases = (ROOT, ROOT / "bert_jax", page.parent)
    missing = [
        path
        for path in CODE_PATH.findall(page.read_text(encoding="utf-8"))
        if not any(mark in path for mark in TO_BE_WRITTEN)
        and not any((base / f"{path}{end}").exists() for base in bases for end in ("", ".md"))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in LINK.findall(text):
        if target.startswith(("http:", "https:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in headings(path), f"{target}#{anchor}"


def text_of_commands(path: Path) -> str:
    """What of a page, of the docstring of a script or config, or of a shell script may hold commands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    if path.suffix == ".md":
        blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
        rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        return "\n".join([*blocks, *(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest))])
    return text.replace("\\\\", "\\")  # in the text that it prints


def commands(path: Path) -> list[list[str]]:
    """The script and the words of each command that calls one."""
    lines = re.sub(r"\\\n", " ", text_of_commands(path)).splitlines()
    calls = [line[line.index("python scripts/") :] for line in lines if "python scripts/" in line]
    return [shlex.split(call, comments=True)[1:] for call in calls]


@functools.cache
def flags_of(script: str) -> set[str]:
    """The flags of a script and of the modules whose flags it adopts, those of --config and its keys apart."""
    sys.modules.pop("source_flags", None)  # it defines its flags when it is imported
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        runpy.run_path(str(ROOT / script), run_name=script)
    finally:
        sys.path.pop(0)
    own = flags.FLAGS.get_key_flags_for_module(script)
    keys_of_configs = flags.FLAGS.flags_by_module_dict().get("bert_jax.config", [])
    for flag in (*own, *keys_of_configs):
        if flag.name in flags.FLAGS:
            delattr(flags.FLAGS, flag.name)  # another script may have one of this name
    return {flag.name for flag in own} | {f"no{flag.name}" for flag in own if flag.boolean}


def read_config(section: type[TrainingConfig], words: list[str]) -> TrainingConfig:
    """Makes the config of --config and of the keys that are set, as `runtime.command` does."""
    (file,) = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    given = dict(word.removeprefix("--config.").split("=", 1) for word in words if word.startswith("--config."))
    for name in given:
        check_key(section, name)
    overrides = {key.name: value_of(key, given[key.name]) for key in keys(section) if key.name in given}
    return overridden(section, config_file_values(file), overrides)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=name)
def test_commands_have_flags_and_configs_that_exist(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for script, *words in commands(path):
        given = [word for word in words if word.startswith("--")]
        settings = [word for word in given if re.match(r"--config[=.]", word)]
        unknown = {word.partition("=")[0].removeprefix("--") for word in given if word not in settings} - {"help"}
        assert unknown <= flags_of(script) - {"config"}, script
        if settings:
            config = read_config(SECTIONS[script], settings)
            assert not isinstance(config, FinetuningConfig) or task_named(config.task)
        if script == "scripts/predict.py" and unknown:
            assert words[0] in LINE_TASKS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config=configs/pretrain/base.py", "--config.total_steps=10_000"],
            "schedule.warmup=10000 steps do not fit",
        ),
        (["--config=configs/pretrain/base.py", "--config.data.sauce=x"], "sauce"),
        (["--config=configs/pretrain/base.py", "--config.batch_size=0"], "batch_size=0 is out of range"),
    ],
)
def test_a_command_that_would_be_refused_is_seen(words, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        read_config(PretrainingConfig, words)


def test_flags_are_those_of_the_script_alone():
    assert {"model", "top_k", "normalize", "nonormalize"} <= flags_of("scripts/predict.py")
    assert not {"source", "task", "notop_k"} & flags_of("scripts/predict.py")
    assert {"source", "nohtml_tags", "vocab_size"} <= flags_of("scripts/train_tokenizer.py")
    assert {"write", "nowrite"} == flags_of("scripts/check_figures.py")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_configs_take_the_arguments_that_pages_name(page):
    for file, argument in re.findall(r"`(?:configs/\w+/)?(\w+\.py):([a-z0-9_]+)`", page.read_text(encoding="utf-8")):
        (path,) = (ROOT / "configs").glob(f"*/{file}")
        get_config = runpy.run_path(str(path))["get_config"]
        assert path.parent.name == "pretrain" or task_named(get_config(argument).task)
        assert get_config(argument)


def test_the_readme_stays_short_and_begins_with_the_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert [line.split("#")[0].strip() for line in lines[:15] if line.startswith("bash ")] == [
        "bash scripts/quickstart.sh",
        "bash scripts/test.sh",
    ]
