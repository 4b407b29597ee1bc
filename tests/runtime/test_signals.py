"""A signal is answered in a script from its first line to its last, and leaves Python's own ways alone elsewhere."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bert_jax.runtime import signals
from bert_jax.errors import Interrupted

# No Python runs meanwhile, and no signal cuts it short.
LONG_CALL = "import hashlib; print('ready', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
SCRIPT = f"""
import sys, time
from pathlib import Path
from bert_jax.runtime import command, signals
from bert_jax.runtime.files import temporary_folder

def long_call(_):
    with temporary_folder(Path(folder) / "folder"):
        {LONG_CALL}

def loop(_):
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        signals.check()

def broken(_):
    print("ready", flush=True)
    while not signals.received():
        time.sleep(0.01)
    raise OSError("what the signal has broken")

def saving(_):
    with signals.held() as received:
        print("ready", flush=True)
        while not received():
            time.sleep(0.01)
        time.sleep(3)
        print("saved", flush=True)
        raise command.Interrupted(7, received())

def saving_for_ever(_):
    with signals.held():
        print("ready", flush=True)
        while True:
            time.sleep(0.01)

work, folder = sys.argv.pop(), sys.argv.pop()  # what a script has are flags
command.run(globals()[work], resumes=work == "saving")
"""


def started(tmp_path, what, **settings):
    """A script that does something for ever, and has begun to."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("what", "number"), [("long_call", signal.SIGTERM), ("loop", signal.SIGINT), ("broken", signal.SIGHUP)]
)
def test_a_signal_ends_a_script_within_seconds_with_one_line(tmp_path, what, number) -> None:
    process = started(tmp_path, what)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert errors == f"{signal.Signals(number).name}: stopped; run the same command to begin anew\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.subprocess
def test_what_is_held_is_saved_however_long_it_takes_and_twice_at_once_is_once(tmp_path) -> None:
    process = started(tmp_path, "saving")
    for _ in range(2):  # as timeout(1) does: to the process and to its group
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == "saved\n"
    assert errors == "SIGTERM: saved after step 7; run the same command to go on\n"


@pytest.mark.subprocess
def test_a_second_signal_ends_what_does_not_end(tmp_path) -> None:
    process = started(tmp_path, "saving_for_ever")
    process.send_signal(signal.SIGINT)
    time.sleep(signals.SAME + signals.PATIENCE + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT


@pytest.mark.subprocess
def test_nohup_has_its_way(tmp_path) -> None:
    process = started(tmp_path, "loop", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(signals.PATIENCE + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


def test_outside_of_a_script_a_block_holds_signals_and_python_has_those_it_did_not_answer() -> None:
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with signals.held() as received:
            os.kill(os.getpid(), signal.SIGINT)
            assert received() == signal.SIGINT
            raise Interrupted(3, received())

    with pytest.raises(Interrupted):
        work()
    with pytest.raises(KeyboardInterrupt), signals.held():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    signals.check()


def test_in_a_thread_no_handler_is_set() -> None:
    found = []

    def work() -> None:
        with signals.held() as received:
            found.append(received())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
