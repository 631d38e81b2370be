"""The `file:` sources in a recipe's tree: resolved relative to the file that names them, and kept inside a fence."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distill.core.file_kinds import LOOP
from distill.errors import RecipeError
from distill.recipe.fence import Fence

FILE = "file:"
_LISTS = (("problems",), ("traces",), ("eval", "benchmarks"), ("filter", "decontaminate"))
_SOURCE_KEYS = ("source", "problems", "suite", "judge_template", "contests")


def map_sources(tree: dict[str, Any], change: Callable[[str], str]) -> None:
    """Replace each `file:` value of a tree by `change(value)`, in place."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) and value.startswith(FILE) else value

    for one in tree["rounds"] if isinstance(tree.get("rounds"), list) else ():
        if isinstance(one, dict):
            map_sources(one, change)
    if isinstance(tree.get("sft"), dict) and "chat_template" in tree["sft"]:
        tree["sft"]["chat_template"] = changed(tree["sft"]["chat_template"])
    for at in _LISTS:
        section: Any = tree
        for key in at[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(section.get(at[-1]), list):
            continue
        section[at[-1]] = [_changed_entry(entry, changed) for entry in section[at[-1]]]


def _changed_entry(entry: Any, changed: Callable[[Any], Any]) -> Any:
    if not isinstance(entry, dict):
        return changed(entry)
    found = {key: changed(value) if key in _SOURCE_KEYS else value for key, value in entry.items()}
    if isinstance(found.get("baseline"), dict):
        found["baseline"] = _changed_entry(found["baseline"], changed)
    return found


def file_sources(tree: dict[str, Any]) -> Iterator[str]:
    """Yield the distinct `file:` values of a tree, without the prefix."""
    found: list[str] = []

    def note(value: str) -> str:
        found.append(value.removeprefix(FILE))
        return value

    map_sources(tree, note)
    yield from dict.fromkeys(found)


def anchor_sources(tree: dict[str, Any], folder: Path, place: str, fence: Fence | None = None) -> None:
    """Make the `file:` sources of a tree absolute, in place; relative ones start at `folder`.

    Raises:
        RecipeError: there is no such home folder, or a file is outside the fence.
    """

    def anchored(value: str) -> str:
        path = resolved(folder / expanded(Path(value.removeprefix(FILE)), place), place)
        if fence is not None and not fence.holds(path):
            raise fence.refusal(value)
        return f"{FILE}{path}"

    map_sources(tree, anchored)


def resolved(path: Path, place: str) -> Path:
    """Return a path with links followed.

    Raises:
        RecipeError: links form a loop, or the path is not valid.
    """
    try:
        return path.resolve()
    except (RuntimeError, OSError, ValueError):  # a loop of links; a name too long; a NUL
        raise RecipeError(f"{place}: {path} cannot be resolved: it is {LOOP}, or not a valid path.") from None


def expanded(path: Path, place: str) -> Path:
    """Return a path with `~` expanded.

    Raises:
        RecipeError: there is no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise RecipeError(f"{place}: there is no home folder for {path.parts[0]!r} in {str(path)!r}.") from None
