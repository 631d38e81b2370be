"""Open compressed, pickled texts of a data set as plain data, without running anything.

    "eJxrYJnKzQABPZ4Z…"  ->  [{"input": "1 2\\n", "output": "3\\n", "testtype": "stdin"}]

LiveCodeBench keeps its private tests so: JSON, pickled, compressed, in base64. A pickle is a program that may call any
function. Here its instructions are carried out one by one: those that make None, truth values, numbers, text, lists,
tuples and dictionaries, and no other. `pickle` itself never sees it. What it makes is bounded too, since a few bytes
may stand for gigabytes.
"""

import base64
import binascii
import io
import json
import pickletools
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

MAX_BYTES = 256 << 20
"""Largest size after decompression, and of all texts in the data together."""
MAX_VALUES = 2_000_000
"""Largest number of values in a pickle, and of brackets in its JSON (an empty list takes 20 times its own length)."""
MAX_INSTRUCTIONS = 4 * MAX_VALUES
"""Most instructions of a pickle, which take seconds; they may make nothing."""
MAX_DEPTH = 50
"""Deepest nesting of lists in the data."""
MAX_DIGITS = 4_300
"""Longest number, as in Python's own conversion from text."""
BITS_A_DIGIT = 3.33


class NotPlainDataError(ValueError):
    """A text is not compressed plain data. The message completes a sentence: `is not base64`."""


class _Value(NamedTuple):
    value: Any
    depth: int


_MARK = _Value(object(), 0)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OF_MARK = {"TUPLE", "LIST", "DICT"}
_MANY = {"APPEND": 1, "SETITEM": 2, "APPENDS": None, "SETITEMS": None}
_KEEP = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_RECALL = {"GET", "BINGET", "LONG_BINGET"}
_NOTHING = {"PROTO", "FRAME"}


def open_packed(text: str, max_bytes: int = MAX_BYTES) -> Any:
    """Return the data in a text: base64 of zlib's compression of a pickle, and of the JSON in it where it is a text.

    Args:
        text: what the data set holds.
        max_bytes: largest size of the decompressed pickle.

    Raises:
        NotPlainDataError: it is something else, too large, or a pickle that makes more than plain data.
    """
    found = load_plain(_decompressed(text, max_bytes), max_bytes)
    return read_json(found) if isinstance(found, str) else found


def read_json(text: str) -> Any:
    """Return the value of JSON.

    Raises:
        NotPlainDataError: it is not JSON, or nested too deeply.
    """
    if text.count("[") + text.count("{") > MAX_VALUES:
        raise NotPlainDataError(f"holds JSON with more than {MAX_VALUES:,} brackets")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise NotPlainDataError(f"holds a text that is not JSON ({why})") from None


def load_plain(pickled: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """Return the plain data that a pickle makes.

    Args:
        pickled: of any protocol.
        max_bytes: largest size of all texts together, each counted as often as it occurs.

    Raises:
        NotPlainDataError: it is damaged, makes more than plain data, or too much of it.
    """
    machine = _Machine(max_bytes)
    stream = io.BytesIO(pickled)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                break
            if number >= MAX_INSTRUCTIONS:
                raise NotPlainDataError(f"is a pickle of more than {MAX_INSTRUCTIONS:,} instructions")
            machine.do(opcode.name, argument)
        if stream.read(1):
            raise NotPlainDataError("has more after the end of its pickle")
        (found,) = machine.stack
    except NotPlainDataError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise NotPlainDataError(f"is a damaged pickle ({error or type(error).__name__})") from None
    if found is _MARK:
        raise NotPlainDataError("is a damaged pickle (it makes nothing)")
    return found.value


class _Machine:
    """Carries out the instructions of a pickle that make plain data.

    Only numbers and texts can be recalled from its memory. So no list is in itself or in two places, and a nest of
    lists that double each other cannot be written down.
    """

    def __init__(self, max_bytes: int) -> None:
        self.stack: list[_Value] = []
        self._memory: dict[int, _Value] = {}
        self._max_bytes = max_bytes
        self._num_chars = 0
        self._num_values = 0

    def do(self, name: str, argument: Any) -> None:
        """Carry out one instruction.

        Raises:
            NotPlainDataError: it would make something else than plain data, or too much.
        """
        if name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _NUMBERS or name in _TEXTS:
            self._push(argument)
        elif name in _EMPTY:
            self._push(_EMPTY[name](), 1)
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name in _TUPLES:
            self._gather(tuple, self._taken(_TUPLES[name]))
        elif name in _OF_MARK:
            self._gather({"TUPLE": tuple, "LIST": list, "DICT": dict}[name], self._since_mark())
        elif name in _MANY:
            self._add(name.startswith("SET"), self._since_mark() if _MANY[name] is None else self._taken(_MANY[name]))
        elif name in _KEEP:
            self._memory[len(self._memory) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name in _RECALL:
            self._recall(int(argument))
        elif name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name not in _NOTHING:
            raise NotPlainDataError(f"is a pickle with the instruction {name}, which makes more than plain data")

    def _push(self, value: Any, depth: int = 0) -> None:
        if isinstance(value, str):
            self._num_chars += len(value)
        elif isinstance(value, int) and value.bit_length() > MAX_DIGITS * BITS_A_DIGIT:
            raise NotPlainDataError(f"holds a number of more than {MAX_DIGITS:,} digits")
        self._num_values += 1
        if self._num_chars > self._max_bytes or self._num_values > MAX_VALUES:
            raise NotPlainDataError(f"makes more than {self._max_bytes >> 20:,} MiB of text or {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise NotPlainDataError(f"holds lists nested more than {MAX_DEPTH} deep")
        self.stack.append(_Value(value, depth))

    def _taken(self, num: int | None) -> list[_Value]:
        """Take values off the stack."""
        assert num is not None
        taken = self.stack[len(self.stack) - num :] if num else []
        if len(taken) != num or any(item is _MARK for item in taken):
            raise IndexError("too few values")
        del self.stack[len(self.stack) - num :]
        return taken

    def _since_mark(self) -> list[_Value]:
        """Take the values above the last mark off the stack, and the mark."""
        place = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if place is None:
            raise IndexError("no mark")
        taken = self.stack[place + 1 :]
        del self.stack[place:]
        return taken

    def _gather(self, kind: type, items: list[_Value]) -> None:
        depth = 1 + max((item.depth for item in items), default=0)
        values = [item.value for item in items]
        self._push(dict(_paired(values)) if kind is dict else kind(values), depth)

    def _add(self, is_mapping: bool, items: list[_Value]) -> None:
        """Add values to the list or the dictionary below them."""
        into = self.stack.pop()
        values = [item.value for item in items]
        if is_mapping and isinstance(into.value, dict):
            into.value.update(_paired(values))
        elif not is_mapping and isinstance(into.value, list):
            into.value.extend(values)
        else:
            raise TypeError("values are added to what cannot hold them")
        depth = max(into.depth, 1 + max((item.depth for item in items), default=0))
        if depth > MAX_DEPTH:
            raise NotPlainDataError(f"holds lists nested more than {MAX_DEPTH} deep")
        self.stack.append(_Value(into.value, depth))

    def _recall(self, place: int) -> None:
        value, depth = self._memory[place]
        if depth or self._memory[place] is _MARK:
            raise NotPlainDataError("is a pickle in which one list is in several places")
        self._push(value)


def _paired(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield keys with their values.

    Raises:
        TypeError: a key has no value, or is no text. Numbers could be chosen so that all have one hash.
    """
    if len(values) % 2 or not all(isinstance(key, str) for key in values[::2]):
        raise TypeError("keys of a dictionary are not text, each with a value")
    return (pair for number, pair in enumerate(pairwise(values)) if number % 2 == 0)


def _decompressed(text: str, max_bytes: int) -> bytes:
    try:
        packed = base64.b64decode(text.strip().encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise NotPlainDataError("is not base64") from None
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise NotPlainDataError(f"is not compressed by zlib ({error})") from None
    if len(found) > max_bytes:
        raise NotPlainDataError(f"is larger than {max_bytes >> 20:,} MiB when it is decompressed")
    if not stream.eof or stream.unused_data:
        raise NotPlainDataError("is cut off, or has more after its end")
    return found
