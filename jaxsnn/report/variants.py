"""The variants of networks side by side: a line each, below the network they come from."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxsnn.io.terminal import show
from jaxsnn.report.results import Results, Variant

VARIANTS = ("unsigned", "signed", "fine-tuned", "settling")  # as the paper has them, then ours
PAPER = {  # the paper's accuracy of each line
    "float ANN": "float_ann_accuracy",
    "quantised ANN": "ann_accuracy",
    "unsigned": "unsigned_accuracy",
    "signed": "snn_accuracy",
    "fine-tuned": "finetuned_accuracy",
}
COLUMNS = ("setting", "network", "test (%)", "paper", "steps", "spikes", "10^6 SOPs", "µJ")
_CAPTION = "steps: until the last spike where it settles; spikes, SOPs, energy (float32): per image"


def variants_table(rows: Sequence[Results]) -> Table:
    """Build the table: ANN, then each variant, for every setting that has variants or an ANN.

    A blank stands for what was not measured or not published. Fits into 80 characters.
    """
    table = Table(
        title="Variants",
        caption=_CAPTION,
        box=SIMPLE_HEAD,
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        first = row.setting
        for name, entry in _entries(row):
            claimed = (row.paper or {}).get(PAPER.get(name, ""))
            table.add_row(*map(Text, (first, name, *_cells(entry, claimed))))
            first = ""
    return table


def print_variants(rows: Sequence[Results], console: Console | None = None) -> None:
    """Print ``variants_table``."""
    show(variants_table(rows), console)


def _entries(row: Results) -> Iterator[tuple[str, Variant]]:
    """The ANN and the variants at the end of their simulation, by what a line calls them."""
    if row.float_ann_accuracy is not None:
        yield "float ANN", Variant(kind="float ANN", accuracy=row.float_ann_accuracy)
    if row.ann_accuracy is not None:
        yield "quantised ANN", Variant(kind="quantised ANN", accuracy=row.ann_accuracy)
    whole = [one for one in row.variants or [] if one.share is None]
    order = {name: number for number, name in enumerate(VARIANTS)}
    for one in sorted(whole, key=lambda one: order.get(one.kind, len(order))):
        yield one.kind, one


def _cells(entry: Variant, claimed: float | None) -> list[str]:
    operations, ledger = entry.sops_per_image, (entry.energy_pj_per_image or {}).get("convention")
    energy = ledger["snn"] if isinstance(ledger, dict) else None
    return [
        *("" if value is None else f"{100 * value:.2f}" for value in (entry.accuracy, claimed)),
        *(
            "" if value is None else f"{value:,.0f}"
            for value in (entry.steps, entry.spikes_per_image)
        ),
        "" if operations is None else f"{operations / 1e6:,.4g}",
        "" if energy is None else f"{energy / 1e6:.3g}",
    ]
