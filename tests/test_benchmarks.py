"""Every benchmark runs and says what it should; no number is checked against a clock."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Net, convert, hidden, init_variables, methods, neurons, plan, simulate
from jaxsnn.arch import zoo
from jaxsnn.arch.plan import parse
from jaxsnn.io.arrays import flatten, save_arrays
from jaxsnn.network import synapse as synapse_module
from jaxsnn.training.recipe import FAST

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
OURS = (
    *("common", "training", "simulation", "lowering", "negative_spikes", "surrogate_training"),
    *("fast_snn", "rate_coded", "accelerator", "winograd", "converter", "recipe"),
)


@pytest.fixture
def benchmark(monkeypatch):
    """Import a script of the folder, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in OURS:
        sys.modules.pop(name, None)


def records(capsys):
    """The JSON lines of stdout by name, and stderr."""
    printed = capsys.readouterr()
    return {line["name"]: line for line in map(json.loads, printed.out.splitlines())}, printed.err


@pytest.mark.slow
def test_converter(benchmark, capsys):
    script = benchmark("converter")
    script.main(["--images", "40"])
    rows, _ = records(capsys)
    row = rows["digits, jaxsnn"]
    assert row["as_it_is"] >= 0.9
    assert len(row["after"]) == len(script.TIMES) == 5
    assert row["after"][-1] >= row["as_it_is"] - 0.05  # after 100 steps
    assert row["after"][0] < row["after"][-1]


@pytest.mark.slow
def test_recipe(benchmark, capsys, tmp_path, monkeypatch):
    """Every row is trained once, and differs from the recipe by what its name says."""
    script = benchmark("recipe")
    flags = ["--quick", "--seeds", "1", "--rows", "as it is", "norm_scale 0.5"]
    flags += ["--out", str(tmp_path)]
    script.main(flags)
    rows, table = records(capsys)
    plain, smaller = rows["as it is, seed 0"], rows["norm_scale 0.5, seed 0"]
    assert plain["accuracy"] > 0.5
    assert smaller["spikes"] < plain["spikes"]  # levels are half as high
    assert "`--norm-scale 0.5`" in table
    monkeypatch.setattr(script, "measured", None)  # nothing is done twice
    script.main(flags)
    again, _ = records(capsys)
    assert again["as it is, seed 0"]["accuracy"] == plain["accuracy"]
    script.main(["--show", *flags])
    shown = capsys.readouterr().out.splitlines()
    share = f"{100 * (smaller['spikes'] / plain['spikes'] - 1):+.2f} ± 0.00 %"
    assert [share in line for line in shown[2:]] == [False, True]


def test_every_row_of_the_recipe_changes_parts_that_there_are(benchmark):
    script = benchmark("recipe")
    for row, change in script.CHANGES.items():
        part = row.split()[0]
        assert part in change, row
        recipe = dataclasses.replace(FAST, **change)
        assert getattr(recipe, part) != getattr(FAST, part), row


def test_the_recipe_refuses_rows_and_folders_of_something_else(benchmark, capsys, tmp_path):
    """A record of six epochs is none of twelve."""
    script = benchmark("recipe")
    folder = ["--out", str(tmp_path)]
    (tmp_path / script.COMMON).write_text('{"epochs": 6, "width": 0.25, "quick": false}')
    assert script.arguments([*folder, "--rows", "norm_scale 0", "flip"]).rows == [
        *("flip random", "flip none", "norm_scale 0.5", "norm_scale 0.7"),
    ]
    for more in (["--rows", "as it is", "colour"], ["--epochs", "12"], ["--quick"]):
        with pytest.raises(SystemExit):
            script.main([*folder, *more])
    assert capsys.readouterr().err.count("holds runs of {'epochs': 6") == 2


@pytest.mark.slow
def test_simulation(benchmark, capsys, tmp_path):
    weights = tmp_path / "model.npz"
    fresh = init_variables(Net(zoo.lenet_scatter, hidden(neurons.identity())), jax.random.key(0))
    save_arrays(weights, {name: np.asarray(leaf) for name, leaf in flatten(fresh).items()}, {})
    benchmark("simulation").main(["--quick", "--weights", str(weights)])
    rows, table = records(capsys)
    for name in ("simulation", "latency, batch 1", "4 seeds apart", "8 steps, block 8"):
        assert rows[name]["images_per_s"] > 0
        assert {"versions", "device", "commit", "best_ms", "median_ms"} <= rows[name].keys()
    # These do not depend on the clock.
    assert rows["sweep equals its single runs"]["value"] is True
    assert rows["sweep: compiles"]["value"] == 1
    assert rows["sweep: encoder drives per batch"]["value"] == 1
    assert rows["memory, batch 100"]["bytes"] > rows["memory, batch 1"]["bytes"]
    assert "met" in table


@pytest.mark.slow
def test_training(benchmark, capsys):
    training = benchmark("training")
    training.main(["--quick"])
    rows, table = records(capsys)
    assert rows["lenet jaxsnn float32"]["images"] == 8
    assert rows["lenet jaxsnn float32"]["images_per_s"] > 0
    assert 0 < rows["lenet jaxsnn float32"]["share_of_peak"] < 1
    if training.torch_version() is None:
        assert "PyTorch is not installed" in table
        assert not any("torch" in name for name in rows)
        pytest.skip("torch is not installed (extra bench): no comparison")
    assert rows["lenet: ours over torch's, float32"]["value"] > 0


@pytest.mark.parametrize("name", ["lenet_fp32", "cnn1", "vgg11", "alex"])
def test_the_networks_compared_are_the_same(benchmark, name):
    """In float32 PyTorch's network gives the loss of ours."""
    pytest.importorskip("torch", reason="torch is not installed (extra bench)")
    training, common = benchmark("training"), benchmark("common")
    dataset = common.images_of(common.arguments("networks", []), 4)
    batch = training.batch_of(dataset, name, 4)
    one = training.case(name, batch.images.shape[1:], dataset.classes)
    variables = init_variables(one.net, jax.random.key(0))
    # A quantiser turns the last bit of a sum into a level.
    close = 1e-4 if one.activation == "relu" else 0.05
    assert abs(training.loss_difference(one, batch, variables)) < close


@pytest.mark.slow
def test_lowering(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lowering.py", "--quick", "--only", "lenet.conv4"])
    benchmark("lowering").main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["lowering"] for line in lines} >= {"direct", "patches"}
    assert all(line["exact"] for line in lines if line["pass"] == "forward")


@pytest.mark.parametrize("flags", [[], ["--every"]], ids=["what is chosen", "every"])
def test_winograd(benchmark, capsys, flags):
    benchmark("winograd").main(["--quick", "--repeats", "1", "--processor-time", *flags])
    rows, table = records(capsys)
    assert rows["quick: direct"]["error"] < 1e-6
    tiles = [line for name, line in rows.items() if "quick: tile" in name]
    assert len(tiles) == (5 if flags else 1)  # tiles of 2: 4, 8, 16 images; of 4 and 6: 16
    assert all(0 < line["error"] < 3e-5 for line in tiles)
    assert ("quick: speed over direct" in rows) == (not flags)
    assert "times as fast" in table


@pytest.mark.slow
def test_negative_spikes(benchmark, capsys):
    script = benchmark("negative_spikes")
    script.main(["--quick", "--processor-time"])
    rows, table = records(capsys)
    for name in (script.INTEGERS, script.WIDER, "float32", script.STOP):
        assert rows[name]["images"] == 4
        assert rows[name]["clock"] == "processor"
    # These do not depend on the clock.
    assert rows["settle stop: predictions that differ"]["value"] == 0
    assert rows["temporary memory, T = 160 over T = 10"]["met"]
    if "SpikingJelly is not installed" in table:
        assert not any(script.PEER in name for name in rows)
        pytest.skip("spikingjelly is not installed (extra bench): no comparison")
    assert rows[f"{script.WIDER} over SpikingJelly IF, float32"]["goal"] == ">= 1.5"
    assert rows["settle stop over SpikingJelly IF, float32"]["value"] > 0
    assert rows["SpikingJelly ST-BIF, float32: predictions that differ"]["value"] == 0


@pytest.mark.slow
def test_fewer_steps(benchmark, capsys, monkeypatch):
    script = benchmark("fewer_steps")
    kept = (script.PLAIN, "rising", "per_step=2")
    monkeypatch.setattr(script, "WAYS", {name: script.WAYS[name] for name in kept})
    script.main(["--quick"])
    rows, _ = records(capsys)
    assert {rows[name]["equality"] for name in kept} == {"exact after settling"}
    assert len({rows[name]["accuracy"] for name in kept}) == 1  # they settle on the same counts
    plain, rising, double = (rows[name] for name in kept)
    for row in (plain, rising):  # every spike is an event of its own
        assert row["events"] == row["spikes"]
        assert row["event_operations"] == row["operations"]
    assert double["events"] < double["spikes"]
    assert double["last_max"] < plain["last_max"]
    assert rising["negative"] <= plain["negative"]


@pytest.mark.slow
def test_surrogate_training(benchmark, capsys):
    """Every row runs in a process of its own, without torch or spyx."""
    benchmark("surrogate_training").main(["--quick", "--dataset", "digits"])
    rows, table = records(capsys)
    one, two = "csnn jaxsnn, micro-batch 4", "csnn jaxsnn, micro-batch 2, 2 devices"
    for name in (one, two):
        assert (rows[name]["steps"], rows[name]["images"]) == (5, 8)
        assert rows[name]["images_per_s"] > 0
    # The same weights and images: how the batch is divided does not matter.
    assert rows[one]["loss"] == pytest.approx(rows[two]["loss"], rel=1e-5)
    assert rows["linear jaxsnn, N 8, micro-batch 2"]["loss"] > 0
    # This does not depend on the clock: blocks keep less than all steps do.
    size = {
        (micro, block): rows[f"memory jaxsnn{micro}{block}"]["bytes"]
        for micro in ("", ", micro-batch 2")
        for block in ("", ", time block 4")
    }
    assert size["", ", time block 4"] < size["", ""]
    assert "memory jaxsnn" in table
    assert not any("snnTorch" in name or "spyx" in name for name in rows)


def test_the_spiking_networks_compared_are_the_same(benchmark):
    """SpikingJelly's signed neuron follows ours at every step, from the scaled numbers alone."""
    pytest.importorskip("spikingjelly", reason="spikingjelly is not installed (extra bench)")
    script = benchmark("negative_spikes")
    options = script.arguments(["--quick"])
    chosen = script.case(options)
    theirs = script.Theirs(chosen.integer, chosen.units, 12, "ST-BIF", "float32")()
    mine = np.asarray(simulate(chosen.integer, chosen.units, steps=12).predictions)
    assert len(np.unique(mine)) > 1
    assert np.array_equal(theirs, mine)


def test_thresholds_are_scaled_to_one(benchmark):
    leaves = {
        "first": [5, -(2**31), 2, 7],  # the second is always reached, up to 3 spikes
        "step": [4, 0, 0, 0],
        "first_fraction": [65535, 0, 32767, 65535],  # a whole 5; 1.5 rounded up by the rest
        "step_fraction": [0, 0, 32768, 0],
        "highest": [127, 3, 127, 1],  # the last has no second threshold
    }
    kernel, initial = benchmark("negative_spikes").scaled(np.full((1, 4), 8), leaves)
    assert kernel.tolist() == [[2, 0, 16, 8]]
    # 1 - 5 / 4; half above 3; 1 - 1.5 / 0.5; 1 - 7 / 1
    assert initial.tolist() == [-0.25, 3.5, -2, -6]


def test_a_readout_has_no_neuron(benchmark):
    kernel, initial = benchmark("negative_spikes").scaled(np.full((1, 2), 8, np.int8), {})
    assert kernel.tolist() == [[8, 8]]
    assert initial is None


def test_batch_statistics_are_those_of_the_images(benchmark):
    net = Net(parse("2C1", input_shape=(2, 2, 1), classes=2), hidden(neurons.relu()))
    x = jnp.arange(12.0).reshape(3, 2, 2, 1)  # mean 5.5, variance 143 / 12
    actual = benchmark("negative_spikes").calibrated(net, x)
    kernel = np.asarray(actual["params"]["conv1"]["kernel"]).ravel()
    norm = actual["batch_stats"]["conv1"]["norm"]
    np.testing.assert_allclose(norm["mean"], 5.5 * kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["var"], 143 / 12 * kernel**2, rtol=1e-3, atol=1e-5)


def test_goals_are_called_met_and_not_met(benchmark, capsys):
    report = benchmark("common").Report("trial")
    assert report.goal("fast", 2.0, 1, at_least=True)
    assert not report.goal("slow", 1.21, 1.2, at_least=False)
    rows, _ = records(capsys)
    assert rows["fast"]["met"]
    assert rows["slow"]["goal"] == "<= 1.2"
    assert not rows["slow"]["met"]


def test_ratio_is_the_median_of_the_rounds(benchmark):
    timing = benchmark("common").Timing
    ours, theirs = timing(9.0, (1.0, 10.0, 3.0)), timing(9.0, (2.0, 4.0, 3.0))
    assert theirs.over(ours) == 1.0  # rounds: 2, 0.4, 1
    assert (ours.best, ours.median) == (1.0, 3.0)


def test_multiply_accumulates_of_a_program(benchmark):
    macs = benchmark("simulation").macs
    site = plan(zoo.lenet_scatter)[0]
    x, kernel = jnp.zeros((3, *site.in_shape)), jnp.zeros(site.kernel_shape)

    @jax.jit
    def program(x, kernel):
        def body(total, part):
            out = jax.lax.conv_general_dilated(
                part[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            return total + jnp.sum(out[0, 0] @ jnp.ones((16, 5))), None

        return jax.lax.scan(body, 0.0, x)[0]

    # Three images: the encoder's own count, and 28 rows times 16 x 5.
    assert macs(jax.make_jaxpr(program)(x, kernel).jaxpr) == 3 * (site.macs + 28 * 16 * 5)


@pytest.mark.slow
def test_fast_snn(benchmark, capsys):
    benchmark("fast_snn").main(["--quick"])
    rows, table = records(capsys)
    for name in ("quantised ANN", "SNN, block = T", "SNN, block = 1", "SNN, settling"):
        assert rows[name]["images_per_s"] > 0
    # At rest the spiking network is the quantised ANN, half a level apart from it at most.
    assert rows["SNN, settling: predictions that differ from the ANN's"]["value"] <= 1
    assert rows["update over the sum of its parts"]["goal"] == "<= 1.2"
    assert "<= 2.5" in table


@pytest.mark.slow
def test_rate_coded(benchmark, capsys):
    script = benchmark("rate_coded")
    script.main(["--quick"])
    rows, table = records(capsys)
    for name in (script.INTEGERS, script.SKIPPED, script.FLOATS, script.STOP):
        assert rows[name]["images"] == 6
        assert rows[name]["images_per_s"] > 0
    # These do not depend on the clock.
    assert rows[script.SKIPPED]["correct"] == rows[script.INTEGERS]["correct"]
    assert rows["steps of an image"]["of"] == 6
    assert 6 <= rows["steps of an image"]["mean"] <= 40  # three layers and a head of two stages
    if "SpikingJelly is not installed" in table:
        assert not any(script.PEER in name for name in rows)
        pytest.skip("spikingjelly is not installed (extra bench): no comparison")
    apart = [row for name, row in rows.items() if name.endswith("spikes apart")]
    assert len(apart) == 3
    for row in apart:
        assert row["value"] < 1e-3
        assert set(row["layers"]) == {"conv1", "conv2", "conv3", "exit1", "readout"}
        assert all(one["ours"] > 0 for one in row["layers"].values())
    assert rows[f"{script.INTEGERS} over SpikingJelly"]["goal"] == ">= 1.3"
    assert rows[f"{script.STOP} over SpikingJelly"]["goal"] == ">= 3"


def test_the_rule_of_a_run_is_read(benchmark, tmp_path):
    values = {"scores": [0.5, 1], "probabilities": [0.2, 0.9], "threshold": 0.8, "earliest": 11}
    arrays = {name: np.asarray(one) for name, one in values.items()}
    save_arrays(tmp_path / "stop_rule.npz", arrays, {"alpha": "grid"})
    for coded, curve in (("emp", [7.0, 7.0]), ("grid", [1.0, 3.0])):
        save_arrays(tmp_path / f"division_linear_alpha_{coded}.npz", {"y": np.array(curve)})
    rule = benchmark("rate_coded").rule_of(tmp_path)
    assert np.asarray(rule.alpha).tolist() == [1.0, 3.0]
    assert (float(rule.threshold), int(rule.earliest)) == (0.8, 11)
    assert rule.calibration.probability(0.75).item() == pytest.approx(0.55)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*still spike in step 4")
def test_accelerator(benchmark, capsys):
    accelerator = benchmark("accelerator")
    accelerator.main(["--quick", "--cases", "peak", "simulate", "train", "linear"])
    rows, table = records(capsys)
    assert rows["sums of bfloat16 products exact up to 2^24"]["value"] is True
    for name in ("peak bfloat16", "peak float32", "peak int8", "peak memory"):
        assert rows[name]["value"] > 0
    for name in ("bfloat16, blocks of 1", "bfloat16, blocks of 2", "bfloat16, blocks of 4"):
        row = rows[f"simulate, {name}"]
        assert min(row["images_per_s"], row["products_s"], row["memory_s"]) > 0
        assert row["bound"] in ("products", "memory")
    assert rows["what is simulated"]["dataset"] == "digits"
    differ = {name: row["value"] for name, row in rows.items() if "that differ" in name}
    assert len(differ) == 5  # blocks of 1, 2 and 4, float32, int8
    assert set(differ.values()) == {0}
    assert rows["certificate"]["mismatches"] == 0
    assert rows["certificate"]["equality"] == "exact after settling"
    assert rows["train, batch 8"]["images_per_s"] > 0
    assert rows["linear jaxsnn, N 8, micro-batch 2"]["loss"] > 0
    assert "goal" in table


def test_the_peaks_time_of_a_simulation(benchmark):
    """Operations and bytes counted by hand for one convolution and the readout behind it."""
    accelerator = benchmark("accelerator")
    arch = parse("2C3-4C3", norm=False, input_shape=(6, 6, 1), classes=3)
    fresh = init_variables(Net(arch, hidden(neurons.quantised_relu(1))), jax.random.key(0))
    snn = convert(fresh, arch, methods.negative_spikes(k=1, bound=None, weight_bits=7))
    peaks = accelerator.Peak({"bfloat16": 1000.0, "int8": 2000.0}, 100.0)
    products, memory = accelerator.seconds_at_peak(snn, "bfloat16", 5, peaks)
    # conv2: 2x2 outputs of 4 channels from 3x3x2; readout: 3 outputs from 16
    assert products == 5 * 2 * (4 * 18 * 4 + 16 * 3) / 1000
    currents = 4 * (4 * 4 * 2) + 2 * 4 * (2 * 2 * 4) + 2 * 4 * 3  # the first is read alone
    spikes = 2 * (4 * 4 * 2 + 2 * 2 * 4 + 3)
    states = 2 * 8 * (4 * 4 * 2 + 2 * 2 * 4)  # potential and net count, int32; the readout has none
    windows = 2 * 2 * (4 * 18)
    assert memory == pytest.approx(5 * (currents + spikes + states + windows) / 100)
    int8 = accelerator.seconds_at_peak(snn, "int8", 5, peaks)
    assert int8 == pytest.approx((products / 2, memory - 5 * windows / 2 / 100))


def test_a_dtype_is_forced_on_spikes_alone(benchmark):
    accelerator = benchmark("accelerator")
    site = plan(parse("2C3", norm=False, input_shape=(6, 6, 1), classes=3))[0]
    kernel, spikes = jnp.ones(site.kernel_shape, jnp.int8), jnp.ones((1, 6, 6, 1), jnp.int8)

    def program(x, accumulator="float32"):
        synapse = synapse_module.synapse
        return str(jax.make_jaxpr(lambda x: synapse(x, kernel, site, accumulator))(x))

    plain = program(spikes)
    with accelerator.computed_in("bfloat16"):
        assert "bf16" in program(spikes)
        assert "bf16" not in program(spikes.astype(jnp.uint8))
        assert "bf16" not in program(spikes, "int32")
    assert program(spikes) == plain
