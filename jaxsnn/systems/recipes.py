"""What the published systems do with the images of each data set, by the data set's name.

Mean and deviation are of grey values in 0 to 1, one for each channel.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from jaxsnn.errors import UserError
from jaxsnn.inputs.preprocess import Flip, Preprocessing, normalised


class Shown(NamedTuple):
    """What becomes of the images of one data set.

    Attributes:
        make: the preprocessing, from ``radius`` and ``flip`` of :func:`jaxsnn.inputs.normalised`.
        mirrored: whether training may mirror them.
    """

    make: Callable[..., Preprocessing]
    mirrored: bool = True


Recipes = Mapping[str, Shown]

# Of ImageNet, in both systems for colour images that are not CIFAR's.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Those of the digits are of the 1,437 training images of jaxsnn.data.load("digits").
_FAST_SNN: Recipes = {
    "mnist": Shown(partial(normalised, (0.1307,), (0.3081,), 32, padding=4), mirrored=False),
    "fashion_mnist": Shown(partial(normalised, (0.2860,), (0.3530,), 32, padding=4)),
    "cifar10": Shown(
        partial(normalised, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262), 32, padding=4)
    ),
    "lfw": Shown(partial(normalised, *_IMAGENET, 64, rotation=30)),
    "digits": Shown(partial(normalised, (0.3060,), (0.3250,), 32, padding=4), mirrored=False),
}

_HALVES = Shown(partial(normalised, (0.5,), (0.5,), 28), mirrored=False)
_CIFAR = Shown(
    partial(normalised, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 32, padding=4)
)
_BAYESIAN_SPIKE_FUSION: Recipes = {
    "mnist": _HALVES,
    "fashion_mnist": _HALVES,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "tiny_imagenet": Shown(partial(normalised, *_IMAGENET, 64, padding=4)),
    "digits": _HALVES,
}


def fast_snn(name: str, flip: Flip = "random", radius: int | None = None) -> Preprocessing:
    """What Fast-SNN does with the images of a data set (Hu et al., IEEE TPAMI, 2023, and its code).

    Windows of 32, in training at random from the image in a frame of 4 black pixels, and mirrored
    where it shows clothes or things; faces are turned by 0 to 30 degrees, cut to the central 64 and
    mirrored. The published code mirrors handwritten digits, too, and tests them at 28x28; here they
    are not mirrored, and tested at 32x32 like those of training. It cuts faces before it turns
    them, which makes their corners black, and turns and mirrors those of the test, too; neither
    is done here. Fashion-MNIST and the embedded digits, which it lacks, follow CIFAR-10 and MNIST.

    Args:
        name: of the data set.
        flip: how those are mirrored that may be; the published system: at random.
        radius: see :func:`jaxsnn.inputs.normalised`; the published system: None.

    Raises:
        UserError: another name. An npz file has no published recipe: take mean and deviation of
            its training images and call :func:`jaxsnn.inputs.normalised`.

    >>> fast_snn("mnist").shape((28, 28, 1)), fast_snn("lfw").shape((96, 96, 3))
    ((32, 32, 1), (64, 64, 3))
    >>> fast_snn("mnist") is fast_snn("mnist")
    True
    """
    return _recipe(name, _FAST_SNN, "Fast-SNN", flip, radius)


def bayesian_spike_fusion(
    name: str, flip: Flip = "random", radius: int | None = None
) -> Preprocessing:
    """What BayesianSpikeFusion does with the images of a data set.

    The numbers are those of its code (Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024).
    Images keep their size. Handwritten digits become -1 to 1 and stay as they are in training; the
    others are cut at random from a frame of 4 black pixels and mirrored. Fashion-MNIST and the
    embedded digits, which it lacks, follow MNIST.

    Args:
        name: of the data set.
        flip: as for :func:`fast_snn`.
        radius: as for :func:`fast_snn`.

    Raises:
        UserError: another name; see :func:`fast_snn`.

    >>> bayesian_spike_fusion("mnist").shape((28, 28, 1))
    (28, 28, 1)
    >>> bayesian_spike_fusion("tiny-imagenet").shape((64, 64, 3))
    (64, 64, 3)
    >>> bayesian_spike_fusion("digits") is bayesian_spike_fusion("mnist")
    True
    """
    return _recipe(name, _BAYESIAN_SPIKE_FUSION, "BayesianSpikeFusion", flip, radius)


def _recipe(
    name: str, recipes: Recipes, system: str, flip: Flip, radius: int | None
) -> Preprocessing:
    recipe = recipes.get(name.replace("-", "_"))
    if recipe is not None:
        return recipe.make(flip=flip if recipe.mirrored else "none", radius=radius)
    if name.endswith(".npz"):
        remedy = "call preprocess.normalised with the mean and deviation of its training images"
    else:
        remedy = f"known: {', '.join(recipes)}"
    raise UserError(f"{system} has no published recipe for the data set {name!r}; {remedy}")
