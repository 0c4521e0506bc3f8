"""How is a convolution of spikes best computed on this backend?

Times several lowerings of the same synapse, forward and forward + backward (both gradients), for
the layer shapes of the scatter-and-gather LeNet, the wide layers of CNN 2, the last ones of VGG11
and AlexNet and the CSNN's second one, and checks that every forward result is exactly the same
integers.

    python benchmarks/lowering.py [--quick] [--only TEXT] > lowering.jsonl

One JSON line per measurement on stdout; the fastest lowering of every shape on stderr at the end.

Lowerings (``n`` images or output columns):

    direct       one convolution over the whole batch
    map-n        the same, n images at a time (``lax.map``)
    patches      shifted slices side by side and one matrix product
    patches-n    the same, n images at a time
    band-n       block-Toeplitz product: n adjacent output columns at once, from
                 (n - 1) * stride + width input columns, the kernel laid out as a banded matrix

each with float32, bfloat16 (sums in float32 forward; results in bfloat16 forward + backward, as the
gradient of a convolution needs one dtype) or int8 or int32 operands (int32 sums, forward only).
GFLOP/s count two operations per weight met by an output, so a band's zeros earn nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax

Lowering = Callable[[jax.Array, jax.Array], jax.Array]
DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "int8": jnp.int8, "int32": jnp.int32}


@dataclass(frozen=True)
class Shape:
    """One convolution: a square map, a square kernel, NHWC and HWIO."""

    name: str
    batch: int
    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    same: bool = False

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after, TensorFlow's rule."""
        if not self.same:
            return 0, 0
        total = max((-(-self.size // self.stride) - 1) * self.stride + self.kernel - self.size, 0)
        return total // 2, total - total // 2

    @property
    def columns(self) -> int:
        """Output columns, equal to the output rows."""
        return (self.size + sum(self.padding) - self.kernel) // self.stride + 1

    @property
    def gflop(self) -> float:
        """Useful operations of one forward pass, in 1e9."""
        weights = self.kernel**2 * self.inputs * self.outputs
        return 2e-9 * self.batch * self.columns**2 * weights


def lenet(batch: int) -> list[Shape]:
    """The six convolutions of ``lenet_scatter``."""
    rows = [
        ("encoder", 28, 1, 16, 5, 1, True),
        ("conv2", 28, 16, 16, 5, 1, False),
        ("pool1", 24, 16, 16, 2, 2, False),
        ("conv3", 12, 16, 32, 5, 1, False),
        ("pool2", 8, 32, 32, 2, 2, False),
        ("conv4", 4, 32, 256, 4, 1, False),
    ]
    return [Shape(f"lenet.{name}", batch, *rest) for name, *rest in rows]


def shapes(quick: bool) -> list[Shape]:
    """What is measured; ``quick`` keeps one batch size."""
    wide = [
        Shape("cnn2.conv2", 16, 24, 128, 256, 3, 1, True),
        Shape("cnn2.conv3", 16, 12, 256, 512, 3, 1, True),
        Shape("cnn2.conv4", 16, 6, 512, 1024, 3, 1, True),
        Shape("cnn2.conv5", 16, 6, 1024, 512, 3, 1, True),
        Shape("cnn2.pool2", 16, 12, 512, 512, 2, 2),
    ]
    small = [
        Shape("vgg11.conv8", 128, 2, 512, 512, 3, 1, True),
        Shape("vgg11.conv7", 128, 4, 512, 512, 3, 2, True),
        Shape("alexnet.conv5", 128, 4, 384, 256, 3, 2, True),
    ]
    csnn = Shape("csnn.conv2", 128 if quick else 1600, 12, 12, 64, 5)
    return lenet(128) + ([] if quick else lenet(512)) + wide + small + [csnn]


def direct(shape: Shape, total: Any) -> Lowering:
    """One convolution with sums in dtype ``total``."""

    def apply(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            w,
            (shape.stride, shape.stride),
            (shape.padding, shape.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=total,
        )

    return apply


def pad(x: jax.Array, shape: Shape, extra: int = 0) -> jax.Array:
    """Zero padding of a map, with ``extra`` more columns at the right."""
    before, after = shape.padding
    return jnp.pad(x, ((0, 0), (before, after), (before, after + extra), (0, 0)))


def patches(shape: Shape, total: Any) -> Lowering:
    """One shifted slice per kernel cell, concatenated, and one matrix product."""
    reach, kernel = shape.stride * (shape.columns - 1) + 1, shape.kernel

    def apply(x: jax.Array, w: jax.Array) -> jax.Array:
        x = pad(x, shape)
        slices = [
            x[:, i : i + reach : shape.stride, j : j + reach : shape.stride]
            for i in range(kernel)
            for j in range(kernel)
        ]
        matrix = w.reshape(-1, shape.outputs)
        return jnp.dot(jnp.concatenate(slices, -1), matrix, preferred_element_type=total)

    return apply


def band(shape: Shape, total: Any, width: int) -> Lowering:
    """Block-Toeplitz product of ``width`` adjacent output columns."""
    stride, kernel = shape.stride, shape.kernel
    span = (width - 1) * stride + kernel
    blocks = -(-shape.columns // width)
    # Columns that the last block reaches beyond the padded map.
    extra = max((blocks - 1) * width * stride + span - shape.size - sum(shape.padding), 0)
    reach = stride * (shape.columns - 1) + 1

    def matrix(w: jax.Array) -> jax.Array:
        shifted = [
            jnp.pad(w, ((0, 0), (c * stride, span - kernel - c * stride), (0, 0), (0, 0)))
            for c in range(width)
        ]
        return jnp.stack(shifted, 3).reshape(-1, width * shape.outputs)

    def apply(x: jax.Array, w: jax.Array) -> jax.Array:
        x = pad(x, shape, extra)
        starts = [block * width * stride for block in range(blocks)]
        rows = [x[:, i : i + reach : stride] for i in range(kernel)]
        cut = [jnp.stack([row[:, :, s : s + span] for s in starts], 2) for row in rows]
        flat = [part.reshape(*part.shape[:3], -1) for part in cut]
        out = jnp.dot(jnp.concatenate(flat, -1), matrix(w), preferred_element_type=total)
        out = out.reshape(*out.shape[:2], blocks * width, shape.outputs)
        return out[:, :, : shape.columns]

    return apply


def mapped(inner: Lowering, shape: Shape, chunk: int) -> Lowering:
    """A lowering over ``chunk`` images at a time."""

    def apply(x: jax.Array, w: jax.Array) -> jax.Array:
        parts = x.reshape(shape.batch // chunk, chunk, *x.shape[1:])
        out = lax.map(lambda part: inner(part, w), parts)
        return out.reshape(shape.batch, *out.shape[2:])

    return apply


def lowerings(shape: Shape, total: Any, quick: bool) -> Iterator[tuple[str, Lowering]]:
    """Every lowering that fits the shape."""
    yield "direct", direct(shape, total)
    yield "patches", patches(shape, total)
    for chunk in (32,) if quick else (8, 16, 32, 64, 128):
        if chunk < shape.batch and shape.batch % chunk == 0:
            yield f"map-{chunk}", mapped(direct(shape, total), shape, chunk)
            yield f"patches-{chunk}", mapped(patches(shape, total), shape, chunk)
    for width in (2, 4) if quick else (2, 3, 4, 6, 8):
        # A band of a wide layer is a large, mostly empty matrix.
        if width <= shape.columns and width * shape.inputs * shape.outputs <= 2**18:
            yield f"band-{width}", band(shape, total, width)


def spikes_and_weights(shape: Shape, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts 0 .. 4 (a fifth of the neurons active) and ternary weights, both int8."""
    rng = np.random.default_rng(seed)
    grid = (shape.batch, shape.size, shape.size, shape.inputs)
    counts = rng.integers(1, 5, grid) * (rng.random(grid) < 0.2)
    weights = rng.integers(-1, 2, (shape.kernel, shape.kernel, shape.inputs, shape.outputs))
    return counts.astype(np.int8), weights.astype(np.int8)


def best_ms(run: Callable[[], Any], repeats: int, budget_s: float) -> tuple[float, float]:
    """Best run and first call (with compilation) in milliseconds; up to ``budget_s`` of repeats."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    first = time.perf_counter() - start
    best, began = math.inf, time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - began > budget_s:
            break
    return 1e3 * best, 1e3 * first


def measure(
    shape: Shape, apply: Lowering, dtype: str, backward: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """Time one lowering; forward results are compared with exact integers."""
    counts, weights = spikes_and_weights(shape)
    x, w = jnp.asarray(counts, DTYPES[dtype]), jnp.asarray(weights, DTYPES[dtype])
    forward = jax.jit(apply)
    result: dict[str, Any] = {}
    if backward:
        out = jax.eval_shape(apply, x, w)
        noise = np.random.default_rng(1).normal(size=out.shape)
        cotangent = jnp.asarray(noise, out.dtype)

        def with_gradients(x: jax.Array, w: jax.Array, cotangent: jax.Array) -> Any:
            value, pull_back = jax.vjp(apply, x, w)
            return value, pull_back(cotangent)

        both = jax.jit(with_gradients)
        best, first = best_ms(lambda: both(x, w, cotangent), options.repeats, options.budget)
    else:
        best, first = best_ms(lambda: forward(x, w), options.repeats, options.budget)
        operands = jnp.asarray(counts, jnp.float32), jnp.asarray(weights, jnp.float32)
        expected = direct(shape, jnp.float32)(*operands)
        result["exact"] = bool((forward(x, w).astype(jnp.float32) == expected).all())
    gflop = shape.gflop * (3 if backward else 1)
    return {**result, "ms": round(best, 3), "gflops": round(1e3 * gflop / best, 1),
            "first_call_ms": round(first, 1)}  # fmt: skip


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "python": platform.python_version(),
    }


def measure_shape(shape: Shape, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All lowerings, dtypes and directions of one shape."""
    about = {"shape": shape.name, "batch": shape.batch, "map": shape.size, "inputs": shape.inputs,
             "outputs": shape.outputs, "kernel": shape.kernel, "stride": shape.stride,
             "padding": list(shape.padding)}  # fmt: skip
    for dtype in DTYPES:
        for backward in (False, True):
            whole = jnp.issubdtype(DTYPES[dtype], jnp.integer)
            if backward and whole:
                continue
            total = jnp.int32 if whole else jnp.float32
            if backward and dtype == "bf16":
                total = jnp.bfloat16
            for name, apply in lowerings(shape, total, options.quick):
                row = {**about, "lowering": name, "dtype": dtype,
                       "pass": "forward+backward" if backward else "forward"}  # fmt: skip
                try:
                    row |= measure(shape, apply, dtype, backward, options)
                except jax.errors.JaxRuntimeError as error:
                    # A backend without, say, integer convolutions: a result too.
                    row["error"] = str(error).splitlines()[0][:200]
                yield row


def fastest(rows: list[dict[str, Any]]) -> list[str]:
    """One line per shape and direction: the fastest of each dtype, fastest first."""
    lines = []
    for key in dict.fromkeys((row["shape"], row["batch"], row["pass"]) for row in rows):
        mine = [row for row in rows if (row["shape"], row["batch"], row["pass"]) == key]
        mine = sorted((row for row in mine if "ms" in row), key=lambda row: row["ms"])
        best = {row["dtype"]: row for row in reversed(mine)}
        ordered = sorted(best.values(), key=lambda row: row["ms"])
        plain = next((row for row in mine if row["lowering"] == "direct"
                      and row["dtype"] == "f32"), None)  # fmt: skip
        text = [f"{row['dtype']} {row['lowering']} {row['ms']} ms ({row['gflops']} GFLOP/s)"
                for row in ordered]  # fmt: skip
        suffix = f"; direct f32 {plain['ms']} ms" if plain else ""
        lines.append(f"{key[0]} x{key[1]} {key[2]}: {'; '.join(text)}{suffix}")
    return lines


def main() -> None:
    """Measure, print JSON lines, then the fastest lowerings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer shapes, chunks and repeats")
    parser.add_argument("--only", default="", help="shapes whose name contains this text")
    parser.add_argument("--repeats", type=int, default=None, help="timed runs (20, quick 5)")
    parser.add_argument("--budget", type=float, default=None, help="seconds per measurement")
    options = parser.parse_args()
    options.repeats = options.repeats or (5 if options.quick else 20)
    options.budget = options.budget or (0.25 if options.quick else 3.0)
    chosen = [shape for shape in shapes(options.quick) if options.only in shape.name]
    if not chosen:
        names = ", ".join(shape.name for shape in shapes(options.quick))
        parser.error(f"no shape contains {options.only!r}; there are {names}")
    about, rows = machine(), []
    for shape in chosen:
        for row in measure_shape(shape, options):
            rows.append(row)
            print(json.dumps({**row, **about}), flush=True)
    print("\n".join(fastest(rows)), file=sys.stderr)
    wrong = [row for row in rows if row.get("exact") is False]
    if wrong:
        sys.exit(f"{len(wrong)} forward results are not exact; first: {json.dumps(wrong[0])}")


if __name__ == "__main__":
    main()
