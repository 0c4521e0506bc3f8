"""Is Winograd's convolution faster than the direct one, and how far is it off?

Value and both gradients of 3x3 convolutions in float32, direct (``jaxsnn.network.convolutions``)
and by Winograd's transforms, in turn, so that their ratio holds on a busy machine too, for the
layer shapes of CNN 1, CNN 2, AlexNet and VGG11 and a few others.

    python benchmarks/winograd.py [--only TEXT] [--every] > winograd.jsonl

Without --every, Winograd's blocks are those that ``fitting`` chooses, where it chooses any, and the
goal is that they are faster. With it, every size of tile is tried with several numbers of images:
what ``fitting`` was measured with. GFLOP/s count a direct convolution's operations. The error is
the largest difference from a float64 convolution over its largest value.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.network.convolutions import convolution
from jaxsnn.network.kernel_gradient import Padding
from jaxsnn.network.winograd import Blocks, fitting, winograd

DIRECT = "direct"
TILES, ROWS = (2, 4, 6), (64, 128, 256, 512)  # tried by --every: sizes, and tiles at a time


@dataclass(frozen=True)
class Shape:
    """A convolution of square maps, which keep their size unless ``same`` is off."""

    name: str
    batch: int
    size: int
    inputs: int
    outputs: int
    same: bool = True

    @property
    def padding(self) -> Padding:
        """Zeros on every side."""
        return ((1, 1), (1, 1)) if self.same else ((0, 0), (0, 0))

    @property
    def columns(self) -> int:
        """Output columns, equal to the output rows."""
        return self.size if self.same else self.size - 2

    @property
    def images(self) -> tuple[int, ...]:
        """NHWC."""
        return self.batch, self.size, self.size, self.inputs

    @property
    def kernel(self) -> tuple[int, ...]:
        """HWIO."""
        return 3, 3, self.inputs, self.outputs

    @property
    def gflop(self) -> float:
        """Operations of a direct convolution, forward and backward, in 1e9."""
        return 6e-9 * self.batch * self.columns**2 * 9 * self.inputs * self.outputs


SHAPES = (
    Shape("cnn1.conv2", 64, 24, 96, 256),
    Shape("cnn1.conv3", 64, 12, 256, 384),
    Shape("cnn1.conv4", 64, 12, 384, 384),
    Shape("cnn1.conv5", 128, 6, 384, 256),
    Shape("cnn2.conv2", 64, 24, 128, 256),
    Shape("cnn2.conv2b", 64, 24, 256, 256),
    Shape("cnn2.conv3", 64, 12, 256, 512),
    Shape("cnn2.conv3b", 64, 12, 512, 512),
    Shape("cnn2.conv4", 128, 6, 512, 1024),
    Shape("cnn2.conv5", 128, 6, 1024, 1024, same=False),
    Shape("alexnet.conv4", 128, 6, 384, 384),
    Shape("vgg11.conv1b", 32, 32, 64, 64),
    Shape("vgg11.conv2", 32, 32, 64, 128),
    Shape("vgg11.conv3", 64, 16, 128, 256),
    Shape("vgg11.conv5", 128, 8, 256, 512),
    Shape("vgg11.conv7", 128, 4, 512, 512),
    Shape("map28.narrow", 64, 28, 64, 64),
    Shape("map28", 64, 28, 128, 128),
    Shape("map14", 64, 14, 256, 256),
    Shape("map7", 128, 7, 512, 512),
)
QUICK = Shape("quick", 16, 8, 32, 32)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="shapes whose name contains this text")
    parser.add_argument("--every", action="store_true", help="try tiles and numbers of images")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, beside a warm-up")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="the processor's seconds, not the clock's: on a busy machine",
    )
    parser.add_argument("--quick", action="store_true", help="one small shape")
    options = parser.parse_args(argv)
    if options.cores:
        common.use_cores(options.cores)
    shapes = (QUICK,) if options.quick else SHAPES
    options.shapes = [shape for shape in shapes if options.only in shape.name]
    if not options.shapes:
        names = ", ".join(shape.name for shape in shapes)
        parser.error(f"--only {options.only}: no shape contains it; there are {names}")
    return options


def blocks_of(shape: Shape, every: bool) -> Iterator[Blocks]:
    """What is tried: what ``fitting`` chooses, or every size of tile with several images."""
    if not every:
        chosen = fitting(shape.images, shape.kernel, (1, 1), shape.padding)
        yield from [] if chosen is None else [chosen]
        return
    for tile in TILES:
        tiles = (-(-shape.columns // tile)) ** 2
        for images in sorted({min(-(-rows // tiles), shape.batch) for rows in ROWS}):
            yield Blocks(tile, images)


def operands(shape: Shape) -> tuple[np.ndarray, ...]:
    """Normal input, kernel and output gradient, float32; the outputs are about 1."""
    rng = np.random.default_rng(0)
    out = shape.batch, shape.columns, shape.columns, shape.outputs
    x, gradient = (rng.standard_normal(size, np.float32) for size in (shape.images, out))
    kernel = rng.standard_normal(shape.kernel, np.float32) / np.float32(3 * shape.inputs**0.5)
    return x, kernel, gradient


def with_gradients(convolve: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., Any]:
    """One compiled program: the value and its gradients."""

    def apply(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        value, pull_back = jax.vjp(convolve, x, kernel)
        return value, *pull_back(gradient)

    return jax.jit(apply)


def programs(shape: Shape, every: bool) -> dict[str, Callable[..., Any]]:
    """The direct way and every other that is tried, by name."""
    direct = functools.partial(convolution, strides=(1, 1), padding=shape.padding)
    out = {DIRECT: with_gradients(direct)}
    for blocks in blocks_of(shape, every):
        tried = functools.partial(winograd, padding=shape.padding, blocks=blocks)
        out[f"tile {blocks.tile}, {blocks.images} images"] = with_gradients(tried)
    return out


def in_float64(shape: Shape, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution in float64, one tap after the other."""
    ends = ((0, 0), *shape.padding, (0, 0))
    wide, kernel = np.pad(x, ends).astype(np.float64), kernel.astype(np.float64)
    shifted = (
        wide[:, i : i + shape.columns, j : j + shape.columns] @ kernel[i, j]
        for i, j in np.ndindex(3, 3)
    )
    return functools.reduce(np.add, shifted)


def processor_seconds(run: Callable[[], Any]) -> float:
    """What a call takes of all cores."""
    began = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - began


def measure(report: common.Report, shape: Shape, options: argparse.Namespace) -> None:
    """Times, ratios and errors of one shape."""
    arrays = operands(shape)
    exact = in_float64(shape, arrays[0][:2], arrays[1])
    on_device = [jnp.asarray(array) for array in arrays]
    tried = programs(shape, options.every)
    runs = {name: functools.partial(program, *on_device) for name, program in tried.items()}
    clock = processor_seconds if options.processor_time else None
    timed = {name: functools.partial(clock, run) if clock else run for name, run in runs.items()}
    times = common.in_turn(timed, options.repeats)
    for name, timing in times.items():
        error = np.abs(np.asarray(runs[name]()[0][:2]) - exact).max() / np.abs(exact).max()
        ratio = times[DIRECT].over(timing)
        speed = shape.gflop / timing.median
        shown = f"{ratio:.2f} times as fast, {speed:.0f} GFLOP/s, error {error:.0e}"
        fields = {"ratio": round(ratio, 3), "gflops": round(speed, 1), "error": float(error)}
        report.record(f"{shape.name}: {name}", shown, **fields, **timing.record(shape.batch))
        if name != DIRECT and not options.every:
            title = f"{shape.name}: speed over direct"
            report.goal(title, ratio, 1.0, at_least=True)


def main(argv: list[str] | None = None) -> None:
    """Measure every shape and print the table."""
    options = arguments(argv)
    clock = "processor" if options.processor_time else "wall"
    report = common.Report("winograd", clock=clock, cores=options.cores)
    for shape in options.shapes:
        measure(report, shape, options)
    report.show()


if __name__ == "__main__":
    main()
