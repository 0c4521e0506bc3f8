"""Energy ledger: every expected number is worked out by hand from the price table."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from jaxsnn.report.energy import (
    HOROWITZ,
    LINES,
    LayerCounts,
    Line,
    Prices,
    break_even_rate,
    energy_ledger,
)


def counts(**changes: Any) -> LayerCounts:
    """One ternary layer: 1,000 MACs, 300 synaptic operations, 40 neurons, 60 spikes."""
    fields: dict[str, Any] = {
        "name": "conv2",
        "macs": 1000,
        "synaptic_operations": 300,
        "neurons": 40,
        "updates": 40,
        "spikes": 60,
        "weights": "ternary",
    }
    return LayerCounts(**(fields | changes))


def encoder(**changes: Any) -> LayerCounts:
    """An 8-bit encoder: 200 MACs, 10 neurons, 20 spikes."""
    fields: dict[str, Any] = {
        "name": "conv1",
        "macs": 200,
        "synaptic_operations": 0,
        "neurons": 10,
        "updates": 10,
        "spikes": 20,
        "weights": "int8",
        "encoder": True,
    }
    return LayerCounts(**(fields | changes))


def test_the_price_table_is_that_of_the_source():
    # Horowitz, ISSCC 2014, 45 nm; the cache's 10 pJ are for 64 bits.
    expected = {
        "float32_multiply": 3.7,
        "float32_add": 0.9,
        "int8_multiply": 0.2,
        "int8_add": 0.03,
        "int32_add": 0.1,
        "memory_word": 10 / 2,
    }
    table = dataclasses.asdict(HOROWITZ)
    assert "Horowitz, ISSCC 2014" in table.pop("source")
    assert table == expected
    assert math.isclose(HOROWITZ.float32_mac, 4.6)


def test_convention_line():
    line = energy_ledger([encoder(), counts()]).convention
    # ANN: (200 + 1000) * 4.6 = 5520; SNN: 200 * 4.6 + 300 * 0.9 = 920 + 270
    assert line.ann == pytest.approx(5520)
    assert line.snn == pytest.approx(1190)
    assert line.encoder == pytest.approx(920)
    assert line.snn_fixed == pytest.approx(920)


def test_integer_line():
    line = energy_ledger([encoder(), counts(adds_per_update=4)]).integer
    # encoder: 200 * (0.2 + 0.1) = 60 on both sides; ternary MACs: 1000 * 0.1 = 100
    assert line.encoder == pytest.approx(60)
    assert line.ann == pytest.approx(160)
    # updates: 10 * 2 * 0.1 + 40 * 4 * 0.1 = 18; synaptic operations: 300 * 0.1 = 30
    assert line.snn_fixed == pytest.approx(78)
    assert line.snn == pytest.approx(108)


@pytest.mark.parametrize(
    ("weights", "ann", "snn"),
    [("ternary", 100.0, 38.0), ("int8", 300.0, 38.0), ("float32", 4600.0, 342.0)],
)
def test_integer_line_by_kind_of_weight(weights: str, ann: float, snn: float):
    # ANN: 1000 * (multiply + add); SNN: (300 + 40 * 2) * add
    line = energy_ledger([counts(weights=weights)]).integer
    assert line.ann == pytest.approx(ann)
    assert line.snn == pytest.approx(snn)


def test_words_line():
    ledger = energy_ledger([encoder(), counts()])
    # SNN weights: 300 + 200; potentials: 2 * 300 + 2 * 50 updates; spikes: 2 * 80, pixels: 200
    assert dataclasses.astuple(ledger.snn_words) == (500, 700, 360)
    # ANN: 1200 weights, 1200 activations read and 50 written, no potentials
    assert dataclasses.astuple(ledger.ann_words) == (1200, 0, 1250)
    assert ledger.words.snn == pytest.approx(5 * 1560)
    assert ledger.words.ann == pytest.approx(5 * 2450)
    assert ledger.words.encoder == pytest.approx(5 * 400)
    assert ledger.words.snn_fixed == pytest.approx(5 * 500)


def test_scatter_and_gather_lenet_as_published():
    """Counts of the spec, section 3.5 (k=1, B=2), on the network's five ternary layers."""
    hidden = counts(
        macs=4_849_664,
        synaptic_operations=3_240_042,
        neurons=26_880 - 12_544,
        updates=26_880 - 12_544,
        spikes=16_843.9 - 6_665.4,
        adds_per_update=4,
    )
    first = encoder(macs=313_600, neurons=12_544, updates=12_544, spikes=6_665.4, adds_per_update=4)
    ledger = energy_ledger([first, hidden])
    assert ledger.convention.snn == pytest.approx(1_442_560 + 2_916_037.8)
    assert ledger.convention.ann == pytest.approx(1_442_560 + 22_308_454.4)
    assert ledger.integer.snn == pytest.approx(94_080 + 10_752 + 324_004.2)
    assert ledger.integer.ann == pytest.approx(94_080 + 484_966.4)
    # 3 * 3,240,042 + 2 * 26,880 + 2 * 16,843.9 words against 2 * 4,849,664 + 26,880
    assert ledger.snn_words.total - 627_200 == pytest.approx(9_807_573.8)
    assert ledger.ann_words.total - 627_200 == pytest.approx(9_726_208)
    assert ledger.spikes_per_neuron == pytest.approx(0.62663, abs=1e-5)
    # By arithmetic the SNN is cheaper at its 0.63 spikes per neuron, by traffic just not.
    rates = ledger.break_even()
    assert rates["integer"] is not None
    assert rates["integer"] > ledger.spikes_per_neuron
    assert rates["words"] is not None
    assert rates["words"] < ledger.spikes_per_neuron


def test_break_even_rate_solves_for_equal_cost():
    measured = energy_ledger([encoder(), counts()])
    for name, rate in measured.break_even().items():
        assert rate is not None
        factor = rate / measured.spikes_per_neuron
        scaled = [
            encoder(spikes=20 * factor),
            counts(synaptic_operations=300 * factor, spikes=60 * factor),
        ]
        line = getattr(energy_ledger(scaled), name)
        assert line.snn == pytest.approx(line.ann), name


def test_break_even_rate_by_hand():
    # fixed 10, spikes cost 40 at 0.8 per neuron, ANN 30: half the spikes, 0.4
    assert break_even_rate(Line(50, 30, 10, 0), 0.8) == pytest.approx(0.4)


def test_break_even_rate_without_an_answer():
    assert break_even_rate(Line(snn=9, ann=4, snn_fixed=5, encoder=0), 0.5) == 0
    assert break_even_rate(Line(snn=5, ann=9, snn_fixed=5, encoder=0), 0.0) is None


def test_more_steps_cost_more_updates_only():
    one, ten = energy_ledger([counts()]), energy_ledger([counts(updates=400)])
    assert ten.convention == one.convention
    assert ten.integer.snn - one.integer.snn == pytest.approx(360 * 2 * 0.1)
    assert ten.words.snn - one.words.snn == pytest.approx(360 * 2 * 5)
    assert (ten.integer.ann, ten.words.ann) == (one.integer.ann, one.words.ann)


def test_frames_are_passes_of_the_whole_ann():
    """Ten frames: ten times its MACs and words; the SNN pays ten encoders, and its own spikes."""
    one, ten = (energy_ledger([encoder(passes=n), counts(passes=n)]) for n in (1, 10))
    for line in LINES:
        assert getattr(ten, line).ann == pytest.approx(10 * getattr(one, line).ann)
        assert getattr(ten, line).encoder == pytest.approx(10 * getattr(one, line).encoder)
    encoders = {"convention": 200 * 4.6, "integer": 200 * (0.2 + 0.1), "words": 2 * 200 * 5}
    for line, paid in encoders.items():
        assert getattr(ten, line).snn - getattr(one, line).snn == pytest.approx(9 * paid)


def test_other_prices_reach_every_line():
    doubled = Prices(
        **{
            name: 2 * value if isinstance(value, float) else value
            for name, value in dataclasses.asdict(HOROWITZ).items()
        }
    )
    once, twice = (
        energy_ledger([encoder(), counts()]),
        energy_ledger([encoder(), counts()], doubled),
    )
    for name in LINES:
        for field in ("snn", "ann", "snn_fixed", "encoder"):
            assert getattr(getattr(twice, name), field) == pytest.approx(
                2 * getattr(getattr(once, name), field)
            )


def test_json_holds_the_three_lines():
    record = energy_ledger([encoder(), counts()]).to_json()
    assert set(record) == {"convention", "integer", "words", "source"}
    assert record["convention"]["snn"] == pytest.approx(1190)
    assert record["words"]["snn_words"] == 1560
    assert record["words"]["ann_words"] == 2450
    # (5520 - 920) / 270 of the measured 80 spikes on 50 neurons
    assert record["convention"]["break_even_rate"] == pytest.approx(4600 / 270 * 1.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macs": -1}, "'conv2': macs is -1"),
        ({"spikes": math.nan}, "'conv2': spikes is nan"),
        ({"weights": "int4"}, "'conv2': weights are 'int4'; known: ternary, int8, float32"),
        ({"encoder": True}, "'conv2': an encoder receives no spikes"),
    ],
)
def test_impossible_counts_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        counts(**changes)


def test_a_network_without_neurons_is_refused():
    with pytest.raises(ValueError, match="no neurons in 0 layers"):
        energy_ledger([])
