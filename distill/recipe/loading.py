"""Loading of recipes: `extends`, overrides, and errors that name file, line and the likely key.

Defaults < `extends:` (one parent, deep merge, lists replaced) < the recipe < `--set` < named flags. In the result,
`file:` sources are absolute paths.
"""

import contextlib
import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill import __version__
from distill.core.file_kinds import is_file
from distill.core.plurals import counted
from distill.errors import ModelError, RecipeError
from distill.models.hub_names import names_folder
from distill.models.students import STUDENTS
from distill.recipe.fence import Fence
from distill.recipe.installed import installed_path, unknown_name
from distill.recipe.lock_shape import LOCK_KEY, UPDATE, recipe_in_lock
from distill.recipe.mistakes import explain, place_of
from distill.recipe.model import Recipe
from distill.recipe.remote import Fetched, fetch, is_outside
from distill.recipe.rounds import SECTIONS, MisplacedError, round_in, unfold
from distill.recipe.sources import anchor_sources, expanded, resolved
from distill.recipe.trust import refuse_unaccepted
from distill.recipe.yaml_tree import KeyPath, Places, Shown, plain_tree, read_tree, read_value, refuse_secret_option

READ_BY = {1: "0.1.0"}
"""schema_version -> the first version of distill that reads it."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and where it came from."""

    recipe: Recipe
    reference: str
    """As given."""
    path: Path
    """The file on this machine."""
    files: tuple[Path, ...]
    """The file and its parents, nearest first."""
    tree: Mapping[str, Any]
    """The merged files, without defaults and overrides."""
    outside: Fetched | None = None
    """The fetched files of a recipe from outside."""
    lock: Mapping[str, Any] | None = None
    """The lock, if the file is one: what an earlier run used, and its results."""


@dataclass
class _Reading:
    """State that is collected while a recipe and its parents are read."""

    places: Places = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    shown: Shown = str
    fence: Fence | None = None


def load_recipe(
    reference: str | Path = "recipe.yaml", overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Recipe:
    """Read, merge, override and validate a recipe, to run it.

    Args:
        reference: an installed recipe's name, a path, `hf:org/repo/recipe.yaml@revision` or `git+https://…@rev#path`.
        overrides: `key.path=value`, the value read as YAML; `problems.0.limit=10` reaches into a list.
        flags: named flags by key path (`{"student": "qwen-1.5b"}`); `None` values are ignored.

    Raises:
        RecipeError: it is invalid (the message names file, line and the likely key), or comes from outside and was not
            accepted (`distill.recipe.trust`).
    """
    loaded = read_recipe(reference, overrides, flags)
    if loaded.outside is not None:
        refuse_unaccepted(loaded.outside)
    return loaded.recipe


def read_recipe(
    reference: str | Path = "recipe.yaml", overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> LoadedRecipe:
    """Read a recipe to show it, not to run it: one from outside is fetched, and need not be accepted.

    Args:
        reference: as for `load_recipe`.
        overrides: as for `load_recipe`.
        flags: as for `load_recipe`.

    Raises:
        RecipeError: it is invalid.
    """
    if "\0" in str(reference):
        raise RecipeError("the recipe's name contains a NUL character.")
    outside = fetch(str(reference)) if is_outside(str(reference)) else None
    installed = None if outside else installed_path(str(reference))
    path = outside.path if outside else installed or Path(reference)
    if outside is None and installed is None and (unknown := unknown_name(str(reference))) is not None:
        raise unknown
    reading = _Reading()
    if outside is not None:
        reading.shown, reading.fence = outside.shown, Fence(outside.folder, outside.reference)
    name = reading.shown(path)
    tree = _read_with_parents(path, reading, ())
    lock = tree if LOCK_KEY in tree else None
    if lock is not None:
        tree = _recipe_of(lock, reading, name)
    if outside is not None:
        _refuse_folders(tree, outside)
    said = copy.deepcopy(tree)
    places = reading.places
    overridden = [key for key, value in (flags or {}).items() if value is not None]
    overridden += override(tree, overrides, places)
    for key, value in (flags or {}).items():
        if value is not None:
            refuse_secret_option(key, value, f"--{key.rpartition('.')[2]}")
            _assign(tree, key, value, f"--{key.rpartition('.')[2]}", places)
            _assign_in_rounds(tree, key, value, f"--{key.rpartition('.')[2]}", places)
    _drop_revisions(tree, said, overridden)
    anchor_sources(tree, Path.cwd(), "--set")
    recipe = _checked(tree, places, name)
    return LoadedRecipe(recipe, str(reference), path, tuple(reading.files), said, outside, lock)


def override(tree: dict[str, Any], overrides: Sequence[str], places: Places) -> list[str]:
    """Set keys of a recipe's tree, in place, and return them.

    Args:
        tree: keys and values as in a file.
        overrides: as for `load_recipe`.
        places: where each key was set; those that are overridden are replaced.

    Raises:
        RecipeError: one is not `key.path=value`, or has no such place in the tree.
    """
    found = []
    for one in overrides:
        key, sign, text = one.partition("=")
        if not sign or not key:
            raise RecipeError(f"--set {one}: expected key.path=value, e.g. --set sft.epochs=2")
        if key != key.strip():
            raise RecipeError(f"--set {one}: no spaces around the key. Write --set {key.strip()}={text.strip()}")
        value = read_value(one, text)
        refuse_secret_option(key, value, f"--set {key}")
        _assign(tree, key, value, f"--set {key}", places)
        _assign_in_rounds(tree, key, value, f"--set {key}", places)
        found.append(key)
    return found


def recipe_of_dict(tree: Mapping[str, Any]) -> Recipe:
    """Validate a recipe made in Python, by the same rules as a file.

    Args:
        tree: keys and values as in a file; not modified. `file:` sources and `extends` are relative to the working
            directory.

    Raises:
        RecipeError: it is invalid.
    """
    name = "the dict"
    reading = _Reading(shown=lambda path: name if path.name == name else str(path))
    merged = _with_parents(plain_tree(tree, name), Path(name), {}, reading, ())
    return _checked(merged, reading.places, name)


def _checked(tree: Mapping[str, Any], places: Places, name: str) -> Recipe:
    _check_version(tree, places, name)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(explain(error, tree, places, name))) from None
    except ModelError as error:
        raise RecipeError(f"{place_of(('student',), places, name)}: {error}") from None


def _drop_revisions(tree: dict[str, Any], said: Mapping[str, Any], overridden: Sequence[str]) -> None:
    """Remove the revision of a model that was replaced on the command line, in place."""
    if tree.get("student") != said.get("student") and "student_revision" not in overridden:
        tree.pop("student_revision", None)
    generate, before = tree.get("generate"), said.get("generate")
    if not isinstance(generate, dict) or not isinstance(before, dict):
        return
    if generate.get("teacher") != before.get("teacher") and not {"generate", "generate.revision"} & set(overridden):
        generate.pop("revision", None)


def _refuse_folders(tree: Mapping[str, Any], outside: Fetched) -> None:
    """Raise if a recipe from outside names a model that is not on the Hub: it must not use folders of this machine."""
    parts: list[Any] = [tree]
    if tree.get("rounds"):
        with contextlib.suppress(MisplacedError):  # told when the recipe is validated
            # Merged, as they would run: a server in the defaults says nothing of a round that has another.
            parts = [{"student": tree.get("student")}, *(unfold(tree).get("rounds") or ())]
    for part in parts:
        if not isinstance(part, dict):
            continue
        generate = part.get("generate")
        generate = generate if isinstance(generate, dict) else {}
        compute = generate.get("compute")
        served = isinstance(compute, dict) and bool(compute.get("base_urls"))  # a name on the server, not a path
        teacher = None if served else generate.get("teacher")
        section = part.get("eval")
        measured = section.get("models") if isinstance(section, dict) else None
        models = enumerate(measured if isinstance(measured, list) else ())
        named = [("student", part.get("student")), ("generate.teacher", teacher)]
        for key, name in [*named, *((f"eval.models.{number}", model) for number, model in models)]:
            if not isinstance(name, str) or name in STUDENTS or round_in(name) is not None:
                continue
            if "/" not in name or names_folder(name):
                raise RecipeError(
                    f"{outside.reference}: {key} is {name!r}, not a model on the Hub. A recipe from outside may only "
                    f"name models of the Hub (org/name) and aliases. Use one of yours with {_option_for(key)}."
                )


def _option_for(key: str) -> str:
    """Return the option that replaces a model in a recipe."""
    return f"--set {key}=…" if key.startswith("eval.") else f"--{key.rpartition('.')[2]}"


def _read_with_parents(path: Path, reading: _Reading, children: tuple[Path, ...]) -> dict[str, Any]:
    named_by = reading.shown(children[-1]) if children else None
    path = expanded(path, named_by or "recipe")
    whole = resolved(path, named_by or str(path))
    if whole in children:
        chain = " -> ".join(reading.shown(p) for p in (*children, path))
        raise RecipeError(f"{reading.shown(path)}: extends forms a circle ({chain}). Remove one extends:")
    own_places: Places = {}
    tree = read_tree(path, own_places, named_by, reading.shown)
    reading.files.append(path)
    return _with_parents(tree, path, own_places, reading, children)


def _with_parents(
    tree: dict[str, Any], path: Path, own_places: Places, reading: _Reading, children: tuple[Path, ...]
) -> dict[str, Any]:
    parent = tree.pop("extends", None)
    place = place_of(("extends",), own_places, reading.shown(path))
    if parent is not None and not isinstance(parent, str):
        raise RecipeError(f"{place}: extends takes one path to a recipe, not {parent!r}")
    if LOCK_KEY in tree and parent is not None:
        where = place_of((LOCK_KEY,), own_places, reading.shown(path))
        raise RecipeError(
            f"{where}: a lock is complete and cannot extend anything. Remove {LOCK_KEY} if this is a recipe, or "
            "extends if it is a lock."
        )
    anchor_sources(tree, path.parent, reading.shown(path), reading.fence)
    if parent is None:
        reading.places |= own_places
        return tree
    if is_outside(parent):
        raise RecipeError(
            f"{place}: extends takes a file of this machine or an installed recipe, not {parent!r}. "
            f"Fetch it first: distill recipes pull '{parent}'"
        )
    base_path = parent_path(path, parent, reading.fence)
    base = _read_with_parents(base_path, reading, (*children, resolved(path, reading.shown(path))))
    if LOCK_KEY in base:
        raise RecipeError(
            f"{place}: {reading.shown(base_path)} is a lock, which repeats a run and cannot be "
            "extended. Run it with --set, or extend the recipe that it came from."
        )
    merged = _merge(base, tree)
    # A list replaces the parent's list, so the parent's places inside it no longer hold.
    for key in [
        k for k in reading.places if any(k[:n] in own_places and _is_list(tree, k[:n]) for n in range(1, len(k)))
    ]:
        del reading.places[key]
    reading.places |= own_places
    return merged


def parent_path(path: Path, parent: str, fence: Fence | None = None) -> Path:
    """Return the file that `extends: parent` in `path` names: one relative to it, else an installed recipe.

    Raises:
        RecipeError: it is outside the fence.
    """
    beside = path.parent / expanded(Path(parent), str(path))
    installed = installed_path(parent)
    if installed is not None and not is_file(beside):
        return installed
    if fence is not None and not fence.holds(beside):
        raise fence.refusal(f"extends: {parent}")
    return beside


def _recipe_of(lock: Mapping[str, Any], reading: _Reading, name: str) -> dict[str, Any]:
    """Return the recipe inside a lock, and record the places of its keys."""
    tree = recipe_in_lock(lock, reading.places.get((LOCK_KEY,), name))
    reading.places.update({at[1:]: place for at, place in list(reading.places.items()) if at[:1] == ("recipe",)})
    anchor_sources(tree, reading.files[0].parent, name, reading.fence)
    return tree


def _check_version(tree: Mapping[str, Any], places: Places, name: str) -> None:
    """Raise for another schema version. Its keys may differ, so errors about them would mislead."""
    version = tree.get("schema_version", 1)
    if isinstance(version, int) and version not in READ_BY:
        known = ", ".join(f"{number} (distill {first} and later)" for number, first in READ_BY.items())
        newer = version > max(READ_BY)
        raise RecipeError(
            f"{place_of(('schema_version',), places, name)}: schema_version {version} is not one that this distill "
            f"({__version__}) reads: {known}. "
            + (
                f"The recipe was written for a newer distill, which reads it. {UPDATE}"
                if newer
                else "The first version is 1."
            )
        )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _is_list(tree: Any, at: KeyPath) -> bool:
    for key in at:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return isinstance(tree, list)


def _no_such_entry(place: str, at: list[Any]) -> RecipeError:
    return RecipeError(
        f"{place}: there is no such entry; the list has {counted(len(at), 'entry', 'entries')}, counted from 0."
    )


def _assign_in_rounds(tree: dict[str, Any], dotted: str, value: Any, place: str, places: Places) -> None:
    """Override a key of a section in each round that sets keys of this section, as their own beat the defaults."""
    section, _, key = dotted.partition(".")
    rounds = tree.get("rounds")
    for number, one in enumerate(rounds if isinstance(rounds, list) and section in SECTIONS and key else ()):
        own = one.get(section) if isinstance(one, dict) else None
        is_of_round = key == "teacher" and isinstance(own, dict) and round_in(own.get("teacher")) is not None
        if isinstance(own, dict) and own and not is_of_round:
            _assign(tree, f"rounds.{number}.{dotted}", value, place, places)


def _assign(tree: dict[str, Any], dotted: str, value: Any, place: str, places: Places) -> None:
    if not all(dotted.split(".")):
        raise RecipeError(f"{place}: expected keys with single dots between them, e.g. sft.epochs")
    keys: list[str | int] = [int(k) if re.fullmatch("[0-9]{1,9}", k) else k for k in dotted.split(".")]
    at: Any = tree
    for depth, key in enumerate(keys[:-1]):
        if isinstance(at, list) and isinstance(key, int) and key < len(at):
            if isinstance(at[key], str) and keys[:depth] == ["eval", "benchmarks"]:
                at[key] = {"suite": at[key]}  # the short form of an entry
            at = at[key]
        elif isinstance(at, dict) and isinstance(at.get(str(key)), dict | list | None):
            if at.get(str(key)) is None:  # an absent or empty section
                at[str(key)] = {}
            at = at[str(key)]
        elif isinstance(at, list):
            raise _no_such_entry(place, at)
        else:
            raise RecipeError(f"{place}: {'.'.join(map(str, keys[: depth + 1]))} has no keys that could be set.")
    last = keys[-1]
    if isinstance(at, list) and isinstance(last, int) and last < len(at):
        at[last] = value
    elif isinstance(at, dict):
        at[str(last)] = value
    else:
        raise _no_such_entry(place, at)
    for below in [at for at in places if at[: len(keys)] == tuple(keys)]:
        del places[below]
    places[tuple(keys)] = place
