"""Networks in and out of files: trained weights, and converted networks, without pickle."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import neurons
from jaxsnn.arch import notation as arch_module
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse, plan
from jaxsnn.conversion.convert import snapped, whole_kernels
from jaxsnn.conversion.grid import smallest_integer
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.io.arrays import UNITS, flatten, load_arrays, save_arrays, unflatten
from jaxsnn.io.arrays import load_params as load_variables
from jaxsnn.network import net as net_module
from jaxsnn.network import weight_quantisers
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.neurons.neuron import Neuron

FORMAT = 1  # of the files written by `save`; raised when an old file can no longer be read


def load_params(source: str | Path | Mapping[str, Any], arch: Arch) -> dict[str, Any]:
    """Trained weights of any architecture, strictly by name, shape and kind.

    The names, as npz keys or as nested dictionaries: ``params/<site>/kernel`` (convolutions height,
    width, in, out; dense layers in, out), ``params/<site>/bias`` where the layer has one,
    ``params/<site>/norm/scale`` and ``.../bias`` (the offset), ``batch_stats/<site>/norm/mean`` and
    ``.../var``. ``python -m jaxsnn describe`` lists the sites of an architecture.

    Args:
        source: path of an npz file, or a nested or flat mapping of arrays.
        arch: the architecture that they must fit.

    Returns:
        ``{"params": ..., "batch_stats": ...}`` of float32 arrays.

    Raises:
        UserError: naming every missing, extra or misshaped array.
    """
    expected = net_module.template(Net(arch, hidden(neurons.identity())))
    loaded = load_variables(source, expected)
    return jax.tree.map(jnp.asarray, {"batch_stats": {}, **loaded})


def save(snn: Spiking, path: str | Path) -> None:
    """Write a converted network as one npz: integer arrays by name, and JSON for the rest."""
    meta = {
        "format": FORMAT,
        "arch": {"notation": arch_module.format(snn.arch), **snn.arch.options},
        "neurons": _map_to_json(snn.neurons, _neuron_to_json),
        "ann": _map_to_json(snn.ann, _neuron_to_json),
        "weights": _map_to_json(snn.weights, _quantiser_to_json),
        "accumulators": _map_to_json(snn.accumulators, str),
        "encoding": dataclasses.asdict(snn.encoding),
        "units": dict(snn.units),
        "report": [_folded_to_json(record) for record in snn.report],
    }
    arrays = {name: np.asarray(a) for name, a in flatten(snn.variables).items()}
    save_arrays(path, arrays, meta)


def whole_weights(
    variables: Mapping[str, Any], snn: Spiking
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Trained weights as small as conversion allows, for :func:`save_weights`.

    Args:
        variables: the training tree.
        snn: what it was converted into.

    Returns:
        Its leaves by name, kernels as the smallest integers that hold them, and what one of those
        is worth, by name: :func:`jaxsnn.io.arrays.worth` makes :func:`jaxsnn.snapped` of them.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in flatten(snapped(variables, snn)).items()}
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
        if meta["format"] != FORMAT:
            raise UserError(f"format {meta['format']}, this version reads {FORMAT}")
        snn = _rebuild(meta, unflatten(arrays))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no converted network that this version can read: {error!r}; "
            "convert again and save()"
        ) from error
    _check_arrays(snn, arrays, str(path))
    return snn


def _rebuild(meta: Mapping[str, Any], variables: Mapping[str, Any]) -> Spiking:
    options = dict(meta["arch"])
    options["input_shape"] = tuple(options["input_shape"])
    return Spiking(
        variables=jax.tree.map(jnp.asarray, {"params": {}, "fixed": {}, **variables}),
        arch=parse(options.pop("notation"), **options),
        neurons=_map_from_json(meta["neurons"], _neuron_from_json),
        ann=_map_from_json(meta["ann"], _neuron_from_json),
        weights=_map_from_json(meta["weights"], _quantiser_from_json),
        accumulators=_map_from_json(meta["accumulators"], lambda word: word),
        encoding=Encoding(**meta["encoding"]),
        units=tuple(meta["units"].items()),
        report=tuple(_folded_from_json(**record) for record in meta["report"]),
    )


def _folded_to_json(record: Folded) -> dict[str, Any]:
    """The record's fields; form and quantiser are one word, ``kernel``."""
    fields = dataclasses.asdict(record) | {"kernel": record.kernel}
    return {name: value for name, value in fields.items() if name not in ("form", "quantiser")}


def _folded_from_json(kernel: str, added: Sequence[str] = (), **record: Any) -> Folded:
    quantiser = kernel if kernel in weight_quantisers.WEIGHTS else ""
    form = KernelForm.CODES if quantiser else KernelForm(kernel)
    return Folded(form=form, quantiser=quantiser, added=tuple(added), **record)


def _check_arrays(snn: Spiking, arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Names and shapes of the folded tree, strictly."""
    expected = flatten(net_module.template(snn.net))
    channels = {site.name: site.drive_shape[-1:] for site in plan(snn.arch)}
    for record in snn.report:
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


def _quantiser_to_json(quantiser: weight_quantisers.WeightQuantiser) -> Any:
    """The name; where there are options, as neurons have it."""
    if not quantiser.options:
        return quantiser.name
    return {"name": quantiser.name, "options": dict(quantiser.options)}


def _quantiser_from_json(record: str | Mapping[str, Any]) -> weight_quantisers.WeightQuantiser:
    if isinstance(record, str):
        return weight_quantisers.WEIGHTS[record]()
    return weight_quantisers.WEIGHTS[record["name"]](**record["options"])


def _neuron_to_json(neuron: Neuron) -> dict[str, Any]:
    options = {
        name: _neuron_to_json(value) if isinstance(value, Neuron) else value
        for name, value in neuron.options
    }
    return {"name": neuron.name, "options": options}


def _neuron_from_json(record: Mapping[str, Any]) -> Neuron:
    if record["name"] not in neurons.FACTORIES:
        raise UserError(f"unknown neuron {record['name']!r}; known: {sorted(neurons.FACTORIES)}")
    options = {name: _option_from_json(value) for name, value in record["options"].items()}
    return neurons.FACTORIES[record["name"]](**options)


def _option_from_json(value: Any) -> Any:
    """A neuron in a neuron; a tuple, which JSON has as a list; anything else as it is."""
    if isinstance(value, Mapping):
        return _neuron_from_json(cast("Mapping[str, Any]", value))
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _map_to_json(sites: SiteMap[Any], convert: Any) -> dict[str, Any]:
    return {
        "default": convert(sites.default),
        "by_role": [[role, convert(value)] for role, value in sites.by_role],
        "by_name": [[name, convert(value)] for name, value in sites.by_name],
        "first": None if sites.first is None else convert(sites.first),
    }


def _map_from_json(record: Mapping[str, Any], convert: Any) -> SiteMap[Any]:
    return SiteMap(
        default=convert(record["default"]),
        by_role=tuple((role, convert(value)) for role, value in record["by_role"]),
        by_name=tuple((name, convert(value)) for name, value in record["by_name"]),
        first=None if record["first"] is None else convert(record["first"]),
    )
