"""A bug keeps its traceback in every stage of every system; a user's mistake is one line.

Both are raised at the same place, deep below the command line: where a synapse computes its drive,
or, in the stages that compute none, where a file is read or weights become whole numbers. The
weights are those that training starts from, so that nothing is trained.
"""

import traceback

import jax
import pytest
from experiment_runs import run

from jaxsnn.arch import zoo
from jaxsnn.arch.plan import parse
from jaxsnn.errors import UserError
from jaxsnn.exchange import saved
from jaxsnn.io.arrays import flatten, save_arrays
from jaxsnn.network import synapse
from jaxsnn.report import scan
from jaxsnn.systems import settings
from jaxsnn.systems.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.command_line import parse_command
from jaxsnn.systems.fast_snn import FastSnn
from jaxsnn.systems.fast_snn import system as fast_snn
from jaxsnn.systems.negative_spikes import NegativeSpikes
from jaxsnn.systems.scatter_gather import ScatterGather
from jaxsnn.systems.stages import described
from jaxsnn.systems.surrogate_csnn import Csnn

SMALL = parse("4C3s2p1-8nb", input_shape=(32, 32, 1), head_bias=True)
DIGITS = (
    *("--dataset", "digits", "--epochs", "1", "--limit-train", "60", "--limit-test", "10"),
    *("--batch-size", "10"),
)
# script -> system, its settings, further flags of a small run
SYSTEMS = {
    "mnist_lenet": (ScatterGather, settings.LeNetScatter, ()),
    "mnist_negative_spikes": (NegativeSpikes, settings.NegativeSpikesMnist, ("--arch", "mlp")),
    "fast_snn": (FastSnn, settings.FastSnn, ("--bit", "3", "--certify", "10")),
    "bayesian_spike_fusion": (
        *(BayesianSpikeFusion, settings.BayesianSpikeFusion),
        ("--steps", "20", "--calibration", "20", "--tune_images", "10"),
    ),
    "nmnist_csnn": (Csnn, settings.NmnistCsnn, ("--num_steps", "2")),
}
STAGES = [
    (script, stage) for script, (system, *_) in SYSTEMS.items() for stage in described(system)
]
PLACES = {"plot": (scan, "read_results"), "keep": (saved, "whole_weights")}  # else a synapse
TRAINING = ("all", "train", "progressive")  # they begin a run in an empty folder
BUGS = (ValueError, TypeError, KeyError)  # the first is what UserError is a kind of


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fast_snn.ARCHITECTURES, "alex", SMALL)
        patch.setitem(zoo.BSF, "vgg11", "-".join(["4C3s2p1"] * 3 + ["4C3p1"] * 5))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Script -> folder of a run that has weights and results; made when first asked for."""
    made = {}

    def folder_of(script):
        if script not in made:
            system, config_class, further = SYSTEMS[script]
            made[script] = tmp_path_factory.mktemp(script)
            words = ("train", *DIGITS, *further, "--out", str(made[script]))
            one = system(parse_command(config_class, words, described(system))[1])
            one.run.folder.mkdir(parents=True)
            one.run.record(one.run.phases(1))
            weights = jax.device_get(one.task.init(jax.random.key(0)))
            save_arrays(one.run.folder / "model.npz", flatten(weights))
            (one.run.folder / "results.json").write_text("{}")
        return made[script]

    return folder_of


def start(script, stage, folders, error, monkeypatch, fresh):
    """Exit status of a stage in which the deep function raises the error."""
    out = fresh if stage in TRAINING else folders(script)

    def failing(*operands, **options):
        raise error

    module, name = PLACES.get(stage, (synapse, "synapse"))
    monkeypatch.setattr(module, name, failing)
    tiny = (*DIGITS, *SYSTEMS[script][2])
    return run(stage, out=out, tiny=tiny, script=script)


@pytest.mark.parametrize(("script", "stage"), STAGES)
def test_a_bug_keeps_its_traceback(script, stage, folders, monkeypatch, capsys, tmp_path):
    kind = BUGS[STAGES.index((script, stage)) % len(BUGS)]
    folders(script)  # before the fault is there
    with pytest.raises(kind) as caught:
        start(script, stage, folders, kind("a bug"), monkeypatch, tmp_path)
    assert type(caught.value) is kind
    assert "in failing\n" in "".join(traceback.format_exception(caught.value))
    assert "error:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "stage"), [(script, stage) for script, stage in STAGES if stage != "plot"]
)
def test_a_users_mistake_is_one_line(script, stage, folders, monkeypatch, capsys, tmp_path):
    folders(script)
    error = UserError("mend this")
    assert start(script, stage, folders, error, monkeypatch, tmp_path) == 2
    assert capsys.readouterr().err == "error: mend this\n"
