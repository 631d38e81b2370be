"""From a YAML file to a `Recipe`: `extends`, `--set`, and errors that name file, line and the likely key.

Enters: a path and overrides such as `sft.epochs=2`. Leaves: a `Recipe` whose `file:` sources are absolute paths.

Defaults < `extends:` (one parent, deep merge, lists replaced) < the recipe < `--set` < named flags.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from distill.errors import ModelError, RecipeError
from distill.recipe import Recipe

MAX_RECIPE_BYTES = 1_000_000
MAX_RECIPE_KEYS = 10_000
"""Keys and list entries together, aliases written out: a few lines of YAML can stand for billions."""
MAX_DEPTH = 50
_UNUSABLE = re.compile("[\\x00\ud800-\udfff]")
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


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)  # in YAML 1.2, 017 is seventeen


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
    _anchor_files(tree, Path.cwd(), "--set")
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(details, places, str(path)) for details in error.errors()]
        raise RecipeError("\n".join(lines)) from None
    except ModelError as error:
        raise RecipeError(f"{_place_of(('student',), places, str(path))}: {error}") from None


def _read_with_parents(path: Path, places: Places, children: tuple[Path, ...]) -> dict[str, Any]:
    path = _expanded(path, str(children[-1]) if children else "recipe")
    if path.resolve() in children:
        chain = " -> ".join(str(p) for p in (*children, path))
        raise RecipeError(f"{path}: extends goes in a circle ({chain}). Remove one extends:")
    own_places: Places = {}
    tree = _read_file(path, own_places, named_by=children[-1] if children else None)
    parent = tree.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise RecipeError(f"{own_places[('extends',)]}: extends takes one path to a recipe, not {parent!r}")
    _anchor_files(tree, path.parent, str(path))
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
        with path.open("rb") as stream:
            text = stream.read(MAX_RECIPE_BYTES + 1)  # not more: it may be a device without an end
    except FileNotFoundError:
        origin = f" (named by extends in {named_by})" if named_by else ""
        hint = "" if named_by else " Name one: distill run path/to/recipe.yaml."
        raise RecipeError(f"{path}: no such recipe{origin}.{hint}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: too large; a recipe has at most {MAX_RECIPE_BYTES:,} bytes.")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{path}: a recipe is a mapping of keys to values (name:, student:, problems:, …).")
        return _construct_mapping(loader, node, (), path, places)
    except RecursionError:
        raise RecipeError(f"{path}: nested deeper than {MAX_DEPTH} levels.") from None
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
        _check_text(line, key_node.value)
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f"{line}: a key must be plain text.")
        key = key_node.value
        if key in tree:
            raise RecipeError(f"{line}: {key!r} stands here twice (first at {places[(*at, key)]}). Remove one.")
        places[(*at, key)] = line
        tree[key] = _construct(loader, value_node, (*at, key), path, places)
    return tree


def _construct(loader: _Loader, node: yaml.Node, at: KeyPath, path: Path, places: Places) -> Any:
    line = f"{path}:{node.start_mark.line + 1}"
    if len(at) > MAX_DEPTH:
        raise RecipeError(f"{line}: nested deeper than {MAX_DEPTH} levels.")
    if len(places) > MAX_RECIPE_KEYS:
        raise RecipeError(f"{path}: more than {MAX_RECIPE_KEYS:,} keys and list entries, aliases written out.")
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node, at, path, places)
    if isinstance(node, yaml.SequenceNode):
        values = []
        for i, item in enumerate(node.value):
            places[(*at, i)] = f"{path}:{item.start_mark.line + 1}"
            values.append(_construct(loader, item, (*at, i), path, places))
        return values
    try:
        value = loader.construct_object(node)
    except (ValueError, LookupError, AttributeError):  # `!!int x`, `!!timestamp x`, a number of 5,000 digits
        raise RecipeError(f"{line}: {_short(node.value)} cannot be read as {node.tag.rpartition(':')[2]}.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{line}: {_short(node.value)} is not a finite number.")
    _check_text(line, value)
    return value


def _check_text(line: str, value: Any) -> None:
    if isinstance(value, str) and _UNUSABLE.search(value):
        raise RecipeError(f"{line}: a text may not hold NUL or half of a surrogate pair.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _expanded(path: Path, place: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise RecipeError(f"{place}: there is no home folder for {path.parts[0]!r} in {str(path)!r}.") from None


def _anchor_files(tree: dict[str, Any], folder: Path, place: str) -> None:
    """A relative `file:` source is relative to the recipe that names it, one from `--set` to the current folder."""

    def anchored(name: Any) -> Any:
        if not isinstance(name, str) or not name.startswith("file:"):
            return name
        return f"file:{(folder / _expanded(Path(name[5:]), place)).resolve()}"

    if isinstance(tree.get("sft"), dict) and "chat_template" in tree["sft"]:
        tree["sft"]["chat_template"] = anchored(tree["sft"]["chat_template"])
    for at in (("problems",), ("traces",), ("eval", "benchmarks"), ("filter", "decontaminate")):
        if not _is_list(tree, at):
            continue
        section = tree[at[0]] if len(at) == 2 else tree
        section[at[-1]] = [
            {**source, **{key: anchored(source[key]) for key in ("source", "problems") if key in source}}
            if isinstance(source, dict)
            else anchored(source)
            for source in section[at[-1]]
        ]


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
    except (yaml.YAMLError, RecursionError):
        raise RecipeError(f"--set {override}: the value is not valid YAML. Quote it: --set 'key=\"…\"'") from None


def _assign(tree: dict[str, Any], dotted: str, value: Any, place: str, places: Places) -> None:
    if not all(dotted.split(".")):
        raise RecipeError(f"{place}: expected keys with single dots between them, e.g. sft.epochs")
    keys: list[str | int] = [int(k) if re.fullmatch("[0-9]{1,9}", k) else k for k in dotted.split(".")]
    at: Any = tree
    for depth, key in enumerate(keys[:-1]):
        if isinstance(at, list) and isinstance(key, int) and key < len(at):
            at = at[key]
        elif isinstance(at, dict) and isinstance(at.get(str(key)), dict | list | None):
            if at.get(str(key)) is None:  # an absent or empty section
                at[str(key)] = {}
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
    for below in [at for at in places if at[: len(keys)] == tuple(keys)]:
        del places[below]
    places[tuple(keys)] = place


def _explain(details: Mapping[str, Any], places: Places, path: str) -> str:
    """One validation error as a line that says where, what and what to write instead."""
    loc: KeyPath = tuple(details["loc"])
    shown = ".".join(str(part) for part in loc if "[" not in str(part))  # no `literal['all-linear']` of a union
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
    if details["type"] == "model_type":
        message = "expected keys and values"
    if details["input"] is None:
        return f"{where}: {shown} is empty: {message}. Give it a value or remove the key."
    return f"{where}: {shown}: {message}, not {_short(details['input'])}."


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
