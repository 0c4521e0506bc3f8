"""Figures: what is drawn is what the results say, and every file is whole."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from jaxsnn import curves, figures, plots, report
from jaxsnn.report import Results
from jaxsnn.selection import display_name, having, is_full_precision, threshold_units

# Published counts for k=1, B=2 (spec, section 3.5): spikes by layer, and synaptic operations.
NEURONS = {"conv1": 12544, "conv2": 9216, "pool1": 2304, "conv3": 2048, "pool2": 512, "fc": 256}
SPIKES = [6665.4, 6295.3, 1664.7, 1555.0, 419.6, 244.0]
SOPS, MACS = 3_240_042, 4_849_664


def setting(name: str, ann: float | None, **changes: Any) -> Results:
    """Results of a LeNet on MNIST; the counts are the same for every setting."""
    line = {"snn": 4.36e6, "ann": 23.75e6, "encoder": 1.44e6, "break_even_rate": 4.79}
    layers = [
        {
            "name": layer,
            "neurons": neurons,
            "spikes_per_image": spikes,
            "rate": spikes / neurons / 4,
            "silent": 0.25,
            "saturated": 0.05,
            "sops_per_image": None if layer == "conv1" else 1e5,
            "mismatches": 0,
        }
        for (layer, neurons), spikes in zip(NEURONS.items(), SPIKES, strict=True)
    ]
    given: dict[str, Any] = {
        "experiment": "mnist_lenet",
        "system": "scatter_gather",
        "dataset": "MNIST",
        "setting": name,
        "ann_accuracy": ann,
        "snn_accuracy": ann,
        "spikes_per_image": 16_843.9,
        "spikes_per_neuron": 0.627,
        "sops_per_image": SOPS,
        "ann_macs_per_image": MACS,
        "layers": layers,
        "energy_pj_per_image": {"convention": line, "integer": line, "words": line},
        "noise": [{"ratio": 0.2, "accuracy": [0.990, 0.992]}],
    }
    return Results(**(given | changes))


ONE, TWO, FOUR = setting("k0B1", 0.9927), setting("k0B2", 0.9932), setting("k1B2", 0.9937)
FULL = Results(
    experiment="mnist_lenet",
    system="scatter_gather",
    dataset="MNIST",
    setting="fp32",
    float_ann_accuracy=0.9952,
)
EPOCHS = [
    {
        "epoch": epoch,
        "train_loss": 0.5 / epoch,
        "train_accuracy": 0.9,
        "validation_loss": 0.6 / epoch,
        "validation_accuracy": 0.91,
        "learning_rate": 1e-3,
    }
    for epoch in (1, 2, 3)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test draws, kept for inspection instead of written."""
    seen: list[Figure] = []

    def keep(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
        seen.append(figure)
        return folder / f"{name}.png", folder / f"{name}.svg"

    for module in (figures, curves):
        monkeypatch.setattr(module, "save", keep)
    return seen


def heights(figure: Figure, panel: int = 0) -> dict[str, list[float]]:
    """Heights of the bars by the name of their series."""
    return {
        str(bars.get_label()): [bar.get_height() for bar in bars]
        for bars in figure.axes[panel].containers
    }


def texts(figure: Figure) -> str:
    """Everything that is written in the figure, once it is laid out."""
    figure.draw_without_rendering()
    found = [text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
    return "\n".join(found)


def assert_whole(paths: tuple[Path, Path]) -> None:
    """Both files can be read, are as sharp as promised and not blank."""
    png, svg = paths
    with Image.open(png) as image:
        assert round(image.info["dpi"][0]) == 200
        assert np.ptp(np.asarray(image.convert("L"))) > 200
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert sorted(file.name for file in png.parent.iterdir()) == sorted([png.name, svg.name])


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
def test_every_figure_is_written_whole(tmp_path: Path, name: str):
    paths = figures.FIGURES[name]([FULL, FOUR, ONE, TWO], tmp_path / "figs")
    assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg"]
    assert_whole(paths)


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
@pytest.mark.parametrize("rows", [[FOUR], [FULL, FOUR, ONE, TWO]])
def test_title_and_legend_stand_above_the_panels(
    tmp_path: Path, name: str, rows: list[Results], drawn: list[Figure]
):
    figures.FIGURES[name](rows, tmp_path)
    (figure,) = drawn
    figure.draw_without_rendering()
    (legend,) = figure.findobj(Legend)
    box = legend.get_window_extent()
    assert box.y0 >= max(ax.get_tightbbox().y1 for ax in figure.axes) - 1
    assert box.y1 <= figure.bbox.y1
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
@pytest.mark.parametrize(
    "rows",
    [[], [Results(experiment="e", system="s", dataset="d", setting="k1B2", noise=[], layers=[])]],
)
def test_nothing_to_draw_is_said_and_nothing_written(
    tmp_path: Path, name: str, rows: list[Results]
):
    with pytest.raises(ValueError, match=r"no setting has .*settings found: (none|k1B2)"):
        figures.FIGURES[name](rows, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_same_results_give_the_same_files(tmp_path: Path):
    first, second = (figures.sparsity([FOUR], tmp_path / name) for name in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_accuracy_shows_ann_and_snn_of_every_setting(tmp_path: Path, drawn: list[Figure]):
    lower = setting("k1B2", 0.9937, snn_accuracy=0.9921, paper={"snn_accuracy": 0.9940})
    figures.accuracy([FULL, lower, ONE, TWO], tmp_path)
    assert heights(drawn[0]) == {
        "quantised ANN": pytest.approx([99.27, 99.32, 99.37]),
        "SNN": pytest.approx([99.27, 99.32, 99.21]),
        "float ANN": pytest.approx([99.52]),
    }
    ticks = [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()]
    assert ticks == [
        "Single-spike\n(k0B1)",
        "Two-spike\n(k0B2)",
        "Four-spike\n(k1B2)\npaper: 99.40",
        "Full precision\n(fp32)",
    ]
    written = texts(drawn[0])
    assert all(value in written for value in ("99.27", "99.32", "99.37", "99.21", "99.52"))
    assert "(%)" in drawn[0].axes[0].get_ylabel()
    bottom = drawn[0].axes[0].get_ylim()[0]
    assert 98 < bottom < 99.21
    assert f"starts at {bottom:g}, not at 0" in written


def test_sparsity_multiplies_neurons_by_threshold_units(tmp_path: Path, drawn: list[Figure]):
    figures.sparsity([ONE, TWO, FOUR, FULL], tmp_path)
    assert heights(drawn[0]) == {
        "spikes": [16_843.9] * 3,
        "physical neurons": [26_880, 53_760, 107_520],
    }
    # 16,843.9 / 107,520 = 0.1567, as published
    assert "0.157 spikes per unit" in texts(drawn[0])


def test_sops_show_the_count_on_the_chip(tmp_path: Path, drawn: list[Figure]):
    figures.sops([ONE, FOUR], tmp_path)
    chip, free, macs = heights(drawn[0]).values()
    # 25,920,333 on the chip as published, from 8 times the unrounded 3,240,042
    assert chip == pytest.approx([2 * 3.240042, 25.920333], abs=1e-4)
    assert free == pytest.approx([3.240042] * 2)
    assert macs == pytest.approx([4.849664] * 2)
    assert "encoder and readout excluded" in texts(drawn[0])


def test_sops_caption_says_only_what_is_true(tmp_path: Path, drawn: list[Figure]):
    encoder, second, *_ = ONE.layers or []
    counted = [encoder, {**second, "name": "readout", "rate": None, "sops_per_image": 10.0}]
    figures.sops([setting("k0B1", 0.9, layers=counted)], tmp_path)
    assert "encoder excluded" in texts(drawn[0])
    assert "readout" not in texts(drawn[0])


def test_sops_of_another_system_have_no_chip(tmp_path: Path, drawn: list[Figure]):
    figures.sops([setting("k1", 0.9)], tmp_path)
    assert list(heights(drawn[0])) == ["SOPs", "MACs of the ANN"]


def test_noise_has_a_dot_per_seed_and_a_line_of_means(tmp_path: Path, drawn: list[Figure]):
    figures.noise([FOUR], tmp_path)
    *dots, line = drawn[0].axes[0].get_lines()
    assert [list(map(float, dot.get_ydata())) for dot in dots] == [
        pytest.approx([99.37]),
        pytest.approx([99.0, 99.2]),
    ]
    assert list(line.get_xdata()) == [0, 20]
    assert list(line.get_ydata()) == pytest.approx([99.37, 99.1])


def test_training_draws_both_parts_of_every_setting(tmp_path: Path, drawn: list[Figure]):
    figures.training({"k1B2": EPOCHS, "empty": [{"step": 1}]}, tmp_path)
    loss, accuracy = drawn[0].axes
    assert [list(line.get_ydata()) for line in loss.get_lines()] == [
        pytest.approx([0.5, 0.25, 0.5 / 3]),
        pytest.approx([0.6, 0.3, 0.2]),
    ]
    curves_drawn = [line for line in accuracy.get_lines() if len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in curves_drawn] == [
        pytest.approx([90] * 3),
        pytest.approx([91] * 3),
    ]
    assert [list(line.get_xdata()) for line in curves_drawn] == [[1, 2, 3]] * 2


def test_training_without_validation_and_with_one_epoch(tmp_path: Path, drawn: list[Figure]):
    record = EPOCHS[0] | {"validation_loss": None, "validation_accuracy": None, "train_loss": 0.0}
    figures.training({"k1B2": [record]}, tmp_path)
    drawn[0].draw_without_rendering()
    assert len(drawn[0].axes[0].get_lines()) == 1


def test_training_without_epochs_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no record with an epoch"):
        figures.training({"k1B2": [{"step": 1}]}, tmp_path)


def test_layers_show_rate_and_shares(tmp_path: Path, drawn: list[Figure]):
    readout = {**(FOUR.layers or [])[0], "name": "readout", "rate": None}
    figures.layers([setting("k1B2", 0.99, layers=[*(FOUR.layers or []), readout])], tmp_path)
    rates, silent, saturated = (next(iter(heights(drawn[0], i).values())) for i in range(3))
    # first layer: 6665.4 spikes of 12,544 neurons with 4 units
    assert rates[0] == pytest.approx(13.284, abs=1e-3)
    assert len(rates) == 6
    assert (silent[0], saturated[0]) == pytest.approx((25, 5))


def test_layers_of_different_networks_share_the_axis(tmp_path: Path, drawn: list[Figure]):
    other = setting("k0B1", 0.99, layers=[{**(ONE.layers or [])[0], "name": "conv9"}])
    figures.layers([other, FOUR], tmp_path)
    ticks = [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()]
    assert set(ticks) == {*NEURONS, "conv9"}


def test_energy_has_three_lines_in_microjoules(tmp_path: Path, drawn: list[Figure]):
    figures.energy([FOUR, ONE], tmp_path)
    assert len(drawn[0].axes) == 3
    for panel in range(3):
        assert heights(drawn[0], panel) == {
            "SNN": pytest.approx([4.36] * 2),
            "quantised ANN": pytest.approx([23.75] * 2),
        }
    assert "rate 0.63\nlimit 4.79" in texts(drawn[0])


def test_energy_of_another_kind_is_left_out(tmp_path: Path):
    other = setting("k1B2", 0.99, energy_pj_per_image={"crossbar": 1.0})
    with pytest.raises(ValueError, match="three lines"):
        figures.energy([other], tmp_path)


def test_draw_all_needs_only_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for row in (FOUR, FULL):
        report.write_results(tmp_path / row.setting, row)
    for record in EPOCHS:
        report.append_jsonl(tmp_path / "k1B2" / "metrics.jsonl", record)
    (tmp_path / "k0B1").mkdir()
    (tmp_path / "k0B1" / "results.json").write_text("{")
    found = figures.draw_all(tmp_path)
    assert set(found) == {*figures.FIGURES, "training", "k1B2/training"}
    assert found["accuracy"] == (
        tmp_path / "figs" / "accuracy.png",
        tmp_path / "figs" / "accuracy.svg",
    )
    assert found["k1B2/training"][0] == tmp_path / "k1B2" / "figs" / "training.png"
    assert all(path.stat().st_size > 0 for pair in found.values() for path in pair)
    assert "k0B1" in capsys.readouterr().err


def test_draw_all_of_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no results to draw"):
        figures.draw_all(tmp_path)


def test_settings_are_ordered_and_named():
    many = setting("k2B2", 0.99)
    assert having([FULL, many, FOUR, TWO, ONE], "ann_accuracy", "float_ann_accuracy") == [
        ONE,
        TWO,
        FOUR,
        many,
        FULL,
    ]
    assert threshold_units("k2B3") == 12
    assert threshold_units("alex_3bit") is None
    assert display_name(setting("k0B3", 0.9)) == "3-spike\n(k0B3)"
    assert display_name(setting("k1", 0.9)) == "k1"


@pytest.mark.parametrize(
    ("row", "full"),
    [
        (FULL, True),
        (setting("fp32", 0.99, snn_accuracy=None), True),
        (FOUR, False),
        (setting("k1B2", None, float_ann_accuracy=0.99), False),
        (setting("mlp", 0.99), False),
    ],
)
def test_full_precision_is_told_from_quantised(row: Results, full: bool):
    assert is_full_precision(row) is full


@pytest.mark.parametrize(
    ("values", "said"),
    [([99.1, 99.5], True), ([99.3, 99.3], True), ([0.0, 90.0], False), ([100.0], True)],
)
def test_zoom_keeps_every_value_inside(values: list[float], said: bool):
    _, (ax,) = plots.new_figure()
    sentence = plots.zoom(ax, values)
    bottom, top = ax.get_ylim()
    assert bottom < max(values) < top
    assert bottom <= min(values)
    assert bool(sentence) is said
    assert bool(bottom > 0) is said


def test_bars_leave_no_gap_for_a_missing_value():
    _, (ax,) = plots.new_figure()
    series = [
        plots.Series("a", [1.0, None]),
        plots.Series("b", [2.0, 3.0], 1),
        plots.Series("none", [None, None], 2),
    ]
    plots.grouped_bars(ax, ["left", "right"], series)
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in ax.containers]
    assert centres == [pytest.approx([-0.2]), pytest.approx([0.2, 1.0])]


def test_saving_leaves_pyplot_alone(tmp_path: Path):
    code = (
        "import sys; from jaxsnn import plots; f, _ = plots.new_figure(); "
        f"plots.save(f, {str(tmp_path)!r}, 'x'); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
