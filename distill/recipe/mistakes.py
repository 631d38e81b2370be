"""Messages for an invalid recipe: where each mistake is, what is wrong, and which key was likely meant.

Examples:

    recipe.yaml:7: unknown key 'generate.base_url'. Did you mean 'generate.compute.base_urls'? Known here: …
    recipe.yaml:9: filter.max_tokens (600) exceeds sft.max_length (512, set at recipe.yaml:12): …
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from distill.recipe.model import Recipe
from distill.recipe.rounds import MisplacedError
from distill.recipe.value_errors import Details, sentence
from distill.recipe.yaml_tree import KeyPath, Places

_QUOTED_NUMBER = re.compile(r"\b([a-z_]+(?:\.[a-z_]+)*)( \(| is | )(-?\d+(?:[.,]\d+)*)")
"""`sft.max_length (512`, `samples_per_problem is 4`, `temperature 0` in a message."""


def explain(error: ValidationError, tree: Mapping[str, Any], places: Places, name: str) -> list[str]:
    """Return a line for each mistake, or several if one message has several lines.

    Args:
        error: the validation error.
        tree: the keys and values that were validated.
        places: where each key is defined.
        name: the recipe's name in messages, used if no key is to blame.
    """
    lines: list[str] = []
    for at, some in groupby(error.errors(), key=lambda details: _origin(tree, _key_of(details))):
        several = list(some)
        kind = several[0]["type"]
        misplaced = several[0].get("ctx", {}).get("error") if kind == "value_error" else None
        if isinstance(misplaced, MisplacedError):
            for where, text in misplaced.faults:
                lines += _cross_field(_origin(tree, where), {"type": "value_error", "msg": text}, tree, places, name)
        elif kind == "extra_forbidden":
            lines.append(_unknown_key(at, places, name))
        elif kind == "value_error":
            lines += _cross_field(at, several[0], tree, places, name)
        elif kind == "missing":
            lines.append(f"{place_of(at, places, name)}: {'.'.join(map(str, at))!r} is missing.")
        else:
            lines.append(f"{place_of(at, places, name)}: {_labelled(at, sentence(several))}")
    return list(dict.fromkeys(lines))


def _origin(tree: Mapping[str, Any], at: KeyPath) -> KeyPath:
    """Return the key that a value comes from: that of a round may be set in the top-level section of the same name."""
    if at[:1] == ("rounds",) and len(at) > 3 and not _is_set(tree, at) and _is_set(tree, at[2:]):
        return at[2:]
    return at


def place_of(at: KeyPath, places: Places, name: str) -> str:
    """Return where a key is defined: itself, else the one place of all keys below it, else the section around it."""
    for n in range(len(at), 0, -1):
        if at[:n] in places:
            return places[at[:n]]
        below = {place for key, place in places.items() if key[:n] == at[:n]}
        if len(below) == 1:
            return below.pop()
    return name


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Yield all keys of a recipe with their sections, e.g. `sft.compute.dtype`."""
    for key, field in model.model_fields.items():
        yield f"{prefix}{key}"
        for inner in _models_in(field.annotation):
            yield from known_keys(inner, f"{prefix}{key}.")


def _key_of(details: Details) -> KeyPath:
    """Return the key with its sections, without pydantic's tags for unions (`literal['all-linear']`)."""
    loc: KeyPath = details["loc"]
    return loc if details["type"] == "extra_forbidden" else tuple(part for part in loc if "[" not in str(part))


def _labelled(at: KeyPath, text: str) -> str:
    return f"{'.'.join(map(str, at))}: {text}" if at else text


def _unknown_key(at: KeyPath, places: Places, name: str) -> str:
    known = sorted(_keys_at(Recipe, at[:-1]))
    meant = _meant(at, known)
    hint = f" Did you mean {meant!r}?" if meant else ""
    label = ".".join(map(str, at))
    return f"{place_of(at, places, name)}: unknown key {label!r}.{hint} Known here: {', '.join(known)}."


def _meant(at: KeyPath, known: list[str]) -> str | None:
    """Return the likely key, with its sections if it is in another one. An exact name beats a similar one."""
    key = str(at[-1]).strip().lower()
    section = str(at[0]) if len(at) > 1 else ""
    every = sorted(dict.fromkeys(known_keys()), key=lambda path: (path.split(".")[0] != section, path.count(".")))
    leaves = [path.rpartition(".")[2] for path in every]
    near = difflib.get_close_matches(key, known, n=1)
    elsewhere = difflib.get_close_matches(key, dict.fromkeys(leaves), n=1, cutoff=0.8)
    if elsewhere and (not near or (key in leaves and key not in known)):
        return every[leaves.index(elsewhere[0])]
    return near[0] if near else None


def _cross_field(at: KeyPath, details: Details, tree: Mapping[str, Any], places: Places, name: str) -> Iterator[str]:
    """Yield messages about conflicting keys, placed at one that is set, with the origin of each of the others."""
    known = set(known_keys())
    for text in sentence([details]).splitlines():
        section = at[:2] if at[:1] == ("rounds",) else at
        keys = {found: _origin(tree, (*section, *found[1].split("."))) for found in _QUOTED_NUMBER.finditer(text)}
        numbers = {found: key for found, key in keys.items() if ".".join(_words(key)) in known}
        given = [key for key in numbers.values() if _is_set(tree, key)]
        where = place_of(given[0] if given else at, places, name)
        pieces, end = [], 0
        for found, key in numbers.items():
            origin = f"set at {place_of(key, places, name)}" if _is_set(tree, key) else "the default"
            pieces.append(text[end : found.end()])
            if origin != f"set at {where}":
                pieces.append(f", {origin}" if found[2] == " (" else f" ({origin})")
            end = found.end()
        yield f"{where}: {_labelled(at, ''.join([*pieces, text[end:]]))}"


def _words(at: KeyPath) -> list[str]:
    return [part for part in at if isinstance(part, str)]


def _is_set(tree: Any, at: KeyPath) -> bool:
    for key in at:
        is_there = key < len(tree) if isinstance(tree, list) and isinstance(key, int) else False
        if not is_there and not (isinstance(tree, Mapping) and key in tree):
            return False
        tree = tree[key]
    return True


def _keys_at(model: type[BaseModel], at: KeyPath) -> set[str]:
    """Return the known keys at a place in the recipe."""
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
