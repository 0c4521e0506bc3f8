"""Energy of a time step: the published constants, the table of seven networks, and the metrics."""

import dataclasses
import math

import numpy as np
import pytest

from jaxsnn import parse
from jaxsnn.arch import zoo
from jaxsnn.report import crossbar_energy
from jaxsnn.report.crossbar_energy import (
    SpikeSim,
    as_coded,
    cycle_energy,
    final_only_energy,
    fused_energy,
)


@pytest.mark.parametrize(
    ("height", "width", "energy"),
    [
        (1, 1, 715.575427),
        (2, 2, 757.916947),
        (4, 1, 757.916947),
        (3, 3, 828.486147),
        (4, 4, 927.283027),
        (8, 8, 1604.747347),
    ],
)
def test_a_cycle_of_every_kernel(height, width, energy):
    assert cycle_energy(height, width) == pytest.approx(energy, abs=1e-6, rel=0)


def vgg(channels, exit_block):
    """VGG of 3x3 convolutions with an exit behind block ``exit_block``, counted from 0."""
    tokens = [f"{c.rstrip('*')}C3{'s2' if c.endswith('*') else ''}p1" for c in channels.split()]
    return "-".join([*tokens[: exit_block + 1], "E", *tokens[exit_block + 1 :]])


def resnet(channels, exit_block):
    """ResNet whose block 0 is a convolution of 64, every other one a residual block."""
    tokens = ["64C3p1"]
    for c in channels.split():
        n, stride = c.rstrip("*"), "s2" if c.endswith("*") else ""
        tokens.append(f"[{n}C3{stride}p1-{n}C3p1]+bias")
    return "-".join([*tokens[: exit_block + 1], "E", *tokens[exit_block + 1 :]])


def built(text, shape=(32, 32, 3), classes=10):
    return parse(text, head_pool=True, head_bias=True, input_shape=shape, classes=classes)


VGG16 = vgg("64 64 128* 128 256* 256 256 512* 512 512 512* 512 512", 6)
VGG19 = vgg("64 64 128* 128 256* 256 256 256 512* 512 512 512 512* 512 512 512", 6)
RESNET34 = resnet("64 64 64 128* 128 128 128 256* 256 256 256 256 256 512* 512 512", 7)

# Trunk, pool and dense layer of the exit, those of the readout, with and without the exit, and the
# same two by the original's accounting: pJ per step.
TABLE = {
    "vgg11 28": (
        dataclasses.replace(zoo.bsf_vgg11, input_shape=(28, 28, 1)),
        (3645339.05, 22288.64, 757.92, 48506.68, 1515.83),
        (3718408.12, 3695361.57),
        (3785274.03, 3736767.34),
    ),
    "vgg11 32": (
        zoo.bsf_vgg11,
        (4241849.07, 25675.96, 757.92, 48506.68, 1515.83),
        (4318305.47, 4291871.59),
        (4395333.34, 4346826.65),
    ),
    "vgg16 32": (
        built(VGG16),
        (7847420.79, 25675.96, 757.92, 48506.68, 1515.83),
        (7923877.18, 7897443.30),
        (8000905.05, 7952398.37),
    ),
    "vgg19 32": (
        built(VGG19),
        (9756252.87, 25675.96, 757.92, 48506.68, 1515.83),
        (9832709.26, 9806275.39),
        (9909737.14, 9861230.45),
    ),
    "vgg19 32, 100 classes": (
        built(VGG19, classes=100),
        (9756252.87, 25675.96, 1515.83, 48506.68, 3031.67),
        (9834983.01, 9807791.22),
        (9912010.89, 9863504.20),
    ),
    "resnet18 32": (
        zoo.bsf_resnet18,
        (17912602.17, 17258.42, 757.92, 59346.11, 1515.83),
        (17991480.45, 17973464.12),
        (18250356.73, 18191010.62),
    ),
    "resnet34 32, 100 classes": (
        built(RESNET34, classes=100),
        (37348513.11, 17258.42, 1515.83, 59346.11, 3031.67),
        (37429665.14, 37410890.89),
        (37688541.42, 37629195.30),
    ),
}
HEADS = ("exit1.pool", "exit1", "readout.pool", "readout")


@pytest.mark.parametrize("network", TABLE)
def test_the_published_networks(network):
    arch, parts, energies, coded = TABLE[network]
    actual = crossbar_energy.step_energy(arch)
    trunk = sum(energy for name, energy in actual.items() if name not in HEADS)
    close = {"abs": 1e-2, "rel": 0}
    assert (trunk, *(actual[head] for head in HEADS)) == pytest.approx(parts, **close)
    assert (fused_energy(arch), final_only_energy(arch)) == pytest.approx(energies, **close)
    assert as_coded(arch) == pytest.approx(coded, **close)
    exit_head = actual["exit1.pool"] + actual["exit1"]
    assert fused_energy(arch) - final_only_energy(arch) == pytest.approx(exit_head, abs=1e-6)


def test_layers_by_hand():
    """A small network of every kind of layer; cycles counted by hand."""
    arch = parse("70C5-MP2-AP2-[65C3s2p1-65C3p1]+bias-E-200", input_shape=(20, 20, 3), classes=7)
    actual = crossbar_energy.step_energy(arch)
    cycles = {
        "conv1": 1 * 2 * 16 * 16 * cycle_energy(5, 5),  # before max pooling
        "avgpool1": 2 * 2 * 4 * 4 * cycle_energy(2, 2),  # 16 -> 8 -> 4
        "block1.conv1": 2 * 2 * 2 * 2 * cycle_energy(3, 3),
        "block1.shortcut": 2 * 2 * 2 * 2 * cycle_energy(1, 1),
        "block1.conv2": 2 * 2 * 2 * 2 * cycle_energy(3, 3),
        "exit1.pool": 2 * 2 * cycle_energy(2, 2),
        "exit1": 1 * 1 * cycle_energy(4, 1),  # 65 / 4 = 16.25
        "dense1": 2 * 4 * cycle_energy(4, 1),  # 2 * 2 * 65 / 4 = 65 channels, 200 units
        "readout": 1 * 1 * cycle_energy(4, 1),  # 200 / 4 = 50
    }
    assert actual == pytest.approx(cycles)
    assert list(actual) == list(cycles)


def test_without_an_exit_both_are_the_same():
    arch = parse("64C3p1", head_pool=True)
    assert fused_energy(arch) == final_only_energy(arch)


def test_every_exit_is_left_out_of_the_baseline():
    both = parse("64C3p1-E-64C3p1-E-64C3p1", head_pool=True)
    none = parse("64C3p1-64C3p1-64C3p1", head_pool=True)
    assert final_only_energy(both) == pytest.approx(fused_energy(none), rel=1e-12)
    assert fused_energy(both) > fused_energy(none)


def test_constants_can_be_others():
    """Crossbars of 16 cells: X/8 = 2, and only the converter costs anything."""
    silent = {field.name: 0.0 for field in dataclasses.fields(SpikeSim)}
    others = SpikeSim(**{**silent, "crossbar_size": 16, "converter": 3.0})
    assert cycle_energy(3, 3, others) == 2 * 2 * 3.0
    arch = parse("40C3p1", input_shape=(8, 8, 17), classes=10, head_pool=True)
    assert crossbar_energy.step_energy(arch, others) == {
        "conv1": 2 * 3 * 64 * 12.0,
        "readout.pool": 3 * 3 * 12.0,
        "readout": 12.0,
    }
    arch = parse("40C3p1-E", input_shape=(8, 8, 17), classes=10, head_pool=True)
    assert final_only_energy(arch, others) == (2 * 3 * 64 + 9 + 1) * 12.0
    assert crossbar_energy.saving(1, 2, arch, others) == pytest.approx(100 * (1 - 404 / 788))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neuron": -1.0}, "neuron is -1.0; give a finite energy"),
        ({"fetch": math.nan}, "fetch is nan"),
        ({"crossbar_size": 0}, "crossbar_size must be an integer of at least 1, got 0"),
    ],
)
def test_constants_that_no_hardware_has_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SpikeSim(**change)


@pytest.mark.parametrize("size", [(0, 3), (3, -1), (2.5, 2)])
def test_a_kernel_without_size_is_refused(size):
    with pytest.raises(ValueError, match="of the kernel must be an integer of at least 1"):
        cycle_energy(*size)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("64C3p1", {"head_pool": True}, "0 exits and head_pool=True"),
        ("64C3p1-E-64C3p1-E", {"head_pool": True}, "2 exits"),
        ("64C3p1-E", {"head_pool": False}, "1 exits and head_pool=False"),
    ],
)
def test_what_the_original_did_not_account_for_is_refused(text, options, message):
    with pytest.raises(ValueError, match=message):
        as_coded(parse(text, **options))


# --- metrics --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "step"), [(0.0, 1), (0.1, 1), (0.11, 2), (0.5, 2), (0.55, 4), (0.9, 4), (0.91, None)]
)
def test_the_first_step_that_is_accurate_enough(target, step):
    assert crossbar_energy.first_step(np.array([0.1, 0.5, 0.4, 0.9]), target) == step


def test_the_saving_of_the_specification():
    """100 (1 - 600 * 4318305.47 / (1000 * 4291871.59)) = 39.63 per cent."""
    assert crossbar_energy.saving(600, 1000, zoo.bsf_vgg11) == pytest.approx(39.63, abs=0.005)
    assert crossbar_energy.saving(1000, 1000, zoo.bsf_vgg11) < 0
    assert crossbar_energy.saving(None, 1000, zoo.bsf_vgg11) is None
    assert crossbar_energy.saving(600, None, zoo.bsf_vgg11) is None


def test_the_gain_in_area_by_hand():
    """In units of a step without exits: the baseline reaches .8 after 3, fusion in its third step.

    With r units for a step of fusion, its area is r (.3 + .7) / 2 up to 2 r, and from there to 3
    (3 - 2 r) (.7 + last) / 2, where last lies on the line from .7 at 2 r to .92 at 3 r.
    """
    arch = parse("64C3p1-E", head_pool=True, input_shape=(8, 8, 3))
    ratio = fused_energy(arch) / final_only_energy(arch)
    fused, final = [0.3, 0.7, 0.92, 0.95], [0.2, 0.4, 0.8, 0.9]
    last = 0.7 + 0.22 * (3 - 2 * ratio) / ratio
    area = ratio * 0.5 + (3 - 2 * ratio) * (0.7 + last) / 2
    baseline = (0.2 + 0.4) / 2 + (0.4 + 0.8) / 2
    actual = crossbar_energy.area_gain(fused, final, 0.8, arch)
    assert 1 < ratio < 1.5
    assert actual == pytest.approx(100 * (area / baseline - 1), rel=1e-9)


def test_no_area_without_a_crossing():
    arch = zoo.bsf_vgg11
    curve = [0.2, 0.4, 0.8]
    assert crossbar_energy.area_gain(curve, curve, 0.9, arch) is None  # not reached
    assert crossbar_energy.area_gain(curve, curve, 0.1, arch) is None  # at once
    assert (
        crossbar_energy.area_gain(curve, curve, 0.8, arch) < 0
    )  # the exits cost, and gain nothing


@pytest.mark.parametrize(
    ("fused", "final", "message"),
    [
        ([], [0.5], r"fused has shape \(0,\)"),
        ([0.5], [], r"accuracies has shape \(0,\)"),
        ([[0.5]], [0.5], r"fused has shape \(1, 1\)"),
        ([0.5, math.nan], [0.5, 0.6], "one finite accuracy"),
        ([0.5], [0.1, 0.2, 0.6], "fused has 1 steps, fewer than the 3.0 that cost as much as 3"),
    ],
)
def test_curves_that_do_not_fit_are_refused(fused, final, message):
    with pytest.raises(ValueError, match=message):
        crossbar_energy.area_gain(fused, final, 0.6, zoo.bsf_vgg11)


def test_bad_steps_and_targets_are_refused():
    with pytest.raises(ValueError, match="fused_step must be an integer of at least 1, got 0"):
        crossbar_energy.saving(0, 5, zoo.bsf_vgg11)
    with pytest.raises(ValueError, match="target is nan"):
        crossbar_energy.first_step([0.5], math.nan)
