"""A network's neurons, weight quantisers and accumulators in a saved file's JSON, both ways."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from jaxsnn import neurons
from jaxsnn.arch import notation as arch_module
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse
from jaxsnn.conversion.convert import as_trained
from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.site_records import neuron_record
from jaxsnn.io import typed
from jaxsnn.io.arrays import META
from jaxsnn.network import weight_quantisers
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.synapse import Accumulator
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.types import JsonObject

T = TypeVar("T")


def map_to_json(sites: SiteMap[T], convert: Callable[[T], object]) -> JsonObject:
    """A map of sites, each value as ``convert`` writes it."""
    return {
        "default": convert(sites.default),
        "by_role": [[role, convert(value)] for role, value in sites.by_role],
        "by_name": [[name, convert(value)] for name, value in sites.by_name],
        "first": None if sites.first is None else convert(sites.first),
    }


def map_from_json(
    meta: Mapping[str, Any],
    name: str,
    convert: Callable[[object, str], T],
    within: str = f"{META}: ",
) -> SiteMap[T]:
    """What :func:`map_to_json` wrote under a name.

    Args:
        meta: the JSON object that the map is an entry of.
        name: of the entry.
        convert: makes a value of what was written and of its place in the file.
        within: where ``meta`` is in the file, for messages.

    Raises:
        UserError: the entry is missing or of another form, naming the place; or as ``convert``.
    """
    place = within + name
    record = typed.mapping(meta.get(name), place)

    def pairs(key: str) -> tuple[tuple[str, T], ...]:
        listed = typed.entry(record, key, list[list[Any]], place)
        for number, pair in enumerate(listed):
            typed.checked(as_tuple(pair), tuple[str, Any], f"{place}.{key}[{number}]")
        return tuple((word, convert(value, f"{place}.{key}.{word}")) for word, value in listed)

    first = record.get("first")
    return SiteMap(
        default=convert(record.get("default"), f"{place}.default"),
        by_role=pairs("by_role"),
        by_name=pairs("by_name"),
        first=None if first is None else convert(first, f"{place}.first"),
    )


def net_to_json(net: Net) -> JsonObject:
    """What decides the predictions of the network as given; options of ``arch`` are beside it."""
    return {
        "notation": arch_module.format(net.arch),
        "neurons": map_to_json(net.neurons, neuron_record),
        "weights": map_to_json(net.weights, quantiser_to_json),
    }


def net_from_json(record: object, arch: Arch) -> Net:
    """The network as given, whose max pools may stand where conversion found them."""
    meta, place = typed.mapping(record, f"{META}: given"), f"{META}: given."
    if "notation" in meta:
        arch = parse(typed.checked(meta["notation"], str, f"{place}notation"), **arch.options)
    return as_trained(
        Net(
            arch,
            map_from_json(meta, "neurons", neuron_from_json, place),
            map_from_json(meta, "weights", quantiser_from_json, place),
        ),
        arch,
    )


def quantiser_to_json(quantiser: weight_quantisers.WeightQuantiser) -> Any:
    """The name; where there are options, as neurons have it."""
    if not quantiser.options:
        return quantiser.name
    return {"name": quantiser.name, "options": dict(quantiser.options)}


def quantiser_from_json(record: object, place: str) -> weight_quantisers.WeightQuantiser:
    """What :func:`quantiser_to_json` wrote.

    Raises:
        UserError: an unknown quantiser, or options that it does not take; with the place.
    """
    if isinstance(record, str):
        record = {"name": record, "options": JsonObject()}
    return _made(weight_quantisers.WEIGHTS, "weight quantiser", record, place)


def neuron_from_json(record: object, place: str) -> Neuron:
    """The neuron of a :class:`jaxsnn.exchange.site_records.NeuronRecord`.

    Raises:
        UserError: an unknown neuron, or options that it does not take; with the place.
    """
    return _made(neurons.FACTORIES, "neuron", record, place)


def _made(factories: Mapping[str, Callable[..., T]], kind: str, record: object, place: str) -> T:
    """What a factory makes of the options that a file names."""
    values = typed.mapping(record, place)
    name = typed.entry(values, "name", str, place)
    if name not in factories:
        raise UserError(f"unknown {kind} {shown(name)} in {place}; known: {sorted(factories)}")
    options = typed.mapping(values.get("options"), f"{place}.options")
    read = {n: _option_from_json(one, f"{place}.options.{n}") for n, one in options.items()}
    return typed.call(factories[name], read, f"{place}.options")


def accumulator_from_json(record: object, place: str) -> Accumulator:
    """The name of what a synapse adds up in.

    Raises:
        UserError: another name, with the place.
    """
    return typed.checked(record, Accumulator, place)


def _option_from_json(value: object, place: str) -> Any:
    """A neuron in a neuron; a tuple, which JSON has as a list; anything else as it is."""
    if isinstance(value, Mapping):
        return neuron_from_json(cast("Mapping[str, Any]", value), place)
    return as_tuple(value)


def as_tuple(value: object) -> object:
    """A tuple, which JSON has as a list; anything else as it is."""
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value
