"""config.json: a dataclass of settings as strict JSON, and what differs between two (no jax)."""

import dataclasses
import json
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxsnn.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def to_json(config: "DataclassInstance", phases: Sequence[Mapping[str, Any]] = ()) -> str:
    """Text of config.json: every field, and the phases of training that the pipeline records.

    Fields that take no part in comparisons say how a program is started; they are left out.
    """
    record = {name: dataclasses.asdict(config)[name] for name in _recorded(type(config))}
    record |= {"phases": [dict(phase) for phase in phases]}
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def from_json(
    config_class: type[Config],
    text: str,
    place: str = "config.json",
    needed: Iterable[str] = (),
) -> tuple[Config, list[dict[str, Any]]]:
    """Read config.json strictly, but for fields that it lacks.

    Those did not exist yet when it was written: they take what was done before there was a choice,
    which is their default, or stands in the class's ``before``.

    Args:
        config_class: The settings that the text must hold, no field more.
        text: Content of the file.
        place: Its path, for error messages.
        needed: Names of what a run is recognised by; those among them that are fields must be there
            (an architecture that a class has once and for all is none).

    Returns:
        The settings and the recorded phases of training.

    Raises:
        UserError: For text that is no JSON, an unknown field, a missing one that is needed or
            has no default, or a value of another type or out of range.

    >>> from jaxsnn.systems.settings import LeNetScatter
    >>> config, phases = from_json(LeNetScatter, to_json(LeNetScatter(k=0), [{"epochs": 15}]))
    >>> config == LeNetScatter(k=0), phases
    (True, [{'epochs': 15}])
    """
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise UserError("not a JSON object")
        record = dict[str, Any](record)
        phases = _read(list[dict[str, Any]], record.pop("phases", None), "phases")
        expected = set(needed) & set(_recorded(config_class))
        _refuse_missing(sorted(expected - record.keys()), config_class.__name__)
        return _read(config_class, record, ""), phases
    except (json.JSONDecodeError, UserError) as error:
        remedy = "it was written by another version; start a new run with another --out"
        raise UserError(f"{place}: {error}; {remedy}") from None


def _read(hint: Any, value: Any, name: str) -> Any:
    """Check a JSON value against a field's type and return it as that type."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _read_fields(hint, dict[str, Any](value), name)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_any(hint, value, name)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, name) for item in list[Any](value))
    if origin is Literal and value in arguments:
        return value
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is (origin or hint) else _refuse(hint, value, name)


def _read_any(hint: Any, value: Any, name: str) -> Any:
    """Read a value of one of several types."""
    for one in get_args(hint):
        if value is None and one is types.NoneType:
            return None
        try:
            return _read(one, value, name)
        except UserError:
            continue
    return _refuse(hint, value, name)


def _recorded(config_class: "type[DataclassInstance]") -> list[str]:
    return [field.name for field in dataclasses.fields(config_class) if field.compare]


def _read_fields(config_class: type, record: dict[str, Any], section: str) -> Any:
    hints = get_type_hints(config_class)
    names = _recorded(config_class)
    known = {field.name: field for field in dataclasses.fields(config_class)}
    place = section or config_class.__name__
    absent = [name for name in names if name not in record]
    _refuse_missing([name for name in absent if not _has_default(known[name])], place)
    unknown = [name for name in record if name not in names]
    if unknown:
        raise UserError(f"unknown in {place}: {', '.join(unknown)}")
    record = {**getattr(config_class, "before", {}), **record}
    given = [name for name in names if name in record]
    return config_class(**{name: _read(hints[name], record[name], name) for name in given})


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return not (field.default is field.default_factory is dataclasses.MISSING)


def _refuse_missing(names: Sequence[str], place: str) -> None:
    if names:
        raise UserError(f"missing in {place}: {', '.join(names)}")


def _refuse(hint: Any, value: Any, name: str) -> Any:
    raise UserError(f"{name} is {value!r}, expected {getattr(hint, '__name__', hint)}")


def differences(
    saved: "DataclassInstance", current: "DataclassInstance", keys: Iterable[str], place: object
) -> list[str]:
    """Fields in which a saved run and the settings asked for disagree.

    Args:
        saved: Settings read from a run's folder.
        current: Settings of this command.
        keys: Fields to compare.
        place: Path of the saved settings, to be named.

    >>> from jaxsnn.systems.settings import LeNetScatter
    >>> differences(LeNetScatter(k=1), LeNetScatter(k=0), ("k", "B"), "runs/k1B2/config.json")
    ['k: 1 in runs/k1B2/config.json, 0 asked']
    """
    pairs = ((key, getattr(saved, key), getattr(current, key)) for key in keys)
    return [f"{key}: {old} in {place}, {new} asked" for key, old, new in pairs if old != new]
