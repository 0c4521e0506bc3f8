"""The network that a command names: its architecture, its arrays, how it sees images."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np

from jaxsnn.arch import zoo
from jaxsnn.arch.layers import Shape
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse
from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.fitting import Fitting
from jaxsnn.exchange.pytorch import from_torch
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.table import Table
from jaxsnn.exchange.weights import Weights
from jaxsnn.inputs import preprocess
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import Preprocessing
from jaxsnn.systems.settings.bring_your_own import BringYourOwn
from jaxsnn.types import Untyped

PADDING = 4  # black pixels around colour images, from which fine-tuning cuts its windows


class Brought(NamedTuple):
    """A network that was trained elsewhere.

    Attributes:
        arch: its architecture.
        variables: its arrays in our tree.
        table: what became of each of them.
    """

    arch: Arch
    variables: dict[str, Any]
    table: Table


def read_network(config: BringYourOwn, shape: Shape, classes: int) -> Brought:
    """Read the arrays of a network, and fit them into its architecture.

    Args:
        config: which network.
        shape: (height, width, channels) of its images.
        classes: of the data set.

    Raises:
        UserError: a file that cannot be read, or arrays that do not fit, each named.
    """
    weights = read_weights(config.weights, entry=config.entry)
    if config.module:
        return _of_module(config.module, weights, (shape[0], shape[1], shape[2]))
    fittings = [
        Fitting(weights, arch, epsilon=config.epsilon)
        for arch in _architectures(config, (shape[0], shape[1], shape[2]), classes)
    ]
    best = min(fittings, key=lambda fitting: len(fitting.table.problems))
    return Brought(best.arch, best.variables(), best.table)


def _architectures(config: BringYourOwn, shape: tuple[int, int, int], classes: int) -> list[Arch]:
    """The architecture, with and without what the flags leave open."""
    if config.arch in zoo.NAMES:
        return [replace(zoo.NAMES[config.arch].arch, input_shape=shape, classes=classes)]
    norms = (True, False) if config.norm is None else (config.norm,)
    biases = (True, False) if config.head_bias is None else (config.head_bias,)
    return [
        parse(
            config.arch,
            input_shape=shape,
            classes=classes,
            pool=config.pool,
            norm=norm,
            head_pool=config.head_pool,
            head_bias=bias,
        )
        for norm, bias in itertools.product(norms, biases)
    ]


def _of_module(place: str, weights: Weights, shape: tuple[int, int, int]) -> Brought:
    """The network of a PyTorch module, whose file is run, with the weights loaded into it."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        remedy = "pip install 'jaxsnn-conversion[torch]', or give --arch"
        raise UserError(
            f"--module {place} needs torch, which is not installed: {remedy}"
        ) from error
    module = _made(place)
    tensor = cast("Callable[[np.ndarray], Untyped]", torch.from_numpy)
    weights = _of_its_place(weights, list(module.state_dict()))
    try:
        module.load_state_dict({n: tensor(np.array(array)) for n, array in weights.items()})
    except RuntimeError as error:
        misfit = _misfit(weights, module.state_dict()) or str(error).splitlines()[-1].strip()
        raise UserError(f"{weights.place} does not fit --module {place}: {misfit}") from error
    imported = from_torch(module, input_shape=shape)
    return Brought(imported.arch, imported.variables, imported.table)


def _of_its_place(weights: Weights, wanted: Sequence[str]) -> Weights:
    """The arrays of a module, whose file may be that of a larger one.

    Such as Lightning's, where the network is often ``model`` and a loss has arrays, too. What
    stands below the module's place is taken, whether it fits or not, and what is beside it skipped.

    >>> names = ["model.a.weight", "model.a.bias", "loss.weight"]
    >>> of_model = _of_its_place(Weights(dict.fromkeys(names, np.ones(1))), ["a.weight"])
    >>> list(of_model), of_model.skipped
    (['a.weight', 'a.bias'], ('loss.weight',))
    """
    ends = ((name, one) for one in wanted for name in weights if name.endswith(f".{one}"))
    places = {"": None} | {name.removesuffix(one): None for name, one in ends}
    # The module's place is the one below which most of its names stand.
    ahead = max(places, key=lambda place: sum(f"{place}{one}" in weights for one in wanted))
    arrays = {n.removeprefix(ahead): weights[n] for n in weights if n.startswith(ahead)}
    beside = tuple(name for name in weights if not name.startswith(ahead))
    return replace(weights, arrays=arrays, skipped=(*weights.skipped, *beside))


def _misfit(weights: Weights, theirs: Mapping[str, Untyped]) -> str:
    """How the arrays of a file differ from those of a module, with the first of each kind."""
    import torch  # pyright: ignore[reportMissingImports]

    is_lazy = cast("Callable[[Untyped], bool]", torch.nn.parameter.is_lazy)
    wanted = {n: None if is_lazy(each) else tuple(each.shape) for n, each in theirs.items()}
    misfits = {
        "missing in the file": [name for name in wanted if name not in weights],
        "unknown to the module": [name for name in weights if name not in wanted],
        "of another shape": [
            f"{name} {weights[name].shape} for {shape}"
            for name, shape in wanted.items()
            if shape is not None and name in weights and weights[name].shape != shape
        ],
    }
    return "; ".join(
        f"{len(names)} arrays are {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for what, names in misfits.items()
        if names
    )


def _made(place: str) -> Untyped:
    """The module that ``FILE:NAME`` stands for: itself, or what the class or function makes."""
    file, _, name = place.rpartition(":")
    with _beside(Path(file).parent):
        code = _run(file, place)
        made = getattr(code, name, None)
        if made is None:
            raise UserError(f"--module {place}: the file has no {shown(name)}")
        if isinstance(made, type) or not hasattr(made, "state_dict"):
            made = _called(made, place)
    if not hasattr(made, "state_dict"):
        raise UserError(f"--module {place} is a {type(made).__name__}, not a module of torch")
    return made


@contextlib.contextmanager
def _beside(folder: Path) -> Generator[None]:
    """Let a file import those beside it, as ``python FILE`` does."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _run(file: str, place: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"brought_{Path(file).stem}", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise UserError(f"--module {place}: {shown(file)} is no Python file")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # where dataclasses look for the names of annotations
    with _their_code(place):
        spec.loader.exec_module(code)
    return code


def _called(made: Untyped, place: str) -> Untyped:
    """What a class or function makes, which must need no arguments."""
    try:
        inspect.signature(made).bind()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--module {place} cannot be called without arguments ({error}); name a function "
            "without any that returns the module"
        ) from error
    with _their_code(place):
        return made()


@contextlib.contextmanager
def _their_code(place: str) -> Generator[None]:
    """Say on one line what code of theirs raises, and where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        file = Path(place.rpartition(":")[0]).resolve()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f" at line {one.lineno}" for one in frames if Path(one.filename).resolve() == file]
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "can Python run it?"
        if isinstance(error, SystemExit):
            remedy = 'what it does as a program belongs below if __name__ == "__main__"'
        raise UserError(
            f"--module {place}: {file.name} raises {type(error).__name__}{''.join(lines[-1:])}: "
            f"{what}; {remedy}"
        ) from error


def preprocessing_of(config: BringYourOwn, shape: Shape) -> Preprocessing:
    """How the network sees images of a data set, whose shape is (height, width, channels).

    Raises:
        UserError: images that are not square where they are cut or normalised.
    """
    channels, size = shape[2], config.size or shape[0]
    whole = config.size is None or shape[:2] == (size, size)
    if whole and not config.mean and channels == 1:
        return preprocess.unchanged(Encoding("held", 1 / config.white, 255))
    if config.size is None and shape[0] != shape[1]:
        raise UserError(f"images of {shape[0]}x{shape[1]} are not square; say --size")
    colour = channels == 3
    scale = config.white / 255  # grey values are divided by 255 there
    mean, std = config.mean or (0.0,) * channels, config.std or (scale,) * channels
    moves = colour and size <= min(shape[:2]) + 2 * PADDING  # of smaller ones there is no window
    padding = PADDING if moves else 0
    flip = config.flip if colour else "none"
    return preprocess.normalised(mean, std, size, padding=padding, flip=flip)
