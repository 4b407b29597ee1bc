"""What every script does around its one call."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.subprocess

ROOT = Path(__file__).parents[2]

ALLOCATE = """
import resource, sys, threading
if sys.argv.pop() == "kept":
    from bert_jax.runtime import command
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(25_000_000)  # 200 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def report():
    faults()
    print(faults())

threading.Thread(target=report).start()
"""


def in_new_process(code: str, *arguments: object, **environment: object) -> str:
    """What a script prints under a home and settings of its own."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XDG_", "GLIBC_"))}
    settings |= {name: str(value) for name, value in environment.items()}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert not result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_is_kept_for_the_next_step():
    """A thread that allocates a large block again gets the one it freed: no page is faulted in anew."""
    found = {how: int(in_new_process(ALLOCATE, how)) for how in ("kept", "given back")}
    assert found["kept"] < 0.1 * found["given back"]
    by_mmap = int(in_new_process(ALLOCATE, "kept", GLIBC_TUNABLES="glibc.malloc.mmap_threshold=33554432"))
    assert by_mmap > 0.9 * found["given back"]  # who wants large blocks to go back has them go


TRAIN = """
import sys
from pathlib import Path
from bert_jax.runtime import command
import jax
import numpy as np

hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)

from bert_jax.config import SIZES
from bert_jax.benchmarks.jax_side import StepSetting
from bert_jax.benchmarks.suites.train import full_batches
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.step import make_init, make_train_step

SIZES["tiny"] = (1, 32, 2)
setting = StepSetting("tiny", 4, 16, "float32", 100)
config, objective = setting.training(), setting.objective()
optimizer = make_optimizer(config.optimizer)
state = jax.jit(make_init(objective, optimizer, 0))()
step = jax.jit(make_train_step(objective, optimizer, config), donate_argnums=0)
for batch in full_batches(100, 4, 16):
    state, _ = step(state, batch, np.int32(4))
print(len(hits))
np.savez(sys.argv[1], *jax.device_get(jax.tree.leaves(state)))
"""


@pytest.mark.slow
def test_a_second_start_loads_the_programs_of_the_first_and_gives_the_same_bits(tmp_path):
    hits = [
        int(in_new_process(TRAIN, tmp_path / name, XDG_CACHE_HOME=tmp_path / "cache"))
        for name in ("one.npz", "two.npz")
    ]
    programs = [path.name for path in tmp_path.glob("cache/bert_jax/programs/*/*")]
    assert sum(name.startswith("jit_train_step-") for name in programs) == 1
    assert hits == [0, len(programs)]
    one, two = (np.load(tmp_path / name) for name in ("one.npz", "two.npz"))
    for name in one.files:
        np.testing.assert_array_equal(one[name], two[name])


WITHOUT_LIBRARIES = """
import runpy, sys
sys.path.insert(0, sys.argv[1].rpartition('/')[0])
sys.modules |= {"jax": None, "tokenizers": None}  # to import one raises ImportError
try:
    runpy.run_path(sys.argv[1])
except ImportError:
    pass
print("bert_jax.runtime.machine" in sys.modules)
"""


SCRIPTS = [path for path in sorted((ROOT / "scripts").glob("*.py")) if "command." in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_set_up_the_process_before_they_load_what_reads_the_environment(script):
    assert in_new_process(WITHOUT_LIBRARIES, script).strip() == "True"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_answer_signals_before_they_import_anything_else(script):
    first = next(node for node in ast.parse(script.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "from bert_jax.runtime import command"


FOLDER = "import os; from bert_jax.runtime import command; print(os.environ.get('JAX_COMPILATION_CACHE_DIR'))"


def test_programs_are_kept_where_the_user_says(tmp_path):
    assert in_new_process(FOLDER, HOME=tmp_path).startswith(f"{tmp_path}/.cache/bert_jax/programs/")
    assert in_new_process(FOLDER, XDG_CACHE_HOME=tmp_path).startswith(f"{tmp_path}/bert_jax/programs/")
    own = tmp_path / "own"
    assert in_new_process(FOLDER, HOME=tmp_path, JAX_COMPILATION_CACHE_DIR=own).strip() == str(own)


def test_without_a_folder_to_write_to_no_program_is_kept(tmp_path):
    (tmp_path / "file").write_text("")
    assert in_new_process(FOLDER, XDG_CACHE_HOME=tmp_path / "file").strip() == "None"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given by the system")
def test_programs_for_other_numbers_of_cores_are_kept_apart(tmp_path):
    alone = f"import os; os.sched_setaffinity(0, {{{max(os.sched_getaffinity(0))}}}); {FOLDER}"
    same = in_new_process(FOLDER, HOME=tmp_path) == in_new_process(alone, HOME=tmp_path)
    assert same == (len(os.sched_getaffinity(0)) == 1)


def test_processes_that_a_script_starts_keep_memory_only_if_they_are_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from bert_jax.runtime import command\n"
        "import multiprocessing, os\n"
        "def tell():\n"
        "    print(os.environ.get('TOKENIZERS_PARALLELISM'))\n"
        "if __name__ == '__main__':\n"
        "    tell()\n"
        "    for told in ('1', None):\n"
        "        os.environ.pop('TOKENIZERS_PARALLELISM')\n"
        "        if told: os.environ['TOKENIZERS_PARALLELISM'] = told\n"
        "        process = multiprocessing.get_context('spawn').Process(target=tell)\n"
        "        process.start(); process.join()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-u", str(script)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.split() == ["false", "1", "None"]
