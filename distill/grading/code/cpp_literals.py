"""Values of C++ literals, as the expected results of tests are written.

    literal_value("(std::vector<long>({(long)2, (long)4}))") == [2, 4]
    literal_value('std::make_tuple(3.9f, "a")') == [3.9000000953674316, "a"]

Vectors, tuples and pairs are lists, maps are sorted lists of pairs, an empty optional is `None`.
"""

import math
import re
import struct
from collections.abc import Callable
from itertools import groupby
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:\\.|[^\"\\])*\")|(?P<char>'(?:\\.|[^'\\])')"
    r"|(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[a-zA-Z]*)"
    r"|(?P<name>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)|(?P<sign>[(){}<>,+-]))"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f"}
_WHOLE = {"int", "long", "short", "unsigned", "signed", "char", "size_t", "std::size_t", "int64_t", "std::int64_t"}
_NAMES = {"true": True, "false": False, "std::nullopt": None, "nullopt": None, "nullptr": None}
_SEQUENCES = {"vector", "list", "deque", "tuple", "pair", "array"}
_MAKERS = {"std::make_tuple", "std::make_pair", "make_tuple", "make_pair"}
MAX_CHARS = 1 << 20


class NotALiteralError(ValueError):
    """An expression that is more than a literal."""


def literal_value(text: str) -> Any:
    """Return the value of a C++ literal.

    Raises:
        NotALiteralError: the expression is none, or has a type that is not known.
    """
    if len(text) > MAX_CHARS:
        raise NotALiteralError("too long")
    reader = _Reader(text)
    try:
        value = reader.value()
    except RecursionError:
        raise NotALiteralError("nested too deeply") from None
    if reader.kind is not None:
        raise NotALiteralError(f"more than a literal: {reader.said!r}")
    return value


class _Reader:
    """A reader of tokens; `said` is the next one, of `kind` (`None` at the end)."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0
        self.kind: str | None = None
        self.said = ""
        self._next()

    def _next(self) -> str:
        """Go on to the next token, and return the one before it."""
        before = self.said
        rest = self._text[self._place :] if not self._text[self._place :].strip() else None
        if rest is not None:
            self.kind, self.said = None, ""
            return before
        match = _TOKEN.match(self._text, self._place)
        if match is None:
            raise NotALiteralError(f"unknown: {self._text[self._place : self._place + 20]!r}")
        self._place, self.kind = match.end(), match.lastgroup
        self.said = match[match.lastgroup or 0]
        return before

    def _take(self, sign: str) -> None:
        if self.said != sign or self.kind != "sign":
            raise NotALiteralError(f"expected {sign}, found {self.said!r}")
        self._next()

    def value(self) -> Any:
        if self.said == "-":
            self._next()
            return -_number(self.value())
        if self.kind == "number":
            return _number_value(self._next())
        if self.kind == "text":
            parts = [_text_value(self._next())]
            while self.kind == "text":  # parts of one text
                parts.append(_text_value(self._next()))
            return "".join(parts)
        if self.said == "{":
            return self._items("{", "}")
        if self.said == "(":
            return self._in_brackets()
        if self.kind == "name":
            return self._named()
        raise NotALiteralError(f"unexpected {self.said!r}")

    def _in_brackets(self) -> Any:
        """Read `(value)`, or `(type) value`."""
        self._take("(")
        if self.kind == "name" and self.said not in _NAMES and self.said not in _MAKERS:
            name, arguments = self._type()
            if self.said == ")":
                self._next()
                return _converted(name, arguments, self.value())
            value = self._made(name, arguments)
        else:
            value = self.value()
        self._take(")")
        return value

    def _named(self) -> Any:
        if self.said in _NAMES:
            return _NAMES[self._next()]
        if self.said in _MAKERS:
            self._next()
            return self._items("(", ")")
        return self._made(*self._type())

    def _type(self) -> tuple[str, list[Any]]:
        """Read a type: its name and the types in angle brackets."""
        names = [self._next()]
        while self.kind == "name":  # long long, unsigned int
            names.append(self._next())
        arguments: list[Any] = []
        if self.said == "<":
            self._next()
            while self.said != ">":
                arguments.append(self._type() if self.kind == "name" else (self._next(), []))
                if self.said == ",":
                    self._next()
            self._next()
        name = names[-1] if any(one in ("float", "double") for one in names) or len(names) == 1 else "long"
        return name, arguments

    def _made(self, name: str, arguments: list[Any]) -> Any:
        """Read what follows a type: the values that one of it is made of."""
        if self.said not in ("(", "{"):
            raise NotALiteralError(f"{name} is no literal")
        is_round = self.said == "("
        items = self._items("(", ")") if is_round else self._items("{", "}")
        base = name.removeprefix("std::")
        if is_round and base in {*_SEQUENCES, "map", "unordered_map", "set"}:
            if len(items) > 1:
                raise NotALiteralError(f"{name} of {len(items)} values")
            return _converted(name, arguments, items[0] if items else [])
        if base in _SEQUENCES or base in ("map", "unordered_map", "set"):
            return _converted(name, arguments, items)
        if len(items) > 1:
            raise NotALiteralError(f"{name} of {len(items)} values")
        return _converted(name, arguments, items[0]) if items else _converted(name, arguments, None)

    def _items(self, first: str, last: str) -> list[Any]:
        self._take(first)
        items = []
        while self.said != last:
            items.append(self.value())
            if self.said == ",":
                self._next()
            elif self.said != last:
                raise NotALiteralError(f"unexpected {self.said!r}")
        self._take(last)
        return items


def _converted(name: str, arguments: list[Any], value: Any) -> Any:
    """Return a value as one of a type.

    Raises:
        NotALiteralError: the type is not known, or the value is none of it.
    """
    base = name.removeprefix("std::")
    if base == "float":
        return _float32(float(_number(value)))
    if base == "double":
        return float(_number(value))
    if name in _WHOLE:
        return int(_number(value))
    if base == "bool":
        return bool(value)
    if base == "string":
        if value is not None and not isinstance(value, str):
            raise NotALiteralError("no text")
        return value or ""
    if base == "optional":
        return value
    if base in ("map", "unordered_map") and isinstance(value, list):
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise NotALiteralError("no map")
        return _first_of_each(value, lambda pair: repr(pair[0]) if isinstance(pair[0], list) else pair[0])
    if base == "set" and isinstance(value, list):
        return _first_of_each(value, lambda one: one)
    if base in _SEQUENCES and isinstance(value, list):
        inner = arguments[0] if base in ("vector", "list", "deque", "array") and arguments else None
        return value if inner is None else [_converted(inner[0], inner[1], one) for one in value]
    raise NotALiteralError(f"of the type {name}")


def _first_of_each(items: list[Any], key: Callable[[Any], Any]) -> list[Any]:
    """Return items sorted by their keys; of several with the same key the first, which C++ keeps."""
    return [next(same) for _, same in groupby(sorted(items, key=key), key=key)]


def _number(value: Any) -> int | float:
    if not isinstance(value, int | float):
        raise NotALiteralError("no number")
    return value


def _number_value(text: str) -> int | float:
    if text[:2].lower() == "0x":
        return int(re.sub(r"[uUlL]+$", "", text), 16)
    bare = text.rstrip("uUlLfF")
    try:
        if bare.isdigit() and text[-1] not in "fF":
            if len(bare) > 1 and bare[0] == "0":
                raise NotALiteralError("octal")
            return int(bare)
        value = _float32(float(bare)) if text[-1] in "fF" else float(bare)
        if math.isinf(value):
            raise NotALiteralError("too large")
        return value
    except NotALiteralError:
        raise
    except ValueError:
        raise NotALiteralError(f"no number: {text!r}") from None


def _float32(value: float) -> float:
    """Return the nearest number of single precision."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        raise NotALiteralError("too large") from None


def _text_value(token: str) -> str:
    """Return a text's bytes, a character each, as the program's side shows them."""

    def unescaped(match: re.Match[str]) -> str:
        if match[1] in _ESCAPES:
            return _ESCAPES[match[1]]
        if match[1][0] in "01234567" and (code := int(match[1], 8)) < 256:
            return chr(code)
        raise NotALiteralError(f"unknown escape {match[0]!r}")

    text = re.sub(r"\\([0-7]{1,3}|.)", unescaped, token[1:-1].encode().decode("latin-1"), flags=re.DOTALL)
    if "\0" in text:
        raise NotALiteralError("a text in C++ ends there")
    return text
