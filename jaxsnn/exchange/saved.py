"""Networks in and out of files: trained weights, and converted networks, without pickle."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxsnn import neurons
from jaxsnn.arch import notation as arch_module
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse, plan
from jaxsnn.conversion.float_reference import snapped_kernels, whole_kernels
from jaxsnn.conversion.grid import smallest_integer
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.net_records import (
    accumulator_from_json,
    as_tuple,
    map_from_json,
    map_to_json,
    net_from_json,
    net_to_json,
    neuron_from_json,
    quantiser_from_json,
    quantiser_to_json,
)
from jaxsnn.exchange.site_records import folded_record, neuron_record, site_records
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.io import typed
from jaxsnn.io.arrays import META, UNITS, flatten, load_arrays, save_arrays, unflatten
from jaxsnn.io.arrays import load_params as load_variables
from jaxsnn.network import net as net_module
from jaxsnn.network import weight_quantisers
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.neurons.levels import BITS

CLIP = "clip"  # leaf of an activation with a learned upper end, whatever its bits

FORMAT = 1  # of the files written by `save`; raised when an old file can no longer be read


def load_params(source: str | Path | Mapping[str, Any], arch: Arch) -> dict[str, Any]:
    """Trained weights of any architecture, strictly by name, shape and kind.

    The names, as npz keys or as nested dictionaries: ``params/<site>/kernel`` (convolutions height,
    width, in, out; dense layers in, out), ``params/<site>/bias`` where the layer has one,
    ``params/<site>/norm/scale`` and ``.../bias`` (the offset), ``batch_stats/<site>/norm/mean`` and
    ``.../var``. ``python -m jaxsnn describe`` lists the sites of an architecture. Learned clips of
    activations are ``params/<site>/clip``, numbers: where there is one, all must be there.

    Args:
        source: path of an npz file, or a nested or flat mapping of arrays.
        arch: the architecture that they must fit.

    Returns:
        ``{"params": ..., "batch_stats": ...}`` of float32 arrays.

    Raises:
        UserError: naming every missing, extra or misshaped array.
    """
    clips = any(name.rpartition("/")[2] == CLIP for name in _names(source))
    activation = neurons.clipped_relu(BITS[0]) if clips else neurons.identity()
    expected = net_module.template(Net(arch, hidden(activation)))
    loaded = load_variables(source, expected)
    return jax.tree.map(_on_device, {"batch_stats": {}, **loaded})


def _on_device(leaf: ArrayLike) -> Array:
    return jnp.asarray(leaf)


def _names(source: str | Path | Mapping[str, Any]) -> Iterable[str]:
    """Names of the arrays in a file or a mapping."""
    return flatten(source) if isinstance(source, Mapping) else load_arrays(source)[0]


def save(snn: Spiking, path: str | Path) -> None:
    """Write a converted network as one npz: integer arrays by name, and JSON for the rest.

    The format is described in docs/snn_format.md, beside which two readers simulate a file with
    NumPy alone: docs/read_snn.py in 40 lines, docs/read_every_snn.py whatever its neurons.

    Raises:
        UserError: a neuron or activation that a file cannot name, since no function of
            :mod:`jaxsnn.neurons` makes it.
    """
    meta = {
        "format": FORMAT,
        "arch": {"notation": arch_module.format(snn.arch), **snn.arch.options},
        "sites": site_records(snn),
        "neurons": map_to_json(snn.neurons, neuron_record),
        "ann": map_to_json(snn.ann, neuron_record),
        "weights": map_to_json(snn.weights, quantiser_to_json),
        "accumulators": map_to_json(snn.accumulators, str),
        "encoding": dataclasses.asdict(snn.encoding),
        "units": dict(snn.units),
        "report": [folded_record(record) for record in snn.report],
        "given": None if snn.trained is None else net_to_json(snn.trained),
    }
    _refuse_nameless(snn)
    arrays = {name: np.asarray(a) for name, a in flatten(snn.variables).items()}
    save_arrays(path, arrays, meta)


def _refuse_nameless(snn: Spiking) -> None:
    """Refuse neurons without a name, which a file could not be read with."""
    maps = [snn.neurons, snn.ann, *([] if snn.trained is None else [snn.trained.neurons])]
    each = [one.at(site) for one in maps for site in plan(snn.arch)]
    if not all(neuron.name in neurons.FACTORIES for neuron in each):
        raise UserError(
            "a neuron or activation of this network was made by hand, which no file can say; use "
            "one of jaxsnn.neurons, or convert without trained="
        )


def whole_weights(
    variables: Mapping[str, Any], snn: Spiking
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Trained weights as small as conversion allows, for :func:`save_weights`.

    Args:
        variables: the training tree.
        snn: what it was converted into.

    Returns:
        Its leaves by name, kernels as the smallest integers that hold them, and what one of those
        is worth, by name: :func:`jaxsnn.io.arrays.worth` makes the kernels of
        :func:`jaxsnn.snapped` of them.
    """
    trained = {**variables, "params": snapped_kernels(variables, snn)}
    arrays = {name: np.asarray(leaf) for name, leaf in flatten(trained).items()}
    units: dict[str, float] = {}
    for site, (codes, unit) in whole_kernels(variables, snn).items():
        name = f"params/{site}/kernel"
        arrays[name], units[name] = smallest_integer(codes), unit
    return arrays, units


def save_weights(
    arrays: Mapping[str, np.ndarray], units: Mapping[str, float], path: str | Path
) -> None:
    """Write :func:`whole_weights`, compressed; they are read like any other weights."""
    save_arrays(path, arrays, {UNITS: dict(units)}, compressed=True)


def load(path: str | Path) -> Spiking:
    """Read what :func:`save` wrote; nothing in the file is executed.

    Raises:
        UserError: a file of another kind or format, an unknown neuron, or arrays that do not fit
            the architecture, each named.
    """
    arrays, meta = load_arrays(path)
    try:
        if typed.entry(meta, "format", int, META) != FORMAT:
            raise UserError(f"format {shown(meta.get('format'))}, this version reads {FORMAT}")
        snn = _rebuild(meta, arrays)
    except (UserError, RecursionError) as error:  # of neurons inside neurons, without end
        raise UserError(
            f"{path} holds no converted network that this version can read: {error}; "
            "convert again and save()"
        ) from error
    _check_arrays(snn, arrays, str(path))
    return snn


def _rebuild(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Spiking:
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 4:
            raise UserError(f"{name} is {array.dtype}; wanted numbers of at most 32 bits")
    units = typed.mapping(meta.get("units"), f"{META}: units")
    for name, unit in units.items():
        typed.checked(unit, float, f"{META}: units.{name}")
    report = typed.entry(meta, "report", list[Any], META)
    arch, trained = arch_of(meta.get("arch"), f"{META}: arch"), meta.get("given")
    snn = Spiking(
        variables=jax.tree.map(_on_device, {"params": {}, "fixed": {}, **unflatten(arrays)}),
        arch=arch,
        neurons=map_from_json(meta, "neurons", neuron_from_json),
        ann=map_from_json(meta, "ann", neuron_from_json),
        weights=map_from_json(meta, "weights", quantiser_from_json),
        accumulators=map_from_json(meta, "accumulators", accumulator_from_json),
        encoding=typed.call(Encoding, meta.get("encoding"), f"{META}: encoding"),
        units=tuple(units.items()),
        report=tuple(_folded(one, f"{META}: report[{n}]") for n, one in enumerate(report)),
        trained=None if trained is None else net_from_json(trained, arch),
    )
    if "sites" in meta and meta["sites"] != site_records(snn):  # for readers without this library
        raise UserError(f"{META}: sites are not those of its arch and neurons")
    return snn


def arch_of(record: object, place: str) -> Arch:
    """The architecture that a file describes: its notation, and the options of :func:`parse`.

    Raises:
        UserError: an entry is missing, unknown or of another type, or the network cannot be. The
            message names the place and the entry.
    """
    values = typed.mapping(record, place)
    if isinstance(values.get("input_shape"), list):
        values["input_shape"] = tuple(values["input_shape"])
    text = typed.entry(values, "notation", str, place)
    hints = {n: hint for n, hint in get_type_hints(Arch).items() if n != "layers"}
    options = typed.checked_mapping(
        {name: value for name, value in values.items() if name != "notation"}, hints, place
    )
    return parse(text, **options)


def _folded(record: object, place: str) -> Folded:
    """The record of a site, of whose ``kernel`` its form and quantiser are made."""
    values = typed.mapping(record, place)
    kernel = typed.entry(values, "kernel", str, place)
    quantiser = kernel if kernel in weight_quantisers.WEIGHTS else ""
    forms = {form.value: form for form in KernelForm} | {quantiser: KernelForm.CODES}
    if kernel not in forms:
        raise UserError(f"{place}.kernel is {shown(kernel)}; choose one of {', '.join(forms)}")
    rest = {name: value for name, value in values.items() if name != "kernel"}
    made = {"form": forms[kernel], "quantiser": quantiser, "added": as_tuple(rest.get("added", ()))}
    return typed.call(Folded, rest | made, place)


def _check_arrays(snn: Spiking, arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Names and shapes of the folded tree, strictly."""
    expected = flatten(net_module.template(snn.net))
    channels = {site.name: site.drive_shape[-1:] for site in plan(snn.arch)}
    for record in snn.report:
        if record.site not in channels:
            raise UserError(
                f"{place}: report names {shown(record.site)}, which is no site of the network; "
                "convert again and save()"
            )
        whole = jax.ShapeDtypeStruct(channels[record.site], jnp.int32)
        expected |= {f"params/{record.site}/{name}": whole for name in record.added}
    problems = [f"missing {name}" for name in expected if name not in arrays]
    for name, array in arrays.items():
        if name not in expected:
            problems.append(f"unexpected {name}")
        elif array.shape != tuple(expected[name].shape):
            wanted = tuple(expected[name].shape)
            problems.append(f"{name} has shape {array.shape}, expected {wanted}")
    if problems:
        raise UserError(f"{place}: {'; '.join(problems)}")
