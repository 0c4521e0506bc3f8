"""Animated spike counts: every frame shows the counts of its step, in a small and whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxsnn.report.figures import animation
from jaxsnn.report.figures.animation import spike_bar_files, spike_bars

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)  # of Okabe and Ito
TARGET = 8
STEPS = 12
# Spikes per step of the ten classes: 8 always, 3 every third step, 9 once at the end.
SPIKES = np.zeros((STEPS, 10), np.int64)
SPIKES[:, TARGET] = 1
SPIKES[::3, 3] = 1
SPIKES[-1, 9] = 1
COUNTS = np.cumsum(SPIKES, axis=0)


def frames(path: Path) -> list[np.ndarray]:
    """Every frame as uint8 [height, width, 3]."""
    result: list[np.ndarray] = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            result.append(np.asarray(image.convert("RGB")))
    return result


def durations(path: Path) -> list[int]:
    """Milliseconds of every frame."""
    result: list[int] = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            result.append(image.info["duration"])
    return result


def highest_columns(frame: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Heights in pixels of the runs of neighbouring columns that hold a colour, left to right.

    A hatched bar has white in every column, so that a height is from its first to its last pixel.
    """
    hit = (frame == colour).all(axis=-1)
    columns = np.flatnonzero(hit.any(axis=0))
    if not len(columns):
        return []
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 3) + 1)
    heights: list[int] = []
    for run in runs:
        rows = np.flatnonzero(hit[:, run].any(axis=1))
        heights.append(int(rows[-1] - rows[0] + 1))
    return heights


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GIF of ``COUNTS``."""
    return spike_bars(COUNTS, TARGET, tmp_path_factory.mktemp("gifs") / "deep" / "bars.gif")


def test_one_frame_a_step_and_the_last_one_stays(written: Path):
    assert len(frames(written)) == STEPS
    assert durations(written) == [100] * (STEPS - 1) + [2000]
    with Image.open(written) as image:
        assert image.format == "GIF"
        assert image.info["loop"] == 0
    assert [file.name for file in written.parent.iterdir()] == ["bars.gif"]


def test_heights_of_the_bars_are_the_counts(written: Path):
    every = frames(written)
    (whole,) = highest_columns(every[-1], ORANGE)  # pixels of 12 spikes
    assert whole > 100
    for step, frame in enumerate(every):
        (target,) = highest_columns(frame, ORANGE)
        assert target == pytest.approx(whole * COUNTS[step, TARGET] / STEPS, abs=3)
        others = [count for count in COUNTS[step, [3, 9]].tolist() if count]
        assert highest_columns(frame, BLUE) == [
            pytest.approx(whole * count / STEPS, abs=3) for count in others
        ]


def test_heights_of_the_bars_agree_with_the_grid(written: Path):
    column = frames(written)[-1][30:, 75].mean(axis=-1)  # left of all bars
    zero = int(np.argmax(column < 50))  # the axis
    rows = np.flatnonzero(column[: zero - 2] < 250)
    lines = [int(run[0]) for run in np.split(rows, np.flatnonzero(np.diff(rows) > 2) + 1)]
    assert len(lines) == 2  # at 5 and 10 spikes
    assert zero - lines[1] == pytest.approx(lines[1] - lines[0], abs=2)
    (whole,) = highest_columns(frames(written)[-1], ORANGE)
    assert whole == pytest.approx(12 / 5 * (lines[1] - lines[0]), abs=4)


def test_the_axis_does_not_move_and_the_step_is_written(written: Path):
    every = frames(written)
    left = [frame[:, :60] for frame in every]  # ticks and name of the y axis
    title = [frame[:28] for frame in every]
    assert all(np.array_equal(left[0], other) for other in left[1:])
    assert len({frame.tobytes() for frame in title}) == STEPS


def test_all_frames_have_one_small_palette(written: Path):
    every = np.stack(frames(written)).astype(np.int32)
    assert len(np.unique(every @ [65536, 256, 1])) <= 32


def test_a_sample_without_spikes_has_no_bar(tmp_path: Path):
    path = spike_bars(np.zeros((3, 10), int), 0, tmp_path / "silent.gif")
    every = frames(path)
    assert len(every) == 3
    for frame in every:
        assert highest_columns(frame, ORANGE) == highest_columns(frame, BLUE) == []


def test_counts_of_a_long_run_are_thinned_and_end_with_the_last(tmp_path: Path):
    counts = np.repeat(np.arange(1, 301)[:, None], 10, axis=1)
    path = spike_bars(counts, 2, tmp_path / "long.gif", milliseconds=50, most_frames=7)
    assert durations(path) == [50] * 6 + [1000]
    every = frames(path)
    tops = [highest_columns(frame, ORANGE) for frame in every]
    (whole,) = tops[-1]
    # Seven steps evenly spaced from the first, of one spike, to the last.
    shown = np.linspace(1, 300, 7)
    for height, count in zip(tops[1:], shown[1:], strict=True):
        assert height == [pytest.approx(whole * count / 300, abs=3)]


def test_a_gif_of_the_original_length_is_small(tmp_path: Path):
    counts = np.cumsum(np.random.default_rng(0).random((50, 10)) < 0.3, axis=0)
    path = spike_bars(counts, 0, tmp_path / "fifty.gif")
    assert len(frames(path)) == 50
    assert path.stat().st_size < 100_000


def test_files_are_named_by_sample_and_target(tmp_path: Path):
    counts = np.stack([COUNTS[:2], COUNTS[-2:]], axis=1)
    paths = spike_bar_files(counts, np.array([8, 3]), tmp_path / "figs")
    assert [path.name for path in paths] == ["spike_bar_0_target8.gif", "spike_bar_1_target3.gif"]
    assert sorted((tmp_path / "figs").iterdir()) == paths
    (target,) = highest_columns(frames(paths[1])[-1], ORANGE)  # class 3 has 4 spikes, 8 has 12
    others = highest_columns(frames(paths[1])[-1], BLUE)
    assert others[0] == pytest.approx(3 * target, abs=8)


def test_equal_counts_give_equal_files_whatever_their_type(tmp_path: Path):
    kinds = [np.int32, np.uint8, np.float32]
    paths = [
        spike_bars(COUNTS[:2].astype(kind), TARGET, tmp_path / f"{kind.__name__}.gif")
        for kind in kinds
    ]
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_broken_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = spike_bars(COUNTS[:2], TARGET, tmp_path / "bars.gif")
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        spike_bars(COUNTS, TARGET, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (np.zeros((0, 10), int), r"shape \(0, 10\); give \[T, classes\]"),
        (np.zeros((5, 0), int), r"shape \(5, 0\)"),
        (np.zeros(5, int), r"shape \(5,\); give \[T, classes\]"),
        (np.zeros((5, 2, 10), int), r"shape \(5, 2, 10\)"),
        (np.full((2, 3), np.nan), "no whole numbers"),
        (np.full((2, 3), 0.5), "no whole numbers"),
        (np.full((2, 3), np.inf), "infinite"),
        (np.array([[-1, 0, 0]]), "negative"),
        (SPIKES, r"falls along time .* np\.cumsum"),
        (np.full((2, 3), "1"), "no whole numbers"),
    ],
)
def test_counts_that_are_none_are_refused(tmp_path: Path, counts: np.ndarray, said: str):
    with pytest.raises(ValueError, match=said):
        spike_bars(counts, 0, tmp_path / "bars.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (10, {}, "target is 10; .* 0 to 9"),
        (-1, {}, "target is -1"),
        (0, {"milliseconds": 10}, "milliseconds is 10; give 20 or more"),
        (0, {"milliseconds": 25}, "milliseconds is 25"),
        (0, {"most_frames": 1}, "most_frames is 1; give 2 or more"),
    ],
)
def test_other_wrong_arguments_are_refused(
    tmp_path: Path, target: int, options: dict[str, int], said: str
):
    with pytest.raises(ValueError, match=said):
        spike_bars(COUNTS, target, tmp_path / "bars.gif", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("targets", [[8], [8, 3, 1], [[8, 3]], [8.0, 3.0]])
def test_one_target_for_each_sample_is_needed(tmp_path: Path, targets: Any):
    counts = np.stack([COUNTS, COUNTS], axis=1)
    with pytest.raises(ValueError, match="one whole number for each of the 2 samples"):
        spike_bar_files(counts, targets, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_several_samples_need_three_axes(tmp_path: Path):
    with pytest.raises(ValueError, match=r"shape \(12, 10\); give \[T, N, classes\]"):
        animation.spike_bar_files(COUNTS, [8], tmp_path)
