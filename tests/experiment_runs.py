"""An experiment's script as a user starts it, in this process and small enough for a test."""

import functools
import importlib.util
import sys
from pathlib import Path

import pytest

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
    with pytest.MonkeyPatch.context() as patch:
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
