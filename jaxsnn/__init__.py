"""Train quantised networks, turn them into spiking ones, and say exactly how well the two agree.

>>> import jax, numpy as np, jaxsnn
>>> arch = jaxsnn.parse("8C3-P2-16", pool="conv", input_shape=(8, 8, 1))
>>> activation = jaxsnn.hidden(jaxsnn.neurons.quantised_relu(k=1, bound=2))
>>> net = jaxsnn.Net(arch, activation, initialiser=jaxsnn.CutNormal(hidden=0.5))
>>> variables = jaxsnn.init_variables(net, jax.random.key(0))
>>> method = jaxsnn.methods.scatter_gather(k=1, bound=2)
>>> snn = jaxsnn.convert(variables, arch, method, trained=net)
>>> images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
>>> trace = jaxsnn.simulate(snn, images, steps=1)
>>> trace.readout.shape, bool(trace.counters.spikes["dense1"].sum() > 0)
((1, 4, 10), True)
>>> proof = jaxsnn.certify(snn, variables, images)
>>> proof.equality, proof.given_predictions
('exact', 0)
"""

from jaxsnn import neurons
from jaxsnn.arch import Arch, format, parse, plan, totals, zoo
from jaxsnn.conversion import (
    Calibration,
    Spiking,
    calibrate,
    convert,
    directly_trained,
    float_ends,
    methods,
    percentiles,
    quantised_weights,
    settled,
    with_leaf,
    with_unit_dropout,
)
from jaxsnn.equality import Certificate, certify, gaps
from jaxsnn.errors import UserError
from jaxsnn.exchange import compare, load, load_params, save
from jaxsnn.inputs import Encoding, EventStream, event_frames, held
from jaxsnn.network import (
    CutNormal,
    FanInUniform,
    Net,
    SiteMap,
    forward,
    hidden,
    init_variables,
    initial_state,
    weight_quantisers,
)
from jaxsnn.neurons import Neuron
from jaxsnn.report import energy
from jaxsnn.simulation import (
    EarlyExit,
    Evaluation,
    Rule,
    Running,
    Step,
    Sweep,
    Trace,
    early_exit,
    evaluate,
    function,
    fusion,
    settle,
    simulate,
    start,
    step,
    step_by_step,
    sweep,
    unpack,
)
from jaxsnn.training import (
    Options,
    Task,
    classification,
    finetune,
    finetune_quantised,
    firing_start,
    spiking_net,
    through_time,
    train,
    watch,
)

__version__ = "0.2.0"

__all__ = [
    "Arch",
    "Calibration",
    "Certificate",
    "CutNormal",
    "EarlyExit",
    "Encoding",
    "Evaluation",
    "EventStream",
    "FanInUniform",
    "Net",
    "Neuron",
    "Options",
    "Rule",
    "Running",
    "SiteMap",
    "Spiking",
    "Step",
    "Sweep",
    "Task",
    "Trace",
    "UserError",
    "calibrate",
    "certify",
    "classification",
    "compare",
    "convert",
    "directly_trained",
    "early_exit",
    "energy",
    "evaluate",
    "event_frames",
    "finetune",
    "finetune_quantised",
    "firing_start",
    "float_ends",
    "format",
    "forward",
    "function",
    "fusion",
    "gaps",
    "held",
    "hidden",
    "init_variables",
    "initial_state",
    "load",
    "load_params",
    "methods",
    "neurons",
    "parse",
    "percentiles",
    "plan",
    "quantised_weights",
    "save",
    "settle",
    "settled",
    "simulate",
    "spiking_net",
    "start",
    "step",
    "step_by_step",
    "sweep",
    "through_time",
    "totals",
    "train",
    "unpack",
    "watch",
    "weight_quantisers",
    "with_leaf",
    "with_unit_dropout",
    "zoo",
]
