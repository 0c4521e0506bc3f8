"""A converted network as one frozen pytree, and the ways to change one."""

import math
from dataclasses import dataclass, replace

import flax.struct
import jax.numpy as jnp

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan, spiking_sites
from jaxsnn.conversion.kernels import EXACT_SUMS, KernelForm
from jaxsnn.errors import UserError
from jaxsnn.inputs.checks import check_finite
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.io.arrays import flatten
from jaxsnn.network import weight_quantisers
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.synapse import Accumulator
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.types import Tree, Variables


@dataclass(frozen=True)
class Folded:
    """What happened to one site.

    Attributes:
        site: its name.
        form: what the kernel is.
        quantiser: name of the weight quantiser whose whole numbers the kernel has, else empty.
        exponent: on a grid, kernels are whole multiples of ``2**-exponent``.
        scale: for other whole numbers, the value of one in the units of the weights.
        added: names of arrays in ``params`` that the training tree does not have.
        norm: what became of batch norm and bias.
        flipped: channels whose sign was flipped (negative norm scale).
        constant: channels with a constant level (zero norm scale).
        bound: largest possible ``|sum|`` of the integer drive over all steps (a membrane potential
            that is not reset, a sum of the integer ANN); rounded up where drives are floats.
        accumulator: what holds the sums of one step.
        weight_error: largest change of a weight by the grid, in the units of the weights.
        step_bound: largest possible ``|sum|`` of one step.
        threshold_grid: what the distance of even thresholds is a whole multiple of, in units of the
            drive; 0 where each threshold is exact by itself. A bias that is given step by step, on
            the same grid, counts in it.
        gain_error: largest relative change of a shortcut's gain by being a whole number; both
            references of a certificate have it, too.
    """

    site: str
    form: KernelForm
    quantiser: str = ""
    exponent: int = 0
    scale: float = 1.0
    added: tuple[str, ...] = ()
    norm: str = "none"
    flipped: int = 0
    constant: int = 0
    bound: int = 0
    accumulator: Accumulator = "float32"
    weight_error: float = 0.0
    step_bound: int = 0
    threshold_grid: float = 0.0
    gain_error: float = 0.0

    @property
    def kernel_unit(self) -> float:
        """Value of one unit of the kernel, in the units of the weights."""
        return self.scale * 2.0**-self.exponent

    @property
    def kernel(self) -> str:
        """A word for the kernel, for people: the quantiser's name, else the form."""
        return self.quantiser or self.form.value

    @property
    def exact_in_float(self) -> bool:
        """Whether the float ANN's sums are exact: numbers times a power of two, below 2^24."""
        power_of_two = math.frexp(self.kernel_unit)[0] == 0.5
        return self.form.is_whole and power_of_two and self.bound < EXACT_SUMS


def accumulator_for(bound: int) -> Accumulator:
    """What holds every sum up to ``bound``: float32 below 2^24, else int32."""
    return "float32" if bound < EXACT_SUMS else "int32"


@flax.struct.dataclass
class Spiking:
    """A converted network: arrays in ``variables``, everything else static.

    Attributes:
        variables: the folded tree: integer kernels in ``params``, thresholds in ``fixed``.
        arch: the architecture.
        neurons: site -> spiking neuron.
        ann: site -> activation of the quantised ANN that it was converted from, and
        weights: site -> that network's weight quantiser (the certificate's reference).
        encoding: how images come in.
        accumulators: site -> what holds its integer sums.
        units: pairs (site, value of one count); the readout's count times its unit is the logit.
        report: what was folded, site by site.
        skip_silent: spend nothing on synapses without a spike; False only to measure the full work.
        trained: the network that was converted, over the training tree; None: it is not known.
    """

    variables: Tree
    arch: Arch = flax.struct.field(pytree_node=False)
    neurons: SiteMap[Neuron] = flax.struct.field(pytree_node=False)
    ann: SiteMap[Neuron] = flax.struct.field(pytree_node=False)
    weights: SiteMap[weight_quantisers.WeightQuantiser] = flax.struct.field(pytree_node=False)
    encoding: Encoding = flax.struct.field(pytree_node=False)
    accumulators: SiteMap[Accumulator] = flax.struct.field(pytree_node=False)
    units: tuple[tuple[str, float], ...] = flax.struct.field(pytree_node=False)
    report: tuple[Folded, ...] = flax.struct.field(pytree_node=False, default=())
    skip_silent: bool = flax.struct.field(pytree_node=False, default=True)
    trained: Net | None = flax.struct.field(pytree_node=False, default=None)

    @property
    def net(self) -> Net:
        """The network body over the folded tree."""
        return Net(
            self.arch,
            self.neurons,
            folded=True,
            accumulators=self.accumulators,
            skip_silent=self.skip_silent,
            arithmetic=Arithmetic.EXACT,
        )

    @property
    def program(self) -> "Spiking":
        """The network without what only the host reads.

        Networks of one shape then share a compiled program, whatever their weights' grid.
        """
        return replace(self, units=(), report=(), trained=None)

    @property
    def quantised_ann(self) -> Net:
        """The network that it was converted from: batch norm, float masters."""
        return Net(self.arch, self.ann, self.weights)

    @property
    def float_ann(self) -> Net:
        """The same network over kernels that are quantised already (:func:`jaxsnn.snapped`)."""
        return self.quantised_ann.clone(
            weights=SiteMap(weight_quantisers.full_precision()), arithmetic=Arithmetic.EXACT
        )

    @property
    def is_converted(self) -> bool:
        """Whether it was converted, and takes whole input units; False: trained directly."""
        return not any(record.form is KernelForm.TRAINED for record in self.report)

    @property
    def is_integer(self) -> bool:
        """Whether every synapse has a kernel of whole numbers."""
        return all(r.form.is_whole for r in self.report if r.form is not KernelForm.NONE)

    def folded(self, site: str) -> Folded:
        """What happened to a site.

        Raises:
            UserError: nothing was folded there.
        """
        for record in self.report:
            if record.site == site:
                return record
        raise UserError(f"nothing was folded at {site!r}; see the report for what was")

    def unit(self, site: str) -> float:
        """Value of one count at ``site``, in the units of the ANN."""
        return dict(self.units)[site]


def directly_trained(net: Net, variables: Variables, encoding: Encoding) -> Spiking:
    """A network of spiking neurons as it was trained: there is no ANN, and nothing is folded.

    Args:
        net: the network, without batch norm.
        variables: trained, float32.
        encoding: how images or frames come in; integers are multiplied by its scale, floats are
            taken as they are.

    Raises:
        UserError: a site with batch norm, which acts on a batch and not on a step, or an array with
            a value that is not finite.
    """
    sites = plan(net.arch)
    for site in sites:
        if site.norm:
            raise UserError(f"{site.name} has a batch norm, which no spiking step can compute")
    for path, array in flatten(variables).items():
        check_finite(f"the values of {path}", array)
    return Spiking(
        dict(variables),
        arch=net.arch,
        neurons=net.neurons,
        ann=net.neurons,
        weights=net.weights,
        encoding=encoding,
        accumulators=SiteMap("float32"),
        units=tuple((site.name, 1.0) for site in sites),
        report=tuple(Folded(site.name, KernelForm.TRAINED) for site in sites),
        skip_silent=False,
    )


def comes_to_rest(snn: Spiking) -> bool:
    """Whether every net count comes to rest at its level some time after the input has ended."""
    spiking = (snn.neurons.at(site) for site in spiking_sites(snn.arch))
    return snn.encoding.ends is not None and all(neuron.rests for neuron in spiking)


def settled(snn: Spiking) -> Spiking:
    """The network whose one step gives the final net counts: settled mode.

    Every spiking neuron is replaced by its settled level (:class:`Neuron`): the integer ANN. The
    transient is not simulated: spikes per step mean nothing, counts at rest are those of the SNN.
    What a held input and its biases give over all their steps is given at once, so the first
    kernel and the biases are multiplied by their number.

    Raises:
        UserError: a neuron for which no theory gives the final count.
    """
    levels = tuple((site.name, _settled(site, snn.neurons.at(site))) for site in plan(snn.arch))
    mapped = SiteMap(neurons.identity(), by_name=levels)
    return replace(
        snn,
        variables={**snn.variables, "params": _at_once(snn)},
        neurons=mapped,
        encoding=replace(snn.encoding, presentation="onset", duration=None),
        accumulators=whole_accumulators(snn),
    )


def _at_once(snn: Spiking) -> Tree:
    """The params whose one step gives what those of ``snn`` give until its input ends."""
    steps = snn.encoding.ends or 1
    if steps == 1:
        return snn.variables["params"]
    first = plan(snn.arch)[0].name
    params = {name: dict(tree) for name, tree in snn.variables["params"].items()}
    kernel = params[first]["kernel"]
    wide = jnp.int32 if jnp.issubdtype(kernel.dtype, jnp.integer) else kernel.dtype
    params[first]["kernel"] = kernel.astype(wide) * steps
    for tree in params.values():
        if "bias" in tree:
            tree["bias"] = tree["bias"] * steps
    return params


def _settled(site: Site, neuron: Neuron) -> Neuron:
    if neuron.settled is not None:
        return neuron.settled
    if neuron.stateless and neuron.spikes is None:
        return neuron  # a readout, or a pool without neurons of its own
    raise UserError(
        f"{site.name}: theory gives no final count for {neuron.name!r}, so it has no integer ANN; "
        f"{_remedy(neuron)}"
    )


def _remedy(neuron: Neuron) -> str:
    """What to do about a neuron that has no integer ANN."""
    if neuron.drops_spikes:
        return "leave noise out"
    if neuron.pays_out:
        return "its rates under a held image are what certify() compares, with the normalised ANN"
    if neuron.delay:
        return "leave the delay out"
    return "convert by a method whose counts come to rest, such as methods.scatter_gather"


def whole_accumulators(snn: Spiking) -> SiteMap[Accumulator]:
    """What holds the sums of a pass that takes final net counts at once (settled mode)."""
    of_records = {
        record.site: accumulator_for(record.bound) for record in snn.report if record.bound
    }
    by_name = dict(snn.accumulators.by_name) | of_records
    return replace(snn.accumulators, by_name=tuple(by_name.items()))
