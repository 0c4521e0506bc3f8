"""``python -m jaxsnn``: convert a trained network, describe one, say where data are looked for."""

from __future__ import annotations

import argparse
import difflib
import importlib
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxsnn.arch import Arch, Conv, MaxPool, Site, arrays_of, format, parse, plan, totals, zoo
from jaxsnn.arch.layers import Shape
from jaxsnn.errors import UserError
from jaxsnn.io.terminal import console, nobody_reads, show

_SUMMARY = (__doc__ or "").replace("``", "")
_OPTIONS = ("classes", "pool", "input_shape", "norm", "head_pool", "head_bias", "head_neuron")
_NUMBERS = ("parameters", "norm parameters", "neurons", "MACs", "max fan-out")
_PIPE_WIDTH = 180  # columns where the output is no terminal, so that no cell is cut


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 2 for an argument that makes no sense; 141: no reader."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["convert"]:
        return _convert(words[1:])
    parser = _parser()
    chosen = parser.parse_args(arguments)
    to = console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    try:
        chosen.command(chosen, to)
        sys.stdout.flush()
    except BrokenPipeError:
        return nobody_reads()
    except UserError as error:
        parser.error(str(error))
    return 0


def _convert(words: Sequence[str]) -> int:
    # needs everything, and has flags of its own
    from jaxsnn.systems.bring_your_own.system import main as convert

    return convert(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jaxsnn", description=_SUMMARY)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    describe = commands.add_parser("describe", help="layer table and totals of a network")
    describe.add_argument("network", help=f"a notation such as 16C5-P2-256, or {_known()}")
    describe.add_argument("--classes", type=int, help="units of the readout")
    describe.add_argument("--pool", choices=("avg", "max", "conv"), help="what P means")
    describe.add_argument(
        "--input-shape", type=int, nargs=3, metavar=("H", "W", "C"), help="shape of one image"
    )
    describe.add_argument(
        "--no-norm", dest="norm", action="store_const", const=False, help="biases, no batch norm"
    )
    for flag, what in (
        ("--head-pool", "global average pool before the readout"),
        ("--head-bias", "bias in the readout"),
        ("--head-neuron", "neuron in the readout"),
    ):
        describe.add_argument(flag, action="store_const", const=True, help=what)
    describe.set_defaults(command=_describe)
    data = commands.add_parser("data", help="where each data set would be looked for")
    data.add_argument("--data-dir", type=Path, help="the folder with the files, or one above it")
    data.set_defaults(command=_data)
    commands.add_parser("convert", help="somebody's trained network as a certified spiking one")
    commands.add_parser("version", help="versions and devices").set_defaults(command=_version)
    return parser


def _known() -> str:
    return ", ".join(zoo.NAMES)


def _network(chosen: argparse.Namespace) -> tuple[Arch, zoo.Entry | None]:
    """Return the network that is asked for, and its entry if it has a name."""
    options = {name: getattr(chosen, name) for name in _OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    entry = zoo.NAMES.get(chosen.network)
    if entry:
        return parse(format(entry.arch), **{**entry.arch.options, **options}), entry
    try:
        return parse(chosen.network, **options), None
    except UserError as error:
        near = difflib.get_close_matches(str(chosen.network), list(zoo.NAMES), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{error}{hint}") from None


def _describe(chosen: argparse.Namespace, to: Console) -> None:
    arch, entry = _network(chosen)
    show(_layer_table(chosen.network, arch), to)
    show(_array_table(arch), to)
    total = totals(arch)
    lines = {
        "parameters": f"{total.all_parameters:,} with norm statistics "
        f"({total.parameters:,} weights and biases, {total.norm_parameters:,} of the norms)",
        "neurons": f"{total.neurons:,}",
        "MACs": f"{total.macs_without_encoder:,} without the encoder, "
        f"which takes {total.encoder_macs:,}",
        "notation": format(arch),
        "options": ", ".join(f"{name}={value!r}" for name, value in arch.options.items()),
    }
    if entry:
        lines["original"] = entry.original or "no string"
        lines["note"] = entry.note
    for name, value in lines.items():
        if value:
            show(f"{name:<11}{value}", to)


def _layer_table(title: str, arch: Arch) -> Table:
    table = Table(title=Text(title))
    for column in ("name", "kind", "input", "output", "kernel", "stride", "padding"):
        table.add_column(column, overflow="fold")
    for column in _NUMBERS:
        table.add_column(column, justify="right", overflow="fold")
    for site in plan(arch):
        numbers = (
            site.parameters, site.norm_parameters, site.neurons, site.macs, site.max_fan_out
        )  # fmt: skip
        table.add_row(
            site.name, _kind(site), _size(site.in_shape), _size(site.out_shape),
            _size(site.kernel_shape), *_window(site), *(f"{number:,}" for number in numbers),
        )  # fmt: skip
    total = totals(arch)
    sums = (total.parameters, total.norm_parameters, total.neurons, total.macs)
    table.add_section()
    table.add_row("total", *[""] * 6, *(f"{number:,}" for number in sums), "")
    return table


def _array_table(arch: Arch) -> Table:
    """Names and shapes of the arrays of a trained network, as they are stored and loaded."""
    table = Table(title="arrays, float32")
    for column in ("array", "shape"):
        table.add_column(column, overflow="fold")
    for site in plan(arch):
        for path, shape in arrays_of(site).items():
            table.add_row(path, _size(shape))
    return table


def _kind(site: Site) -> str:
    words = [site.kind if site.role in ("activation", "pool") else f"{site.role} {site.kind}"]
    if site.max_pool:
        words.append(f"max pool {_pool_words(site.max_pool)}")
    if isinstance(site.spec, MaxPool):
        words = [f"max pool {_pool_words(site.spec)} behind neurons"]
    if isinstance(site.spec, Conv) and site.spec.learned_pool:
        words = ["learned pool", *words[1:]]
    if site.shortcut:
        words.append(f"+ {site.shortcut}")
    return ", ".join(words).replace(", +", " +")


def _pool_words(pool: MaxPool) -> str:
    """Its size, and what else is not usual."""
    words = [str(pool.size)]
    words += [f"stride {pool.stride}"] if pool.stride != pool.size else []
    words += [f"padding {pool.padding}"] if pool.padding else []
    words += ["before the norm"] if pool.before_norm else []
    return " ".join(words)


def _window(site: Site) -> tuple[str, str]:
    """Stride, and padding as top,bottom,left,right where the sides differ."""
    if site.kind == "dense":
        return "", ""
    (top, bottom), (left, right) = site.padding
    same = top == bottom == left == right
    return _size(site.strides), str(top) if same else f"{top},{bottom},{left},{right}"


def _size(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)


def _data(chosen: argparse.Namespace, to: Console) -> None:
    # needs packages that `describe` does without
    from jaxsnn.data import EVENT_SOURCES, NAMES, locations
    from jaxsnn.data.search import places

    table = Table(title="places in the order of the search")
    for column in ("data set", "place", "exists"):
        table.add_column(column, overflow="fold")
    looked_at = {name: locations(name, chosen.data_dir) for name in NAMES}
    for name, source in EVENT_SOURCES.items():
        looked_at[f"{name}, events"] = (
            places(source.folders, chosen.data_dir) if source.folders else list[Path]()
        )
    for name, folders in looked_at.items():
        for place in folders:
            table.add_row(name, str(place), "yes" if place.exists() else "no")
        if not folders:
            table.add_row(name, "embedded, needs no files", "yes")
    show(table, to)


def _version(_: argparse.Namespace, to: Console) -> None:
    jax = importlib.import_module("jax")  # slow to import, so only where it is asked for
    rows: dict[str, Any] = {"jaxsnn": _installed("jaxsnn-conversion")}
    rows["python"] = platform.python_version()
    rows.update({name: _installed(name) for name in ("jax", "jaxlib", "flax", "optax")})
    rows["devices"] = ", ".join(str(device) for device in jax.devices())
    table = Table("what", "version")
    for name, value in rows.items():
        table.add_row(name, value)
    show(table, to)


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed (run from a checkout)"


if __name__ == "__main__":
    sys.exit(main())
