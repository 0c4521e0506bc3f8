"""Ends that come from outside: signals, a closed pipe, a narrow encoding, a full disk, silence."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from jaxsnn.arch.plan import parse, plan
from jaxsnn.errors import UserError
from jaxsnn.systems.run_folder import read_data
from jaxsnn.systems.settings import LeNetScatter

ROOT = Path(__file__).resolve().parents[2]

# A system whose stages wait, in Python or deep in a library that lets no handler run, or talk.
WAITING = """
import hashlib, signal, sys, time
from jaxsnn.io.terminal import show
from jaxsnn.systems import endings, stages
from jaxsnn.systems.settings import LeNetScatter
from jaxsnn.systems.stages import Stage, System

endings.GRACE = 0.5

def ready():
    print("ready", flush=True)

def wait(request):
    ready()
    time.sleep(600)

def compute(request):
    ready()
    hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 2_000_000_000)

def talk(request):
    for number in range(200_000):
        show(f"line {number}")

def write(request):
    print("plain \\u2013 and \\u00b5J")
    show("shown \\u2013 and \\u00b5J")

class Waiting(System):
    system = "waiting"
    stages = {"train": Stage("waits", wait), "simulate": Stage("computes", compute),
              "plot": Stage("talks", talk), "evaluate": Stage("writes", write)}
    every = ("train",)
    def __init__(self, config):
        pass

# A program started in the background ignores an interrupt from its first line on.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(stages.main(Waiting, LeNetScatter, sys.argv[1:]))
"""


def start(stage, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", WAITING, stage],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("stage", "sent", "status"),
    # An interrupt of what waits in Python is Python's own, and ends stages in other tests.
    [
        ("train", signal.SIGTERM, 143),
        ("simulate", signal.SIGTERM, 143),
        ("simulate", signal.SIGINT, 130),
    ],
)
def test_signals_end_every_stage_within_seconds_with_one_line(stage, sent, status):
    with start(stage) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(sent)
            began = time.monotonic()
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()  # of no effect on one that has ended
    assert process.returncode == status
    assert time.monotonic() - began < 20  # on a machine that does other things, too
    assert said.splitlines() == [
        f"stopped by {sent.name}; what was done is kept, and --resume continues training from the "
        "last checkpoint"
    ]


def test_a_closed_pipe_ends_it_without_a_word():
    with start("plot") as process:
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    assert said == ""


def test_a_terminal_of_ascii_shows_what_it_can():
    with start("evaluate", PYTHONIOENCODING="ascii", PYTHONUTF8="0") as process:
        shown, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert said == ""
    assert shown.splitlines() == ["plain ? and ?J", "shown ? and ?J"]


FULL = """
import resource, sys
import numpy as np
from jaxsnn.io import files
from jaxsnn.io.checkpoints import Checkpoints
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
place, noise = sys.argv[1], np.random.default_rng(0).random(9999)
for write in (
    lambda: files.write_bytes(f"{place}/whole.npz", bytes(10_000)),
    lambda: files.append_jsonl(f"{place}/metrics.jsonl", {"text": "x" * 10_000}),
    lambda: Checkpoints(f"{place}/checkpoints").save(7, {"x": noise}),
):
    try:
        write()
        print("written")
    except OSError as error:
        print(str(error).replace(chr(10), " "))
"""


def test_a_disk_that_takes_no_more_is_said_with_the_file(tmp_path):
    """The limit that a process may have on its files stands for the disk's."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for name, line in zip(("whole.npz", "metrics.jsonl", "checkpoints/7"), lines, strict=True):
        assert "cannot be written" in line
        assert str(tmp_path / name) in line
    assert not (tmp_path / "whole.npz").exists()


def test_a_process_says_for_whom_it_waits():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = f"""
    from jaxsnn.io import processes
    processes.PATIENCE = 0.2
    processes.join({address!r}, 2, 1)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stderr.readline()
    finally:
        process.kill()
        process.communicate()
    assert said == f"process 1 waits for the coordinator, process 0 at {address}\n"


def test_a_network_that_no_memory_holds_is_refused_at_once():
    """10^18 neurons, or as many weights."""
    for notation, shape, site in (
        ("1000000000000000000", (1, 1, 1), "dense1"),
        ("1C1", (1_000_000_000, 1_000_000_000, 1), "conv1"),
        ("1000000-1000000", (2, 2, 1), "dense2"),
    ):
        with pytest.raises(UserError, match=f"{site}: .*more than the 6.87e\\+10"):
            plan(parse(notation, input_shape=shape))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "there is no test image"),
        ([0, 999_999] * 10, r"1,000,000 classes, but 16 training images"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_first(tmp_path, labels, message):
    images = np.zeros((len(labels), 28, 28), np.uint8)
    path = tmp_path / "own.npz"
    np.savez(path, images=images, labels=np.array(labels))
    with pytest.raises(UserError, match=message):
        read_data(LeNetScatter(dataset=str(path)))
