"""JPEG files of a data set whose images all have one size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsnn.data.base import Images
from jaxsnn.errors import UserError


def read_jpeg(
    path: Path, side: int, *, of: str, archive: str, modes: tuple[str, ...] = ("RGB",)
) -> Images:
    """Read one JPEG file of ``side`` x ``side`` pixels.

    Args:
        path: the file.
        side: height and width that the image must have.
        of: the data set, for the message.
        archive: where the file came from, for the message.
        modes: Pillow's names of the kinds of image that are right; grey ones ("L") get three
            equal channels.

    Returns:
        uint8 ``[side, side, 3]``.

    Raises:
        UserError: the file is damaged, broken off or no JPEG file, or of another size or kind.
            The message names it.
    """
    try:
        # Read whole first: Pillow would keep the file open.
        with Image.open(io.BytesIO(path.read_bytes()), formats=["JPEG"]) as image:
            actual = f"{image.mode} of {image.width}x{image.height}"
            fits = image.mode in modes and image.size == (side, side)
            pixels = np.asarray(image.convert("RGB")) if fits else None
    except Exception as error:  # Pillow has many types for damaged files; the remedy is the same
        reason = f"{type(error).__name__}: {error!s:.120}"
        raise UserError(
            f"{path}: damaged or no JPEG file ({reason}); unpack it again from {archive}"
        ) from error
    if pixels is None:
        raise UserError(
            f"{path}: {actual}, wanted {' or '.join(modes)} of {side}x{side}; this is no image of "
            f"{of}: unpack it again from {archive}, or remove it"
        )
    return pixels
