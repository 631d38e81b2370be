"""Strict parsing of a YAML file into plain values, with the line of every key. It cannot execute anything.

The values are nested dicts and lists of strings, numbers, booleans and null. Other tags, duplicate keys, secrets,
control characters and files that are too large or too deep are refused with file and line.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from distill.core.file_kinds import FILE, MISSING, kind_of
from distill.core.secrets import secrets_in_text, secrets_in_tree
from distill.errors import RecipeError
from distill.recipe.installed import installed_names
from distill.recipe.lost_backslashes import ESCAPE_HINT, control_in_text, eaten_in_source, eaten_in_text

MAX_RECIPE_BYTES = 1_000_000
MAX_RECIPE_KEYS = 10_000
"""Keys and list entries together, aliases expanded: a few lines of YAML can expand to billions."""
MAX_DEPTH = 50
_UNUSABLE = re.compile("[\\x00\ud800-\udfff]")
KeyPath = tuple[str | int, ...]
Places = dict[KeyPath, str]
"""Where each key is defined: `recipe.yaml:12`, or `--set`."""
Shown = Callable[[Path], str]
"""Returns the name of a file in messages."""


class _Loader(yaml.SafeLoader):
    """A loader with YAML 1.2's core scalars: `no` and `on` are strings, and 1e-4 is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base declares it

    def __init__(self, text: bytes | str) -> None:
        super().__init__(text)
        encoding = self.encoding or "utf-8"
        self._source = text if isinstance(text, str) else text.decode(encoding, "replace")

    def source_of(self, node: yaml.Node) -> str:
        """Return a scalar's source text."""
        return self._source[node.start_mark.index : node.end_mark.index]


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


def implicit_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return, by first character, the tags and patterns of plain scalars that are not read as text."""
    return _Loader.yaml_implicit_resolvers


def read_tree(path: Path, places: Places, named_by: str | None = None, shown: Shown = str) -> dict[str, Any]:
    """Return the keys and values of a recipe file.

    Args:
        path: the file.
        places: filled with the place of each key.
        named_by: the recipe whose `extends` names this one.
        shown: returns the name of a file in messages.

    Raises:
        RecipeError: it does not exist, is not a valid recipe, or contains a secret.
    """
    name = shown(path)
    text = _content(path, name, named_by)
    for line, kind in secrets_in_text(text.decode("utf-8", "replace")):
        raise _secret(f"{name}:{line}", kind)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            empty = "the file is empty; " if node is None else ""
            raise RecipeError(
                f"{name}: {empty}a recipe is a mapping of keys to values (name:, student:, problems:, …). "
                "`distill recipes cp quickstart` copies one to start from."
            )
        tree = _construct_mapping(loader, node, (), name, places)
    except RecursionError:
        raise RecipeError(f"{name}: nested deeper than {MAX_DEPTH} levels.") from None
    except yaml.YAMLError as error:
        raise _not_yaml(name, text, error) from None
    finally:
        if loader is not None:
            loader.dispose()
    for at, kind in secrets_in_tree(tree):
        raise _secret(places.get(at, name), kind)
    return tree


def plain_tree(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of a recipe made in Python, checked by the same rules as a file.

    Args:
        tree: the recipe; not modified.
        name: its name in messages.

    Raises:
        RecipeError: it has keys that are not text, too many or too deep keys, unusable values, or a secret.
    """
    num_keys = 0

    def plain(value: Any, at: KeyPath) -> Any:
        nonlocal num_keys
        num_keys += 1
        place = f"{name}: {'.'.join(map(str, at))}" if at else name
        if len(at) > MAX_DEPTH:
            raise RecipeError(f"{name}: nested deeper than {MAX_DEPTH} levels.")
        if num_keys > MAX_RECIPE_KEYS:
            raise RecipeError(f"{name}: more than {MAX_RECIPE_KEYS:,} keys and list entries.")
        if isinstance(value, Mapping):
            return {_plain_key(place, key): plain(inner, (*at, key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner, (*at, number)) for number, inner in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{place}: {value} is not a finite number.")
        _check_plain(place, value)
        return value

    found: dict[str, Any] = plain(tree, ())
    for at, kind in secrets_in_tree(found):
        raise _secret(f"{name}: {'.'.join(map(str, at))}", kind)
    return found


def _plain_key(place: str, key: Any) -> str:
    if not isinstance(key, str):
        raise RecipeError(f"{place}: a key must be plain text, not {short(key)}.")
    _check_plain(place, key)
    return key


def _check_plain(place: str, value: Any) -> None:
    _check_text(place, value)
    if isinstance(value, str) and (eaten := eaten_in_text(value)):
        raise RecipeError(f"{place}: {eaten}")
    for _, kind in secrets_in_text(value) if isinstance(value, str) else ():
        raise _secret(place, kind)


def read_value(option: str, text: str) -> Any:
    """Return a value from the command line, read as YAML.

    Args:
        option: `key=value` as given to `--set`, for messages.
        text: the value.

    Raises:
        RecipeError: it is not valid YAML.
    """
    place = f"--set {option.partition('=')[0]}"
    if eaten := eaten_in_text(text):
        raise RecipeError(f"{place}: {eaten}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, (), place, {})
    except RecipeError as error:
        raise RecipeError(str(error).replace(f"{place}:1: ", f"{place}: ")) from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or ""
        hint = ESCAPE_HINT if "escape" in problem else "Quote it: --set 'key=\"…\"'"
        raise RecipeError(f"--set {option}: the value is not valid YAML. {hint}") from None


def refuse_secret_option(key: str, value: Any, place: str) -> None:
    """Raise if an option's value is a secret: options are stored in manifests too.

    Raises:
        RecipeError: it is a secret.
    """
    kinds = [kind for _, kind in secrets_in_text(str(value))]
    kinds += [kind for _, kind in secrets_in_tree({key.rpartition(".")[2]: value})]
    for kind in kinds:
        raise _secret(place, kind)


def _secret(place: str, kind: str) -> RecipeError:
    return RecipeError(
        f"{place}: holds {kind}. A recipe is shared, and what it says is kept in every run's files: put the secret "
        "into the environment instead (the Hub's as HF_TOKEN or by `hf auth login`, a server's in the variable that "
        "compute.api_key_env names), and revoke it if anyone has seen the file."
    )


def _content(path: Path, name: str, named_by: str | None) -> bytes:
    try:
        kind = kind_of(path)
        # The command line may pipe a recipe in through /dev; reading any other pipe or device could block.
        if kind not in (FILE, MISSING, "a folder") and not (named_by is None and path.is_relative_to("/dev")):
            raise RecipeError(f"{name}: is {kind}, not a recipe's file{f' (named by {named_by})' if named_by else ''}.")
        with path.open("rb") as stream:
            text = stream.read(MAX_RECIPE_BYTES + 1)  # bounded: a device may never end
    except FileNotFoundError:
        origin = f" (named by extends in {named_by})" if named_by else ""
        near = difflib.get_close_matches(path.stem, installed_names(), n=1)
        hint = (
            (f" Did you mean {near[0]!r}?" if near else " Give a path relative to this recipe, or an installed name.")
            if named_by
            else " Name one (distill run path/to/recipe.yaml), or copy an installed one here (distill recipes ls, "
            "distill recipes cp quickstart)."
        )
        raise RecipeError(f"{name}: no such recipe{origin}.{hint}") from None
    except IsADirectoryError:
        raise RecipeError(f"{name}: is a directory. Name the recipe in it, e.g. {name}/recipe.yaml.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RecipeError(f"{name}: cannot be read ({why}).") from None
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{name}: too large; a recipe has at most {MAX_RECIPE_BYTES:,} bytes.")
    return text


def _not_yaml(name: str, text: bytes, error: yaml.YAMLError) -> RecipeError:
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.reader.ReaderError):
        line, what = _unreadable(text, error)
        return RecipeError(f"{name}: not valid YAML: {what}{line}. Save the file as UTF-8 text.")
    if mark is not None:
        lines = text.decode("utf-8", "replace").splitlines()
        at = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in at[: len(at) - len(at.lstrip())]:
            return RecipeError(
                f"{name}:{mark.line + 1}: not valid YAML: the line begins with a tab. YAML indents with spaces alone; "
                "let your editor turn tabs into spaces."
            )
    line = f":{mark.line + 1}" if mark else ""
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    hint = f" {ESCAPE_HINT}." if "escape" in what else ""
    return RecipeError(f"{name}{line}: not valid YAML: {what}.{hint}")


def _unreadable(text: bytes, error: yaml.reader.ReaderError) -> tuple[str, str]:
    """Return where the reader failed, and why."""
    line = text[: error.position].count(b"\n") + 1
    known = isinstance(error.character, int) and error.reason.startswith("special")
    what = f"the character U+{error.character:04X} is not allowed" if known else "it is not UTF-8"
    return f" in line {line}", what


def _construct_mapping(
    loader: _Loader, node: yaml.MappingNode, at: KeyPath, name: str, places: Places
) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = f"{name}:{key_node.start_mark.line + 1}"
        _check_text(line, key_node.value)
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f"{line}: a key must be plain text.")
        key = key_node.value
        if key in tree:
            raise RecipeError(f"{line}: duplicate key {key!r} (first at {places[(*at, key)]}). Remove one.")
        places[(*at, key)] = line
        tree[key] = _construct(loader, value_node, (*at, key), name, places)
    return tree


def _construct(loader: _Loader, node: yaml.Node, at: KeyPath, name: str, places: Places) -> Any:
    line = f"{name}:{node.start_mark.line + 1}"
    if len(at) > MAX_DEPTH:
        raise RecipeError(f"{line}: nested deeper than {MAX_DEPTH} levels.")
    if len(places) > MAX_RECIPE_KEYS:
        raise RecipeError(f"{name}: more than {MAX_RECIPE_KEYS:,} keys and list entries, aliases written out.")
    if isinstance(node, yaml.CollectionNode) and node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise _tagged(line, node)
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node, at, name, places)
    if isinstance(node, yaml.SequenceNode):
        values = []
        for i, item in enumerate(node.value):
            places[(*at, i)] = f"{name}:{item.start_mark.line + 1}"
            values.append(_construct(loader, item, (*at, i), name, places))
        return values
    try:
        value = loader.construct_object(node)
    except (ValueError, LookupError, AttributeError):  # `!!int x`, `!!timestamp x`, a number of 5,000 digits
        raise RecipeError(f"{line}: {short(node.value)} cannot be read as {node.tag.rpartition(':')[2]}.") from None
    except yaml.constructor.ConstructorError:
        raise _tagged(line, node) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{line}: {short(node.value)} is not a finite number.")
    place = f"{line}: {'.'.join(map(str, at))}" if at else line
    if isinstance(node, yaml.ScalarNode) and node.style == '"' and (eaten := eaten_in_source(loader.source_of(node))):
        raise RecipeError(f"{place}: {eaten}")
    _check_text(place, value)
    return value


def _tagged(line: str, node: yaml.Node) -> RecipeError:
    return RecipeError(f"{line}: the tag {short(node.tag)} is not allowed: a recipe is plain text, numbers and lists.")


def _check_text(place: str, value: Any) -> None:
    if not isinstance(value, str):
        return
    if _UNUSABLE.search(value):
        raise RecipeError(f"{place}: a text may not hold NUL or half of a surrogate pair.")
    if found := control_in_text(value):
        raise RecipeError(f"{place}: {found}")


def short(value: Any) -> str:
    """Return a value as shown in messages, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
