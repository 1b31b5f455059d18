"""Pickles of plain data, read without Python's unpickler: nothing in them can call anything.

A pickle is a program for a stack machine. This one knows the instructions that plain values and
NumPy's arrays of bytes need, and takes the four names that such an array is pickled with for what
they mean. What it makes are new values of its own; size and count of instructions are bounded.
"""

import pickletools
from enum import Enum
from itertools import islice
from typing import Any

import numpy as np

# CIFAR-10's own batches have 31 MB and some 30,000 instructions.
MAX_BYTES = 64 << 20
MAX_INSTRUCTIONS = 200_000


class PlainArray:
    """An array of bytes; `array` is None until the pickle has said what is in it."""

    array: np.ndarray | None = None


def load_plain(
    data: bytes, max_bytes: int = MAX_BYTES, max_instructions: int = MAX_INSTRUCTIONS
) -> object:
    """None, numbers, text, bytes, lists, tuples, dicts with keys of text, and `PlainArray`s.

    Raises ValueError for a pickle of anything else, one that is damaged, and one that is too large.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    try:
        return _Machine(max_bytes, max_instructions).run(data)
    # A damaged program can fail in nearly any way; it has called nothing that is not in this file.
    except Exception as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"unreadable: {why[:200]}") from error


class _Name(Enum):
    """The names that a pickle may ask for."""

    RECONSTRUCT = "_reconstruct"
    ARRAY = "ndarray"
    TYPE = "dtype"
    ENCODE = "encode"


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Name.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Name.RECONSTRUCT,
    ("numpy", "ndarray"): _Name.ARRAY,
    ("numpy", "dtype"): _Name.TYPE,
    ("_codecs", "encode"): _Name.ENCODE,
}
_BYTE = np.dtype(np.uint8)
_NOTHING = {"PROTO", "FRAME"}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_ARGUMENTS = _NUMBERS | _TEXTS | _BYTES
_OLD_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # Python 2's, which are bytes
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


class _Machine:
    def __init__(self, max_bytes: int, max_instructions: int) -> None:
        self.max_bytes, self.max_instructions = max_bytes, max_instructions
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.room = max_bytes  # for bytes that are written as text

    def run(self, data: bytes) -> object:
        program = pickletools.genops(data)
        for opcode, argument, _ in islice(program, self.max_instructions):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise ValueError(f"it has more than {self.max_instructions:,} instructions")

    def step(self, name: str, argument: Any) -> None:
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _OLD_STRINGS:
            self.stack.append(argument.encode("latin1"))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[name])))
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif own := getattr(self, f"do_{name.lower()}", None):
            own(argument)
        elif name not in _NOTHING:
            raise ValueError(f"it uses {name}, which plain data does not need")

    def take(self, n: int) -> list[Any]:
        """The last n values of the stack, taken away."""
        if n > len(self.stack):
            raise ValueError("a value is missing")
        values = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return values

    def take_marked(self) -> list[Any]:
        return self.take(len(self.stack) - self.marks.pop())

    # An instruction each.

    def do_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def do_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_tuple(self, _: None) -> None:
        self.stack.append(tuple(self.take_marked()))

    def do_list(self, _: None) -> None:
        self.stack.append(self.take_marked())

    def do_append(self, _: None) -> None:
        self.extend(self.take(1))

    def do_appends(self, _: None) -> None:
        self.extend(self.take_marked())

    def do_dict(self, _: None) -> None:
        values = self.take_marked()
        self.stack.append({})
        self.update(values)

    def do_setitem(self, _: None) -> None:
        self.update(self.take(2))

    def do_setitems(self, _: None) -> None:
        self.update(self.take_marked())

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_named(module, name))

    def do_stack_global(self, _: None) -> None:
        self.stack.append(_named(*self.take(2)))

    def do_reduce(self, _: None) -> None:
        called, arguments = self.take(2)
        if called is _Name.RECONSTRUCT:
            self.stack.append(PlainArray())
        elif called is _Name.TYPE and arguments[0] in ("u1", b"u1"):
            self.stack.append(_BYTE)
        elif called is _Name.ENCODE:
            self.stack.append(self.encoded(*arguments))
        else:
            raise ValueError("it holds an array of something else than bytes, or calls something")

    def do_build(self, _: None) -> None:
        made, state = self.take(2)
        self.stack.append(made)
        if isinstance(made, PlainArray):
            made.array = _array(*state)
        elif made is not _BYTE:  # whose state is the order of its single byte
            raise ValueError("it sets attributes of something else than an array")

    # What they have in common.

    def extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        found = self.stack[-1]
        # The hash of a tuple of tuples, or of chosen numbers, could take for ever.
        if type(found) is not dict or not all(type(key) in (str, bytes) for key in values[::2]):
            raise ValueError("it has a dict with keys that are no text")
        found.update(zip(values[::2], values[1::2], strict=True))

    def encoded(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding != "latin1":
            raise ValueError("it holds bytes that are not written in latin1")
        self.room -= len(text)
        if self.room < 0:
            raise ValueError(f"it unpacks to more than {self.max_bytes:,} bytes")
        return text.encode("latin1")


def _named(module: object, name: object) -> _Name:
    if type(module) is not str or type(name) is not str:
        raise ValueError("it asks for a name that is no text")
    if (module, name) not in _NAMES:
        asked = f"{module[:60]}.{name[:60]}"
        raise ValueError(f"it asks for {asked!a}, which is not plain data")
    return _NAMES[module, name]


def _array(_version: object, shape: object, kind: object, by_column: object, raw: object) -> Any:
    if kind is not _BYTE or by_column is not False or type(raw) is not bytes:
        raise ValueError("it holds an array of something else than bytes, or one in column order")
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("it holds an array without a shape")
    return np.frombuffer(raw, np.uint8).reshape(shape)
