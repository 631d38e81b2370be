"""Check the arguments of public functions against their type hints, and raise a clear error for a wrong one."""

import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from distill.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])
HINTS = {("load_recipe", "reference"): " Pass a dict directly to distill.run, distill.plan or distill.doctor."}
"""Extra help for an error message, by function and argument."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "True or False", Path: "a Path"}


def checked(function: Function) -> Function:
    """Return the function, wrapped to raise `UserError` for an argument that does not match its type hint."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # the wrong number or names of arguments: Python's own error is clearest
            return function(*args, **kwargs)
        hints = _hints_of(function)
        for name, value in given.items():
            is_plain = signature.parameters[name].kind not in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            )
            if is_plain and not fits(value, hints.get(name, Any)):
                more = HINTS.get((function.__name__, name), "")
                raise UserError(
                    f"{function.__name__}: {name} is {_short(value)}, and should be {said(hints[name])}.{more}"
                )
        return function(*args, **kwargs)

    return typing.cast(Function, call)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value matches a type hint. Unsupported kinds of hints match every value."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in args)
    if origin is Literal:
        return value in args
    if origin is typing.Annotated:
        return fits(value, args[0])
    if hint is None or hint is type(None):
        return value is None
    kind: Any = origin or hint
    if not isinstance(kind, type):
        return True
    if kind in (int, float):
        wanted = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, wanted) and not isinstance(value, bool)
    # A string is iterable too, but does not count as a list.
    if not isinstance(value, kind) or (issubclass(kind, Iterable) and kind is not str and isinstance(value, str)):
        return False
    if isinstance(value, Mapping) and len(args) == 2:
        return all(fits(key, args[0]) and fits(one, args[1]) for key, one in value.items())
    if isinstance(value, Collection) and len(args) == 1:
        return all(fits(one, args[0]) for one in value)
    return True


def said(hint: Any) -> str:
    """Return a type hint in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(said(one) for one in args))
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is typing.Annotated:
        return said(args[0])
    if hint is None or hint is type(None):
        return "None"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a dict"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a list ({said(args[0])} each)" if args else "a list"
    if origin is not None:
        return "a function" if "Callable" in str(hint) else str(hint)
    return _WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


@functools.cache
def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # a hint names something imported only under TYPE_CHECKING
        return {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
