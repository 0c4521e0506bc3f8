"""From the nodes of the ``nir`` package to operations and their parameters.

Factors of the Euler steps are computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir import linear, windows
from jaxsnn.exchange.nir.delay import Delay
from jaxsnn.exchange.nir.fields import Fields, Numbers
from jaxsnn.exchange.nir.neurons import CurrentBased, Membrane
from jaxsnn.exchange.nir.operation import DType, Operation
from jaxsnn.exchange.nir.rules import Reset, Rules
from jaxsnn.exchange.nir.spikes import Threshold

if TYPE_CHECKING:
    from nir import NIRNode

WHOLE = 1e-3  # of a step: what rounding may do to a delay divided by dt
TIMED = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Delay")  # they need the length of a step
NEUTRAL = {"decay": 1, "gain": 1, "rest": 0}


class Translated(NamedTuple):
    """One node for the executor.

    Attributes:
        operation: what it computes.
        params: its arrays (a delay's are int32).
        shaped: names of the params that have the shape of the node's input, or are one value.
    """

    operation: Operation
    params: dict[str, np.ndarray]
    shaped: tuple[str, ...] = ()


def translate(node: NIRNode, dt: float, rules: Rules, dtype: DType) -> Translated:
    """Examine a node's parameters and give what the executor needs of it.

    Args:
        node: of the ``nir`` package.
        dt: length of a step, in the unit of the node's time constants.
        rules: when spiking nodes fire and how they are reset.
        dtype: in which the network computes.

    Raises:
        UserError: an unknown kind of node, or a parameter that is missing, not finite, not
            positive where it has to be, or of an impossible shape. The name of the node is put in
            front by the caller.
    """
    kind = type(node).__name__
    if kind not in KINDS:
        raise UserError(f"is a {kind}, which is none of {', '.join(KINDS)}; replace it")
    return KINDS[kind](Fields(vars(node), dt, rules, dtype))


def _identity(key: str) -> Callable[[Fields], Translated]:
    def build(fields: Fields) -> Translated:
        declared = fields[key]
        shape = next(iter(declared.values())) if declared else None
        if shape is None:
            raise UserError("declares no shape; write the graph with one")
        return Translated(linear.Identity(tuple(int(size) for size in np.atleast_1d(shape))), {})

    return build


def _linear(fields: Fields) -> Translated:
    arrays = {"weight": fields.numbers("weight")}
    if arrays["weight"].ndim < 2:
        raise UserError(f"has a weight of shape {arrays['weight'].shape}; it takes [..., out, in]")
    if "bias" in fields:
        arrays["bias"] = fields.numbers("bias")
        *_, outputs, _ = arrays["weight"].shape
        if arrays["bias"].shape not in ((outputs,), arrays["weight"].shape[:-1]):
            raise UserError(
                f"has a bias of shape {arrays['bias'].shape} for a weight of shape "
                f"{arrays['weight'].shape}; give one value for each of {outputs} outputs"
            )
    return Translated(linear.Linear(), _cast(fields, arrays))


def _scale(fields: Fields) -> Translated:
    return Translated(linear.Scale(), _cast(fields, {"scale": fields.numbers("scale")}), ("scale",))


def _flatten(fields: Fields) -> Translated:
    (start,), (end,) = fields.whole("start_dim", 1), fields.whole("end_dim", 1)
    return Translated(linear.Flatten(start, end), {})


def _convolution(axes: int) -> Callable[[Fields], Translated]:
    def build(fields: Fields) -> Translated:
        weight, bias = fields.numbers("weight"), fields.numbers("bias")
        (groups,) = fields.whole("groups", 1)
        if weight.ndim != axes + 2 or bias.shape not in ((), weight.shape[:1]):
            raise UserError(
                f"has a weight of shape {weight.shape} and a bias of shape {bias.shape}; it takes "
                f"[out, in / groups and {axes} more axes] and [out]"
            )
        if groups < 1 or weight.shape[0] % groups:
            raise UserError(f"has {groups} groups, which do not divide {weight.shape[0]} channels")
        strides, dilation = (fields.whole(name, axes, 1) for name in ("stride", "dilation"))
        padding = fields.padding(weight.shape[2:], strides, dilation)
        arrays = {"weight": weight, "bias": np.broadcast_to(bias, weight.shape[:1])}
        operation = windows.Convolution(strides, padding, dilation, groups)
        return Translated(operation, _cast(fields, arrays))

    return build


def _pool(mean: bool) -> Callable[[Fields], Translated]:
    def build(fields: Fields) -> Translated:
        padding = tuple((pad, pad) for pad in fields.whole("padding", 2, 0))
        window, strides = fields.whole("kernel_size", 2, 1), fields.whole("stride", 2, 1)
        return Translated(windows.Pool(window, strides, padding, mean), {})

    return build


def _threshold(fields: Fields) -> Translated:
    arrays = {"v_threshold": fields.numbers("threshold")}
    return Translated(Threshold(fields.rules.comparison), _cast(fields, arrays), ("v_threshold",))


def _delay(fields: Fields) -> Translated:
    exact = fields.numbers("delay") / fields.dt
    steps = np.round(exact)
    if (np.abs(exact - steps) > WHOLE).any() or (steps < 0).any():
        wrong = exact[(np.abs(exact - steps) > WHOLE) | (steps < 0)].flat[0]
        raise UserError(
            f"delays by {wrong:g} steps of dt={fields.dt:g}; give a dt of which every delay is a "
            "whole multiple, 0 or more"
        )
    operation = Delay(int(steps.min()), int(steps.max()))
    return Translated(operation, {"steps": steps.astype(np.int32)}, ("steps",))


def _integrator(fields: Fields) -> dict[str, Numbers]:
    return {"gain": fields.numbers("r") * fields.dt}


def _leaky(fields: Fields, tau: str = "tau") -> dict[str, Numbers]:
    rate = fields.rate(tau)
    return {
        "decay": 1 - rate,
        "gain": fields.numbers("r") * rate,
        "rest": fields.numbers("v_leak") * rate,
    }


def _synapse(fields: Fields) -> dict[str, Numbers]:
    rate = fields.rate("tau_syn")
    return {"synapse_decay": 1 - rate, "synapse_gain": fields.numbers("w_in") * rate}


def _cell(
    factors: Callable[[Fields], dict[str, Numbers]],
    build: Callable[[Rules | None], Operation],
    spiking: bool,
) -> Callable[[Fields], Translated]:
    def cell(fields: Fields) -> Translated:
        arrays = factors(fields)
        if spiking:
            positive = fields.rules.reset is Reset.SUBTRACT or fields.rules.floor is not None
            arrays["v_threshold"] = fields.numbers("v_threshold", positive)
            arrays["v_reset"] = fields.numbers("v_reset")
        operation = build(fields.rules if spiking else None)
        params = _without_neutral(_cast(fields, arrays))
        return Translated(operation, params, tuple(params))

    return cell


def _without_neutral(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without factors that change nothing: a decay of 1, a gain of 1, a rest of 0."""
    return {
        name: array
        for name, array in arrays.items()
        if name not in NEUTRAL or (array != NEUTRAL[name]).any()
    }


def _cast(fields: Fields, arrays: Mapping[str, Numbers]) -> dict[str, np.ndarray]:
    return {name: array.astype(fields.dtype) for name, array in arrays.items()}


def _cuba(fields: Fields) -> dict[str, Numbers]:
    return _leaky(fields, "tau_mem") | _synapse(fields)


KINDS: dict[str, Callable[[Fields], Translated]] = {
    "Input": _identity("input_type"),
    "Output": _identity("output_type"),
    "Linear": _linear,
    "Affine": _linear,
    "Scale": _scale,
    "Flatten": _flatten,
    "Conv1d": _convolution(1),
    "Conv2d": _convolution(2),
    "SumPool2d": _pool(mean=False),
    "AvgPool2d": _pool(mean=True),
    "Threshold": _threshold,
    "Delay": _delay,
    "I": _cell(_integrator, Membrane, spiking=False),
    "IF": _cell(_integrator, Membrane, spiking=True),
    "LI": _cell(_leaky, Membrane, spiking=False),
    "LIF": _cell(_leaky, Membrane, spiking=True),
    "CubaLI": _cell(_cuba, CurrentBased, spiking=False),
    "CubaLIF": _cell(_cuba, CurrentBased, spiking=True),
}
