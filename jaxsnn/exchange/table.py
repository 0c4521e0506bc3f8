"""What became of every array of somebody's network, as a table to look at before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rich.table import Table as RichTable
from rich.text import Text

from jaxsnn.arch.layers import Shape
from jaxsnn.errors import UserError

HEADINGS = ("theirs", "shape", "ours", "shape", "what is done")


class Row(NamedTuple):
    """One array.

    Attributes:
        theirs: its name in the file; "" where the file lacks it.
        shape: there.
        ours: its path in the tree of variables; "" where it goes nowhere.
        our_shape: there; None where it goes nowhere.
        note: what is done to it.
    """

    theirs: str
    shape: Shape | None
    ours: str
    our_shape: Shape | None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """The texts of its columns."""
        shapes = ["" if shape is None else _text(shape) for shape in (self.shape, self.our_shape)]
        return self.theirs or "-", shapes[0], self.ours or "-", shapes[1], self.note


@dataclass(frozen=True)
class Table:
    """Every array of a file beside every array of our tree.

    ``print(table)`` writes plain text; rich draws it with lines.

    Attributes:
        place: the file.
        rows: what fits, in our order, and then what is ignored or left over.
        problems: why the arrays cannot be taken; none: they can.
        faults: those of them that no other architecture mends: values that are no numbers.
    """

    place: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(map(str.ljust, line, widths)).rstrip()  # columns two blanks apart
            for line in lines
        ]
        return "\n".join([*texts, *(f"does not fit: {problem}" for problem in self.problems)])

    def __rich__(self) -> RichTable:
        table = RichTable(*HEADINGS, title=Text(self.place))
        for row in self.rows:
            table.add_row(*map(Text, row.cells()))
        for problem in self.problems:
            table.add_row("", "", "", "", Text.assemble(("does not fit:", "red"), f" {problem}"))
        return table

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            UserError: naming every array that is left over, missing or of another shape, or that
                holds what a network cannot compute with.
        """
        if self.faults and len(self.faults) == len(self.problems):
            raise UserError(
                f"{self.place}: {', '.join(self.faults)}; give weights of a training that did not "
                "diverge"
            )
        if self.problems:
            joint = "\n  " if len(self.problems) > 1 else " "
            listing = joint.join(("", *self.problems))
            raise UserError(
                f"{self.place}: the arrays do not fit the architecture; change its notation, or "
                f"say with names= (in Python) which layer is which:{listing}"
            )


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"
