"""The package itself: its version, and that importing it is cheap."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import bert_jax

ROOT = Path(__file__).parents[1]


def test_the_version_is_that_of_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert bert_jax.__version__ == setup["metadata"]["version"]
    assert bert_jax.Model.__name__ == "Model"
    assert issubclass(bert_jax.UserError, Exception)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = bert_jax.nothing


@pytest.mark.subprocess
def test_importing_the_package_imports_neither_jax_nor_numpy() -> None:
    code = "import sys, bert_jax; print(sorted({'jax', 'numpy', 'flax', 'importlib.metadata'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
