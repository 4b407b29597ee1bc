"""What every script does around its one call."""

import subprocess
import sys

import pytest

ALLOCATE = """
import resource, sys, threading
if sys.argv.pop() == "kept":
    from bert_jax import command
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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_is_kept_for_the_next_step():
    """A thread that allocates a large block again gets the one it freed: no page is faulted in anew."""
    found = {}
    for how in ("kept", "given back"):
        result = subprocess.run([sys.executable, "-c", ALLOCATE, how], capture_output=True, text=True, check=True)
        found[how] = int(result.stdout)
    assert found["kept"] < 0.1 * found["given back"]
