"""A recipe as text: as it was written, or resolved.

Enters: a `LoadedRecipe`. Leaves: YAML.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distill.recipe.model import Recipe
from distill.recipe.sources import FILE, map_sources
from distill.recipe.yaml_tree import implicit_resolvers


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would take for anything but a text, so that readers of either get it back."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012 - as the base declares it
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *implicit_resolvers().get(first, [])]
        for first in yaml.SafeDumper.yaml_implicit_resolvers.keys() | implicit_resolvers().keys()
    }
    # A tab as \x09: \t before letters may read as a command of LaTeX, which a recipe is refused for.
    ESCAPE_REPLACEMENTS = {'"': '"', "\\": "\\"}  # type: ignore[misc]  # noqa: RUF012


def _text_node(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # U+0085 breaks lines, and is written as it is in all styles but this one.
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\x85" in value else None)


_Dumper.add_representer(str, _text_node)


def recipe_yaml(tree: Mapping[str, Any]) -> str:
    """Keys and values as YAML, in their order; `distill.recipe.yaml_tree` reads the same back."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Everything that a recipe says, defaults written out."""
    return recipe.model_dump(mode="json")


def relative_sources(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same with `file:` sources relative to `folder` where they lie in it."""
    import copy

    changed = copy.deepcopy(dict(tree))

    def relative(value: str) -> str:
        path = Path(value.removeprefix(FILE))
        return f"{FILE}{path.relative_to(folder)}" if path.is_relative_to(folder) else value

    map_sources(changed, relative)
    return changed


def head_comment(text: str) -> str:
    """The comment that a recipe begins with, without the line for editors."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "yaml-language-server:" not in line:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)
