"""A look inside a spiking network: which neuron spikes when, and how its membrane gets there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from jaxsnn.errors import UserError
from jaxsnn.report.figures.parts import caption, head, label, new_figure, save
from jaxsnn.report.figures.style import BLUE, LABEL_SIZE, PAGE, RED, TITLE_SIZE, Style, dress

_FEW_NEURONS = 12  # more panels of membranes than this do not fit on a page
_MANY_STEPS = 100  # more steps than this leave no room for a mark at each
_MANY_MARKS = 4000  # more marks than this are stored as pixels in the SVG
_PALEST = 0.3  # share of its colour that a mark has at least
_PANEL = (430.0, 94.0)  # about the width and height of a panel in points


def raster(
    spikes: Mapping[str, np.ndarray],
    folder: str | Path,
    name: str = "raster",
    *,
    title: str = "Spikes of one image",
    most_neurons: int = 200,
    image: np.ndarray | None = None,
) -> tuple[Path, Path]:
    """Draw the spikes of one image, a panel for each layer and a mark for each neuron and step.

    Positive spikes are blue, negative ones red; where a neuron emits several in one step its mark
    is the darker the more there are. A layer of more than ``most_neurons`` neurons is thinned
    evenly; the neurons keep their numbers, and the counts above the panels are those of all
    neurons.

    Args:
        spikes: whole numbers [T, neurons] or [T, ..., C] of each layer, by name, first to last:
            spikes of a step, negative ones below 0.
        folder: where the files go.
        name: name of the files.
        title: title of the figure.
        most_neurons: the largest number of neurons drawn of a layer.
        image: what the network was shown, [H, W, 1 or 3] of any numbers, drawn beside the first
            layer; None: it is left out.

    Returns:
        The paths of PNG and SVG.

    Raises:
        UserError: there is no layer, a layer is empty or holds what is no whole number, the layers
            differ in their number of steps, or the image is none; the message names the layer.
    """
    layers = _layers(spikes)
    if most_neurons < 1:
        raise UserError(f"most_neurons is {most_neurons}; give 1 or more")
    steps = len(next(iter(layers.values())))
    figure, axes = _panels(len(layers), image)
    thinned, most = False, max(int(np.abs(fired).max()) for fired in layers.values())
    for ax, (layer, fired) in zip(axes, layers.items(), strict=True):
        neurons = fired.shape[1]
        shown = _thinned(neurons, most_neurons)
        thinned |= len(shown) < neurons
        _marks(ax, fired, shown, most)
        label(ax, y="neuron", title=f"{layer}: {_many(neurons, 'neuron')}, {_counted(fired)}")
        ax.set_ylim(-0.5 - 0.02 * neurons, neurons - 0.5 + 0.02 * neurons)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=10 if neurons <= 10 else 5, integer=True))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _time(axes, steps)
    figure.suptitle(title, fontsize=TITLE_SIZE)
    caption(
        figure,
        f"Of a layer with more than {most_neurons} neurons, {most_neurons} evenly chosen ones "
        "are drawn; counts are of all."
        if thinned
        else "",
        _legend(min(int(fired.min()) for fired in layers.values()), most),
    )
    return save(figure, folder, name)


def _panels(rows: int, image: np.ndarray | None) -> tuple[Figure, list[Axes]]:
    """A panel for each layer, and the image at the left of them."""
    height = 0.9 + 1.5 * rows
    if image is None:
        return new_figure(rows=rows, size=(PAGE, height))
    figure = new_figure(0, 0, (PAGE, height))[0]
    grid = figure.add_gridspec(rows, 2, width_ratios=(1.0, 3.6))
    picture = figure.add_subplot(grid[0, 0])
    picture.imshow(_picture(image), cmap="gray", interpolation="nearest")
    picture.set_axis_off()
    axes = [figure.add_subplot(grid[row, 1]) for row in range(rows)]
    for ax in axes:
        dress(ax)
    return figure, axes


def _picture(image: np.ndarray) -> np.ndarray:
    """An image of any numbers, stretched to 0..1, as matplotlib takes it."""
    shown = np.asarray(image, np.float64)
    if shown.ndim != 3 or shown.shape[-1] not in (1, 3) or not np.isfinite(shown).all():
        raise UserError(
            f"image has shape {shown.shape}; give finite numbers [height, width, 1 or 3], or None"
        )
    low, high = shown.min(), shown.max()
    shown = (shown - low) / max(high - low, 1e-12)
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def _counted(fired: np.ndarray) -> str:
    """How many spikes there are, and how many of them are negative."""
    negative = int(-fired[fired < 0].sum())
    total = _many(int(np.abs(fired).sum()), "spike")
    return f"{total}, {negative:,} negative" if negative else total


def _legend(least: int, most: int) -> str:
    """What the colours mean, where there is more than one."""
    parts = ["Blue: positive spikes, red: negative ones."] if least < 0 else []
    parts += [f"The darker, the more in one step (up to {most:,})."] if most > 1 else []
    return " ".join(parts)


def membranes(
    potentials: np.ndarray,
    spikes: np.ndarray,
    threshold: float | Sequence[float] | np.ndarray,
    folder: str | Path,
    name: str = "membranes",
    labels: Sequence[str] | None = None,
) -> tuple[Path, Path]:
    """Draw the membrane potential of a few neurons over time, one neuron a panel.

    A dashed line is the threshold, a mark at the upper edge is a spike of that step.

    Args:
        potentials: floats [T, n], membrane potential after each step, before a reset or after it
            as the caller likes.
        spikes: zeros and ones [T, n].
        threshold: one for all, or [n].
        folder: where the files go.
        name: name of the files.
        labels: [n], names of the neurons; ``neuron 0`` and so on without them.

    Returns:
        The paths of PNG and SVG.

    Raises:
        UserError: the shapes do not fit, there are no neurons or too many, a potential or a
            threshold is not finite, or a spike is neither 0 nor 1.
    """
    membrane, fired, levels = _membranes(potentials, spikes, threshold)
    neurons = membrane.shape[1]
    names = [f"neuron {number}" for number in range(neurons)] if labels is None else list(labels)
    if len(names) != neurons:
        raise UserError(f"labels has {len(names)} names; give one for each of {neurons} neurons")
    figure, axes = new_figure(rows=neurons, size=(PAGE, 1.4 + 1.1 * neurons))
    steps = np.arange(1, len(membrane) + 1)
    for number, (ax, neuron) in enumerate(zip(axes, names, strict=True)):
        potential, level = membrane[:, number], float(levels[number])
        line: Style = {"marker": "o", "markersize": 3, "linewidth": 1.2}
        line = line if len(steps) <= _MANY_STEPS else {"linewidth": 0.8}
        ax.plot(steps, potential, color=BLUE, label="membrane potential", **line)
        ax.axhline(level, color="0.25", linestyle="--", linewidth=1.2, label="threshold")
        _spikes_above(ax, steps[fired[:, number]], slender=len(steps) > _MANY_STEPS)
        low, high = min(0.0, level, potential.min()), max(level, potential.max())
        room = max(high - low, 1e-6)
        ax.set_ylim(low - 0.08 * room, high + 0.35 * room)
        label(ax, title=f"{neuron}: {_many(int(fired[:, number].sum()), 'spike')}")
    _time(axes, len(steps))
    figure.supylabel("membrane potential", fontsize=LABEL_SIZE)
    head(figure, axes[0], "Membrane potentials")
    return save(figure, folder, name)


def _layers(spikes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Spikes of every layer as int64 [T, neurons]."""
    if not spikes:
        raise UserError("spikes has no layer; give whole numbers [T, neurons] by layer name")
    layers: dict[str, np.ndarray] = {}
    for layer, values in spikes.items():
        array = np.asarray(values)
        if array.ndim < 2 or 0 in array.shape:
            raise UserError(
                f"{layer} has shape {array.shape}; give [T, neurons] or [T, ..., C], none empty"
            )
        layers[layer] = _whole(array, layer).reshape(len(array), -1)
    lengths = {layer: len(fired) for layer, fired in layers.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"layers differ in their steps: {lengths}; give those of one simulation")
    return layers


def _whole(array: np.ndarray, what: str) -> np.ndarray:
    """Spikes of a step as int64."""
    numbers = np.asarray(array, np.float64)
    wrong = ~np.isfinite(numbers) | (numbers != np.floor(numbers))
    if wrong.any():
        raise UserError(
            f"{what} {array.shape} holds {array[wrong].flat[0]}; give whole numbers of spikes, "
            "negative ones below 0"
        )
    return numbers.astype(np.int64)


def _binary(array: np.ndarray, what: str) -> np.ndarray:
    """Spikes as bool."""
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        raise UserError(
            f"{what} {array.shape} holds {array[wrong].flat[0]}; give 1 for a spike and 0 for none"
        )
    return array.astype(bool)


def _membranes(
    potentials: np.ndarray, spikes: np.ndarray, threshold: float | Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Potentials as float64 [T, n], spikes as bool [T, n], thresholds as float64 [n]."""
    membrane, fired = np.asarray(potentials, np.float64), np.asarray(spikes)
    if membrane.ndim != 2 or 0 in membrane.shape or fired.shape != membrane.shape:
        raise UserError(
            f"potentials has shape {membrane.shape} and spikes {fired.shape}; give both as [T, n], "
            "not empty"
        )
    neurons = membrane.shape[1]
    if neurons > _FEW_NEURONS:
        raise UserError(
            f"potentials {membrane.shape} has {neurons} neurons; choose {_FEW_NEURONS} at most"
        )
    if not np.isfinite(membrane).all():
        step, number = np.argwhere(~np.isfinite(membrane))[0]
        raise UserError(
            f"potentials {membrane.shape} is {membrane[step, number]} at step {step + 1} of neuron "
            f"{number}; give finite values"
        )
    levels = np.asarray(threshold, np.float64)
    if levels.shape not in ((), (neurons,)) or not np.isfinite(levels).all():
        raise UserError(
            f"threshold {levels.shape} is {threshold}; give a finite number or one for each of the "
            f"{neurons} neurons"
        )
    return membrane, _binary(fired, "spikes"), np.broadcast_to(levels, neurons)


def _thinned(neurons: int, most: int) -> np.ndarray:
    """Numbers of the neurons drawn, evenly spaced."""
    return np.arange(min(neurons, most)) * neurons // min(neurons, most)


def _marks(ax: Axes, fired: np.ndarray, shown: np.ndarray, most: int) -> None:
    """Put an upright stroke at the step and neuron of every spike, as high as the neuron's row."""
    step, row = np.nonzero(fired[:, shown])
    colour = _colours(fired[:, shown][step, row], most)
    width, height = (0.8 * of / by for of, by in zip(_PANEL, fired[:, shown].shape, strict=True))
    ax.scatter(
        step + 1,
        shown[row],
        s=min(max(height, 1.6), 9.0) ** 2,
        marker="|",
        color=colour,
        linewidths=min(max(0.4 * width, 0.6), 2.5),
        rasterized=len(step) > _MANY_MARKS,
    )
    ax.grid(visible=False)


def _colours(spikes: np.ndarray, most: int) -> str | np.ndarray:
    """Blue of positive and red of negative spikes, the lighter the fewer; of single ones full.

    >>> _colours(np.array([1, 1]), 1) == BLUE
    True
    >>> [str(one) for one in _colours(np.array([2, -2]), 2)[:, 0].round(2)]
    ['0.0', '0.84']
    """
    if most <= 1 and not (spikes < 0).any():
        return BLUE
    full = np.where(spikes[:, None] < 0, to_rgb(RED), to_rgb(BLUE))
    share = (_PALEST + (1 - _PALEST) * np.abs(spikes) / most)[:, None]
    return 1 - share * (1 - full)


def _spikes_above(ax: Axes, steps: np.ndarray, *, slender: bool) -> None:
    """Put a mark at the upper edge of the panel for every spike."""
    ax.scatter(
        steps,
        np.full(len(steps), 0.92),
        s=22,
        marker="|" if slender else "v",
        color=RED,
        linewidths=0.8 if slender else 0,
        transform=ax.get_xaxis_transform(),
        label="spike",
    )


def _time(axes: Sequence[Axes], steps: int) -> None:
    """Give all panels the same steps, and name them below the last one."""
    ticks = MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]).tick_values(0, steps)
    for ax in axes:
        ax.set_xticks(sorted({1, *(int(tick) for tick in ticks if 1 < tick <= steps)}))
        ax.set_xlim(0.5 - 0.01 * steps, steps + 0.5 + 0.01 * steps)
        ax.tick_params(labelbottom=ax is axes[-1])
    axes[-1].set_xlabel("time step", fontsize=LABEL_SIZE)


def _many(count: int, noun: str) -> str:
    """Number and noun.

    Examples:
        >>> _many(1, "spike"), _many(1728, "neuron")
        ('1 spike', '1,728 neurons')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
