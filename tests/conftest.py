"""Settings of JAX for every test, and the fixtures that several test modules share."""

import gc
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
from packaging.version import Version

# JAX reads these when it is imported, so they stand before everything that imports it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compile many small programs and run each once or twice: quick compiles beat quick code. The
# emitters of fusions take half of a compilation; without them XLA emits the same fusions itself, as
# long as it can (an XLA that cannot any more ends the process over the unknown flag).
QUICK_COMPILES = "--xla_backend_optimization_level=0"
if Version(importlib.metadata.version("jaxlib")) < Version("0.11"):
    QUICK_COMPILES += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK_COMPILES)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# No test is timed: a busy machine is slow, not wrong.
hypothesis.settings.register_profile("jaxsnn", deadline=None, print_blob=True)
hypothesis.settings.load_profile("jaxsnn")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    """Keep compiled programs for the session, for its workers, child processes and notebooks.

    A folder of one's own, named by the variable, makes the next session quicker.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers' is that of the session
        folder = tempfile.TemporaryDirectory(prefix="compiled")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name


MAPS, MANY_MAPS = Path("/proc/self/maps"), 20_000  # Linux allows a process 65,530


@pytest.fixture(autouse=True, scope="module")
def programs_freed():
    """Compiled programs are mapped into memory, and a process has only so many maps.

    What nothing refers to any more goes in time by itself. To search the whole memory for it takes
    as long as a test, and there are hundreds of modules, most of whose programs are small.
    """
    yield
    import jax

    jax.clear_caches()
    if MAPS.is_file() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        gc.collect()


def pytest_addoption(parser):
    parser.addoption(
        "--require-data",
        action="store_true",
        help="fail, instead of skipping, where $JAXSNN_DATA does not hold the real data",
    )
    parser.addoption(
        "--require-parity",
        action="store_true",
        help="fail, instead of skipping, where torch or snnTorch is not installed",
    )
    parser.addoption(
        "--require-simulators",
        action="store_true",
        help="fail, instead of skipping, where a simulator that reads NIR is not installed",
    )


ON_REQUEST = {
    "realdata": "real-data check",
    "parity": "comparison with other libraries",
    "simulators": "NIR files in other simulators",
}
APART = ("test_realdata_", "test_parity_")  # how files with tests of the first two are called


def pytest_ignore_collect(collection_path, config):
    """Where nothing but such tests is asked for, no other file is imported, which takes longer."""
    words = set(re.findall(r"\w+", config.getoption("markexpr")))
    if not words & {"realdata", "parity"} or words - {*ON_REQUEST, "and"}:
        return None  # others decide
    name = collection_path.name
    return True if name.endswith(".py") and not name.startswith(APART) else None


def pytest_collection_modifyitems(config, items):
    """Long files come first, so that no worker is left alone with one at the end.

    What takes minutes, or other packages, runs only when its marker is asked for.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for marker, what in ON_REQUEST.items():
        if marker in config.getoption("markexpr"):
            continue
        for item in items:
            if item.get_closest_marker(marker):
                reason = f"{what}; select it by -m {marker}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_root(request):
    """Folder of the real data, from $JAXSNN_DATA."""
    named = os.environ.get("JAXSNN_DATA", "")
    if named and Path(named).is_dir():
        return Path(named)
    reason = f"$JAXSNN_DATA is {named!r}, not a folder" if named else "$JAXSNN_DATA is not set"
    if request.config.getoption("--require-data"):
        pytest.fail(f"{reason}, and --require-data was given", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _real_data_present(request):
    """A test marked realdata needs the folder, whether it asks for the fixture or not."""
    if request.node.get_closest_marker("realdata"):
        request.getfixturevalue("data_root")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Frames of events are not kept where the user's are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXSNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def snntorch(request):
    """The package that results are compared with."""
    if request.config.getoption("--require-parity"):
        import snntorch

        return snntorch
    reason = "not installed (extra parity)"
    pytest.importorskip("torch", reason=f"torch is {reason}")
    return pytest.importorskip("snntorch", reason=f"snnTorch is {reason}")


@pytest.fixture
def key():
    """A PRNG key."""
    import jax

    return jax.random.key(0)


@pytest.fixture(scope="session")
def run_python():
    """Run code in a fresh interpreter, with several virtual devices if asked for.

    ``run_python(code, devices=8)`` returns what the code printed and fails with its messages when
    it fails. Several devices in this process would slow every other test.
    """

    def run(code, *arguments, devices=1, timeout=300, environment=()):
        settings = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{QUICK_COMPILES} --xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            **dict(environment),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=settings,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    return run
