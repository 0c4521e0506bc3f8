"""What the checkpoints in a folder of fine-tuning were begun with, so that nothing else goes on."""

from collections.abc import Mapping
from pathlib import Path

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.io.files import read_object, write_json

RECORD = "finetune_quantised.json"  # beside the checkpoints


def begin_or_go_on(directory: str | Path, asked: Mapping[str, object], resume: bool) -> None:
    """Keep what a folder is begun with, or make sure that it was begun with the same.

    A folder without checkpoints has not been begun, whatever a run that was refused left there.

    Args:
        directory: where the checkpoints go, in a folder of their own.
        asked: name -> value, compared as text.
        resume: it is gone on with; nothing is written.

    Raises:
        UserError: the checkpoints were begun with other values, or by something else.
    """
    path, words = Path(directory) / RECORD, {name: str(value) for name, value in asked.items()}
    with processes.collective():  # all look into the folder before one writes there
        begun = bool(Checkpoints(path.parent / "checkpoints").steps())
        if begun:
            _check(path, words)
    if not begun and not resume:
        write_json(path, words)


def _check(path: Path, asked: Mapping[str, str]) -> None:
    if not path.is_file():
        raise UserError(
            f"{path.parent} holds checkpoints without {path.name}, which fine-tuning puts beside "
            "its own; choose another directory"
        )
    begun = read_object(path)
    for name, value in asked.items():
        if begun.get(name) != value:
            raise UserError(
                f"{path.parent} was begun with {name} {begun.get(name)}; it cannot go on with "
                f"{value}: choose another directory, or the same settings"
            )
