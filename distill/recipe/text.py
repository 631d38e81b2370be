"""Recipes as YAML text."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distill.recipe.model import Recipe
from distill.recipe.sources import FILE, map_sources
from distill.recipe.yaml_tree import implicit_resolvers


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes any text that YAML 1.1 or 1.2 would read as another type, so that both read it back."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012 - as the base declares it
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *implicit_resolvers().get(first, [])]
        for first in yaml.SafeDumper.yaml_implicit_resolvers.keys() | implicit_resolvers().keys()
    }
    # Without "\t" here, a tab is written as \x09: \t before letters can look like a LaTeX command, which is refused.
    ESCAPE_REPLACEMENTS = {'"': '"', "\\": "\\"}  # type: ignore[misc]  # noqa: RUF012


def _text_node(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # U+0085 is a line break, and PyYAML escapes it only in double quotes.
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\x85" in value else None)


_Dumper.add_representer(str, _text_node)


def recipe_yaml(tree: Mapping[str, Any]) -> str:
    """Return keys and values as YAML, in their order; `distill.recipe.yaml_tree` reads back the same values."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return all keys and values of a recipe, defaults written out."""
    return recipe.model_dump(mode="json")


def relative_sources(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy of a tree in which `file:` sources inside `folder` are relative to it."""
    import copy

    changed = copy.deepcopy(dict(tree))

    def relative(value: str) -> str:
        path = Path(value.removeprefix(FILE))
        return f"{FILE}{path.relative_to(folder)}" if path.is_relative_to(folder) else value

    map_sources(changed, relative)
    return changed


def head_comment(text: str) -> str:
    """Return the comment at the head of a recipe, without the schema line for editors."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "yaml-language-server:" not in line:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)
