"""The pages name files, headings and commands that exist."""

import functools
import re
import runpy
import shlex
from pathlib import Path

import pytest

from bert_jax.tasks.table import task_named

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOMS = [path.name for path in (ROOT / "bert_jax").iterdir() if path.is_dir()]
CODE_PATH = re.compile(rf"(?<![\w/.-])(?:(?:bert_jax|configs|docs|scripts|tests)|(?:{'|'.join(ROOMS)}))/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
TO_BE_WRITTEN = ("NAME", "*")  # a recipe names a file that its reader writes


def slug(heading: str) -> str:
    """The anchor that code hosts and MyST give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {slug(line.lstrip("#").replace("`", "")) for line in text.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page):
    bases = (ROOT, ROOT / "bert_jax", page.parent)
    missing = [
        path
        for path in CODE_PATH.findall(page.read_text(encoding="utf-8"))
        if not any(mark in path for mark in TO_BE_WRITTEN)
        and not any((base / f"{path}{end}").exists() for base in bases for end in ("", ".md"))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in LINK.findall(text):
        if target.startswith(("http:", "https:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in headings(path), f"{target}#{anchor}"


def commands(page: Path) -> list[list[str]]:
    """The words of each command of a script in the page's blocks of bash."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line[line.index("python scripts/") :])[1:] for line in lines if "python scripts/" in line]


@functools.cache
def config_of(file: str, argument: str):
    get_config = runpy.run_path(str(ROOT / file))["get_config"]
    return get_config(argument) if argument else get_config()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_flags_and_keys_that_exist(page):
    for script, *words in commands(page):
        known = (ROOT / script).read_text() + (ROOT / "scripts" / "source_flags.py").read_text()
        config = None
        for word in (word for word in words if word.startswith("--")):
            name, _, value = word.removeprefix("--").partition("=")
            if name == "config":
                config = config_of(*value.partition(":")[::2])
            elif name.startswith("config."):
                *parents, key = name.split(".")[1:]
                assert key in functools.reduce(getattr, parents, config), word
            else:
                assert re.search(rf"""["'](--|)({name}|{name.removeprefix("no")})["']""", known), f"{script} {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configs_take_the_arguments_that_pages_name(page):
    for name, argument in re.findall(
        r"`(?:configs/finetune/)?(\w+\.py):([a-z0-9_]+)`", page.read_text(encoding="utf-8")
    ):
        for folder in ("pretrain", "finetune"):
            if (ROOT / "configs" / folder / name).exists():
                config = config_of(f"configs/{folder}/{name}", argument)
                assert folder == "pretrain" or task_named(config.task)


def test_the_readme_stays_short_and_begins_with_the_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert [line.split("#")[0].strip() for line in lines[:15] if line.startswith("bash ")] == [
        "bash scripts/quickstart.sh",
        "bash scripts/test.sh",
    ]
