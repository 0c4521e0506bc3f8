"""Winograd's convolution of 3x3 kernels in float32, with both gradients, for training on a CPU.

A tile of ``m x m`` outputs is computed from products at ``a = m + 2`` points in either direction,
``Y = A^T [(G g G^T) * (B^T d B)] A``: ``a^2`` multiplications for each pair of channels instead of
``9 m^2``, which is 2.25 times fewer for m = 2, 4 times for m = 4 and 5.1 times for m = 6 (A. Lavin
and S. Gray: Fast algorithms for convolutional neural networks, CVPR 2016, arXiv:1509.09308). For
each pair of points it is one matrix product over all tiles and channels.

The backward pass is the transpose of the same steps: the tiles of the output's gradient,
transformed by ``A``, meet the transformed kernel for the input's gradient and the transformed input
for the kernel's.

On two cores of an AMD EPYC it is 2 to 5 times as fast as the direct convolution, forward and
backward, from 64 channels on. Results round differently: their largest error over the largest value
is 5e-7 for m = 2 and 1e-5 to 3e-5 for m = 4 and m = 6 (up to 1e-6 for the direct convolution), so
this is for training, never for what must be exact. ``benchmarks/winograd.py`` measures both.

Barriers keep XLA from fusing what is read several times into each of its readers, which would
compute it anew every time, and the last steps into the update of a loop's result, which has one
thread.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsnn.errors import UserError
from jaxsnn.network.kernel_gradient import Padding, Shape
from jaxsnn.network.winograd_matrices import LARGEST, TAPS, Matrix, transforms, transposed

Points = list[Array]  # for each point of the columns, values at all points of the rows: [a, ...]

SIZES = (2, 4, 6)  # of tiles, from which is chosen
MARGIN = 0.85  # a larger tile takes longer to transform, so its products must be so much fewer
WIDE_CHANNELS = 32  # from here on, on both sides, products outweigh the transforms (measured)
MANY_POSITIONS = 1024  # of a batch's outputs, from which the kernel's own transforms pay (measured)
ROWS = 96  # tiles at a time, at least: enough for fast products, few enough for the cache
ROWS_A_CHANNEL = 0.25  # and more for wide kernels, which are read anew for every part (measured)


class Blocks(NamedTuple):
    """The pieces into which a convolution is cut."""

    tile: int  # rows and columns of the outputs of one tile
    images: int  # transformed at once, so that they stay in a CPU's cache


def fitting(
    images: Shape, kernel: Shape, strides: tuple[int, int], padding: Padding
) -> Blocks | None:
    """The blocks with which Winograd beats the direct convolution on a CPU, if there are any.

    Forward and backward together, in float32, measured by ``benchmarks/winograd.py``.

    Args:
        images: ``(N, H, W, C_in)``.
        kernel: HWIO.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.

    >>> fitting((128, 24, 24, 96), (3, 3, 96, 256), (1, 1), ((1, 1), (1, 1)))
    Blocks(tile=6, images=8)
    >>> fitting((128, 14, 14, 256), (3, 3, 256, 256), (1, 1), ((1, 1), (1, 1)))
    Blocks(tile=4, images=8)
    >>> fitting((128, 28, 28, 1), (3, 3, 1, 16), (1, 1), ((1, 1), (1, 1))) is None
    True
    """
    if kernel[:2] != (TAPS, TAPS) or strides != (1, 1) or min(kernel[2:]) < WIDE_CHANNELS:
        return None
    out = [size + sum(ends) - TAPS + 1 for size, ends in zip(images[1:3], padding, strict=True)]
    if images[0] * math.prod(out) < MANY_POSITIONS:
        return None
    tiles = {tile: math.prod(-(-size // tile) for size in out) for tile in SIZES}
    products = {tile: tiles[tile] * (tile + TAPS - 1) ** 2 for tile in SIZES}
    best = SIZES[0]
    for tile in SIZES[1:]:
        best = tile if products[tile] < MARGIN * products[best] else best
    rows = max(ROWS, int(ROWS_A_CHANNEL * sum(kernel[2:])))
    return Blocks(best, _images_at_once(images[0], -(-rows // tiles[best])))


def _images_at_once(images: int, least: int) -> int:
    """At least so many images, and less than twice as many if they can divide the batch.

    >>> _images_at_once(128, 6), _images_at_once(97, 10), _images_at_once(4, 100)
    (8, 11, 4)
    """
    parts = max(images // least, 1)
    divisors = (n for n in range(least, 2 * least) if images % n == 0)
    return next(divisors, -(-images // parts))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def winograd(x: Array, kernel: Array, padding: Padding, blocks: Blocks) -> Array:
    """Convolution with stride 1 and a 3x3 kernel.

    Args:
        x: ``[N, H, W, C_in]`` float32.
        kernel: HWIO, ``[3, 3, C_in, C_out]`` float32.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
        blocks: from :func:`fitting`. Zeros fill up a batch that its images do not divide and a map
            that its tile does not divide.

    Returns:
        ``[N, H_out, W_out, C_out]`` float32.

    Raises:
        UserError: if the kernel is not 3x3, the tile's size unknown, or the padding negative.
    """
    tiling = _tiling(x.shape, kernel.shape, padding, blocks)
    at_points = _transformed_kernel(kernel, blocks.tile)

    def convolve(x: Array) -> Array:
        return tiling.output(_products(tiling.of_input(x), at_points, (2, 1)))

    parts = _parts(x, blocks.images)
    out = convolve(parts[0]) if len(parts) == 1 else lax.map(convolve, parts)
    return out.reshape(-1, *out.shape[-3:])[: len(x)]


def _forward(
    x: Array, kernel: Array, padding: Padding, blocks: Blocks
) -> tuple[Array, tuple[Array, Array]]:
    return winograd(x, kernel, padding, blocks), (x, kernel)


def _backward(
    padding: Padding, blocks: Blocks, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    tiling = _tiling(x.shape, kernel.shape, padding, blocks)
    at_points = _transformed_kernel(kernel, blocks.tile)

    def gradients(x: Array, gradient: Array) -> tuple[Points, Array]:
        tiles = tiling.of_gradient(gradient)
        to_kernel = _products(tiling.of_input(x), tiles, (1, 1))
        return to_kernel, tiling.input_gradient(_products(tiles, at_points, (2, 2)))

    def step(total: Points, operands: tuple[Array, Array]) -> tuple[Points, Array]:
        added, to_x = gradients(*operands)
        return jax.tree.map(jnp.add, total, added), to_x

    parts = _parts(x, blocks.images), _parts(gradient, blocks.images)
    if len(parts[0]) == 1:
        total, to_x = gradients(parts[0][0], parts[1][0])
    else:
        total, to_x = lax.scan(step, jax.tree.map(jnp.zeros_like, at_points), parts)
    to_x = to_x.reshape(-1, *to_x.shape[-3:])[: len(x)]
    return to_x, _kernel_gradient(total, blocks.tile)


winograd.defvjp(_forward, _backward)


class _Tiling(NamedTuple):
    """The maps of one convolution and the tiles that cover them."""

    tile: int
    padding: Padding
    size: tuple[int, int]  # of the input's map
    out: tuple[int, int]  # of the output's map
    tiles: tuple[int, int]  # in either direction; the last may reach beyond the map

    def of_input(self, x: Array) -> Points:
        """The overlapping tiles ``B^T d B`` of ``x [n, H, W, C_in]``."""
        reach = (count * self.tile + TAPS - 1 for count in self.tiles)
        ends = [
            (before, whole - before - size)
            for (before, _), whole, size in zip(self.padding, reach, self.size, strict=True)
        ]
        return self._transformed(transforms(self.tile).inputs, x, ends)

    def of_gradient(self, gradient: Array) -> Points:
        """The tiles ``A y A^T`` of the output's gradient ``[n, H_out, W_out, C_out]``."""
        sizes = zip(self.tiles, self.out, strict=True)
        ends = [(0, count * self.tile - size) for count, size in sizes]
        return self._transformed(transposed(transforms(self.tile).outputs), gradient, ends)

    def output(self, products: Points) -> Array:
        """The map of the tiles ``A^T M A``: ``[n, H_out, W_out, C_out]``."""
        return self._map(transforms(self.tile).outputs, products, (0, 0), self.out)

    def input_gradient(self, products: Points) -> Array:
        """The sum of the overlapping tiles ``B M B^T``: ``[n, H, W, C_in]``."""
        first = self.padding[0][0], self.padding[1][0]
        return self._map(transposed(transforms(self.tile).inputs), products, first, self.size)

    def _transformed(self, matrix: Matrix, x: Array, ends: Sequence[tuple[int, int]]) -> Points:
        """``matrix`` applied to the rows and to the columns of each tile."""
        strips = _combined(matrix, self._cells(_padded(x, [(0, 0), *ends, (0, 0)]), matrix, 1))
        stacked = lax.optimization_barrier(jnp.stack(strips))
        columns = _combined(matrix, self._cells(stacked, matrix, 3))
        return [column.reshape(len(strips), -1, x.shape[-1]) for column in columns]

    def _cells(self, x: Array, matrix: Matrix, axis: int) -> list[Array]:
        """The first, second, ... cell of every tile along ``axis``: what ``matrix`` combines."""
        last = self.tile * (self.tiles[axis // 2] - 1) + 1
        return [lax.slice_in_dim(x, k, k + last, self.tile, axis) for k in range(len(matrix[0]))]

    def _map(
        self, matrix: Matrix, products: Points, first: tuple[int, int], size: tuple[int, int]
    ) -> Array:
        """The sum of the tiles: a map of ``size`` from row and column ``first`` of the tiles on."""
        points, _, channels = products[0].shape
        cells = [cell.reshape(points, -1, *self.tiles, channels) for cell in products]
        columns = self._added(_combined(matrix, cells), 3, first[1], size[1])
        wide = jnp.concatenate(lax.optimization_barrier(columns), axis=-1)
        rows = _combined(matrix, list(lax.optimization_barrier(wide)))
        rows = lax.optimization_barrier(self._added(rows, 1, first[0], size[0]))
        flat = jnp.concatenate([row.reshape(*row.shape[:2], -1) for row in rows], axis=-1)
        out = flat.reshape(len(flat), flat.shape[1] * self.tile, -1, channels)
        return out[:, : size[0], : size[1]]

    def _added(self, cells: list[Array], axis: int, first: int, size: int) -> list[Array]:
        """The cells of tiles that overlap along ``axis``, added: an array for each row of a block.

        Block k holds the rows from ``first + k * tile`` on, counted from the first tile's own.
        """
        tiles, blocks = self.tiles[axis // 2], -(-size // self.tile)
        out: list[Array] = []
        for row in range(first, first + self.tile):
            parts: list[Array] = []
            for cell in range(row % self.tile, len(cells), self.tile):
                back = (cell - row) // self.tile  # by so many tiles; beyond the ends are zeros
                ends = [(0, 0)] * cells[cell].ndim
                ends[axis] = back, blocks - tiles - back
                parts.append(_padded(cells[cell], ends))
            out.append(functools.reduce(jnp.add, parts))
        return out


def _tiling(images: Shape, kernel: Shape, padding: Padding, blocks: Blocks) -> _Tiling:
    """The tiles of a convolution; refuses what has none."""
    if kernel[:2] != (TAPS, TAPS):
        raise UserError(f"kernel {kernel}: winograd takes 3x3 kernels; use convolution instead")
    if not 1 <= blocks.tile <= LARGEST or blocks.images < 1:
        raise UserError(f"{blocks}: tiles have 1 to {LARGEST} outputs, of at least one image")
    if min(end for ends in padding for end in ends) < 0:
        raise UserError(f"padding {padding} is negative: cut the images before the convolution")
    size = images[1], images[2]
    out = size[0] + sum(padding[0]) - TAPS + 1, size[1] + sum(padding[1]) - TAPS + 1
    if min(out) < 1:
        raise UserError(f"images {images} with padding {padding} are smaller than the kernel")
    tiles = -(-out[0] // blocks.tile), -(-out[1] // blocks.tile)
    return _Tiling(blocks.tile, padding, size, out, tiles)


def _transformed_kernel(kernel: Array, tile: int) -> Points:
    """``G g G^T``, ``[a, C_in, C_out]`` for each of the a points of the columns."""
    matrix = transforms(tile).kernel
    rows = _combined(matrix, list(kernel))
    stacked = lax.optimization_barrier(jnp.stack(lax.optimization_barrier(rows)))
    return _combined(matrix, [stacked[:, k] for k in range(TAPS)])


def _kernel_gradient(total: Points, tile: int) -> Array:
    """``G^T U G``: ``[3, 3, C_in, C_out]``."""
    matrix = transposed(transforms(tile).kernel)
    columns = lax.optimization_barrier(_combined(matrix, total))
    rows = [jnp.stack(_combined(matrix, list(column))) for column in columns]
    return jnp.stack(rows, axis=1)


def _combined(matrix: Matrix, parts: Sequence[Array]) -> list[Array]:
    """The linear combination of ``parts`` for each row of ``matrix``; its zeros cost nothing."""
    return [
        functools.reduce(jnp.add, [c * part for c, part in zip(row, parts, strict=True) if c])
        for row in matrix
    ]


def _products(lefts: Points, rights: Points, axes: tuple[int, int]) -> Points:
    """A matrix product for each pair of points, summed over one axis of either side."""
    dimensions = ((axes[0],), (axes[1],)), ((0,), (0,))
    product = functools.partial(lax.dot_general, dimension_numbers=dimensions, precision="highest")
    return [product(left, right) for left, right in zip(lefts, rights, strict=True)]


def _parts(x: Array, images: int) -> Array:
    """``x [N, ...]`` in parts of so many images, the last filled up with zeros."""
    images = min(images, len(x))
    x = _padded(x, [(0, -len(x) % images), (0, 0), (0, 0), (0, 0)])
    return x.reshape(-1, images, *x.shape[1:])


def _padded(x: Array, ends: Sequence[tuple[int, int]]) -> Array:
    """``x`` with zeros at both ends of every axis, or without its ends where they are negative."""
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, [(*end, 0) for end in ends]) if any(map(any, ends)) else x
