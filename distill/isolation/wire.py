"""Encode what travels between a process and those that it confines.

A confined process receives pickles, because it may trust its caller. It sends JSON that encodes plain values and
instances of registered classes, whose fields are checked against their declared types. Its output may have been crafted
to do harm, and unpickling it could run any code here.
"""

import base64
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar

MAX_BYTES = 256 << 20
"""Longer answers are rejected."""
HEADER_BYTES = 8

T = TypeVar("T")
_RESULTS: dict[str, type] = {}


class WireError(ValueError):
    """Bytes that encode no value, or a value that cannot be sent."""


def result(cls: type[T]) -> type[T]:
    """Register a dataclass whose instances may come back from confined processes. Use it as a decorator."""
    _RESULTS[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return cls


def framed(content: bytes) -> bytes:
    """Return content prefixed with its length."""
    return len(content).to_bytes(HEADER_BYTES, "big") + content


def encode(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        WireError: it is neither plain nor of a registered class, or too long.
    """
    try:
        content = json.dumps(_packed(value), separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(str(error)) from None
    if len(content) > MAX_BYTES:
        raise WireError(f"{len(content)} bytes are too many")
    return content


def decode(content: bytes) -> Any:
    """Return the value that `encode` was given.

    Raises:
        WireError: the bytes are not from `encode`.
    """
    try:
        return _unpacked(json.loads(content))
    except (TypeError, ValueError, KeyError, IndexError, RecursionError, AttributeError) as error:
        raise WireError(str(error)[:200]) from None


def _packed(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_packed(one) for one in value]
    if kind is tuple:
        return {"tuple": [_packed(one) for one in value]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if kind is dict:
        return {"dict": [[_packed(key), _packed(inner)] for key, inner in value.items()]}
    name = f"{kind.__module__}.{kind.__qualname__}"
    if _RESULTS.get(name) is kind:
        return {"is": name, "has": [_packed(getattr(value, field.name)) for field in fields(kind)]}
    raise TypeError(f"a {name} cannot be sent")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "is" in value:
        return _instance(_RESULTS[value["is"]], [_unpacked(one) for one in value["has"]])
    ((kind, inner),) = value.items()
    readers: dict[str, Callable[[Any], Any]] = {
        "tuple": lambda items: tuple(_unpacked(one) for one in items),
        "bytes": lambda text: base64.b64decode(text, validate=True),
        "dict": lambda pairs: {_unpacked(key): _unpacked(one) for key, one in pairs},
    }
    return readers[kind](inner)


def _instance(cls: type, values: Sequence[Any]) -> Any:
    hints = _hints(cls)
    for (name, hint), value in zip(hints.items(), values, strict=True):
        if not _fits(value, hint):
            raise WireError(f"{cls.__qualname__}.{name} is no {hint}")
    return cls(**dict(zip(hints, values, strict=True)))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type, for the types that registered classes declare."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return len(wanted) == len(value) and all(map(_fits, value, wanted))
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if hint is float:
        return type(value) in (float, int)
    if hint in (None, types.NoneType):
        return value is None
    return type(value) is hint and (is_dataclass(hint) or isinstance(value, bool | int | str | bytes))
