"""A first layer that starts as whitening filters of the training images."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.layers import Site

REGULARISER = 5e-3  # added to the variances, so that what hardly varies is not blown up
IMAGES = 4000  # whose patches are enough for 27 directions


def whitened(kernel: Array, site: Site, images: np.ndarray) -> Array:
    """The kernel with its first filters replaced by pairs of plus and minus a whitening filter.

    The directions in which patches of the images vary most come first, each divided by the
    deviation there, so that its response has variance 1. With both signs nothing is lost behind
    the rectifier. At most half of the filters have a counterpart. Source: cifar10-airbench
    (Jordan, arXiv:2404.00498, section 3.1), after Page's "bag of tricks".

    Args:
        kernel: ``[h, w, C_in, C_out]`` of the first convolution.
        site: its site.
        images: ``[N, H, W, C_in]`` as the network sees them, floats.
    """
    height, width = site.window
    patches = np.lib.stride_tricks.sliding_window_view(images, (height, width), (1, 2))
    patches = patches[:, ::height, ::width].transpose(0, 1, 2, 4, 5, 3)
    patches = patches.reshape(-1, height * width * images.shape[-1]).astype(np.float64)
    variances, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / np.sqrt(variances + REGULARISER))[:, ::-1]
    pairs = min(filters.shape[1], kernel.shape[-1] // 2)
    filters = filters[:, :pairs].reshape(*kernel.shape[:-1], pairs)
    both = jnp.asarray(np.concatenate([filters, -filters], -1), kernel.dtype)
    return kernel.at[..., : 2 * pairs].set(both)
