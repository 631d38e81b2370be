"""Copying a recipe, with `recipe.schema.json` beside the copy so that editors can check it."""

import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill.errors import RecipeError, StoreError
from distill.recipe.fence import Fence
from distill.recipe.installed import installed_folder
from distill.recipe.loading import read_recipe
from distill.recipe.remote import is_outside
from distill.recipe.schema import SCHEMA_FILE, SCHEMA_TITLE, schema_line, schema_text
from distill.recipe.sources import FILE
from distill.storage.files import atomic_write

_SCHEMA_LINE = re.compile(r"^#\s*yaml-language-server:.*\n", re.MULTILINE)
_EXTENDS = re.compile(r"""^(extends:[ \t]*)(["']?)([^\n"'#]+?)\2([ \t]*(?:#.*)?)$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of a recipe."""

    path: Path
    schema: Path
    parent: str | None
    """The `extends` value of the copy."""

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "schema": str(self.schema), "extends": self.parent}


def copy_recipe(reference: str, target: Path, force: bool = False) -> Copied:
    """Copy a recipe of this machine.

    Args:
        reference: an installed recipe's name, or a path.
        target: file, or folder for `recipe.yaml`.
        force: replace an existing file.

    Raises:
        RecipeError: it is not a recipe, or comes from outside.
        StoreError: the file already exists, or cannot be written.
    """
    if is_outside(reference):
        raise RecipeError(f"{reference}: comes from outside. Fetch it here: distill recipes pull '{reference}'")
    loaded = read_recipe(reference)
    with copy_errors(target):
        if target.is_dir():
            target = target / "recipe.yaml"
        if target.exists() and not force:
            raise StoreError(f"{target}: already exists. Name another file, or replace it with --force.")
    text = with_schema_line(loaded.path.read_text(encoding="utf-8-sig"))
    text, parent = _with_parent(text, loaded.path, target.parent)
    text = _with_files(text, loaded.path.parent, target.parent)
    with copy_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, text)
        return Copied(target, write_schema(target.parent), parent)


@contextlib.contextmanager
def copy_errors(target: Path) -> Iterator[None]:
    """Turn a failed write into a message about the copy.

    Raises:
        StoreError: the copy cannot be written.
    """
    try:
        yield
    except (StoreError, OSError) as error:  # atomic_write's own message suggests --run-dir, which does not help here
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise StoreError(
            f"{target}: cannot be written ({cause.strerror}). Name another file or folder for the copy."
        ) from None


def with_schema_line(text: str, path: str = SCHEMA_FILE) -> str:
    """Return a recipe's text with the schema line for editors first."""
    return f"{schema_line(path)}\n{_SCHEMA_LINE.sub('', text)}"


def write_schema(folder: Path) -> Path:
    """Write the schema into `folder` and return its path.

    Raises:
        StoreError: the folder has a file of that name that is not a schema of distill.
    """
    path = folder / SCHEMA_FILE
    if path.exists():
        try:
            ours = json.loads(path.read_text(encoding="utf-8")).get("title") == SCHEMA_TITLE
        except (OSError, ValueError, AttributeError):
            ours = False
        if not ours:
            raise StoreError(f"{path}: already exists, and is not a schema of distill. Move it elsewhere.")
    atomic_write(path, schema_text())
    return path


def _with_parent(text: str, path: Path, folder: Path) -> tuple[str, str | None]:
    """Return the text with `extends` adjusted to the copy's folder, and its value: an installed name or a path."""
    found = _EXTENDS.search(text)
    if found is None:
        return text, None
    from distill.recipe.loading import parent_path

    parent = parent_path(path, found[3].strip())
    inside = Fence(installed_folder(), "").holds(parent)
    name = parent.stem if inside else _relative(parent, folder)
    return f"{text[: found.start()]}{found[1]}{name}{found[4]}{text[found.end() :]}", name


def _with_files(text: str, before: Path, folder: Path) -> str:
    """Return the text with relative `file:` sources adjusted to the copy's folder; all else, comments too, is kept."""
    if before.resolve() == folder.resolve():
        return text
    moved, done = [], 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if not (isinstance(token, yaml.ScalarToken) and token.value.startswith(FILE)):
            continue
        path = Path(token.value.removeprefix(FILE))
        if path.is_absolute() or path.as_posix().startswith("~") or not (before / path).exists():
            continue
        end = "\n" if token.style in ("|", ">") else ""  # the token of a block scalar includes its line break
        moved += [text[done : token.start_mark.index], _quoted(_relative(before / path, folder), token.style), end]
        done = token.end_mark.index
    return "".join([*moved, text[done:]])


def _quoted(path: str, style: str | None) -> str:
    """Return a `file:` source as YAML, in its original quotes if possible, else in double quotes."""
    if re.fullmatch(r"[\w./+@-]+", path):
        quote = style if style in ("'", '"') else ""
        return f"{quote}{FILE}{path}{quote}"
    text: str = yaml.safe_dump(f"{FILE}{path}", default_style='"', allow_unicode=True, width=math.inf)
    return text.rstrip("\n")


def _relative(path: Path, folder: Path) -> str:
    import os

    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
