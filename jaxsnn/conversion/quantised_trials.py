"""A network of ReLUs tried with quantised activations, before anything is converted.

One program serves all widths of a step: the step is a number of the tree.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.io.progress import batches
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net
from jaxsnn.neurons.levels import median_level
from jaxsnn.neurons.neuron import Leaves, Neuron, State, no_state
from jaxsnn.types import Variables


def activations(arch: Arch) -> tuple[str, ...]:
    """Names of the sites with a hidden activation."""
    return tuple(site.name for site in plan(arch) if site.role == "activation")


def _stepped(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
    """Quantised to multiples of a step that is a number of the tree: one program for all k."""
    step = leaves["step"]
    return state, median_level(drive / step, 0) * step


def _one_step(channels: int) -> Leaves:
    del channels
    return {"step": jnp.float32(1)}


STEPPED = Neuron(no_state, _stepped, fixed=_one_step)


def with_step(variables: Variables, arch: Arch, k: int) -> Variables:
    """The tree with a step of ``2**-k`` at every hidden activation."""
    return {**variables, "fixed": {n: {"step": jnp.float32(2.0**-k)} for n in activations(arch)}}


@functools.partial(jax.jit, static_argnums=0)
def _readout(net: Net, variables: Variables, images: Array) -> Array:
    return net_module.forward(net, variables, images).readouts[-1][0]


def logits(
    net: Net,
    variables: Variables,
    *,
    images: np.ndarray,
    encoding: Encoding,
    batch_size: int,
    progress: str,
) -> np.ndarray:
    """Logits ``[N, classes]`` of all images."""
    parts = [
        np.asarray(_readout(net, variables, encoding.decode(jnp.asarray(images[rows]))))[:real]
        for rows, real in batches(len(images), min(batch_size, len(images)), progress)
    ]
    return np.concatenate(parts)


def relative(logits: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square difference over the root mean square of the reference."""
    exact = reference.astype(np.float64)
    size = float(np.sqrt(np.mean(exact**2)))
    return float(np.sqrt(np.mean((logits - exact) ** 2))) / (size or 1.0)
