"""Where the weights are in what somebody saved: a state dict, alone or inside a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.torch_views import Tensor

ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights")
WRAPPERS = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile

Dictionary: TypeAlias = dict[object, object]
IsTensor: TypeAlias = Callable[[object], bool]


def of_a_file(value: object) -> bool:
    """Whether a value in a file is a tensor."""
    return isinstance(value, Tensor)


def state_dict(
    value: object, place: str, entry: str | None = None, *, is_tensor: IsTensor = of_a_file
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tensors of a network by name, and the names of entries that are none.

    Args:
        value: what the file holds.
        place: for messages.
        entry: name of the entry to take; None: the one of :data:`ENTRIES` that holds tensors, and
            otherwise the tensors of ``value`` itself.
        is_tensor: tells tensors from other values.

    Raises:
        UserError: there is no such entry, none with tensors, or several.
    """
    if not isinstance(value, dict):
        raise UserError(
            f"{place}: holds a {shown(value)}, wanted tensors by name; save state_dict()"
        )
    whole = cast("Dictionary", value)
    chosen, left = _chosen(whole, place, entry, is_tensor)
    tensors: dict[str, Any] = {}
    for name, item in chosen.items():
        if isinstance(name, str) and is_tensor(item):
            tensors[name] = item
        else:
            left = (*left, _text(name))
    return _unwrapped(tensors), left


def _chosen(
    whole: Dictionary, place: str, entry: str | None, is_tensor: IsTensor
) -> tuple[Dictionary, tuple[str, ...]]:
    """The dictionary of tensors, and what stands beside it."""
    dictionaries = {
        name: cast("Dictionary", item)
        for name, item in whole.items()
        if isinstance(name, str) and isinstance(item, dict)
    }
    inner = {name: item for name, item in dictionaries.items() if _any(item, is_tensor)}
    if entry is not None:
        names = [name for name in inner if name == entry]
    else:
        names = [name for name in ENTRIES if name in inner]
    if not names and entry is None and _any(whole, is_tensor):
        return whole, ()
    if len(names) != 1:
        what = f"no entry {shown(entry)} with tensors" if entry else f"{len(names)} state dicts"
        offer = ", ".join(map(shown, inner)) or "none"
        raise UserError(
            f"{place}: {what}; entries with tensors: {offer}; name one as entry= of read_weights, "
            "--entry on the command line, or give it alone"
        )
    return inner[names[0]], tuple(_text(name) for name in whole if name != names[0])


def _any(item: Mapping[object, object], is_tensor: IsTensor) -> bool:
    return any(map(is_tensor, item.values()))


def _text(name: object) -> str:
    return name if isinstance(name, str) else shown(name)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put in front of every one of them."""
    for wrapper in WRAPPERS * 2:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): item for name, item in tensors.items()}
    return tensors
