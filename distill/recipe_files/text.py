"""A recipe as text: as it was written, or resolved.

Enters: a `LoadedRecipe`. Leaves: YAML.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.recipe import Recipe
from distill.recipe_files.sources import FILE, map_sources


def recipe_yaml(tree: Mapping[str, Any]) -> str:
    """Keys and values as YAML, in their order."""
    import yaml

    text: str = yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=110)
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
