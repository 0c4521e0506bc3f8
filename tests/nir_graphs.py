"""Small NIR graphs, and the forward Euler of their equations as slow NumPy loops in float64.

Written from NIR's own definitions (its primitives' docstrings), not from the executor.
"""

import itertools

import nir
import numpy as np


def chain(*nodes, shape, check=True):
    """A graph of nodes in a row, ``n0``, ``n1``, ..., between ``in`` and ``out``.

    Unless nir checks it (and finds the shape behind every node), the output is shaped as the input.
    """
    names = ["in", *(f"n{number}" for number in range(len(nodes))), "out"]
    inner = dict(zip(names[1:-1], nodes, strict=True))
    last = nir.Output(None if check else np.array(shape))
    edges = list(itertools.pairwise(names))
    everything = {"in": nir.Input(np.array(shape)), **inner, "out": last}
    return nir.NIRGraph(everything, edges, type_check=check)


def leak(v, x, dt, tau, r, v_leak):
    """``tau v' = (v_leak - v) + r x``, one Euler step."""
    return v + dt / tau * (v_leak - v + r * x)


def trajectory(node, drive, dt, reset="v_reset", at=False):
    """Potentials before the reset and spikes (or outputs) of a node with a membrane.

    Args:
        node: I, IF, LI, LIF, CubaLI or CubaLIF.
        drive: ``[T, B, N]``.
        dt: length of a step.
        reset: "v_reset", "zero" or "subtract".
        at: potentials at the threshold fire.
    """
    v = np.zeros(drive.shape[1:])
    current = np.zeros(drive.shape[1:])
    potentials, outs = [], []
    for x in np.asarray(drive, float):
        kind = type(node).__name__
        if kind in ("I", "IF"):
            v = v + dt * node.r * x
        elif kind in ("LI", "LIF"):
            v = leak(v, x, dt, node.tau, node.r, node.v_leak)
        else:
            current = leak(current, x, dt, node.tau_syn, node.w_in, 0.0)
            v = leak(v, current, dt, node.tau_mem, node.r, node.v_leak)
        potentials.append(v)
        if not kind.endswith("F"):
            outs.append(v)
            continue
        fired = v >= node.v_threshold if at else v > node.v_threshold
        after = {"v_reset": node.v_reset, "zero": 0.0, "subtract": v - node.v_threshold}[reset]
        v = np.where(fired, after, v)
        outs.append(fired.astype(float))
    return np.array(potentials), np.array(outs)


def convolve(x, weight, bias, strides, padding, dilation, groups):
    """Cross-correlation of ``[B, C, H, W]``, one product at a time."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    outputs, inputs, height, width = weight.shape
    rows = (x.shape[2] - dilation[0] * (height - 1) - 1) // strides[0] + 1
    columns = (x.shape[3] - dilation[1] * (width - 1) - 1) // strides[1] + 1
    out = np.zeros((x.shape[0], outputs, rows, columns))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for row in range(rows):
            for column in range(columns):
                for c in range(inputs):
                    for i in range(height):
                        for j in range(width):
                            down = row * strides[0] + i * dilation[0]
                            across = column * strides[1] + j * dilation[1]
                            out[:, o, row, column] += (
                                weight[o, c, i, j] * x[:, first + c, down, across]
                            )
    return out + bias.reshape(-1, 1, 1)
