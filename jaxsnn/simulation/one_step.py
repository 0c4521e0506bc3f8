"""Any network one step at a time, its state a pytree: for sensors, servers and other programs."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import whole_number
from jaxsnn.simulation import engine
from jaxsnn.simulation.counters import Counters
from jaxsnn.simulation.engine import Running, encode_axis, unpack
from jaxsnn.simulation.fixed_steps import check_input, check_run, check_state, image_keys


class Step(NamedTuple):
    """What a step gives.

    Attributes:
        readouts: one ``[B, classes]`` per head (side exits first), summed over all steps so far.
        counters: spikes, negative spikes and synaptic events of this step, site -> int32 ``[B]``.
        spikes: site -> signed spike counts of this step ``[B, ...]``, of the sites asked for.
    """

    readouts: tuple[Array, ...]
    counters: Counters
    spikes: dict[str, Array]

    @property
    def readout(self) -> Array:
        """The last head's ``[B, classes]``."""
        return self.readouts[-1]

    @property
    def predictions(self) -> Array:
        """Predicted class after this step, int32 ``[B]``; ties go to the lowest class."""
        return jnp.argmax(self.readout, axis=-1)


def start(
    snn: Spiking,
    batch: int,
    *,
    key: Array | None = None,
    first_image: int = 0,
    counts: bool = False,
) -> Running:
    """The network before its first step.

    Args:
        snn: from :func:`jaxsnn.convert`.
        batch: number of images, or streams, B.
        key: PRNG key, needed where a neuron is random; see :func:`jaxsnn.simulate`.
        first_image: number of the first image, for the draws.
        counts: keep every site's net spike count.

    Raises:
        UserError: ``batch`` below 1, ``first_image`` below 0, or random neurons without a key.
    """
    batch = whole_number("batch", batch)
    keys = image_keys(key, whole_number("first_image", first_image, 0), batch)
    return Running(engine.start(snn.program, batch, keys, counts), jnp.int32(0))


def step(
    snn: Spiking, state: Running, images: Array | np.ndarray, *, record: Sequence[str] = ()
) -> tuple[Running, Step]:
    """One time step: a pure function, compiled once for a shape.

    After t steps it has given what the first t rows of :func:`jaxsnn.simulate` hold, bit for bit
    where the network's sums are exact.

    Args:
        snn: the network.
        state: from :func:`start`, an earlier step, or a trace; it stays as it is.
        images: what is shown in this step, ``[B, H, W, C]``, as the encoding says: the same image
            every time where it is held, and given once where it is given once.
        record: names of sites whose spikes are returned.

    Returns:
        The next state, and what the step gave.

    Raises:
        UserError: another batch than the state's, more steps in all than the network's sums hold,
            or as ``simulate``.
    """
    record = (record,) if isinstance(record, str) else record
    shown = check_input(snn, images[None] if encode_axis(snn) else images)
    check_run(snn, shown, 1, 1, record, 1)
    check_state(snn, state, shown)
    return _step(snn.program, state, shown, tuple(record))


@functools.partial(jax.jit, static_argnums=3)
def _step(
    snn: Spiking, state: Running, images: Array, record: tuple[str, ...]
) -> tuple[Running, Step]:
    trace = engine.run(snn, images, None, None, state, steps=1, block=1, record=record)
    assert trace.state is not None  # it began from one
    readouts, counters = jax.tree.map(lambda rows: rows[0], (trace.readouts, trace.counters))
    spikes = {name: unpack(packed, snn, name)[0] for name, packed in trace.records.items()}
    return trace.state, Step(readouts, counters, spikes)
