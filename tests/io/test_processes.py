"""Several processes: one training, one evaluation, one writer, and an end to all of them at once.

Two processes of four virtual devices each, beside one process of eight.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxsnn.io import processes
from jaxsnn.io.arrays import load_arrays
from jaxsnn.systems.config_file import from_json, to_json
from jaxsnn.systems.settings.conversion import LeNetScatter

ROOT = Path(__file__).resolve().parents[2]
SILENCE = "5"  # seconds after which a process that is gone is given up

# Plain gradient descent with batch norm, whose result depends on the number of devices by the order
# of float sums alone. The process named in `victim` dies in the second epoch.
TRAINING = """
import os, signal, sys
folder, tests, resume, victim, *own = sys.argv[1:]
sys.path.insert(0, tests)
from jaxsnn.io import processes
if own:
    processes.join(own[0], 2, int(own[1]), int(own[2]))
import optax
from jaxsnn.training.options import Options
from jaxsnn.training.train import train
from small_tasks import batch_norm_task, digits

def after_epoch(record, variables):
    if victim == str(processes.index()) and record["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return record

options = Options(3, 64, devices=8, directory=folder, resume=resume == "True")
train(batch_norm_task(), optax.sgd(0.1), digits(), options, False, after_epoch=after_epoch)
"""

# What processes say to each other; every refusal is one of all processes.
TALK = """
import fcntl, sys
from pathlib import Path
import numpy as np
from jaxsnn.io import processes
from jaxsnn.io.files import exclusive, write_bytes
folder, *own = sys.argv[1:]
processes.join(own[0], 2, int(own[1]), int(own[2]))
me = processes.index()
assert processes.count() == 2 and processes.is_primary() == (me == 0)
for number in range(6):
    mine = [n * n for n in processes.shard(range(number))]
    assert len(mine) == (number + 1 - me) // 2
    assert processes.unsharded(mine) == [n * n for n in range(number)]
large = np.arange(700_000 + me, dtype=np.int64) * 2**33
for process, found in enumerate(processes.all_gather(large)):
    assert len(found) == 700_000 + process and found.dtype == np.int64
    assert (found == np.arange(len(found)) * 2**33).all()
processes.same("numbers", 3)
processes.same_arrays("arrays", {"a": np.arange(3)})

def refused(work, *said):
    try:
        work()
    except ValueError as error:
        assert all(words in str(error) for words in said), error
    else:
        raise AssertionError(f"not refused: {said}")

refused(lambda: processes.same("seeds", me), "seeds differ", "0 in process", "1 in process")
refused(lambda: processes.same_arrays("images", np.full(2, me)), "images differ")
refused(lambda: processes.devices_per_process(3), "devices = 3", "2 processes")

def one_fails():
    with processes.collective():
        if me == 1:
            raise ValueError("no file")

refused(one_fails, "no file", *(["process 1 has stopped"] if me == 0 else []))
with processes.collective():
    lock = Path(folder, ".lock").open("w") if me == 0 else None
    if lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

def locked():
    with exclusive(folder):
        raise AssertionError("the folder is not locked")

refused(locked, "being trained by another process")
write_bytes(Path(folder, f"written_by_{me}"), b"")
print("agreed")
"""

# An experiment without its figures.
SCRIPT = """
import sys
from jaxsnn.systems.settings.conversion import NegativeSpikesMnist
from jaxsnn.systems import stages
from jaxsnn.systems.negative_spikes import NegativeSpikes

class Short(NegativeSpikes):
    every = ("train", "simulate")

sys.exit(stages.main(Short, NegativeSpikesMnist, sys.argv[1:]))
"""
SETTINGS = [
    *("--arch", "mlp", "--dataset", "digits", "--epochs", "1", "--limit-train", "160"),
    *("--limit-test", "150", "--batch-size", "32"),
]


def free_address():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture
def run_two(tmp_path_factory):
    """Run code in two processes of four devices; their exit statuses, outputs and messages."""

    def run(code, *arguments, per_process, timeout=300):
        settings = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4 "
            "--xla_backend_optimization_level=0",
            "PYTHONPATH": str(ROOT),
        }
        address, started = free_address(), list[subprocess.Popen]()
        try:
            for number in (0, 1):
                words = [
                    sys.executable,
                    "-c",
                    code,
                    *map(str, arguments),
                    *per_process(address, number),
                ]
                pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
                started.append(subprocess.Popen(words, env=settings, cwd=ROOT, **pipes))
            said = [one.communicate(timeout=timeout) for one in started]
        finally:
            for one in started:
                one.kill()
                one.wait()
        return [(one.returncode, *texts) for one, texts in zip(started, said, strict=True)]

    return run


def positional(address, number):
    return address, str(number), SILENCE


def flags(address, number):
    words = ["--coordinator", address, "--processes", "2", "--process-id", number]
    return [*map(str, words), "--heartbeat-timeout", SILENCE]


def records(folder):
    """Lines of metrics.jsonl without their seconds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_success(ended):
    for status, out, messages in ended:
        assert status == 0, f"exit status {status}\n{out}\n{messages}"


@pytest.mark.slow
def test_processes_share_work_agree_and_refuse_alike(run_two, tmp_path):
    ended = run_two(TALK, tmp_path, per_process=positional)
    assert_success(ended)
    assert all("agreed" in out for _, out, _ in ended)
    assert (tmp_path / "written_by_0").exists()
    assert not (tmp_path / "written_by_1").exists()


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_after_one_is_killed(run_two, run_python, tmp_path):
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    run_python(TRAINING, one, ROOT / "tests", False, "", devices=8)
    assert_success(run_two(TRAINING, two, ROOT / "tests", False, "", per_process=positional))
    for actual, wanted in zip(records(two), records(one), strict=True):
        assert actual.keys() == wanted.keys()
        for name, value in wanted.items():
            assert actual[name] == (None if value is None else pytest.approx(value, abs=1e-5)), name
    (actual, _), (wanted, _) = (load_arrays(folder / "model.npz") for folder in (two, one))
    assert actual.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-5)

    ended = run_two(TRAINING, killed, ROOT / "tests", False, "1", per_process=positional)
    assert ended[1][0] == -signal.SIGKILL
    assert ended[0][0] != 0  # not hanging, not done
    assert 1 <= len(records(killed)) < 3
    assert_success(run_two(TRAINING, killed, ROOT / "tests", True, "", per_process=positional))
    assert records(killed) == records(two)
    assert (killed / "model.npz").read_bytes() == (two / "model.npz").read_bytes()
    assert (killed / "best.npz").exists()


@pytest.mark.slow
def test_an_experiment_is_simulated_exactly_as_in_one_process(run_two, run_python, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    ended = run_two(SCRIPT, *SETTINGS, "--out", two, per_process=flags)
    assert_success(ended)
    assert "certificate: exact after settling" in ended[0][1]
    assert "certificate" not in ended[1][1]  # one voice
    folder = two / "mlp_k1"
    assert [record["epoch"] for record in records(folder)] == [1]
    assert "coordinator" not in json.loads((folder / "config.json").read_text())

    shutil.copytree(two, one)
    words = ["simulate", *SETTINGS, "--out", one]
    with contextlib.suppress(FileNotFoundError):
        (one / "mlp_k1/results.json").unlink()
    run_python(SCRIPT, *words, devices=8)
    actual, wanted = (
        json.loads((place / "mlp_k1/results.json").read_text()) for place in (two, one)
    )
    for results in (actual, wanted):
        del results["seconds"], results["argv"]
    assert actual == wanted
    for name in ("accuracy.txt", "spike_num.txt", "sop_num.txt", "snn.npz"):
        paths = [place / "mlp_k1" / name for place in (two, one)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_how_a_program_is_started_is_no_part_of_its_run():
    started = LeNetScatter(coordinator="10.0.0.1:1234", processes=2, process_id=1)
    assert started == LeNetScatter()
    assert to_json(started) == to_json(LeNetScatter())
    assert from_json(LeNetScatter, to_json(started))[0].coordinator is None
    assert LeNetScatter(coordinator="auto").processes is None


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"processes": 2}, "processes is 2"),
        ({"process_id": 0}, "process_id is 0"),
        ({"coordinator": "auto", "processes": 2}, "processes is 2"),
        ({"coordinator": "here", "processes": 2, "process_id": 0}, "coordinator is 'here'"),
        ({"coordinator": "here:1"}, "processes is None"),
        ({"coordinator": "here:1", "processes": 2}, "process_id is None"),
        ({"coordinator": "here:1", "processes": 2, "process_id": 2}, "process_id is 2"),
        ({"heartbeat_timeout": 0}, "heartbeat_timeout is 0"),
    ],
)
def test_a_start_of_which_something_is_unknown_is_refused(values, name):
    with pytest.raises(ValueError, match=name):
        LeNetScatter(**values)


def test_one_process_is_first_and_alone():
    assert processes.is_primary()
    assert processes.count() == 1
    assert list(processes.shard("abc")) == processes.unsharded(list("abc")) == ["a", "b", "c"]
    with pytest.raises(OSError, match="gone"), processes.collective():
        raise OSError("gone")
