"""The package's plan holds: rooms on floors, one name for one thing, no ladders, nothing asks JAX where it runs."""

import ast
import functools
import graphlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bert_jax"
FLOORS = [
    {"errors"},
    {"config", "metrics", "runtime", "text", "training"},
    {"interop", "model"},
    {"tasks"},
    {"finetuning", "inference", "pretraining"},
    {"experiments"},
    {"benchmarks", "visualization"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
APART = {("inference", "finetuning")}  # answering needs nothing of training
ASKS_WHERE_IT_RUNS = {
    *("default_backend", "device_count", "devices", "local_device_count", "local_devices"),
    *("process_count", "process_index"),
}
MAY_ASK = {"benchmarks", "runtime/execution.py"}
MAX_LINES = {"file": 430, "function": 60}
ESSAY = "train"  # the training loop is read from top to bottom, section by section


@functools.cache
def parsed() -> dict[str, ast.Module]:
    """Returns the syntax tree of each file of the package, by its path within the package."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def places(matches) -> list[str]:
    """Returns `file:line` of each node of the package that `matches`."""
    return [
        f"{file}:{node.lineno}" for file, tree in parsed().items() for node in ast.walk(tree) if matches(file, node)
    ]


def imported_modules(file: str, tree: ast.Module) -> set[str]:
    """Returns the modules of this package that a file imports anywhere, as `room.module`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: an import relative to the file"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("bert_jax.") for name in names if name.startswith("bert_jax.")}


def is_name(node: ast.AST, pattern: str) -> bool:
    """Returns whether `node` is a variable, or an attribute of anything, whose whole name matches `pattern`."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return re.fullmatch(pattern, name) is not None


def holds_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(holds_text(item) for item in node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != ""


@functools.cache
def kinds() -> set[str]:
    """Returns the names of the classes in the room of kinds."""
    trees = [tree for file, tree in parsed().items() if file.startswith("tasks/kinds/")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def is_of_kind(node: ast.AST) -> bool:
    """Returns whether `node` is the kind of a task, what it is called, or its task's name."""
    if is_name(node, "kind|problem_type"):
        return True
    return isinstance(node, ast.Attribute) and node.attr in ("name", "head") and is_name(node.value, "kind|task")


def names_a_kind(node: ast.AST) -> bool:
    return any(is_name(part, "|".join(kinds()) + r"|\w+(Example|Row|Kind)") for part in ast.walk(node))


def is_rung(node: ast.AST) -> bool:
    """Returns whether `node` decides by the kind of a task, which a method of the kind should."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        by_name = any(map(is_of_kind, operands)) and any(map(holds_text, operands))
        by_class = any(is_name(part, "kind|type") for part in ast.walk(node)) and any(map(names_a_kind, operands))
        return by_name or by_class
    if isinstance(node, ast.Match):
        return is_of_kind(node.subject)
    if isinstance(node, ast.Call) and is_name(node.func, "isinstance"):
        return names_a_kind(node.args[1])
    return False


def test_nothing_decides_by_the_kind_of_a_task():
    assert places(lambda file, node: is_rung(node)) == []
    outside = [path for room in ("configs", "scripts") for path in (PACKAGE.parent / room).rglob("*.py")]
    rungs = [
        (path.name, node.lineno) for path in outside for node in ast.walk(ast.parse(path.read_text())) if is_rung(node)
    ]
    assert rungs == []


def test_files_import_each_other_in_no_circle():
    """For types either: a circle of files is read as one file."""
    files = {file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): file for file in parsed()}
    imports = {
        name: {parent_in(files, module) for module in imported_modules(file, parsed()[file])} - {None, name}
        for name, file in files.items()
    }
    graphlib.TopologicalSorter(imports).prepare()


def parent_in(files: dict[str, str], module: str) -> str | None:
    """Returns the file that a module or a name in it is from; a package's own file imports nothing that counts."""
    name = module if module in files else module.rpartition(".")[0]
    return name if name in files else None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("task.kind == 'regression'", True),
        ("'regression' != kind", True),
        ("kind in ('a', 'b')", True),
        ("match task.kind:\n case 'a': pass", True),
        ("isinstance(example, TextExample)", True),
        ("isinstance(example, (int, tasks.TextExample))", True),
        ("kind.name == 'regression'", True),
        ("task.kind.head == 'multiple_choice'", True),
        ("isinstance(task.kind, QuestionAnswering)", True),
        ("type(kind) is Regression", True),
        ("task.kind in (Regression(), MultiLabel())", True),
        ("model.problem_type == 'regression'", True),
        ("task.name == 'squad2'", True),
        ("match kind.name:\n    case 'regression': pass", True),
        ("device.kind == other.kind", False),
        ("problem_type not in ('', kind.problem_type)", False),
        ("name == 'kind'", False),
        ("isinstance(example, str)", False),
    ],
)
def test_a_rung_is_told_from_other_code(code, expected):
    assert any(map(is_rung, ast.walk(ast.parse(code)))) is expected


def test_only_the_run_asks_where_it_runs():
    def asks(file: str, node: ast.AST) -> bool:
        if not MAY_ASK.isdisjoint((room_of(file), file)):
            return False
        if isinstance(node, ast.ImportFrom) and node.module == "jax":
            return any(alias.name in ASKS_WHERE_IT_RUNS for alias in node.names)
        return isinstance(node, ast.Attribute) and node.attr in ASKS_WHERE_IT_RUNS and is_name(node.value, "jax")

    assert places(asks) == []


def test_no_name_stands_for_two_classes():
    files = defaultdict(set)
    for file, tree in parsed().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                files[node.name].add("benchmarks" if room_of(file) == "benchmarks" else file)  # its sides share names
    assert {name: places for name, places in files.items() if len(places) > 1} == {}


def test_rooms_import_from_lower_floors_only():
    """Rooms of one floor may import from each other, but not in a circle."""
    upward, neighbours = [], defaultdict(set)
    for file, tree in parsed().items():
        room = room_of(file)
        if room == "__init__":  # names what users call
            continue
        for other in {module.split(".")[0] for module in imported_modules(file, tree)} - {room}:
            if FLOOR[other] > FLOOR[room] or (room, other) in APART:
                upward.append((file, other))
            elif FLOOR[other] == FLOOR[room]:
                neighbours[room].add(other)
    assert upward == []
    graphlib.TopologicalSorter(neighbours).prepare()


@pytest.mark.parametrize("what", ["file", "function"])
def test_files_and_functions_stay_short(what):
    too_long = []
    for file, tree in parsed().items():
        if what == "file":
            lines = {file: len((PACKAGE / file).read_text().splitlines())}
        else:
            functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            functions = [node for node in functions if (file, node.name) != ("training/loop.py", ESSAY)]
            lines = {f"{file}:{node.lineno}": node.end_lineno - node.lineno + 1 for node in functions}
        too_long += [(place, count) for place, count in lines.items() if count > MAX_LINES[what]]
    assert too_long == []
