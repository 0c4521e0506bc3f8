"""A machine for pickles that builds plain values and calls nothing of what a file names.

Python's unpickler imports and calls whatever a pickle asks for. This one knows the operations that
build numbers, strings, tuples, lists and dictionaries, and a table of names that stand for
functions of ours. Everything else is refused where it stands.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias, cast

from jaxsnn.errors import UserError, shown

LONGEST_KEY = 60  # bits of a whole number whose hash is itself
LONGEST = 2**24  # bytes of a pickle; that of a network with 10,000 tensors has about 1 MB

Function: TypeAlias = Callable[..., object]
Dictionary: TypeAlias = dict[object, object]

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_FRESH: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEPT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_RECALLED = {"GET", "BINGET", "LONG_BINGET"}


class RefusedError(Exception):
    """A pickle asks for what plain values don't need; the message says what, and at which byte."""


class Name(NamedTuple):
    """A name that is admitted: ``module.name``, and what is done where it is called (None: never).

    Attributes:
        text: as the pickle has it, with a dot between module and name.
        call: our own stand-in.
    """

    text: str
    call: Function | None


def run(
    file: io.BytesIO, names: Mapping[str, Function | None], persistent: Function | None = None
) -> object:
    """Build the value of one pickle, and stop behind it.

    Args:
        file: stands at the pickle's first byte.
        names: ``module.name`` -> what stands in for it where it is called; None: never called.
        persistent: turns the identifier of something outside the pickle into a value.

    Returns:
        Numbers, strings, tuples, lists, dictionaries (an OrderedDict among them), :class:`Name`,
        and what ``names`` and ``persistent`` return.

    Raises:
        RefusedError: it asks for another name or operation, or is longer than :data:`LONGEST`.
        UserError: it is damaged.

    >>> import pickle
    >>> run(io.BytesIO(pickle.dumps({"epoch": 3, "lr": (0.1, 0.01)})), {})
    {'epoch': 3, 'lr': (0.1, 0.01)}
    """
    machine, start = _Machine(names, persistent), file.tell()
    for operation, argument, position in pickletools.genops(file):
        offset = (position or 0) - start
        if offset > LONGEST:
            raise RefusedError(f"a pickle of more than {LONGEST} bytes")
        try:
            machine.step(operation.name, argument)
        except RefusedError as error:
            raise RefusedError(f"{error} (byte {offset} of the pickle)") from None
        except (IndexError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"byte {offset} of the pickle: {operation.name} fails") from error
    return machine.result()


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, names: Mapping[str, Function | None], persistent: Function | None) -> None:
        self.names, self.persistent = names, persistent
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # what lay on the stack at each mark
        self.memo: dict[object, object] = {}

    def step(self, operation: str, argument: object) -> None:
        """Do one operation.

        Raises:
            RefusedError: it is none of those above, or does what they may not.
        """
        if operation in _LITERALS:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _FRESH:
            self.stack.append(_FRESH[operation]())
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            items = tuple(self.stack.pop() for _ in range(count))
            self.stack.append(items[::-1])
        elif operation in _KEPT:
            key = len(self.memo) if operation == "MEMOIZE" else argument
            if _is_long(key):
                raise RefusedError("a value that is kept under a number beyond all others")
            self.memo[key] = self.stack[-1]
        elif operation in _RECALLED:
            self.stack.append(self.memo[argument])
        elif operation in _ACTIONS:
            _ACTIONS[operation](self, argument)
        elif operation == "INST":
            raise RefusedError(f"it asks for {_dotted(argument)}")
        else:
            raise RefusedError(f"the operation {operation}, which no plain value needs")

    def result(self) -> object:
        """What remains at the end."""
        if len(self.stack) != 1 or self.below:
            raise UserError(f"{len(self.stack)} values are left at the end of the pickle, not 1")
        return self.stack[0]

    def mark(self, _: object) -> None:
        """Begin a group."""
        self.below.append(self.stack)
        self.stack = []

    def group(self) -> list[object]:
        """End the group since the last mark."""
        group, self.stack = self.stack, self.below.pop()
        return group

    def make_tuple(self, _: object) -> None:
        """The group as a tuple."""
        group = self.group()
        self.stack.append(tuple(group))

    def make_list(self, _: object) -> None:
        """The group as a list."""
        group = self.group()
        self.stack.append(group)

    def make_dict(self, _: object) -> None:
        """The group as a dictionary."""
        group = self.group()
        self.stack.append({})
        self.fill(group)

    def append(self, _: object) -> None:
        """One item to a list."""
        self.extend([self.stack.pop()])

    def appends(self, _: object) -> None:
        """The group to a list."""
        self.extend(self.group())

    def extend(self, group: list[object]) -> None:
        """Append to the list on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise RefusedError(f"it appends to a {shown(target)}")
        cast("list[object]", target).extend(group)

    def set_item(self, _: object) -> None:
        """One item to a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        self.fill([key, value])

    def set_items(self, _: object) -> None:
        """The group to a dictionary."""
        self.fill(self.group())

    def fill(self, group: list[object]) -> None:
        """Keys and values to the dictionary on top of the stack.

        Tuples are no keys: hashing one of tuples of tuples can take for ever. Nor are long whole
        numbers, of which any number can have the same hash.
        """
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedError(f"it sets items of a {shown(target)}")
        for key, value in zip(group[::2], group[1::2], strict=True):
            if _is_long(key) or not isinstance(key, str | bytes | int | float | None):
                raise RefusedError(f"a {shown(key)} as the key of a dictionary")
            cast("Dictionary", target)[key] = value

    def name(self, argument: object) -> None:
        """A name that stands for one of our functions."""
        text = _dotted(argument)
        if text not in self.names:
            raise RefusedError(f"it asks for {text}")
        self.stack.append(Name(text, self.names[text]))

    def stacked_name(self, _: object) -> None:
        """A name whose two parts lie on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise RefusedError(f"a name made of {shown(module)} and {shown(name)}")
        self.name(f"{module} {name}")

    def call(self, _: object) -> None:
        """Our function for a name."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not (isinstance(function, Name) and function.call and isinstance(arguments, tuple)):
            raise RefusedError(f"it calls {getattr(function, 'text', shown(function))}")
        try:
            self.stack.append(function.call(*cast("tuple[object, ...]", arguments)))
        except (TypeError, ValueError) as error:
            raise RefusedError(
                f"{function.text} cannot be given these arguments: {error}"
            ) from error

    def build(self, _: object) -> None:
        """Attributes of a dictionary (torch's ``_metadata``) are left out; nothing else has any."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise RefusedError(f"it sets attributes of a {shown(self.stack[-1])}")

    def outside(self, _: object) -> None:
        """Something outside the pickle."""
        if self.persistent is None:
            raise RefusedError("it refers to something outside")
        identifier = self.stack.pop()
        try:
            self.stack.append(self.persistent(identifier))
        except (TypeError, ValueError) as error:
            raise RefusedError(f"what it refers to: {error}") from error


def _is_long(key: object) -> bool:
    """Whether a key is a whole number that shares its hash with any number of others."""
    return isinstance(key, int) and key.bit_length() > LONGEST_KEY


def _dotted(argument: object) -> str:
    """``module.name``, printable and short."""
    return shown(str(argument).replace(" ", ".", 1)[: 2**10]).strip("'\"")


_ACTIONS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "STOP": lambda machine, argument: None,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stacked_name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.outside,
}
