"""Typed JSON: plain values of exact built-in types, as they travel between a program under test and its judge.

    encode([1, (2.5, None)])       b'[1,{"tuple":[2.5,null]}]'
    decode(b'{"set":[1]}')         {1}

Lists, strings, booleans, None, finite floats and integers of up to 64 bits are themselves; others are an object with
one key, their type. `decode` trusts nothing: it takes exact types only, within limits of depth, size and digits, and
refuses sets and dictionaries whose keys were made to collide, on which Python would spend hours.
"""

import base64
import importlib
import json
import math
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

MAX_BYTES = 16 << 20
"""Longer encodings are refused, in both directions."""
MAX_DEPTH = 200
MAX_HEX_DIGITS = 100_000
"""Of an integer."""
MAX_EXPONENT = 10_000
"""Of a decimal number."""
MAX_FRACTION_BITS = 4_000
"""Of its two parts, whose common divisor takes the square of that."""
MAX_COLLISIONS = 64
"""Keys with the same hash in one set or dictionary."""
MAX_ITEMS = 1_000_000
"""Of an iterator, which may be endless."""
MAX_PARTS = 3_000_000
"""Commas and brackets: each may become an object of a hundred bytes."""

_WORD = 1 << 63
_ITERATORS: tuple[type, ...] = (
    *(type(iter([])), type(iter(())), types.GeneratorType),
    *(map, filter, zip, enumerate, reversed),
)


class ValueTooLargeError(ValueError):
    """A value, or bytes that stand for one, beyond one of the limits."""


class UnsendableError(ValueError):
    """A value that is not plain."""


def encode(value: Any, *, liberal: bool = False) -> bytes:
    """Return a value as typed JSON.

    Args:
        value: of exact built-in types.
        liberal: send subclasses of these types as what they are based on, and iterators as their items. For values
            that a program returns: a subclass with an `__eq__` of its own does not reach a comparison.

    Raises:
        UnsendableError: it, or something in it, is of another type.
        ValueTooLargeError: it is too deep or too long.
    """
    try:
        text = json.dumps(_packed(value, 0, liberal), separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueTooLargeError("nested too deeply") from None
    if len(text) > MAX_BYTES:
        raise ValueTooLargeError(f"{len(text)} bytes are too many")
    return text.encode("ascii")


def decode(content: bytes | bytearray | memoryview) -> Any:
    """Return the value that `encode` was given; iterators as iterators over lists.

    Raises:
        ValueTooLargeError: it is beyond a limit.
        ValueError: the bytes are not what `encode` returns.
    """
    if len(content) > MAX_BYTES:
        raise ValueTooLargeError(f"{len(content)} bytes are too many")
    try:
        text = str(content, "ascii")
        if text.count(",") + text.count("[") + text.count("{") > MAX_PARTS:
            raise ValueTooLargeError("too many parts")
        parsed = json.loads(text, parse_int=_short_int, parse_constant=_refuse)
        return _unpacked(parsed, 0)
    except RecursionError:
        raise ValueTooLargeError("nested too deeply") from None
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"no typed JSON: {str(error)[:200]}") from None


def _packed(value: Any, depth: int, liberal: bool) -> Any:
    if depth > MAX_DEPTH:
        raise ValueTooLargeError("nested too deeply")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_WORD <= value < _WORD else {"int": _hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [_packed(one, depth + 1, liberal) for one in value]
    pack = _PACK.get(kind) or _LATE.get((kind.__module__, kind.__name__))
    if pack is not None:
        return {kind.__name__: pack(value, lambda one: _packed(one, depth + 1, liberal))}
    if liberal:
        plain = _stripped(value, kind)
        if plain is not value:
            return _packed(plain, depth + 1, liberal)
        if kind in _ITERATORS or kind.__module__ == "itertools":
            return {"iterator": _packed(_items(value), depth + 1, liberal)}
    raise UnsendableError(f"a {str(kind.__name__)[:100]} is no plain value")


def _stripped(value: Any, kind: type) -> Any:
    """Return the built-in value that an instance of a subclass is based on, by methods that it cannot override."""
    if issubclass(kind, int):
        return int.__pos__(value)
    if issubclass(kind, float):
        return float.__pos__(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, bytes):
        return bytes.__add__(value, b"")
    if issubclass(kind, list):
        return list(list.__iter__(value))
    if issubclass(kind, tuple):
        return tuple(tuple.__iter__(value))
    if issubclass(kind, dict):
        return dict(dict.items(value))
    if issubclass(kind, set):
        return set(set.__iter__(value))
    if issubclass(kind, frozenset):
        return frozenset(frozenset.__iter__(value))
    if kind is type({}.keys()):
        return set(value)
    if kind is type({}.values()) or kind is type({}.items()):
        return list(value)
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):  # arrays too, as lists
        plain = value.tolist()
        return plain if type(plain) in (bool, int, float, complex, str, bytes, list) else value
    return value


def _items(iterator: Iterator[Any]) -> list[Any]:
    items = []
    for item in iterator:
        items.append(item)
        if len(items) > MAX_ITEMS:
            raise ValueTooLargeError(f"an iterator of more than {MAX_ITEMS} items")
    return items


def _hex(value: int) -> str:
    if value.bit_length() > 4 * MAX_HEX_DIGITS:
        raise ValueTooLargeError("an integer with too many digits")
    return hex(value)


_PACK: dict[type, Callable[[Any, Callable[[Any], Any]], Any]] = {
    tuple: lambda value, pack: [pack(one) for one in value],
    set: lambda value, pack: [pack(one) for one in value],
    frozenset: lambda value, pack: [pack(one) for one in value],
    dict: lambda value, pack: [[pack(key), pack(one)] for key, one in value.items()],
    deque: lambda value, pack: [pack(one) for one in value],
    bytes: lambda value, _: base64.b64encode(value).decode(),
    bytearray: lambda value, _: base64.b64encode(value).decode(),
    complex: lambda value, pack: [pack(value.real), pack(value.imag)],
    range: lambda value, pack: [pack(value.start), pack(value.stop), pack(value.step)],
}

# Their modules take longer to import than most programs run. What only calls itself so is unpacked as the true one.
_LATE: dict[tuple[str, str], Callable[[Any, Callable[[Any], Any]], Any]] = {
    ("decimal", "Decimal"): lambda value, _: str(value),
    ("fractions", "Fraction"): lambda value, pack: [pack(value.numerator), pack(value.denominator)],
}


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueTooLargeError("an integer with too many digits")
    return int(digits)


def _refuse(name: str) -> Any:
    raise ValueError(f"no typed JSON: {name}")


def _unpacked(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueTooLargeError("nested too deeply")
    kind = type(value)
    if kind is list:
        return [_unpacked(one, depth + 1) for one in value]
    if kind is not dict:
        return value
    ((name, inner),) = value.items()
    if name in ("int", "float", "bytes", "bytearray", "Decimal"):
        return _from_text(name, inner)
    if name == "dict":
        pairs = [(_unpacked(key, depth + 1), _unpacked(one, depth + 1)) for key, one in inner]
        _refuse_collisions([key for key, _ in pairs])
        return dict(pairs)
    if type(inner) is not list:
        raise TypeError(name)
    items = [_unpacked(one, depth + 1) for one in inner]
    if name in ("set", "frozenset"):
        _refuse_collisions(items)
    return _from_items(name, items)


def _from_text(name: str, text: Any) -> Any:
    if type(text) is not str:
        raise TypeError(name)
    if name == "int":
        if len(text) > MAX_HEX_DIGITS + 3:
            raise ValueTooLargeError("an integer with too many digits")
        return int(text, 16)
    if name == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]
    if name == "Decimal":
        if len(text) > 4_000:
            raise ValueTooLargeError("a decimal number with too many digits")
        number = importlib.import_module("decimal").Decimal(text)
        # Others raise where they are compared, or take an age.
        if number.is_snan() or (number.is_finite() and abs(number.adjusted()) > MAX_EXPONENT):
            raise ValueTooLargeError("a decimal number that cannot be compared")
        return number
    content = base64.b64decode(text, validate=True)
    return content if name == "bytes" else bytearray(content)


def _from_items(name: str, items: list[Any]) -> Any:
    if name == "complex":
        real, imaginary = items
        return complex(_exact(float, real), _exact(float, imaginary))
    if name == "range":
        start, stop, step = items
        made = range(_exact(int, start), _exact(int, stop), _exact(int, step))
        if abs(stop - start) // abs(step) > MAX_ITEMS:
            raise ValueTooLargeError(f"a range of more than {MAX_ITEMS} items")
        return made
    if name == "Fraction":
        numerator, denominator = items
        if max(_exact(int, one).bit_length() for one in items) > MAX_FRACTION_BITS:
            raise ValueTooLargeError("a fraction with too many digits")
        return importlib.import_module("fractions").Fraction(numerator, denominator)
    makers: dict[str, Callable[[list[Any]], Any]] = {
        "tuple": tuple,
        "set": set,
        "frozenset": frozenset,
        "deque": deque,
        "iterator": iter,
    }
    return makers[name](items)


def _exact(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def _refuse_collisions(keys: list[Any]) -> None:
    if len(keys) > MAX_COLLISIONS:
        (_, most), *_ = Counter(map(hash, keys)).most_common(1)
        if most > MAX_COLLISIONS:
            raise ValueTooLargeError("keys that were made to collide")
