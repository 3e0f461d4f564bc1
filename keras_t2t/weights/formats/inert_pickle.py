"""A pickle reader that does not execute any code. It builds plain containers, and records of everything else.

`pickletools` documents the operations and decodes their arguments. No name is looked up, and no object is called. Time and
memory are bounded by the length of the stream and by `MAX_OPERATIONS`.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

# The training state of a large model, with moving average and optimizer, has about 60,000 operations.
MAX_OPERATIONS = 300_000


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function in a pickle. It is never imported."""

    module: str
    name: str

    def __post_init__(self) -> None:
        if not (isinstance(self.module, str) and isinstance(self.name, str)):
            raise ValueError("the name of a global is not a string")


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Record:
    """A call in a pickle that was not executed.

    The contents of a record are ignored when it is compared or printed, because they can be nested exponentially.
    """

    function: Any
    arguments: Any
    state: Any = None


class InertPickle:
    """Reads consecutive pickles from a binary stream.

    Args:
        stream: Stream to read. After `load`, its position is at the end of the pickle.
        persistent: Function that maps the identifier of an object outside the pickle to that object. By default, it returns a
            `Record`.
        call: Function that maps a callable and its arguments to the result of the call. By default, it returns a `Record`.
    """

    def __init__(
        self,
        stream: BinaryIO,
        persistent: Callable[[Any], Any] = lambda identifier: Record("persistent", identifier),
        call: Callable[[Any, Any], Any] = Record,
    ):
        self._stream, self._persistent, self._call = stream, persistent, call
        self._operations = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Reads the next pickle in the stream.

        Returns:
            The object in the pickle.

        Raises:
            Exception: If the pickle is malformed. The exception can be of any type.
        """
        self._stack, self._marks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(self._stream):
            self._operations += 1
            if self._operations > MAX_OPERATIONS:
                raise ValueError(f"it has more than {MAX_OPERATIONS} pickle operations")
            if opcode.name in _PUSH_ARGUMENT:
                self._stack.append(argument)
            elif opcode.name != "STOP":
                _OPERATIONS[opcode.name](self, argument)
        return self._stack.pop()

    def _pop_mark(self):
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop(self, count):
        if len(self._stack) < count:
            raise ValueError("the stack of the pickle is empty")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _reduce(self):
        function, arguments = self._pop(2)
        self._stack.append(self._call(function, arguments))

    def _inst(self, argument):
        arguments = tuple(self._pop_mark())
        self._stack.append(self._call(Global(*argument.split(" ", 1)), arguments))

    def _obj(self):
        function, *arguments = self._pop_mark()
        self._stack.append(self._call(function, tuple(arguments)))

    def _new_with_keywords(self):
        function, arguments, keywords = self._pop(3)
        self._stack.append(self._call(function, (arguments, keywords)))

    def _build(self):
        (state,) = self._pop(1)
        if isinstance(self._stack[-1], Record):
            self._stack[-1].state = state

    def _extend(self, items):
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Record):
            raise ValueError(f"a pickle adds items to a {type(target).__name__}")

    def _set_items(self, items):
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(_pairs(items))
        elif not isinstance(target, Record):
            raise ValueError(f"a pickle adds entries to a {type(target).__name__}")


def _pairs(items):
    """Yields `(key, value)` pairs. A key that may be slow to hash, such as a nested tuple, becomes a `Record`."""
    if len(items) % 2:
        raise ValueError("a key has no value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        is_fast = key is None or isinstance(key, (str, bytes, float)) or (isinstance(key, int) and key.bit_length() < 64)
        yield key if is_fast else Record("key", key), value


def _push(factory):
    return lambda machine, argument: machine._stack.append(factory())


def _push_popped(count, factory):
    return lambda machine, argument: machine._stack.append(factory(machine._pop(count)))


def _push_marked(factory):
    return lambda machine, argument: machine._stack.append(factory(machine._pop_mark()))


def _remember(machine, argument):
    machine._memo[argument if argument is not None else len(machine._memo)] = machine._stack[-1]


def _recall(machine, argument):
    machine._stack.append(machine._memo[argument])


_PUSH_ARGUMENT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_OPERATIONS = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_TUPLE": _push(tuple),
    "EMPTY_DICT": _push(dict),
    "MARK": lambda machine, argument: machine._marks.append(len(machine._stack)),
    "POP": lambda machine, argument: machine._pop(1),
    "POP_MARK": lambda machine, argument: machine._pop_mark(),
    "DUP": lambda machine, argument: machine._stack.append(machine._stack[-1]),
    "TUPLE1": _push_popped(1, tuple),
    "TUPLE2": _push_popped(2, tuple),
    "TUPLE3": _push_popped(3, tuple),
    "TUPLE": _push_marked(tuple),
    "DICT": _push_marked(lambda items: dict(_pairs(items))),
    # Sets become lists, so that their items do not need to be hashed.
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _push(list)),
    **dict.fromkeys(("LIST", "FROZENSET"), _push_marked(list)),
    "APPEND": lambda machine, argument: machine._extend(machine._pop(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, argument: machine._extend(machine._pop_mark())),
    "SETITEM": lambda machine, argument: machine._set_items(machine._pop(2)),
    "SETITEMS": lambda machine, argument: machine._set_items(machine._pop_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    "GLOBAL": lambda machine, argument: machine._stack.append(Global(*argument.split(" ", 1))),
    "STACK_GLOBAL": _push_popped(2, lambda names: Global(*names)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, argument: machine._reduce()),
    "NEWOBJ_EX": lambda machine, argument: machine._new_with_keywords(),
    "INST": lambda machine, argument: machine._inst(argument),
    "OBJ": lambda machine, argument: machine._obj(),
    "BUILD": lambda machine, argument: machine._build(),
    "PERSID": lambda machine, argument: machine._stack.append(machine._persistent(argument)),
    "BINPERSID": lambda machine, argument: machine._stack.append(machine._persistent(*machine._pop(1))),
}
