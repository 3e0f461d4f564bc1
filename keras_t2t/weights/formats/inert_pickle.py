"""A pickle machine that runs nothing: it builds plain containers, and a record of everything else that a pickle asks for.

The operations are those of Python's documentation of `pickletools`, which also decodes their arguments. No name is looked up,
no object is called. Time and memory are bounded by the length of the stream and `MAX_OPERATIONS`.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

# The training state of a large model with its EMA and its optimizer takes about 60,000.
MAX_OPERATIONS = 300_000


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """A class or function that a pickle names. It is never imported."""

    module: str
    name: str

    def __post_init__(self):
        if not (isinstance(self.module, str) and isinstance(self.name, str)):
            raise ValueError("the name of a global is no string")


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Record:
    """An object that a pickle would have made by calling something. It is compared and shown without a look at its parts."""

    function: Any
    arguments: Any
    state: Any = None


class InertPickle:
    """Reads pickles one after the other from a binary stream.

    Args:
        stream: where to read; after `load` it stands behind the pickle that was read.
        persistent: from the identifier of an object kept outside the pickle to that object.
        call: from what is called and its arguments to the result; by default a `Record`.
    """

    def __init__(
        self,
        stream: BinaryIO,
        persistent: Callable[[Any], Any] = lambda identifier: Record("persistent", identifier),
        call: Callable[[Any, Any], Any] = Record,
    ):
        self._stream, self._persistent, self._call = stream, persistent, call
        self._operations = 0

    def load(self) -> Any:
        """Returns the next object of the stream. Raises any `Exception` at a pickle that is malformed."""
        self._stack, self._marks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(self._stream):
            self._operations += 1
            if self._operations > MAX_OPERATIONS:
                raise ValueError(f"more than {MAX_OPERATIONS} pickle operations")
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
            raise ValueError("the stack is empty")
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
            raise ValueError(f"items for a {type(target).__name__}")

    def _set_items(self, items):
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(_pairs(items))
        elif not isinstance(target, Record):
            raise ValueError(f"entries for a {type(target).__name__}")


def _pairs(items):
    """Yields (key, value). A key that would take long to hash, such as nested tuples, becomes a `Record`."""
    if len(items) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        quick = key is None or isinstance(key, (str, bytes, float)) or (isinstance(key, int) and key.bit_length() < 64)
        yield key if quick else Record("key", key), value


def _push(make):
    return lambda machine, argument: machine._stack.append(make())


def _push_popped(count, make):
    return lambda machine, argument: machine._stack.append(make(machine._pop(count)))


def _push_marked(make):
    return lambda machine, argument: machine._stack.append(make(machine._pop_mark()))


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
    # Sets become lists: nobody asks what is in them, and nothing has to be hashed.
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
