"""One site of the network body: synapse, gated bias, norm, shortcut, pooling, neuron."""

from collections.abc import Mapping
from typing import TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxsnn.arch.layers import MaxPool, Site
from jaxsnn.network import synapse, weight_quantisers
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.initialisers import Initialiser
from jaxsnn.network.normalised import TrainingNorm
from jaxsnn.network.synapse import Accumulator
from jaxsnn.neurons.max_pool import max_pool
from jaxsnn.neurons.neuron import Leaves, Neuron, State

NORM_EPSILON = 1e-5


class SiteModule(nn.Module):
    """One site: synapse, gated bias, norm, shortcut, max pooling on the current, neuron.

    A max pool before its norm comes before that; one behind neurons is a site of its own, whose
    neuron it is.

    Its attributes are :class:`jaxsnn.network.Net`'s at this site.
    """

    site: Site
    neuron: Neuron
    quantiser: weight_quantisers.WeightQuantiser
    accumulator: Accumulator
    folded: bool
    skip_silent: bool
    axis_name: str | None
    arithmetic: Arithmetic
    initialiser: Initialiser
    norm_momentum: float

    @nn.compact
    def __call__(
        self,
        values: Mapping[str, Array],
        current: Array | None,
        state: State,
        train: bool,
        steps: int,
        gate: Array | None,
    ) -> tuple[State, Array]:
        """State after a block of time, and what the site gives ``[K, B, *out_shape]``.

        Args:
            values: what earlier sites gave, and the input, ``[K, B, ...]`` by name.
            current: ``[K, B, *drive_shape]``, the synapse's current if it is known already.
            state: of the neuron.
            train: use and update batch statistics.
            steps: K for a block ``[1, B, ...]`` that is held.
            gate: ``[K]``, multiplies the bias; None is all ones.
        """
        site, x = self.site, values[self.site.source]
        if isinstance(site.spec, MaxPool):
            return self._fire(state, x, max(x.shape[0], steps))
        shown_steps = x.shape[0] if current is None else current.shape[0]
        drive = self._current(x) if current is None else merged(current)
        if self.folded and self.has_variable("params", "gain"):  # a finer grid than that of spikes
            drive = drive * self.get_variable("params", "gain")
        if self._has_bias():
            drive = drive + self._bias(drive, shown_steps, gate)
        shortcut = self._shortcut(values[site.shortcut], drive.dtype) if site.shortcut else None
        if site.max_pool and site.max_pool.before_norm:
            drive = _pooled(drive, site.max_pool)
        norm = site.norm and not self.folded
        if norm and train and self.arithmetic.fast and self.neuron.stateless:
            return state, self._normalised(drive, shortcut, shown_steps)
        if norm:
            drive = self._norm(drive, train)
        drive = self._pooled(drive, shortcut)
        return self._fire(
            state, drive.reshape(shown_steps, -1, *site.out_shape), max(shown_steps, steps)
        )

    def _pooled(self, drive: Array, shortcut: Array | None) -> Array:
        """The drive with its shortcut, its maxima where the site pools."""
        drive, pool = drive if shortcut is None else drive + shortcut, self.site.max_pool
        return _pooled(drive, pool) if pool and not pool.before_norm else drive

    def _normalised(self, drive: Array, shortcut: Array | None, steps: int) -> Array:
        """Norm, shortcut, pooling and activation in training, as one function."""
        operands = (shortcut, self._leaves())
        neuron, dtype, shape = self.neuron, drive.dtype, (steps, -1, *self.site.out_shape)

        def after(normalised: Array, operands: tuple[Array | None, Leaves]) -> Array:
            pooled = self._pooled(normalised, operands[0])
            return neuron.step(operands[1], (), pooled.reshape(shape))[1].astype(dtype)

        norm = TrainingNorm(after, self.norm_momentum, NORM_EPSILON, self.axis_name, name="norm")
        return norm(drive, operands)

    def _current(self, x: Array) -> Array:
        kernel = None
        if self.site.kernel_shape:
            init = self.initialiser.kernel(self.site)
            kernel = quantised(
                self.param("kernel", init, self.site.kernel_shape),
                self.quantiser,
                self._learned(self.quantiser.learned()) if not self.folded else {},
            )
        computed = (self.accumulator, self.skip_silent, self.arithmetic)
        return synapse.synapse(merged(x), kernel, self.site, *computed)

    def _norm(self, drive: Array, train: bool) -> Array:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.norm_momentum,
            epsilon=NORM_EPSILON,
            axis_name=self.axis_name if train else None,
            scale_init=self.initialiser.scale(),
            name="norm",
        )(drive)

    def _has_bias(self) -> bool:
        """A folded tree may carry a bias (what a norm left behind) where training has none."""
        return self.site.bias or (self.folded and self.has_variable("params", "bias"))

    def _bias(self, drive: Array, steps: int, gate: Array | None) -> Array:
        bias = self.param("bias", self.initialiser.bias(self.site), drive.shape[-1:])
        if gate is None:
            return bias
        per_image = jnp.repeat(gate.astype(bias.dtype), drive.shape[0] // steps)
        return bias * per_image.reshape(-1, *(1,) * (drive.ndim - 1))

    def _shortcut(self, value: Array, dtype: DTypeLike) -> Array:
        """The shortcut's drive, with a gain after conversion (and in its float reference)."""
        value = aligned(merged(value), self.site).astype(dtype)
        if self.has_variable("params", "shortcut_gain"):
            value = value * self.get_variable("params", "shortcut_gain")
        return value

    def _fire(self, state: State, drive: Array, steps: int) -> tuple[State, Array]:
        """Run the neuron over the block: drive ``[K, B, ...]``, or ``[1, B, ...]`` held."""
        neuron, leaves = self.neuron, self._leaves()
        if neuron.stateless:
            return neuron.step(leaves, state, drive)
        if steps == 1:
            state, out = neuron.step(leaves, state, drive[0])
            return state, out[None]
        if drive.shape[0] == steps:
            return jax.lax.scan(lambda carry, x: neuron.step(leaves, carry, x), state, drive)

        def held(carry: State, _: None) -> tuple[State, Array]:
            return neuron.step(leaves, carry, drive[0])

        return jax.lax.scan(held, state, None, length=steps)

    def _leaves(self) -> Leaves:
        channels = self.site.drive_shape[-1]
        fixed = self.neuron.fixed(channels).items()
        return self._learned(self.neuron.learned(channels)) | {
            name: self.variable("fixed", name, lambda leaf=leaf: leaf).value for name, leaf in fixed
        }

    def _learned(self, leaves: Leaves) -> Leaves:
        return {
            name: self.param(name, lambda key, leaf=leaf: leaf) for name, leaf in leaves.items()
        }


def _pooled(drive: Array, pool: MaxPool) -> Array:
    return cast("Array", max_pool(drive, pool.size, pool.stride, pool.padding))


A = TypeVar("A", Array, np.ndarray)


def aligned(value: A, site: Site) -> A:
    """What an identity shortcut adds to the drive of ``site``, from its source's output.

    Args:
        value: ``[..., H, W, C]``.
        site: the last convolution of a block.

    Returns:
        Every ``site.shortcut_stride``-th pixel, the channels between zeros up to those of the
        drive, in front as many as behind (one fewer where they are odd); ``value`` itself where it
        has that shape.
    """
    stride, missing = site.shortcut_stride, site.drive_shape[-1] - value.shape[-1]
    if stride == 1 and not missing:
        return value
    pads = ((0, 0),) * (value.ndim - 1) + ((missing // 2, missing - missing // 2),)
    some = value[..., ::stride, ::stride, :]
    return np.pad(some, pads) if isinstance(some, np.ndarray) else jnp.pad(some, pads)


def merged(x: Array) -> Array:
    """Time and batch as one axis: ``[K, B, ...]`` as ``[K * B, ...]``."""
    return x.reshape(-1, *x.shape[2:])


def quantised(kernel: Array, quantiser: weight_quantisers.WeightQuantiser, leaves: Leaves) -> Array:
    """A float kernel as the quantiser wants it; whole numbers stay as they are."""
    whole = kernel.dtype == jnp.bfloat16 or jnp.issubdtype(kernel.dtype, jnp.integer)
    return kernel if whole else quantiser.quantise(kernel, leaves)
