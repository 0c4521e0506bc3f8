"""The stages of a system's script, and the one runner that goes through them.

A system declares its stages by name: what each does, for the help, and the function that does it.
The runner knows none of them; ``all`` is the stages that the system says, in its order.
"""

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

from rich.console import Console

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.terminal import console, nobody_reads, show
from jaxsnn.report import scan, table
from jaxsnn.report.figures.draw import Figures, draw_all
from jaxsnn.systems import endings
from jaxsnn.systems.command_line import STAGES, parse_command
from jaxsnn.systems.settings.base import Scripted

Config = TypeVar("Config", bound=Scripted)


class Stage(NamedTuple):
    """A stage of a system's script.

    Attributes:
        what: what it does, for the help.
        work: does it. A stage that leaves ``request.one`` alone reads no data.
    """

    what: str
    work: Callable[["Request"], object]


def _train(request: "Request") -> None:
    request.one.train()


def _evaluate(request: "Request") -> None:
    measured = request.one.evaluate()
    request.say(f"{request.config.setting}: {request.system.measured} {measured:.2%}")


def simulate(request: "Request") -> None:
    """Simulate a setting, then print the table of all settings."""
    request.one.simulate(request.console)
    config = request.config
    table.print_table(scan.scan_results(config.out), f"{config.dataset}: all settings")


def _plot(request: "Request") -> None:
    for name, path in request.system.draw(request.config).items():
        request.say(f"{name}: {path}")


COMMON: Mapping[str, Stage] = {
    "train": Stage(STAGES["train"], _train),
    "evaluate": Stage(STAGES["evaluate"], _evaluate),
    "simulate": Stage(STAGES["simulate"], simulate),
    "plot": Stage(STAGES["plot"], _plot),
}


class System(ABC, Generic[Config]):
    """One setting of a published system; a class of it, and its settings, are an experiment.

    Attributes:
        config: the settings.
        system: name of the published system.
        measured: what the number is that ``evaluate`` returns.
        stages: the stages of its script by name; the four that most have.
        every: those that ``all`` consists of, in order.
        figures: what is drawn of it beside the figures that all systems share.
    """

    config: Config
    system: ClassVar[str]
    measured: ClassVar[str] = "test accuracy"
    stages: ClassVar[Mapping[str, Stage]] = COMMON
    every: ClassVar[tuple[str, ...]] = ("train", "evaluate", "simulate", "plot")
    figures: ClassVar[Figures] = Figures()

    @abstractmethod
    def __init__(self, config: Config) -> None:
        """Read the data and refuse what does not fit; nothing is written."""

    @classmethod
    def draw(cls, config: Config) -> dict[str, Path]:
        """Draw all figures from files of earlier runs alone; a picture of each, by name."""
        drawn = draw_all(config.out, {cls.system: cls.figures}, config.compared)
        return {name: paths[0] for name, paths in drawn.items()}


AnySystem: TypeAlias = type[System[Any]]


@dataclass(frozen=True)
class Request:
    """What a command line asks of a system.

    Attributes:
        system: the system.
        config: its settings.
        stage: what was asked for, a stage's name or ``all``.
        console: where a stage says what it found.
    """

    system: AnySystem
    config: Any  # the stages of a system know the class of its settings
    stage: str = "all"
    console: Console = field(default_factory=console)

    @functools.cached_property
    def one(self) -> Any:  # and the system itself
        """The setting, its data and network, made for the first stage that needs them."""
        return self.system(self.config)

    def say(self, text: str) -> None:
        """Print a line."""
        show(text, self.console)


def described(system: AnySystem) -> dict[str, str]:
    """What each stage of a system's script does, ``all`` first.

    >>> class OnlyFigures(System[Any]):
    ...     stages = {"plot": COMMON["plot"]}
    ...     every = ("plot",)
    >>> list(described(OnlyFigures)), described(OnlyFigures)["all"]
    (['all', 'plot'], 'in this order: plot')
    """
    whole = {"all": f"in this order: {', '.join(system.every)}"}
    return whole | {name: stage.what for name, stage in system.stages.items()}


def run(system: AnySystem, stage: str, config: Scripted) -> None:
    """Run one stage of a setting, or ``all`` that the system says.

    Raises:
        UserError: bad data, a missing or mismatched checkpoint, processes that were started with
            different settings; said before work starts.
    """
    processes.same("stage and settings", (stage, config))
    request = Request(system, config, stage)
    for name in system.every if stage == "all" else (stage,):
        system.stages[name].work(request)
        processes.barrier()  # the next stage reads what the first process has written


def main(system: AnySystem, config_class: type[Scripted], argv: Sequence[str]) -> int:
    """Run the stage that a command line asks for; the exit status.

    With ``--coordinator`` this is one of several processes, each of which runs the whole stage. A
    mistake, or a file that cannot be read or written, is one line and status 2; Ctrl-C and SIGTERM
    end it within seconds, say how to go on, and are status 130 and 143 (:mod:`endings`). Where the
    reader of the output has gone (``| head``) the program ends without a word, status 141.
    """
    endings.any_characters(sys.stdout, sys.stderr)
    try:
        try:
            return _main(system, config_class, argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        return nobody_reads()


def _main(system: AnySystem, config_class: type[Scripted], argv: Sequence[str]) -> int:
    stage, config = parse_command(config_class, argv, described(system))
    object.__setattr__(config, "argv", tuple(argv))  # replaced, it would forget what was implied
    try:
        with endings.within_seconds():
            if config.coordinator:
                place = config.processes, config.process_id, config.heartbeat_timeout
                processes.join(config.coordinator, *place)
            with processes.primary_prints():
                run(system, stage, config)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        endings.say_stopped(stopped)
        return endings.status_of(stopped)
    return 0
