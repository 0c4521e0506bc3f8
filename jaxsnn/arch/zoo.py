"""The named networks, one line each, with the original's own string beside ours.

Every network is a module attribute (``zoo.lenet_scatter`` is an ``Arch``); ``NAMES`` maps the names
to entries. Input shape and classes are those of the paper's main data set; for another one take
``dataclasses.replace(zoo.fast_alexnet, input_shape=(32, 32, 1))``.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse
from jaxsnn.errors import UserError

_CIFAR_CROP, _CIFAR = (24, 24, 3), (32, 32, 3)


@dataclass(frozen=True)
class Entry:
    """A named network: ours, the string its original prints ("" if none), and how they differ."""

    arch: Arch
    original: str
    note: str


# Scatter-and-gather (Zou et al., Front. Neurosci. 2021): P2 is a learned 2x2 convolution.
lenet_scatter = parse("16C5same-16C5-P2-32C5-P2-256", pool="conv")
vgg_scatter = parse(
    "64C3same-64C3same-64C3same-P2-128C3same-128C3same-P2-256C3same-256C3same-P2-512C3same-512C3",
    input_shape=_CIFAR_CROP, pool="conv",
)  # fmt: skip

# Negative spikes (Zou et al., Adv. Intell. Syst. 2023).
lenet_negative = parse("20C5-P2-50C5-P2-500", pool="conv")
lenet_negative_fashion = parse("32C5-P2-64C5-P2-1024", pool="conv")
mlp_negative = parse("400-400", pool="conv")
cnn1 = parse(
    "96C3same-256C3same-P2-384C3same-P2-384C3same-256C3same-P2-1024-1024",
    input_shape=_CIFAR_CROP, pool="conv",
)  # fmt: skip
cnn2 = parse(
    "128C3same-256C3same-P2-512C3same-P2-1024C3same-512C3same-P2-1024-512",
    input_shape=_CIFAR_CROP, pool="conv",
)  # fmt: skip

# Surrogate-gradient CSNN: biases, max pooling of the currents, a spiking readout.
csnn_static = parse("12C5-MP2-64C5-MP2", norm=False, head_bias=True, head_neuron=True)
csnn_nmnist = parse(
    "12C5-MP2-64C5-MP2", input_shape=(34, 34, 2), norm=False, head_bias=True, head_neuron=True
)

# Fast-SNN (Hu et al., TPAMI 2023): dense layers have a bias beside their norm.
fast_alexnet = parse(
    "96C3p1-256C3s2p1-384C3s2p1-384C3p1-256C3s2p1-2048nb", input_shape=_CIFAR, head_bias=True
)
fast_vgg11 = parse(
    "64C3p1-128C3s2p1-256C3p1-256C3s2p1-512C3p1-512C3s2p1-512C3p1-512C3s2p1-4096nb-4096nb",
    input_shape=_CIFAR, head_bias=True,
)  # fmt: skip
fast_resnet18 = parse(
    "64C3p1-[128C3p1-128C3p1]+norm-[128C3p1-128C3p1]+identity-[128C3p1-128C3p1]+identity"
    "-[256C3s2p1-256C3p1]+norm-[256C3p1-256C3p1]+identity-[256C3p1-256C3p1]+identity"
    "-[512C3s2p1-512C3p1]+norm-[512C3p1-512C3p1]+identity",
    input_shape=_CIFAR, head_pool=True, head_bias=True,
)  # fmt: skip

# BayesianSpikeFusion (Habara et al., Front. Neurosci. 2024): strides instead of pools, a 1x1
# convolution with bias around every residual block.
BSF = {
    "vgg11": "64C3p1-128C3s2p1-256C3s2p1-256C3p1-512C3s2p1-512C3p1-512C3s2p1-512C3p1",
    "vgg16": "64C3p1-64C3p1-128C3s2p1-128C3p1-256C3s2p1-256C3p1-256C3p1"
    "-512C3s2p1-512C3p1-512C3p1-512C3s2p1-512C3p1-512C3p1",
    "vgg19": "64C3p1-64C3p1-128C3s2p1-128C3p1-256C3s2p1-256C3p1-256C3p1-256C3p1"
    "-512C3s2p1-512C3p1-512C3p1-512C3p1-512C3s2p1-512C3p1-512C3p1-512C3p1",
    "resnet18": "64C3p1-(64)-(64)-(128s2)-(128)-(256s2)-(256)-(512s2)-(512)",
    "resnet34": "64C3p1-(64)-(64)-(64)-(128s2)-(128)-(128)-(128)"
    "-(256s2)-(256)-(256)-(256)-(256)-(256)-(512s2)-(512)-(512)",
}


def bsf(
    model: str,
    ic_index: int = -1,
    *,
    input_shape: tuple[int, int, int] = _CIFAR,
    classes: int = 10,
) -> Arch:
    """A network of BayesianSpikeFusion with its early (internal) classifier.

    Args:
        model: a name in ``BSF``.
        ic_index: block behind which the early classifier stands, from 0; -1: there is none.
        input_shape: (height, width, channels).
        classes: of both classifiers.

    Raises:
        UserError: an unknown model, or no block of that number before the last.

    >>> from jaxsnn.arch import plan
    >>> [site.name for site in plan(bsf("vgg11", 3)) if site.role in ("exit", "readout")]
    ['exit1', 'readout']
    """
    if model not in BSF:
        raise UserError(f"model {model!r} is unknown; choose one of {', '.join(BSF)}")
    blocks = [_residual(token) for token in BSF[model].split("-")]
    if not -1 <= ic_index < len(blocks) - 1:
        raise UserError(
            f"ic_index={ic_index}: {model} has blocks 0 to {len(blocks) - 1}, and an early "
            f"classifier stands behind one of 0 to {len(blocks) - 2} (-1: none)"
        )
    if ic_index >= 0:
        blocks.insert(ic_index + 1, "E")
    options = {"input_shape": input_shape, "classes": classes}
    return parse("-".join(blocks), head_pool=True, head_bias=True, **options)


def _residual(token: str) -> str:
    """A block in the notation: ``(128s2)`` stands for two convolutions and their shortcut."""
    if not token.startswith("("):
        return token
    channels, _, stride = token.strip("()").partition("s")
    first = f"{channels}C3s{stride}p1" if stride else f"{channels}C3p1"
    return f"[{first}-{channels}C3p1]+bias"


bsf_vgg11 = bsf("vgg11", 3)
bsf_resnet18 = bsf("resnet18", 4)

_LEARNED = "P2 is a learned 2x2 stride-2 convolution with its own neurons"
_NO_STRING = "the original names its layers in code only"
_CSNN = "the original's 1024FC10 (1024 inputs, 10 units) is our readout, which needs no token"

NAMES: dict[str, Entry] = {
    "lenet_scatter": Entry(
        lenet_scatter, "16C5-P2-32C5-P2-256", f"it leaves out the float encoder; {_LEARNED}"
    ),
    "vgg_scatter": Entry(vgg_scatter, "", f"{_NO_STRING}; the first layer is the float encoder"),
    "lenet_negative": Entry(lenet_negative, "20C5-P2-50C5-P2-500", _LEARNED),
    "lenet_negative_fashion": Entry(lenet_negative_fashion, "32C5-P2-64C5-P2-1024", _LEARNED),
    "mlp_negative": Entry(mlp_negative, "400-400", ""),
    "cnn1": Entry(
        cnn1,
        "96C3-256C3-P2-384C3-P2-384C3-256C3-P2-1024-1024",
        f"it leaves out the padding; {_LEARNED}",
    ),
    "cnn2": Entry(
        cnn2,
        "128C3-256C3-P2-512C3-P2-1024C3-512C3-P2-1024-512",
        f"it leaves out the padding; {_LEARNED}",
    ),
    "csnn_static": Entry(csnn_static, "12C5-MP2-64C5-MP2-1024FC10", _CSNN),
    "csnn_nmnist": Entry(
        csnn_nmnist, "12C5-MP2-64C5-MP2-1024FC10", f"{_CSNN}; at 34x34 it has 1600 inputs"
    ),
    "fast_alexnet": Entry(fast_alexnet, "", f"{_NO_STRING}, as alex"),
    "fast_vgg11": Entry(fast_vgg11, "", f"{_NO_STRING}, as vgg11"),
    "fast_resnet18": Entry(fast_resnet18, "", f"{_NO_STRING}; weights are not quantised"),
    "bsf_vgg11": Entry(bsf_vgg11, "", f"{_NO_STRING}, as vgg11 with ic_index 3 (0-based)"),
    "bsf_resnet18": Entry(bsf_resnet18, "", f"{_NO_STRING}, as resnet18 with ic_index 4 (0-based)"),
}
