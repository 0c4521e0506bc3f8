"""Draw the figures of the gallery from the results that are kept, into docs/figures.

    python tools/gallery.py

Every figure is one that the stage ``plot`` of an experiment draws of the same folder; pictures made
of dots get few colours here, so that they take some ten kilobytes.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs/figures"
COLOURS = 64  # of the palette


class Shown(NamedTuple):
    """Figures of one experiment.

    Attributes:
        words: the experiment's script, and its flags.
        results: the folder below ``results/``.
        figures: names of figures, and of their files in the gallery.
    """

    words: tuple[str, ...]
    results: str
    figures: dict[str, str]


GALLERY = (
    Shown(
        ("mnist_lenet",),
        "mnist_lenet",
        {name: f"scatter_gather_{name}.png" for name in ("accuracy", "noise", "sops", "energy")},
    ),
    Shown(
        ("mnist_negative_spikes", "--dataset", "fashion_mnist"),
        "mnist_negative_spikes_fashion_mnist",
        {
            "accuracy_lenet": "accuracy_lenet.svg",
            "sparsity": "negative_spikes_sparsity.png",
            "training_lenet": "negative_spikes_training.png",
        },
    ),
    Shown(("fast_snn",), "fast_snn", {"accuracy_alex": "fast_snn_accuracy.png"}),
    Shown(("cifar10_cnn1",), "cifar10_cnn1", {"accuracy": "cnn1_accuracy.png"}),
)


def draw(shown: Shown) -> list[Path]:
    """Draw one experiment's figures in a folder that goes away, and keep those that are shown.

    Raises:
        subprocess.CalledProcessError: the experiment cannot draw.
        FileNotFoundError: it does not draw a figure of the gallery.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        shutil.copytree(ROOT / "results" / shown.results, out)
        script, *flags = shown.words
        command = [sys.executable, ROOT / f"experiments/{script}.py", "plot", *flags, "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return [
            small(out / f"figs/{name}{Path(target).suffix}", FIGURES / target)
            for name, target in shown.figures.items()
        ]


def small(source: Path, target: Path) -> Path:
    """Write a picture, with few colours where it is made of dots."""
    if source.suffix == ".svg":
        return Path(shutil.copy(source, target))
    with Image.open(source) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(target, optimize=True, dpi=picture.info["dpi"])
    return target


def main() -> int:
    """Draw all."""
    for shown in GALLERY:
        for path in draw(shown):
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
