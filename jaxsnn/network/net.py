"""The one network body for ANN and SNN, over one parameter tree.

``Net``, with a module for each of its sites, is the one network of the library. It takes a block of
time ``[K, B, ...]``: synapses run on the merged ``K * B`` axis, neurons scan over ``K``. ``K = 1``
is the ANN and the step-by-step simulator, ``K = T`` is layer by layer. With integer or power-of-two
weights all give the same spikes on every backend; with float weights they do where the synapses are
lowered alike.

Paths: ``params/<site>/kernel``, ``params/<site>/bias``, ``params/<site>/norm/{scale,bias}``,
``batch_stats/<site>/norm/{mean,var}``, learnable leaves of neurons and weight quantisers in
``params/<site>/<leaf>`` and fixed ones (thresholds) in ``fixed/<site>/<leaf>``. The folded tree has
no norm, and may have ``params/<site>/gain``, which multiplies the synapse's integer current, and
``params/<site>/shortcut_gain``, which multiplies what the shortcut adds to it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxsnn import neurons
from jaxsnn.arch.layers import MaxPool, Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.network import synapse, weight_quantisers
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.initialisers import CutNormal, Initialiser
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.site import SiteModule, quantised
from jaxsnn.network.synapse import Accumulator
from jaxsnn.neurons.neuron import Neuron, State
from jaxsnn.types import Tree, Variables


class Out(NamedTuple):
    """What one block returns.

    Attributes:
        state: site -> neuron state after the block.
        readouts: one ``[K, B, classes]`` per head, side exits first, the readout last.
        outs: site -> ``[K, B, ...]`` spike counts or activations.
    """

    state: dict[str, State]
    readouts: tuple[Array, ...]
    outs: dict[str, Array]


class BlockOptions(TypedDict, total=False):
    """How a block of time is computed; see :meth:`Net.__call__`."""

    steps: int
    gate: Array | None
    stem: Array | None
    forced: Mapping[str, Array] | None


class Net(nn.Module):
    """``Net(arch, neurons)(x, state) -> Out``; see the module's docstring.

    Attributes:
        arch: the architecture.
        neurons: site -> neuron.
        weights: site -> weight quantiser, applied to float kernels only.
        folded: the tree has no batch norm (converted).
        accumulators: site -> what holds the integer sums of a folded tree.
        skip_silent: spend nothing on synapses without a spike (folded trees only; same result).
        axis_name: mapped axis over which batch statistics are averaged (data parallel training).
        arithmetic: of the products of floats.
        initialiser: where weights start.
        norm_momentum: share of the running statistics of batch norm that an update keeps.
    """

    arch: Arch
    neurons: SiteMap[Neuron]
    weights: SiteMap[weight_quantisers.WeightQuantiser] = SiteMap(
        weight_quantisers.full_precision()
    )
    folded: bool = False
    accumulators: SiteMap[Accumulator] = SiteMap("float32")
    skip_silent: bool = False
    axis_name: str | None = None
    arithmetic: Arithmetic = Arithmetic.PLAIN
    initialiser: Initialiser = CutNormal()
    norm_momentum: float = 0.9

    if TYPE_CHECKING:  # Flax makes modules frozen and hashable; its types do not say so

        def __hash__(self) -> int: ...

    @nn.compact
    def __call__(
        self,
        x: Array,
        state: Mapping[str, State],
        *,
        train: bool = False,
        steps: int = 1,
        gate: Array | None = None,
        stem: Array | None = None,
        forced: Mapping[str, Array] | None = None,
    ) -> Out:
        """Run one block of time.

        Args:
            x: images ``[K, B, H, W, C]``; ignored where ``stem`` is given.
            state: neuron states, from :func:`initial_state`.
            train: use and update batch statistics.
            steps: K for an image ``[1, B, ...]`` that is held: its current is computed once.
            gate: ``[K]``, multiplies every bias (a bias is drive); None is all ones.
            stem: ``[K, B, ...]``, the first synapse's current if it is known already.
            forced: site -> ``[K, B, ...]`` values that later sites see instead of that site's own
                output, which is still returned in ``outs`` (layer-wise comparison and fine-tuning).

        Raises:
            UserError: ``x`` does not have the architecture's input shape, or it is held although
                it has several steps or biases are gated step by step.
        """
        check_images(x, self.arch)
        operand = x if stem is None else stem
        if steps > 1 and (operand.shape[0] != 1 or gate is not None):
            raise UserError(
                f"steps={steps} holds one image [1, B, ...] under all biases; {operand.shape[0]} "
                "steps are given, or a gate: leave steps out"
            )
        values: dict[str, Array] = {"input": x}
        after, outs, readouts = dict(state), {}, []
        for site in plan(self.arch):
            current = stem if site.source == "input" else None
            module, before = self._site(site), state[site.name]
            after[site.name], out = module(values, current, before, train, steps, gate)
            outs[site.name] = out
            values[site.name] = (forced or {}).get(site.name, out)
            if site.role in ("exit", "readout"):
                readouts.append(out)
        return Out(after, tuple(readouts), outs)

    def _site(self, site: Site) -> SiteModule:
        return SiteModule(
            site,
            neuron_at(self.neurons, site),
            self.weights.at(site),
            self.accumulators.at(site),
            self.folded,
            self.skip_silent and site.source != "input",
            self.axis_name,
            self.arithmetic,
            self.initialiser,
            self.norm_momentum,
            name=site.name,
        )


def neuron_at(sites: SiteMap[Neuron], site: Site) -> Neuron:
    """The neuron of a site; a max pool behind neurons for which none is named is one of a step."""
    neuron = sites.at(site)
    if not isinstance(site.spec, MaxPool) or neuron != neurons.identity():
        return neuron
    pool = site.spec
    return neurons.maximum(pool.size, pool.stride, pool.padding, minima=pool.before_norm)


def check_images(x: Array | np.ndarray, arch: Arch) -> None:
    """Refuse a batch whose images do not have the architecture's input shape.

    Raises:
        UserError: naming both shapes.
    """
    if tuple(x.shape[-3:]) != arch.input_shape or x.ndim < 4:
        raise UserError(
            f"images have shape {tuple(x.shape)}; the network takes [batch, "
            f"{', '.join(map(str, arch.input_shape))}]: resize them, or parse() with input_shape="
        )


def stem(net: Net, variables: Variables, images: Array) -> Array:
    """The first synapse's current ``[B, *drive_shape]`` of images ``[B, H, W, C]``, without bias.

    Computed once for an image that is presented for many steps.
    """
    check_images(images, net.arch)
    site = plan(net.arch)[0]
    params = variables["params"][site.name]
    kernel = quantised(params["kernel"], net.weights.at(site), params)
    held = net.accumulators.at(site)
    return synapse.synapse(images, kernel, site, held, arithmetic=net.arithmetic)


def prepared(net: Net, variables: Variables) -> Tree:
    """The folded tree with each kernel in the dtype in which spikes meet it.

    Cast once, before a loop over time. The tree is for that loop, not to be kept.
    """
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    for site in plan(net.arch):
        if "kernel" in params.get(site.name, {}):
            kernel, held = params[site.name]["kernel"], net.accumulators.at(site)
            params[site.name]["kernel"] = synapse.prepared(kernel, site, held)
    return {**variables, "params": params}


def initial_state(
    net: Net, variables: Variables, batch: int, keys: Array | None = None
) -> dict[str, State]:
    """Neuron states before the first step, for ``batch`` images.

    Args:
        net: the network.
        variables: its tree; missing leaves take the neuron's defaults.
        batch: number of images B.
        keys: one PRNG key per image ``[B]``, for networks with random neurons.
    """
    state = {}
    for number, site in enumerate(plan(net.arch)):
        neuron, channels = neuron_at(net.neurons, site), site.drive_shape[-1]
        leaves = neuron.learned(channels) | neuron.fixed(channels)
        for collection in ("params", "fixed"):
            tree = variables.get(collection, {}).get(site.name, {})
            leaves |= {name: leaf for name, leaf in tree.items() if name in leaves}
        key = None if keys is None else fold_in(keys, number)
        state[site.name] = neuron.init(leaves, (batch, *site.neuron_shape), key)
    return state


def fold_in(keys: Array, number: int) -> Array:
    """``jax.random.fold_in`` for every one of ``keys [B]``."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def init_variables(net: Net, key: Array) -> Tree:
    """Fresh variables: ``params``, ``batch_stats`` (if there is a norm), ``fixed`` (if any)."""
    if isinstance(key, Tracer):
        return _drawn(net, key)
    return _compiled_draw(net)(key)


def _drawn(net: Net, key: Array) -> Tree:
    x = jnp.zeros((1, 1, *net.arch.input_shape))
    state = initial_state(net, {}, 1, jax.random.split(key, 1))
    return dict(net.init(key, x, state))


@functools.lru_cache(maxsize=64)
def _compiled_draw(net: Net) -> Callable[[Array], Tree]:
    """Drawing runs once, so it is compiled quickly: 2 s instead of 11 s for a LeNet on a CPU."""
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(functools.partial(_drawn, net), compiler_options=quick)


def template(net: Net) -> Tree:
    """The tree of :func:`init_variables` as shapes and dtypes, without computing it."""
    return jax.eval_shape(lambda: init_variables(net, jax.random.key(0)))


def forward(net: Net, variables: Variables, images: Array, **options: Unpack[BlockOptions]) -> Out:
    """One pass over images ``[B, H, W, C]``: the ANN, or one step of the SNN (K = 1)."""
    state = initial_state(net, variables, images.shape[0])
    return apply(net, variables, images[None], state, **options)


def apply(
    net: Net,
    variables: Variables,
    x: Array,
    state: Mapping[str, State],
    **options: Unpack[BlockOptions],
) -> Out:
    """One block of time over fixed variables; arguments of :meth:`Net.__call__`."""
    return cast("Out", net.apply(variables, x, state, **options))


def apply_training(
    net: Net,
    variables: Variables,
    x: Array,
    state: Mapping[str, State],
    **options: Unpack[BlockOptions],
) -> tuple[Out, Tree]:
    """One block with batch statistics, and the updated ``{"batch_stats": ...}``."""
    mutable = ["batch_stats"]
    result = net.apply(variables, x, state, train=True, mutable=mutable, **options)
    return cast("tuple[Out, Tree]", result)
