"""What the tests share: a small text, and the programs that they compile, which leave the user's cache alone."""

import atexit
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from bert_jax.runtime import signals

pytest_plugins = ["helpers.fixtures"]

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # in the process that starts the others, or who wants to keep them
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bert_jax_programs_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# LLVM makes code that is not optimized in half the time, and the tests' models are small. XLA_FLAGS= gives users' code.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

signals.watch = lambda: None  # a test that imports a script leaves pytest its own answers to signals


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --trials, with which a person runs the campaigns of tests/promises for longer."""
    parser.addoption("--trials", type=int, default=0, help="trials of each campaign; 0 is a few, as in the suite")


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> int:
    """Returns the number of trials asked for on the command line; 0 is as many as a test takes by itself."""
    return request.config.getoption("--trials")


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of 2 to 12 sentences over 200 words, a blank line between documents."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 7))) for _ in range(200)]
    sentence = lambda: " ".join(draw.choices(words, k=draw.randint(3, 15))).capitalize() + "."  # noqa: E731
    documents = [" ".join(sentence() for _ in range(draw.randint(2, 12))) for _ in range(300)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return path
