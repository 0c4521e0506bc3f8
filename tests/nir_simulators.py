"""NIR graphs in other simulators, each by its own importer; nothing of jaxsnn takes part.

Every function takes a graph and ``x [T, B, ...]`` float32, and gives the graph's output at every
step, in the simulator's own shape.
"""

import numpy as np
import pytest

MARKS = [
    pytest.mark.simulators,
    # What their imports and importers say of themselves.
    pytest.mark.filterwarnings("ignore:nirtorch.load:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # torch 2.13
]


def in_simulators(test):
    """One test that other simulators take part in."""
    for mark in MARKS:
        test = mark(test)
    return test


def in_norse(graph, x):
    import torch
    from norse.torch import from_nir as load

    model, state, outs = load(graph, dt=1.0), None, []
    with torch.no_grad():
        for shown in torch.tensor(x):
            out, state = model(shown, state)
            outs.append(out.numpy())
    return np.stack(outs)


def in_sinabs(graph, x):
    import torch
    from sinabs.nir import from_nir as load

    steps, batch = x.shape[:2]
    with torch.no_grad():
        merged = torch.tensor(x.swapaxes(0, 1).reshape(-1, *x.shape[2:]))
        actual = load(graph, batch_size=batch)(merged)
    out = (actual[0] if isinstance(actual, tuple) else actual).numpy()
    return out.reshape(batch, steps, *out.shape[1:]).swapaxes(0, 1)


def in_spikingjelly(graph, x):
    import torch
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    model, state, outs = import_from_nir(graph, dt=1.0), None, []
    with torch.no_grad():
        for shown in torch.tensor(x):
            out, state = model(shown, state)
            outs.append(out.numpy())
    return np.stack(outs)


def in_snntorch(graph, x):
    import torch
    from snntorch.import_nir import import_from_nir

    model, state, outs = import_from_nir(graph), None, []
    with torch.no_grad():
        for shown in torch.tensor(x):
            out, state = model(shown, state)
            outs.append(out.numpy())
    return np.stack(outs)


RUN = {"norse": in_norse, "sinabs": in_sinabs, "spikingjelly": in_spikingjelly}


def need(request, name):
    """Skip where a simulator is not installed, unless it is required."""
    if not request.config.getoption("--require-simulators"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra simulators)")
