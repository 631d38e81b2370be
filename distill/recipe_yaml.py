"""From a YAML file to a `Recipe`: `extends`, `--set`, and errors that name file, line and the likely key.

Enters: a path and overrides such as `sft.epochs=2`. Leaves: a `Recipe` whose `file:` sources are absolute paths.

Defaults < `extends:` (one parent, deep merge, lists replaced) < the recipe < `--set` < named flags.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from distill.errors import ModelError, RecipeError
from distill.recipe import Recipe

MAX_RECIPE_BYTES = 1_000_000
KeyPath = tuple[str | int, ...]
Places = dict[KeyPath, str]
"""Where each key was written: `recipe.yaml:12`, or `--set`."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: `no` and `on` are strings, and 1e-4 is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base declares it


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9][0-9_]*$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def load_recipe(
    path: str | Path = "recipe.yaml", overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Recipe:
    """Read, merge, override and check a recipe.

    Args:
        path: the recipe file.
        overrides: `key.path=value`, the value read as YAML; `problems.0.limit=10` reaches into a list.
        flags: named flags by key path (`{"student": "qwen-1.5b"}`); `None` values are flags not given.

    Raises:
        RecipeError: what is wrong, in which file and line, and the likely right key.
    """
    places: Places = {}
    tree = _read_with_parents(Path(path), places, ())
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise RecipeError(f"--set {override}: expected key.path=value, e.g. --set sft.epochs=2")
        _assign(tree, key, _parse_value(override, text), f"--set {key}", places)
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key, value, f"--{key.rpartition('.')[2]}", places)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(details, places, str(path)) for details in error.errors()]
        raise RecipeError("\n".join(lines)) from None
    except ModelError as error:
        raise RecipeError(f"{_place_of(('student',), places, str(path))}: {error}") from None


def _read_with_parents(path: Path, places: Places, children: tuple[Path, ...]) -> dict[str, Any]:
    path = path.expanduser()
    if path.resolve() in children:
        chain = " -> ".join(str(p) for p in (*children, path))
        raise RecipeError(f"{path}: extends goes in a circle ({chain}). Remove one extends:")
    own_places: Places = {}
    tree = _read_file(path, own_places, named_by=children[-1] if children else None)
    parent = tree.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise RecipeError(f"{own_places[('extends',)]}: extends takes one path to a recipe, not {parent!r}")
    _anchor_files(tree, path.parent)
    if parent is None:
        places |= own_places
        return tree
    base = _read_with_parents(path.parent / parent, places, (*children, path.resolve()))
    merged = _merge(base, tree)
    # A list replaces the parent's list, so the parent's places inside it no longer hold.
    for key in [k for k in places if any(k[:n] in own_places and _is_list(tree, k[:n]) for n in range(1, len(k)))]:
        del places[key]
    places |= own_places
    return merged


def _read_file(path: Path, places: Places, named_by: Path | None) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        origin = f" (named by extends in {named_by})" if named_by else ""
        hint = "" if named_by else " Name one: distill run path/to/recipe.yaml."
        raise RecipeError(f"{path}: no such recipe{origin}.{hint}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: {len(text)} bytes; a recipe has at most {MAX_RECIPE_BYTES}.")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{path}: a recipe is a mapping of keys to values (name:, student:, problems:, …).")
        return _construct_mapping(loader, node, (), path, places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{path}{line}: not valid YAML: {what}.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _construct_mapping(
    loader: _Loader, node: yaml.MappingNode, at: KeyPath, path: Path, places: Places
) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f"{line}: a key must be plain text.")
        key = key_node.value
        if key in tree:
            raise RecipeError(f"{line}: {key!r} stands here twice (first at {places[(*at, key)]}). Remove one.")
        places[(*at, key)] = line
        tree[key] = _construct(loader, value_node, (*at, key), path, places)
    return tree


def _construct(loader: _Loader, node: yaml.Node, at: KeyPath, path: Path, places: Places) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node, at, path, places)
    if isinstance(node, yaml.SequenceNode):
        values = []
        for i, item in enumerate(node.value):
            places[(*at, i)] = f"{path}:{item.start_mark.line + 1}"
            values.append(_construct(loader, item, (*at, i), path, places))
        return values
    return loader.construct_object(node)


def _anchor_files(tree: dict[str, Any], folder: Path) -> None:
    """A relative `file:` source is relative to the recipe that names it, wherever distill is called from."""
    eval_section = tree.get("eval")
    lists = [tree.get("problems"), eval_section.get("benchmarks") if isinstance(eval_section, dict) else None]
    for sources in lists:
        for source in sources if isinstance(sources, list) else []:
            name = source.get("source") if isinstance(source, dict) else None
            if isinstance(name, str) and name.startswith("file:"):
                source["source"] = f"file:{(folder / Path(name[5:]).expanduser()).resolve()}"


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


def _parse_value(override: str, text: str) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, (), Path("--set"), {})
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is not valid YAML. Quote it: --set 'key=\"…\"'") from None


def _assign(tree: dict[str, Any], dotted: str, value: Any, place: str, places: Places) -> None:
    keys: list[str | int] = [int(k) if k.isdigit() else k for k in dotted.split(".")]
    at: Any = tree
    for depth, key in enumerate(keys[:-1]):
        if isinstance(at, list) and isinstance(key, int) and key < len(at):
            at = at[key]
        elif isinstance(at, dict) and isinstance(at.setdefault(str(key), {}), dict | list):
            at = at[str(key)]
        else:
            raise RecipeError(f"{place}: {'.'.join(map(str, keys[: depth + 1]))} holds nothing that could be set.")
    last = keys[-1]
    if isinstance(at, list) and isinstance(last, int) and last < len(at):
        at[last] = value
    elif isinstance(at, dict):
        at[str(last)] = value
    else:
        raise RecipeError(f"{place}: there is no such place; the list has {len(at)} entries, counted from 0.")
    places[tuple(keys)] = place


def _explain(details: Mapping[str, Any], places: Places, path: str) -> str:
    """One validation error as a line that says where, what and what to write instead."""
    loc: KeyPath = tuple(details["loc"])
    shown = ".".join(str(part) for part in loc)
    where = _place_of(loc, places, path)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        known = sorted(_keys_at(Recipe, loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key {shown!r}.{hint} Known here: {', '.join(known)}."
    if details["type"] == "missing":
        return f"{where}: {shown!r} is missing."
    if details["type"] == "value_error":
        return f"{where}: {shown + ': ' if shown else ''}{message}"
    return f"{where}: {shown}: {message}, not {details['input']!r}."


def _place_of(loc: KeyPath, places: Places, path: str) -> str:
    for n in range(len(loc), 0, -1):
        if loc[:n] in places:
            return places[loc[:n]]
    return path


def _keys_at(model: type[BaseModel], at: KeyPath) -> set[str]:
    """The keys that are known at a place of the recipe."""
    for key in at:
        if isinstance(key, int):
            continue
        model = next(_models_in(model.model_fields[key].annotation))
    return set(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _models_in(part)
