"""The second half of `docs/recipes.md`, made from the models: a table of fields for each section of a recipe."""

import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distill.recipe.model import Recipe

Section = tuple[str, type[BaseModel]]
"""Key path of a section, and its model."""
START = "<!-- Made from the models by `distill recipes schema --markdown`; a test keeps it so. -->"
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def field_reference() -> str:
    """Return the reference as Markdown."""
    parts = [START, "", "## Fields", ""]
    places: dict[type[BaseModel], str] = {}
    for path, model in list(_sections("", Recipe, places)):
        parts += [f"### {path or 'The recipe'}", "", _said(model), "", *_table(path, model, places), ""]
    return "\n".join(parts).rstrip() + "\n"


def _sections(path: str, model: type[BaseModel], seen: dict[type[BaseModel], str]) -> Iterator[Section]:
    """Yield each model with the path of its first use, parents first."""
    seen[model] = path
    yield path, model
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        for inner, in_list in _models(field.annotation):
            if inner not in seen:
                yield from _sections(f"{below}[]" if in_list else below, inner, seen)


def _models(annotation: Any, in_list: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, in_list
    else:
        for part in get_args(annotation):
            yield from _models(part, in_list or get_origin(annotation) is list)


def _table(path: str, model: type[BaseModel], places: Mapping[type[BaseModel], str]) -> list[str]:
    rows = ["| key | kind | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation, field.metadata)
        below = f"{path}.{name}" if path else name
        elsewhere = [
            places[inner] for inner, _ in _models(field.annotation) if places[inner].removesuffix("[]") != below
        ]
        if elsewhere:
            kind = f"{kind} as `{elsewhere[0]}`"
        if not field.is_required() and field.default is None:
            kind = kind.removesuffix(" or null")  # the same as omitting the key
        cells = [f"`{name}`", kind, _default(field), _plain(field.description or "")]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    shown = {None: "", True: "true", False: "false"}.get(value, str(value)) if _hashable(value) else str(value)
    return f"`{shown}`" if len(shown) <= 40 and shown else shown and "see the text"


def _hashable(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*metadata, *_constraints(more)])
    if origin is Literal:
        values = get_args(annotation)
        if len(values) > 12:
            return f"one of {len(values)} codes: {', '.join(str(value) for value in values)}"
        return " or ".join(f"`{value}`" for value in values)
    if origin in (typing.Union, types.UnionType):
        parts = [_kind(part, metadata) for part in get_args(annotation)]
        return " or ".join(dict.fromkeys(parts))
    if origin is list:
        inner = _kind(get_args(annotation)[0], [])
        return f"list of {'sections' if inner == 'section' else inner}"
    if origin is dict:
        return "keys and values"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    name = {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(annotation, "anything")
    bounds = [f"{sign} {getattr(one, key):g}" for one in metadata for key, sign in _BOUNDS.items() if hasattr(one, key)]
    return ", ".join([name, *bounds])


def _constraints(metadata: list[Any]) -> list[Any]:
    """Return the bounds, including those inside a `Field`."""
    return [inner for one in metadata for inner in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _said(model: type[BaseModel]) -> str:
    return textwrap.fill(_plain(model.__doc__ or ""), 120, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    """Return a text as one line of Markdown, with `<` outside code escaped so that `<think>` is not taken for a tag."""
    line = " ".join(text.split())
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(line.split("`")))
