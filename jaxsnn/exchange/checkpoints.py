"""Where the weights are in what somebody saved: a state dict, alone or inside a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.torch_views import Tensor

ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights")
WRAPPERS = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile

Dictionary: TypeAlias = dict[object, object]


def state_dict(
    value: object, place: str, entry: str | None = None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a network by name, and the names of entries that are none.

    Args:
        value: what the file holds.
        place: for messages.
        entry: name of the entry to take; None: the one of :data:`ENTRIES` that holds tensors, and
            otherwise the tensors of ``value`` itself.

    Raises:
        UserError: there is no such entry, none with tensors, or several.
    """
    if not isinstance(value, dict):
        raise UserError(
            f"{place}: holds a {shown(value)}, wanted tensors by name; save state_dict()"
        )
    whole = cast("Dictionary", value)
    chosen, left = _chosen(whole, place, entry)
    tensors: dict[str, Tensor] = {}
    for name, item in chosen.items():
        if isinstance(name, str) and isinstance(item, Tensor):
            tensors[name] = item
        else:
            left = (*left, _text(name))
    return _unwrapped(tensors), left


def _chosen(whole: Dictionary, place: str, entry: str | None) -> tuple[Dictionary, tuple[str, ...]]:
    """The dictionary of tensors, and what stands beside it."""
    dictionaries = {
        name: cast("Dictionary", item)
        for name, item in whole.items()
        if isinstance(name, str) and isinstance(item, dict)
    }
    inner = {name: item for name, item in dictionaries.items() if _has_tensors(item)}
    if entry is not None:
        names = [name for name in inner if name == entry]
    else:
        names = [name for name in ENTRIES if name in inner]
    if not names and entry is None and _has_tensors(whole):
        return whole, ()
    if len(names) != 1:
        what = f"no entry {shown(entry)} with tensors" if entry else f"{len(names)} state dicts"
        offer = ", ".join(map(shown, inner)) or "none"
        raise UserError(f"{place}: {what}; entries with tensors: {offer}; name one as entry=")
    return inner[names[0]], tuple(_text(name) for name in whole if name != names[0])


def _has_tensors(item: Mapping[object, object]) -> bool:
    return any(isinstance(each, Tensor) for each in item.values())


def _text(name: object) -> str:
    return name if isinstance(name, str) else shown(name)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put in front of every one of them."""
    for wrapper in WRAPPERS * 2:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): item for name, item in tensors.items()}
    return tensors
