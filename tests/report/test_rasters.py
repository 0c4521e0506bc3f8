"""Rasters and membranes: a mark for every spike, lines that are the data."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxsnn.report.figures import rasters
from jaxsnn.report.figures.rasters import membranes, raster

STEPS = 20
RANDOM = np.random.default_rng(3)
SPIKES = {
    "lif1": RANDOM.random((STEPS, 6, 6, 12)) < 0.2,  # 432 neurons
    "lif2": RANDOM.random((STEPS, 30)) < 0.3,
    "readout": np.zeros((STEPS, 10), np.float32),
}
SPIKES["readout"][:, 8] = 1


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test draws, laid out and kept for inspection instead of written."""
    seen: list[Figure] = []

    def keep(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
        figure.draw_without_rendering()
        seen.append(figure)
        return folder / f"{name}.png", folder / f"{name}.svg"

    monkeypatch.setattr(rasters, "save", keep)
    return seen


def marks(figure: Figure, panel: int) -> list[tuple[int, int]]:
    """Step and neuron of every mark of a panel, sorted."""
    (collection,) = figure.axes[panel].collections
    return sorted((int(x), int(y)) for x, y in np.asarray(collection.get_offsets()))


def said(figure: Figure) -> str:
    """Everything that is written in the figure."""
    actual = [text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
    return "\n".join(actual)


def assert_whole(paths: tuple[Path, Path], name: str) -> None:
    """Both files can be read and are not blank, and there are no others."""
    png, svg = paths
    assert (png.name, svg.name) == (f"{name}.png", f"{name}.svg")
    with Image.open(png) as image:
        assert np.ptp(np.asarray(image.convert("L"))) > 200
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert sorted(png.parent.iterdir()) == sorted(paths)


def test_every_spike_has_its_mark(tmp_path: Path, drawn: list[Figure]):
    raster(SPIKES, tmp_path, most_neurons=1000)
    for panel, fired in enumerate(SPIKES.values()):
        flat = fired.reshape(STEPS, -1)
        expected = [
            (step + 1, neuron)
            for step in range(STEPS)
            for neuron in range(flat.shape[1])
            if flat[step, neuron]
        ]
        assert marks(drawn[0], panel) == sorted(expected)
    assert "evenly" not in said(drawn[0])


def test_titles_say_neurons_and_spikes_of_every_layer(tmp_path: Path, drawn: list[Figure]):
    raster(SPIKES, tmp_path, title="Spikes of a nine", most_neurons=100)
    first, second = (int(SPIKES[name].sum()) for name in ("lif1", "lif2"))
    assert [ax.get_title() for ax in drawn[0].axes] == [
        f"lif1: 432 neurons, {first:,} spikes",
        f"lif2: 30 neurons, {second} spikes",
        "readout: 10 neurons, 20 spikes",
    ]
    assert "Spikes of a nine" in said(drawn[0])
    assert drawn[0].axes[-1].get_xlabel() == "time step"


def test_a_large_layer_is_thinned_evenly_and_it_is_said(tmp_path: Path, drawn: list[Figure]):
    always = {"large": np.ones((2, 1000), bool), "small": np.ones((2, 200), bool)}
    raster(always, tmp_path)
    shown = [neuron for step, neuron in marks(drawn[0], 0) if step == 1]
    assert shown == list(range(0, 1000, 5))  # 200 of 1,000
    assert len(marks(drawn[0], 1)) == 400
    assert drawn[0].axes[0].get_title() == "large: 1,000 neurons, 2,000 spikes"
    assert "more than 200 neurons, 200 evenly chosen" in said(drawn[0])


def test_a_number_that_does_not_divide_still_gives_even_gaps(tmp_path: Path, drawn: list[Figure]):
    raster({"lif": np.ones((1, 432), bool)}, tmp_path, most_neurons=200)
    shown = [neuron for _, neuron in marks(drawn[0], 0)]
    assert len(shown) == 200
    assert set(np.diff(shown).tolist()) == {2, 3}
    assert shown[0] == 0
    assert shown[-1] < 432


def test_a_silent_layer_has_an_empty_panel(tmp_path: Path, drawn: list[Figure]):
    raster({"lif": np.zeros((5, 3), bool)}, tmp_path)
    assert marks(drawn[0], 0) == []
    assert drawn[0].axes[0].get_title() == "lif: 3 neurons, 0 spikes"


@pytest.mark.parametrize("steps", [1, 7, 50, 300])
def test_the_time_axis_has_whole_steps_and_holds_all(
    tmp_path: Path, drawn: list[Figure], steps: int
):
    raster({"a": np.ones((steps, 2), bool), "b": np.ones((steps, 3), bool)}, tmp_path)
    for ax in drawn[0].axes:
        first, last = ax.get_xlim()
        assert first < 1
        assert last > steps
        ticks = ax.get_xticks().tolist()
        assert ticks[0] == 1
        assert ticks[-1] <= steps
        assert all(tick == int(tick) for tick in ticks)
        bottom, top = ax.get_ylim()
        assert bottom < 0
        assert top > max(neuron for _, neuron in marks(drawn[0], 0))


@pytest.mark.parametrize("steps", [50, 300])
def test_files_are_whole_and_not_large(tmp_path: Path, steps: int):
    fired = np.random.default_rng(1).random((steps, 400)) < 0.3
    paths = raster({"one": fired, "two": fired[:, :10]}, tmp_path / "figs", "here")
    assert_whole(paths, "here")
    assert paths[1].stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("spikes", "message"),
    [
        ({}, "no layer"),
        ({"lif": np.zeros((0, 3))}, r"lif has shape \(0, 3\); give \[T, neurons\]"),
        ({"lif": np.zeros((3, 0))}, r"lif has shape \(3, 0\)"),
        ({"lif": np.zeros(3)}, r"lif has shape \(3,\)"),
        ({"lif": np.array([[0, 0.5]])}, r"lif \(1, 2\) holds 0.5; give whole numbers of spikes"),
        ({"lif": np.array([[0, np.nan]])}, r"lif \(1, 2\) holds nan; give whole numbers"),
        ({"a": np.zeros((3, 1)), "b": np.zeros((4, 1))}, r"differ in their steps: .*'b': 4"),
    ],
)
def test_what_is_no_raster_is_refused(tmp_path: Path, spikes: dict[str, np.ndarray], message: str):
    with pytest.raises(ValueError, match=message):
        raster(spikes, tmp_path)
    assert list(tmp_path.iterdir()) == []


SIGNED = np.array([[0, 1, -1], [2, 0, 0], [0, -4, 1]])


def test_signed_and_graded_spikes_have_a_mark_each_and_are_counted(
    tmp_path: Path, drawn: list[Figure]
):
    raster({"conv": SIGNED, "dense": SIGNED[:, :1]}, tmp_path)
    assert marks(drawn[0], 0) == [(1, 1), (1, 2), (2, 0), (3, 1), (3, 2)]
    assert [ax.get_title() for ax in drawn[0].axes] == [
        "conv: 3 neurons, 9 spikes, 5 negative",
        "dense: 1 neuron, 2 spikes",
    ]
    assert "Blue: positive spikes, red: negative ones." in said(drawn[0])
    assert "up to 4" in said(drawn[0])


def test_colours_say_sign_and_number(tmp_path: Path, drawn: list[Figure]):
    """Red less blue by sign; the more spikes in a step, the further from white."""
    raster({"conv": SIGNED}, tmp_path)
    (collection,) = drawn[0].axes[0].collections
    at = {tuple(place): colour for place, colour in zip(
        np.asarray(collection.get_offsets(), int).tolist(), collection.get_edgecolors(), strict=True
    )}  # fmt: skip
    for (step, neuron), colour in at.items():
        spikes = SIGNED[step - 1, neuron]
        assert (colour[0] > colour[2]) == (spikes < 0)
    lightness = {SIGNED[s - 1, n]: at[s, n][:3].sum() for s, n in at}
    assert lightness[2] < lightness[1]
    assert lightness[-4] < lightness[-1]


def test_single_spikes_are_all_of_one_colour(tmp_path: Path, drawn: list[Figure]):
    raster(SPIKES, tmp_path)
    for ax in drawn[0].axes[:2]:
        (collection,) = ax.collections
        assert len(collection.get_edgecolors()) == 1
    assert "negative" not in said(drawn[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_stands_beside_the_layers(tmp_path: Path, drawn: list[Figure], channels: int):
    image = np.arange(16 * channels, dtype=np.int16).reshape(4, 4, channels) - 8
    raster(SPIKES, tmp_path, image=image)
    picture, *panels = drawn[0].axes
    assert len(panels) == 3
    (shown,) = picture.images
    array = np.asarray(shown.get_array(), float)
    assert array.shape == ((4, 4) if channels == 1 else (4, 4, 3))
    assert (array.min(), array.max()) == (0, 1)
    assert picture.get_position().x1 < min(ax.get_position().x0 for ax in panels)


def test_what_is_no_picture_is_refused(tmp_path: Path):
    for image in (np.zeros((4, 4)), np.zeros((4, 4, 2)), np.full((4, 4, 1), np.nan)):
        with pytest.raises(ValueError, match="give finite numbers"):
            raster(SPIKES, tmp_path, image=image)


def test_no_neurons_to_draw_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="most_neurons is 0; give 1 or more"):
        raster(SPIKES, tmp_path, most_neurons=0)


# By hand: leak 0.5, threshold 1, reset by subtraction one step late; currents 0.8 and 0.3.
#   0.8: 0.8, 1.2 (spike), 0.6 + 0.8 - 1 = 0.4, 1.0, 1.3 (spike)
#   0.3: 0.3, 0.45, 0.525, 0.5625, 0.58125
POTENTIALS = np.array(
    [[0.8, 0.3], [1.2, 0.45], [0.4, 0.525], [1.0, 0.5625], [1.3, 0.58125]], np.float32
)
FIRED = np.array([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0]])


def test_membranes_are_drawn_as_they_are(tmp_path: Path, drawn: list[Figure]):
    membranes(POTENTIALS, FIRED, 1.0, tmp_path, labels=["class 8", "class 3"])
    assert [ax.get_title() for ax in drawn[0].axes] == ["class 8: 2 spikes", "class 3: 0 spikes"]
    for number, ax in enumerate(drawn[0].axes):
        potential, threshold = ax.get_lines()
        assert list(potential.get_xdata()) == [1, 2, 3, 4, 5]
        assert list(potential.get_ydata()) == pytest.approx(POTENTIALS[:, number].tolist())
        assert list(threshold.get_ydata()) == [1.0, 1.0]
        assert threshold.get_linestyle() == "--"
        low, high = ax.get_ylim()
        assert low <= min(0, POTENTIALS[:, number].min())
        assert high > max(1, POTENTIALS[:, number].max())


def test_spikes_stand_at_the_top_above_the_line(tmp_path: Path, drawn: list[Figure]):
    membranes(POTENTIALS, FIRED, 1.0, tmp_path)
    expected = [[2, 5], []]
    for ax, steps in zip(drawn[0].axes, expected, strict=True):
        (collection,) = ax.collections
        offsets = np.asarray(collection.get_offsets())
        assert offsets[:, 0].tolist() == steps
        assert all(0.85 < height <= 1 for height in offsets[:, 1])  # in heights of the panel
        potential = ax.get_lines()[0]
        tallest = (
            ax.transAxes.inverted()
            .transform(ax.transData.transform(np.column_stack(potential.get_data())))[:, 1]
            .max()
        )
        assert tallest < 0.85
    assert all(name in said(drawn[0]) for name in ("neuron 0", "neuron 1", "threshold", "spike"))


def test_every_neuron_has_its_threshold(tmp_path: Path, drawn: list[Figure]):
    membranes(POTENTIALS, FIRED, np.array([1.0, 0.5]), tmp_path)
    levels = [ax.get_lines()[1].get_ydata()[0] for ax in drawn[0].axes]
    assert levels == [1.0, 0.5]


def test_the_legend_stands_above_the_panels(tmp_path: Path, drawn: list[Figure]):
    membranes(POTENTIALS[:, :1], FIRED[:, :1], 1.0, tmp_path)
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "membrane potential",
        "threshold",
        "spike",
    ]
    assert legend.get_window_extent().y0 >= drawn[0].axes[0].get_tightbbox().y1 - 1


@pytest.mark.parametrize(("steps", "neurons"), [(1, 1), (50, 4), (300, 12)])
def test_files_of_membranes_are_whole(tmp_path: Path, steps: int, neurons: int):
    potentials = np.random.default_rng(2).normal(size=(steps, neurons))
    paths = membranes(potentials, potentials > 1, 1, tmp_path / "figs")
    assert_whole(paths, "membranes")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"potentials": np.zeros((0, 2)), "spikes": np.zeros((0, 2))}, r"shape \(0, 2\)"),
        ({"potentials": POTENTIALS[:, 0]}, r"shape \(5,\) and spikes \(5, 2\); give both as \[T"),
        ({"spikes": FIRED[:-1]}, r"shape \(5, 2\) and spikes \(4, 2\)"),
        ({"spikes": FIRED * 3}, r"spikes \(5, 2\) holds 3"),
        (
            {"potentials": np.where(FIRED == 1, np.nan, POTENTIALS)},
            r"potentials \(5, 2\) is nan at step 2 of neuron 0; give finite values",
        ),
        ({"threshold": np.ones(3)}, r"threshold \(3,\) .* each of the 2 neurons"),
        ({"threshold": np.inf}, r"threshold \(\) is inf"),
        ({"labels": ["one"]}, "labels has 1 names; give one for each of 2 neurons"),
        (
            {"potentials": np.zeros((5, 13)), "spikes": np.zeros((5, 13))},
            r"has 13 neurons; choose 12 at most",
        ),
    ],
)
def test_wrong_membranes_are_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    arguments = {"potentials": POTENTIALS, "spikes": FIRED, "threshold": 1.0} | changes
    with pytest.raises(ValueError, match=message):
        membranes(folder=tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
