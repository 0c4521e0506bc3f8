"""Where a run happened: versions, device, platform, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import TypedDict, cast

from jaxsnn.types import Untyped

PACKAGE = Path(__file__).resolve().parent.parent


class Environment(TypedDict):
    """Where a run happened: package versions, device, platform and the checkout's commit."""

    versions: dict[str, str | None]
    device: str
    platform: str
    commit: str | None


def environment(package: Path = PACKAGE) -> Environment:
    """Describe what is needed to run the same thing again.

    Args:
        package: folder of the package whose checkout is meant.

    Returns:
        ``versions`` (None for a package that is not installed), ``device``, ``platform``, and
        ``commit``: the checkout's git commit, with ``+dirty`` if files that git tracks or files of
        the package differ from it, None if the package does not lie in a checkout.
    """
    names = ("jax", "flax", "optax", "numpy")
    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions |= {name: _version(name) for name in names}
    # Not what pip once noted of it: in an editable install that is the version of the day.
    versions["jaxsnn"] = import_module(PACKAGE.name).__version__
    return {
        "versions": versions,
        "device": _device(),
        "platform": platform.platform(),
        "commit": _commit(package),
    }


def _device() -> str:
    import jax  # here, so that reading and plotting results does not start a backend

    devices = cast("list[Untyped]", jax.devices())
    first = devices[0]
    if first.platform == "cpu":
        return f"{len(devices)} x {_processor()} (cpu, {os.cpu_count()} cores)"
    return f"{len(devices)} x {first.device_kind} ({first.platform})"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return match[1].strip() if match else platform.processor() or platform.machine()


def _commit(package: Path) -> str | None:
    top = _git(package, "rev-parse", "--show-toplevel")
    # A package installed below some other project's checkout does not belong to that checkout.
    if top is None or Path(top).resolve() != package.resolve().parent:
        return None
    commit = _git(package, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    tracked = _git(package, "status", "--porcelain", "--untracked-files=no")
    untracked = _git(package, "status", "--porcelain", "--", str(package))
    return f"{commit}+dirty" if tracked or untracked else commit


def _git(folder: Path, *arguments: str) -> str | None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
