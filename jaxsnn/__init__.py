"""Train quantised networks, turn them into spiking ones, and say exactly how well the two agree.

>>> import jax, numpy as np, jaxsnn
>>> arch = jaxsnn.parse("8C3-P2-16", pool="conv", input_shape=(8, 8, 1))
>>> activation = jaxsnn.hidden(jaxsnn.neurons.quantised_relu(k=1, bound=2))
>>> net = jaxsnn.Net(arch, activation, initialiser=jaxsnn.CutNormal(hidden=0.5))
>>> variables = jaxsnn.init_variables(net, jax.random.key(0))
>>> snn = jaxsnn.convert(variables, arch, method="scatter", k=1, bound=2)
>>> images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
>>> trace = jaxsnn.simulate(snn, images, steps=1)
>>> trace.readout.shape, bool(trace.counters.spikes["dense1"].sum() > 0)
((1, 4, 10), True)
>>> jaxsnn.certify(snn, variables, images).equality
'exact'
"""

from jaxsnn import alpha, finetune, fusion, neurons, percentiles, quant, streaming, zoo
from jaxsnn.arch import Arch, format, parse, plan, totals
from jaxsnn.bptt import spiking_net, through_time, watch
from jaxsnn.certificate import Certificate
from jaxsnn.certify import certify
from jaxsnn.classify import classification
from jaxsnn.convert import convert, float_ends
from jaxsnn.dataset_totals import Evaluation
from jaxsnn.early_exit import EarlyExit, Rule, early_exit
from jaxsnn.encode import Encoding
from jaxsnn.evaluation import evaluate
from jaxsnn.gaps import gaps
from jaxsnn.net import Net, forward, init_variables, initial_state
from jaxsnn.neurons import Neuron
from jaxsnn.settle import settle
from jaxsnn.simulate import Trace, simulate, unpack
from jaxsnn.sitemap import CutNormal, FanInUniform, SiteMap, hidden
from jaxsnn.spiking import Spiking, directly_trained, settled, with_leaf, with_unit_dropout
from jaxsnn.stimulus import EventStream, event_frames, held
from jaxsnn.store import load, load_params, save
from jaxsnn.sweep import Sweep, sweep
from jaxsnn.train import Options, Task, train

__version__ = "0.1.0"

__all__ = [
    "Arch",
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
    "SiteMap",
    "Spiking",
    "Sweep",
    "Task",
    "Trace",
    "alpha",
    "certify",
    "classification",
    "convert",
    "directly_trained",
    "early_exit",
    "evaluate",
    "event_frames",
    "finetune",
    "float_ends",
    "format",
    "forward",
    "fusion",
    "gaps",
    "held",
    "hidden",
    "init_variables",
    "initial_state",
    "load",
    "load_params",
    "neurons",
    "parse",
    "percentiles",
    "plan",
    "quant",
    "save",
    "settle",
    "settled",
    "simulate",
    "spiking_net",
    "streaming",
    "sweep",
    "through_time",
    "totals",
    "train",
    "unpack",
    "watch",
    "with_leaf",
    "with_unit_dropout",
    "zoo",
]
