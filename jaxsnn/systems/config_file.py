"""config.json: the settings of a run, checked as it is read, and what differs between two.

Beside every flag it holds what is made from them for those who read it (experiment, setting,
settings) and the phases of training, each with the words of its command.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from jaxsnn.errors import UserError
from jaxsnn.io.typed_json import from_text
from jaxsnn.systems.settings.base import Scripted
from jaxsnn.training.schedules import Phase
from jaxsnn.types import Json, JsonObject

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
Phases = list[dict[str, int | float | str | list[int] | list[str] | None]]

MADE = ("experiment", "setting", "settings")  # from the flags; never read back
REMEDY = "it was written by another version; start a new run with another --out"


@dataclasses.dataclass(frozen=True)
class _Beside:
    """What config.json holds beside the flags."""

    phases: Phases


def to_json(config: "DataclassInstance", phases: Sequence[Phase] = ()) -> str:
    """Text of config.json: every field, and the phases of training that the pipeline records.

    Fields that take no part in comparisons say how a program is started; they are left out.
    """
    record: JsonObject = {}
    if isinstance(config, Scripted):
        described = dataclasses.asdict(config.described)
        record = dict(zip(MADE, (config.experiment, config.setting, described), strict=True))
    fields = dataclasses.asdict(config)
    record |= {name: fields[name] for name in _recorded(type(config))}
    record |= {"phases": [dict(phase) for phase in phases]}
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def from_json(
    config_class: type[Config],
    text: str,
    place: str = "config.json",
    needed: Iterable[str] = (),
) -> tuple[Config, Phases]:
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
        UserError: For text that is no JSON, a run of another experiment, an unknown field, a
            missing one that is needed or has no default, or a value of another type or out of
            range.

    >>> from jaxsnn.systems.settings import LeNetScatter
    >>> config, phases = from_json(LeNetScatter, to_json(LeNetScatter(k=0), [{"epochs": 15}]))
    >>> config == LeNetScatter(k=0), phases
    (True, [{'epochs': 15}])
    """
    try:
        parsed: Json = json.loads(text)
    except (ValueError, RecursionError) as error:  # of a number, or a nesting, beyond Python's
        raise UserError(f"{place}: {error}; {REMEDY}") from None
    if not isinstance(parsed, dict):
        raise UserError(f"{place}: not a JSON object; {REMEDY}")
    record = cast("JsonObject", parsed)
    made = {name: record.pop(name, None) for name in MADE}
    _refuse_other(config_class, made["experiment"], place)
    beside = {"phases": record.pop("phases", None)}
    record = {**getattr(config_class, "before", {}), **record}
    missing = sorted((set(needed) & set(_recorded(config_class))) - record.keys())
    if missing:
        raise UserError(f"{place}: {', '.join(missing)} is missing; {REMEDY}")
    try:
        phases = from_text(_Beside, json.dumps(beside), place).phases
        return from_text(config_class, json.dumps(record), place), phases
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from None


def _refuse_other(config_class: type, experiment: object, place: str) -> None:
    """Refuse the run of another experiment, whose settings may have the same names."""
    expected = getattr(config_class, "experiment", experiment)
    if experiment not in (None, expected):
        raise UserError(
            f"{place} is a run of {experiment}, not of {expected}; start that script, or give "
            "another --out"
        )


def _recorded(config_class: "type[DataclassInstance]") -> list[str]:
    return [field.name for field in dataclasses.fields(config_class) if field.compare]


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
