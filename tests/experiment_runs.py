"""An experiment's script as a user starts it, in this process and small enough for a test."""

import contextlib
import functools
import importlib.util
import sys
import tempfile
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

ROOT = Path(__file__).resolve().parent.parent
LIMITS = [
    *("--dataset", "digits", "--epochs", "1", "--limit-train", "120", "--limit-test", "220"),
    *("--batch-size", "32"),
]
TINY = [*LIMITS, "--noise-seeds", "2"]
IMAGES = 220  # of the test set: one whole batch of the text files, and a part of one


def run(*arguments, out, tiny=TINY, script="mnist_lenet"):
    """Exit status of a script; of a flag given twice the last one holds."""
    argv = [script, *arguments, *tiny, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch, _programs_kept():
        patch.setattr(sys, "argv", argv)
        try:
            return _module(script).main()
        except SystemExit as stopped:
            return stopped.code


@functools.cache
def _module(script):
    spec = importlib.util.spec_from_file_location(script, ROOT / "experiments" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _cache_folder():
    return tempfile.TemporaryDirectory(prefix="compiled")


@contextlib.contextmanager
def _programs_kept():
    """Compile the programs of equal runs once: each run has an optimiser object of its own."""
    settings = {
        "jax_compilation_cache_dir": _cache_folder().name,
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
