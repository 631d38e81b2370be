"""The last part of `docs/json.md`, made from the models: a table of keys for each stage's metrics.

python -m distill.results.reference_page
"""

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distill.results.base import Recorded
from distill.results.kinds import KINDS

START = "<!-- Made from the models in distill/results; a test keeps it so. -->"
_HEAD = ["| key | type | |", "|---|---|---|"]
_OF_EVERY_STAGE = [
    "| `fingerprint` | string | SHA-256 over what decides the result |",
    "| `seconds` | number | of the call that finished the stage |",
    "| `peak_memory_gib` | number | of the command and the stage's processes |",
    "| `finished_at` | string | |",
]


def metrics_reference() -> str:
    """Return the tables as Markdown, each model once, those inside another one after it."""
    parts = [START, "", "## What each stage records", ""]
    shown: list[type[BaseModel]] = []
    for kind in KINDS.values():
        for model in _models(kind.metrics):
            if model not in shown:
                shown.append(model)
                first = _OF_EVERY_STAGE if model is kind.metrics else []
                parts += [f"### {table_name(model)}", "", model.__doc__ or "", "", *_HEAD, *first, *_rows(model), ""]
    return "\n".join(parts).rstrip() + "\n"


def table_name(model: type[BaseModel]) -> str:
    """Return the heading of a model's table."""
    return (model.TABLE if issubclass(model, Recorded) else "") or model.__name__


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in _inside(field.annotation):
            yield from _models(inner)


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _inside(part)


def _rows(model: type[BaseModel]) -> list[str]:
    return [row for name, field in model.model_fields.items() for row in _rows_of(name, field)]


def _rows_of(name: str, field: FieldInfo) -> Iterator[str]:
    """Yield the row of a key, and another one for the values in it if they have a type of their own."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    kind, inner, suffix = _kind(field.annotation)
    kind = kind.removesuffix(" or null") if extra.get("never_null") else kind
    kind = str(extra.get("table", kind)) + (", optional" if extra.get("sometimes") else "")
    about = " ".join((field.description or "").split()).removesuffix(".")
    about = about if about[:1] == "`" or about[1:2].isupper() else about[:1].lower() + about[1:]
    yield f"| `{name}` | {kind} | {about} |".replace("|  |", "| |")
    if inner:
        yield f"| `{name}{suffix}` | {inner} | |"


def _kind(annotation: Any) -> tuple[str, str, str]:
    """Return the name of a type, that of the values inside it (empty: anything), and how a path says so."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [_kind(part) for part in parts if part is not types.NoneType]
        nothing = ["null"] if len(kinds) < len(parts) else []
        return " or ".join(dict.fromkeys([*(kind for kind, _, _ in kinds), *nothing])), *kinds[0][1:]
    if origin in (list, tuple):
        return "array", _kind(parts[0])[0].replace("any", ""), "[]"
    if origin is dict:
        return "object", _kind(parts[1])[0].replace("any", ""), ".*"
    if origin is Literal:
        return "string", "", ""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return table_name(annotation), "", ""
    names = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}
    return names.get(annotation, "any"), "", ""


if __name__ == "__main__":
    print(metrics_reference(), end="")  # noqa: T201 - what the module is for
