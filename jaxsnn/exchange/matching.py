"""Which layer of somebody's network is which site of ours: by order, strictly by shape.

Layers of one kind stand in a file in the order in which the network was written, which is that of
our plan, but for what lies beside the chain: shortcuts and side exits are told by their shape
alone. Where neither order nor shape decides, nothing is guessed: the answer must be given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxsnn.arch.layers import Shape, Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.exchange.layers import Kind, Layer, partner, stem

NORM = "/norm"


class Target(NamedTuple):
    """A place for a layer: the synapse of a site (``conv1``) or its batch norm (``conv1/norm``)."""

    name: str
    kind: Kind
    shape: Shape
    site: Site

    @property
    def beside(self) -> bool:
        """Whether it lies beside the chain of layers: a shortcut, or the head of a side exit."""
        return self.site.role in ("shortcut", "exit")


class Matching(NamedTuple):
    """Layers by the name of their target, and what speaks against it.

    Attributes:
        layers: target -> layer.
        left: layers that go nowhere.
        missing: targets without a layer.
        problems: what is ambiguous.
    """

    layers: dict[str, Layer]
    left: tuple[Layer, ...]
    missing: tuple[Target, ...]
    problems: tuple[str, ...]


def targets(arch: Arch) -> dict[str, Target]:
    """Every place for a layer, in the order of the plan."""
    places: list[Target] = []
    for site in plan(arch):
        if site.kind in ("avgpool", "maxpool"):
            continue
        places.append(Target(site.name, site.kind, site.kernel_shape, site))
        if site.norm:
            places.append(Target(site.name + NORM, "norm", site.drive_shape[-1:], site))
    return {target.name: target for target in places}


def match(
    layers: Sequence[Layer],
    arch: Arch,
    names: Mapping[str, str] | None = None,
    *,
    ordered: bool = True,
) -> Matching:
    """Find the target of every layer.

    Args:
        layers: in the file's order.
        arch: ours.
        names: layer -> target, for what order and shape cannot decide; goes before both.
        ordered: whether the file keeps the order of the network.

    Raises:
        UserError: ``names`` has a layer or a target that there is not, or one target twice.
    """
    places = targets(arch)
    named = _named(layers, places, names or {})
    walk = _Walk(places, named, ordered)
    for kind in ("conv", "dense"):
        walk.along(kind, layers)
    walk.pair_norms(layers)
    walk.along("norm", layers)
    taken = {id(layer) for layer in walk.matched.values()}
    return Matching(
        walk.matched,
        tuple(layer for layer in layers if id(layer) not in taken),
        tuple(target for name, target in places.items() if name not in walk.matched),
        (*walk.problems, *(walk.crossed(named) if ordered else walk.guessed(named))),
    )


def _named(
    layers: Sequence[Layer], places: Mapping[str, Target], names: Mapping[str, str]
) -> dict[str, Layer]:
    """Target -> layer, as ``names`` has it."""
    by_name = {layer.name: layer for layer in layers}
    for layer, target in names.items():
        if layer not in by_name:
            raise UserError(f"names: no layer {layer!r}; there are {_list(by_name)}")
        if target not in places:
            raise UserError(f"names: no {target!r} in the architecture; there are {_list(places)}")
    if len(set(names.values())) < len(names):
        raise UserError(f"names: two layers for one place in {dict(names)}")
    return {target: by_name[layer] for layer, target in names.items()}


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


class _Walk:
    """Goes along the layers of a kind and the targets of the same kind, side by side."""

    def __init__(
        self, places: Mapping[str, Target], named: Mapping[str, Layer], ordered: bool
    ) -> None:
        self.places, self.ordered = places, ordered
        self.matched = dict(named)
        self.problems: list[str] = []

    def along(self, kind: Kind, layers: Sequence[Layer]) -> None:
        """Give every layer of a kind that has no target yet the next one."""
        taken = {layer.name for layer in self.matched.values()}
        waiting = [layer for layer in layers if layer.kind == kind and layer.name not in taken]
        free = [t for t in self.places.values() if t.kind == kind and t.name not in self.matched]
        if kind == "norm" and any(target.beside for target in free):
            return  # pair_norms has said so
        chain = [target for target in free if not target.beside]
        beside = [target for target in free if target.beside]
        last: Target | None = None
        for layer in waiting:
            following = chain[0] if chain else None
            aside = [t for t in beside if _fits(layer, t) and _near(t, (last, following))]
            if following and _fits(layer, following) and aside:
                self.problems.append(
                    f"{layer.name} {layer.shape} can be {following.name} and {aside[0].name}; "
                    f"write names={{{layer.name!r}: ...}}"
                )
                return
            if aside:
                self.matched[aside[0].name] = layer
                beside.remove(aside[0])
            elif following:
                self.matched[following.name] = layer  # a misfit is told by its shape
                last = chain.pop(0)

    def pair_norms(self, layers: Sequence[Layer]) -> None:
        """Find norms by their names: beside the chain, and all where the file keeps no order."""
        taken = {layer.name for layer in self.matched.values()}
        free = {
            layer.name: layer
            for layer in layers
            if layer.kind == "norm" and layer.layout == "torch" and layer.name not in taken
        }
        for name, target in self.places.items():
            synapse = self.matched.get(name.removesuffix(NORM))
            if target.kind != "norm" or name in self.matched or synapse is None:
                continue
            norm = partner(synapse.name, free)
            if (target.beside or not self.ordered) and norm and _fits(free[norm], target):
                self.matched[name] = free.pop(norm)
            elif target.beside:
                self.problems.append(
                    f"the batch norm of {synapse.name}, {name} {target.shape}, cannot be told from "
                    f"the others; write names={{...: {name!r}}}"
                )

    def guessed(self, named: Mapping[str, Layer]) -> list[str]:
        """Layers of one shape that a file without order tells apart by more than a number."""
        groups: dict[tuple[Kind, Shape], list[Layer]] = {}
        for target, layer in self.matched.items():
            if target not in named and not (layer.kind == "norm" and self._paired(target, layer)):
                groups.setdefault((layer.kind, layer.shape), []).append(layer)
        return [
            f"{first.name} and {other.name} have the same shape {first.shape}, and the file keeps "
            "no order of layers; say with names= which is which"
            for first, *others in groups.values()
            for other in others
            if stem(other.name) != stem(first.name)
        ]

    def crossed(self, named: Mapping[str, Layer]) -> list[str]:
        """Norms that order gives to one layer and their names to another, where all have names."""
        norms = {
            name: each.name
            for name, each in self.matched.items()
            if each.kind == "norm" and each.layout == "torch"
        }
        synapses = {name: self.matched.get(name.removesuffix(NORM)) for name in norms}
        by_name = {
            name: partner(synapse.name, norms.values())
            for name, synapse in synapses.items()
            if synapse is not None
        }
        if len(set(by_name.values()) - {None}) < len(norms):
            return []
        return [
            f"{norm} stands in the file where {self.places[name].site.name} has its batch norm, "
            f"which by its name is {by_name[name]}; write names={{'...': {name!r}}} with one"
            for name, norm in norms.items()
            if by_name[name] != norm and name not in named
        ]

    def _paired(self, target: str, norm: Layer) -> bool:
        synapse = self.matched.get(target.removesuffix(NORM))
        return synapse is not None and partner(synapse.name, [norm.name]) == norm.name


def _fits(layer: Layer, target: Target) -> bool:
    shape = layer.shape if layer.kind == "norm" else layer.turned().shape
    return shape == target.shape


def _near(target: Target, others: Iterable[Target | None]) -> bool:
    """Whether a shortcut belongs to the block of one of the others; exits are near everything."""
    if target.site.role == "exit":
        return True
    block = target.site.name.rpartition(".")[0] + "."
    return any(other is not None and other.name.startswith(block) for other in others)
