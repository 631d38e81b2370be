"""The JSON Schema of a recipe file (`recipes/recipe.schema.json`), made from the models for completion in editors.

A recipe names it in its first line:

    # yaml-language-server: $schema=recipe.schema.json
"""

import json
from typing import Any

from distill.recipe.model import Recipe

SCHEMA_FILE = "recipe.schema.json"
SCHEMA_TITLE = "distill recipe"
_EXTENDS = {
    "type": "string",
    "minLength": 1,
    "description": "The recipe that this one changes: a path relative to this file, or an installed recipe's name. "
    "Sections are merged key by key; a list replaces the parent's list.",
}

_ONLY_MEASURES = {
    "required": ["eval"],
    "properties": {"eval": {"type": "object", "required": ["models"]}},
    "not": {"anyOf": [{"required": ["generate"]}, {"required": ["traces"]}, {"required": ["rounds"]}]},
}
"""A recipe that trains nothing needs no student."""


def recipe_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12).

    With `extends`, no key is required: the parent may provide it. With `rounds`, top-level sections are only defaults.
    """
    schema = Recipe.model_json_schema()
    _drop_titles(schema)
    needed = {"required": [key for key in schema.pop("required") if key != "student"]}
    # The items of a list are never merged, so they must be complete; a section may be a part of the parent's.
    sections = {name: schema["$defs"][name] for name in sorted(_section_names(schema)) if name in schema["$defs"]}
    needed_below = {name: below for name, one in sections.items() if (below := one.pop("required", None))}
    needed_in_sections = {
        key: {"required": needed_below[name]}
        for key, value in schema["properties"].items()
        if (name := _defined_by(value)) in needed_below
    }
    properties = {"extends": _EXTENDS, **schema.pop("properties")}
    definitions = schema.pop("$defs")
    _take_suites(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA_TITLE,
        "description": "What a run of distill does, from problems to a published student.",
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
        "properties": properties,
        "allOf": [
            {"if": {"not": {"required": ["extends"]}}, "then": needed},
            {
                "if": {"not": {"anyOf": [{"required": ["extends"]}, _ONLY_MEASURES]}},
                "then": {"required": ["student"]},
            },
            {
                "if": {"not": {"anyOf": [{"required": ["extends"]}, {"required": ["rounds"]}]}},
                "then": {"properties": needed_in_sections},
            },
        ],
        "$defs": definitions,
    }


def schema_text() -> str:
    """Return the schema as committed and installed."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def schema_line(path: str = SCHEMA_FILE) -> str:
    """Return the first line of a recipe, which tells editors where the schema is."""
    return f"# yaml-language-server: $schema={path}"


def _drop_titles(node: Any, names: bool = False) -> None:
    """Remove titles that only repeat a key, and a section's defaults, which its keys have already."""
    if isinstance(node, dict):
        if not names and isinstance(node.get("title"), str):
            del node["title"]
        if not names and isinstance(node.get("default"), dict) and node["default"]:
            del node["default"]
        for key, value in node.items():
            _drop_titles(value, names=key in ("properties", "$defs") and not names)
    elif isinstance(node, list):
        for value in node:
            _drop_titles(value)


def _take_suites(definitions: dict[str, Any]) -> None:
    """Let a benchmark be a suite's name, or keys of which `suite` may stand for `source`."""
    benchmark = definitions["BenchmarkSource"]
    del benchmark["required"]
    benchmark["anyOf"] = [{"required": ["source"]}, {"required": ["suite"]}]
    listed = definitions["EvalConfig"]["properties"]["benchmarks"]
    listed["items"] = {"anyOf": [{"type": "string", "minLength": 1}, listed["items"]]}


def _section_names(schema: dict[str, Any]) -> set[str]:
    """Return the definitions that are used as the value of a key rather than as a list item."""
    found: set[str] = set()

    def walk(node: Any, in_list: bool) -> None:
        if isinstance(node, dict):
            if "$ref" in node and not in_list:
                found.add(node["$ref"].rpartition("/")[2])
            for key, value in node.items():
                walk(value, key == "items")
        elif isinstance(node, list):
            for value in node:
                walk(value, in_list)

    walk({key: value for key, value in schema.items() if key != "$defs"}, False)
    for definition in schema["$defs"].values():
        walk(definition, False)
    return found


def _defined_by(value: dict[str, Any]) -> str:
    """Return the definition behind a key, including one that may be null."""
    for one in (value, *value.get("anyOf", ())):
        if "$ref" in one:
            return str(one["$ref"]).rpartition("/")[2]
    return ""
