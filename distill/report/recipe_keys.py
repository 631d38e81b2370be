"""The recipe's lines with their keys as link targets, and the keys that decide each reason for a drop:

{"truncated": [{"key": "generate.sampling.max_tokens", "value": "512", "at": "generate.sampling.max_tokens"}]}
"""

from collections.abc import Iterator
from typing import Any

import yaml

from distill.core.formatting import mapping
from distill.core.records import REASON_KEYS
from distill.recipe.text import recipe_yaml

MAX_VALUE_CHARS = 40


def recipe_lines(recipe: Any) -> list[dict[str, str | None]]:
    """Return the recipe's lines of YAML, each with its dotted key (list items by index), if it has one."""
    text = recipe_yaml(recipe) if mapping(recipe) else ""
    lines = text.splitlines()
    keys: dict[int, str] = {}
    for line, key in _keys(yaml.compose(text, Loader=yaml.SafeLoader), ()) if text else ():
        keys.setdefault(line, key)
    return [{"text": line, "key": keys.get(number)} for number, line in enumerate(lines)]


def _keys(node: Any, path: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            yield key.start_mark.line, ".".join(inner)
            yield from _keys(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            yield from _keys(item, (*path, str(place)))


def reason_keys(recipe: Any) -> dict[str, list[dict[str, str | None]]]:
    """Return the keys behind each reason with their values and the nearest key in the recipe.

    Keys of sections that the recipe does not have are left out.
    """
    if not mapping(recipe):
        return plain_keys()
    found = {}
    for reason, keys in REASON_KEYS.items():
        rows = [row for key in keys if (row := _row(recipe, key)) is not None]
        if rows:
            found[reason] = rows
    return found


def plain_keys() -> dict[str, list[dict[str, str | None]]]:
    """Return the keys behind each reason, without values and links."""
    return {
        reason: [{"key": key, "value": None, "at": None} for key in keys]
        for reason, keys in REASON_KEYS.items()
        if keys
    }


def _row(recipe: Any, key: str) -> dict[str, str | None] | None:
    value, at = recipe, []
    for name in key.split("."):
        if name not in mapping(value):
            break
        value = value[name]
        at.append(name)
    if not at or (at[0] == key.partition(".")[0] and len(at) == 1 and value is None):
        return None
    is_there = ".".join(at) == key
    shown = yaml_scalar(value) if is_there else None
    return {"key": key, "value": shown, "at": ".".join(at)}


def yaml_scalar(value: Any) -> str | None:
    """Return a short scalar as YAML; `None` for longer ones, lists and mappings."""
    if isinstance(value, dict | list):
        return None
    text = recipe_yaml({"x": value}).removeprefix("x: ").strip()
    return text if len(text) <= MAX_VALUE_CHARS and "\n" not in text else None
