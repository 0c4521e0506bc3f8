"""The command line: an optional stage, then flags in any of the accepted spellings (no jax).

:func:`normalise` turns the spellings of the original programs into one form; tyro does types and
help.
"""

import dataclasses
import os.path
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field
from difflib import get_close_matches
from pathlib import PurePath
from typing import ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

import tyro

from jaxsnn.errors import UserError
from jaxsnn.io.typed import Hint

STAGES: Mapping[str, str] = {
    "all": "every stage below, in this order",
    "train": "train the network; checkpoints and model.npz",
    "evaluate": "accuracy of the trained network on the test images",
    "simulate": "convert, simulate and certify; results.json and the original's text files",
    "plot": "draw the figures from the files of earlier runs, nothing else",
}
"""The stages that every experiment has, with what each does. A system may add its own."""

ALIASES: Mapping[str, str] = {
    "lr": "learning_rate",
    "data_path": "data_dir",
    "root": "out",
    "model": "arch",
    "a": "arch",
    "b": "batch_size",
    "n": "num_epochs",
    "u": "unsigned",
    "e": "evaluate",
}
"""Other spellings of a flag. An entry holds where the class has the flag it points to, and not
where the class has a flag of the alias's own name. A class may have more, in ``aliases``."""


class Settings(Protocol):
    """A frozen dataclass whose fields are the flags."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    @property
    def implied_stage(self) -> str:
        """The stage to run when the command line names none."""
        ...


Config = TypeVar("Config", bound=Settings)


def parse_command(
    config_class: type[Config], argv: Sequence[str], stages: Mapping[str, str] = STAGES
) -> tuple[str, Config]:
    """Read a command line: an optional stage, then flags.

    Args:
        config_class: The experiment's settings.
        argv: Arguments without the program's name.
        stages: Name of each stage and what it does, for the help.

    Returns:
        The stage (``config.implied_stage`` where none is named) and the settings.

    Raises:
        SystemExit: With status 2 after a message that names the word, and its nearest known
            neighbour; with status 0 after ``--help``.

    >>> from jaxsnn.systems.settings import LeNetScatter
    >>> stage, config = parse_command(LeNetScatter, ["--k", "0", "--B=1", "--mode", "'training'"])
    >>> stage, config.k, config.B
    ('train', 0, 1)
    """
    try:
        stage, words = _split_stage(argv, stages)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    program = f"{PurePath(sys.argv[0]).name} [STAGE]"
    named = f"STAGE comes first (default: all).\n{_listed(stages)}"
    config = parse_flags(config_class, words, program, named, stage or "all")
    return stage or config.implied_stage, config


Flags = TypeVar("Flags")


def parse_flags(
    config_class: type[Flags], argv: Sequence[str], program: str, about: str = "", stage: str = ""
) -> Flags:
    """Read a command line of flags alone, and of words that stand without a flag.

    Args:
        config_class: a frozen dataclass whose fields are the flags.
        argv: arguments without the program's name.
        program: its name, for the help.
        about: what the help says below the class's own words.
        stage: whose words ``positionals`` of the class names.

    Raises:
        SystemExit: as :func:`parse_command`.
    """
    try:
        arguments = normalise(config_class, _named(config_class, stage, argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    return tyro.cli(
        config_class,
        prog=program,
        description=_description(config_class, about),
        args=arguments,
        config=(tyro.conf.FlagConversionOff,),
    )


def _listed(stages: Mapping[str, str]) -> str:
    """A line for each stage."""
    return "\n".join(f"- {name}: {what}" for name, what in stages.items())


def _description(config_class: type, about: str) -> str:
    """What the experiment is, what to expect of it, and how it is called."""
    summary = (config_class.__doc__ or "").split("\n", 1)[0]
    return "\n\n".join(filter(None, (summary, getattr(config_class, "expect", ""), about)))


def _named(config_class: type, stage: str, words: Sequence[str]) -> list[str]:
    """The words behind a stage that stand without a flag, with the flags that they stand for.

    A class says in ``positionals`` which they are; the last of a stage may take several.
    """
    names = getattr(config_class, "positionals", {}).get(stage, ())
    kinds, rest, flagged = flags(config_class), deque(words), list[str]()
    for name in names:
        values: list[str] = []
        while rest and not re.match(r"-|[A-Za-z][\w.-]*=", rest[0]):
            values.append(rest.popleft())
            if get_origin(kinds[name]) is not tuple:
                break
        flagged += [f"--{name}", *values] if values else []
    return [*flagged, *rest]


def _split_stage(argv: Sequence[str], stages: Mapping[str, str]) -> tuple[str, Sequence[str]]:
    if not argv or argv[0].startswith("-") or "=" in argv[0]:
        return "", argv
    if argv[0] not in stages:
        raise UserError(f"unknown stage {argv[0]!r}; {_nearest(argv[0], stages)}")
    return argv[0], argv[1:]


def normalise(config_class: type, argv: Sequence[str]) -> list[str]:
    """Bring every accepted spelling of the flags into the one form that tyro takes.

    ``--a-b v``, ``--a_b=v``, ``a_b=v`` and aliases are the same; a boolean flag may stand alone or
    be followed by true or false; several values stand apart or are joined by commas, in brackets or
    not; a pair of quotes around a value is dropped; of a flag given twice the last one holds.

    Args:
        config_class: A dataclass whose fields are the flags.
        argv: Flags, without program name and stage.

    Raises:
        UserError: For an unknown name, a missing value, a value that is no choice of its flag, or a
            word that belongs to no flag.

    >>> from jaxsnn.systems.settings import LeNetScatter
    >>> normalise(LeNetScatter, ["--lr", "1e-4", "--resume", "noise_ratio=0.1,0.2"])
    ['--learning-rate=1e-4', '--resume=True', '--noise-ratio', '0.1', '0.2']
    """
    kinds = flags(config_class)
    chosen: dict[str, list[str]] = {}
    words = deque(argv)
    while words:
        word = words.popleft()
        if word in ("-h", "--help"):
            return ["--help"]
        match = re.fullmatch(r"(-{0,2})([A-Za-z][\w.-]*)(=.*)?", word, re.DOTALL)
        if match is None or not (match[1] or match[3]):
            raise UserError(
                f"{word!r} belongs to no flag; write --name value or name=value, "
                "and the stage before all flags"
            )
        name = _resolve(match[2], kinds, getattr(config_class, "aliases", {}))
        attached = None if match[3] is None else match[3][1:]
        chosen[name] = _values(word, kinds[name], attached, words)
        _refuse_choice(name, kinds[name], chosen[name])
    return [word for name, values in chosen.items() for word in _emit(name, kinds[name], values)]


def flags(config_class: type) -> dict[str, Hint]:
    """Type of every flag by its name."""
    hints = get_type_hints(config_class)
    fields = [field for field in dataclasses.fields(config_class) if field.init]
    return {field.name: hints[field.name] for field in fields if field.name != "argv"}


def _resolve(spelling: str, kinds: Mapping[str, Hint], aliases: Mapping[str, str]) -> str:
    name, others = spelling.replace("-", "_"), {**ALIASES, **aliases}
    if name in kinds:
        return name
    if others.get(name) in kinds:
        return others[name]
    raise UserError(f"unknown flag {spelling!r}; {_nearest(name, kinds, aliases)}")


def _nearest(name: str, names: Iterable[str], also: Iterable[str] = ()) -> str:
    """What to write instead of an unknown name: one neighbour, or all names."""
    by_lower = {candidate.lower(): candidate for candidate in (*also, *names)}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f"nearest: {by_lower[close[0]]}" if close else f"known: {', '.join(names)}"


def _values(word: str, kind: Hint, attached: str | None, words: deque[str]) -> list[str]:
    """Values of one flag, taken from behind its ``=`` or from the words that follow."""
    if kind is bool or bool in get_args(kind):
        return [_switch(word, kind, attached, words)]
    several = get_origin(kind) is tuple
    if attached is not None:
        values = [attached]
    else:
        values = [words.popleft()] if words and _is_value(words[0]) else []
        while several and words and _is_value(words[0]) and not re.match(r"[A-Za-z].*=", words[0]):
            values.append(words.popleft())
    if not values:
        raise UserError(f"{word} wants a value behind it, as in {word} VALUE")
    values = [_unquote(value) for value in values]
    if not several:
        return values
    return [part for value in values for part in _parts(value)]


def _parts(value: str) -> list[str]:
    """The values of a list in brackets, or with commas or blanks; a path that exists is one."""
    return [value] if os.path.exists(value) else [x for x in re.split(r"[\[\](), ]+", value) if x]


def _switch(word: str, kind: Hint, attached: str | None, words: deque[str]) -> str:
    """True, False, or None where the flag may be left open."""
    answers = {"true": "True", "false": "False"} | ({} if kind is bool else {"none": "None"})
    if attached is None and words and _unquote(words[0]).lower() in answers:
        attached = words.popleft()
    answer = "True" if attached is None else answers.get(_unquote(attached).lower())
    if answer is None:
        raise UserError(f"{word} is neither true nor false; write true, false or the flag alone")
    return answer


def _refuse_choice(name: str, kind: Hint, values: Sequence[str]) -> None:
    """Refuse a word that is none of a flag's choices; tyro would take a page for it."""
    alone = get_origin(kind) is Literal
    members = [kind] if alone else [one for one in get_args(kind) if get_origin(one) is Literal]
    choices = [str(one) for member in members for one in get_args(member)]
    wrong = [value for value in values if choices and value not in (*choices, "None")]
    if wrong:
        said = ", ".join(choice or "nothing" for choice in choices)
        raise UserError(f"--{name.replace('_', '-')} is {wrong[0]!r}; possible: {said}")


def _is_value(word: str) -> bool:
    """A negative number is a value; any other word with a leading hyphen is a flag."""
    return not word.startswith("-") or re.match(r"-(\d|\.\d|inf\b|nan\b)", word) is not None


def _unquote(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _emit(name: str, kind: Hint, values: list[str]) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag, *values] if get_origin(kind) is tuple else [f"{flag}={values[0]}"]
