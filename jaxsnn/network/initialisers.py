"""Where the weights of a site start."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxsnn.arch.layers import Site


class Initialiser(Protocol):
    """Where the weights of a site start; equal ones are equal, so that a network is hashable."""

    def kernel(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a kernel."""
        ...

    def bias(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a bias."""
        ...

    def scale(self) -> nn.initializers.Initializer:
        """Initialiser of a norm scale."""
        ...


class CutNormal(NamedTuple):
    """Standard deviations of the normals, cut at two and not rescaled, that weights start from.

    Source: the reference code of Zou et al.; ``readout`` also serves the heads of side exits.
    """

    hidden: float = 0.02
    readout: float = 0.1
    norm_scale: float = 0.002

    def kernel(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a kernel: a cut normal."""
        deviation = self.readout if site.role in ("readout", "exit") else self.hidden
        return _truncated_normal(deviation)

    def bias(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a bias: zeros."""
        del site
        return nn.initializers.zeros

    def scale(self) -> nn.initializers.Initializer:
        """Initialiser of a norm scale: normal around 1."""
        normal = nn.initializers.normal(self.norm_scale)
        return lambda key, shape, dtype=jnp.float32: 1 + normal(key, shape, dtype)


class FanInUniform(NamedTuple):
    """Kernels and biases uniform between plus and minus ``1 / sqrt(fan-in)``; norm scales 1.

    Source: what PyTorch's convolutions and linear layers start from.
    """

    def kernel(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a kernel."""
        reach = 1 / math.sqrt(math.prod(site.kernel_shape[:-1]))
        return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
            key, shape, dtype, -reach, reach
        )

    def bias(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a bias: that of its kernel."""
        return self.kernel(site)

    def scale(self) -> nn.initializers.Initializer:
        """Initialiser of a norm scale: ones."""
        return nn.initializers.ones


class FanOutNormal(NamedTuple):
    """Convolutions normal with variance ``2 / fan-out``, dense kernels normal, the rest constant.

    Biases are 0 and norm scales 1. Source: Kaiming He's initialisation, as Fast-SNN's VGG11 has it.

    Attributes:
        dense: standard deviation of a dense kernel.
    """

    dense: float = 0.01

    def kernel(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a kernel."""
        if site.kind == "dense":
            return nn.initializers.normal(self.dense)
        *window, _, outputs = site.kernel_shape
        return nn.initializers.normal(math.sqrt(2 / (math.prod(window) * outputs)))

    def bias(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a bias: zeros."""
        del site
        return nn.initializers.zeros

    def scale(self) -> nn.initializers.Initializer:
        """Initialiser of a norm scale: ones."""
        return nn.initializers.ones


class Dirac(NamedTuple):
    """Every layer passes its input on, beside noise: a start for few epochs.

    Of their own channel the first ``C_in`` filters of a convolution hold 1 in the middle and
    nothing beside it, a learned pool averages its window under noise of 0.3 times He's, and all
    else starts from He's normals, of variance ``2 / fan-in`` (readouts at half that deviation).
    Norm scales are constant.
    Source: cifar10-airbench (Jordan, arXiv:2404.00498, section 3.2); pools of their own.

    Attributes:
        norm_scale: of every norm.
    """

    norm_scale: float = 1.0

    def kernel(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a kernel."""
        normal = nn.initializers.normal(math.sqrt(2 / math.prod(site.kernel_shape[:-1])))

        def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
            kernel = normal(key, shape, dtype)
            if site.role in ("readout", "exit"):
                return 0.5 * kernel
            if site.kind == "dense" or site.source == "input":
                return kernel
            same = jnp.arange(min(shape[-2:]))
            if getattr(site.spec, "learned_pool", False):
                return (0.3 * kernel).at[:, :, same, same].add(1 / math.prod(site.window))
            middle = (shape[0] // 2, shape[1] // 2)
            kernel = kernel.at[:, :, same, same].set(0)
            return kernel.at[(*middle, same, same)].set(1)

        return init

    def bias(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a bias: zeros."""
        del site
        return nn.initializers.zeros

    def scale(self) -> nn.initializers.Initializer:
        """Initialiser of a norm scale: constant."""
        return nn.initializers.constant(self.norm_scale)


class FixedScale(NamedTuple):
    """Another initialiser, but for the norm scales, which are constant."""

    other: Initialiser
    norm_scale: float

    def kernel(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a kernel: the other's."""
        return self.other.kernel(site)

    def bias(self, site: Site) -> nn.initializers.Initializer:
        """Initialiser of a bias: the other's."""
        return self.other.bias(site)

    def scale(self) -> nn.initializers.Initializer:
        """Initialiser of a norm scale: constant."""
        return nn.initializers.constant(self.norm_scale)


def _truncated_normal(deviation: float) -> nn.initializers.Initializer:
    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        return deviation * jax.random.truncated_normal(key, -2, 2, shape, dtype)

    return init
