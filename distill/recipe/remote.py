"""Fetching of recipes from outside: the file, its parents and the files that they name, at one commit.

`hf:org/repo/recipe.yaml@main` becomes plain files in the cache:

    ~/.cache/distill/recipes/3f9a…/<commit>/recipe.yaml

A recipe from outside cannot execute code: its YAML makes plain values only, unknown keys are refused, chat templates
run in Jinja's sandbox, models load from safetensors without custom code, and datasets load without scripts.
"""

import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import dirname, join
from typing import Protocol

from distill.errors import RecipeError
from distill.recipe.fence import Fence as Fence
from distill.recipe.git_files import GitFiles
from distill.recipe.hub_files import HubFiles
from distill.recipe.installed import installed_path
from distill.recipe.references import DEFAULT_FILE, GitReference, HubReference, Reference, checked_path, parse_reference
from distill.recipe.references import is_outside as is_outside
from distill.recipe.sources import file_sources
from distill.recipe.yaml_tree import MAX_RECIPE_BYTES, read_tree
from distill.storage.files import atomic_write

MAX_FILE_BYTES = 200_000_000
MAX_PARENTS = 20
PUBLISHED_FILE = "distill/recipe.yaml"
"""Where `distill push` puts a student's recipe."""


class RemoteFiles(Protocol):
    """The files of one commit."""

    commit: str

    def read(self, path: str, max_bytes: int) -> bytes | None: ...


@dataclass(frozen=True)
class Fetched:
    """A fetched recipe."""

    reference: str
    """As given."""
    pinned: str
    """The reference at its commit."""
    folder: Path
    """Contains the files in the same layout as the repository."""
    path: Path
    files: tuple[Path, ...]
    """All fetched files."""
    sha256: str
    """Of the files' names and contents."""

    def shown(self, path: Path) -> str:
        """Return the name of one of its files in messages."""
        try:
            return f"{self.reference.partition('#')[0]}: {path.resolve().relative_to(self.folder.resolve())}"
        except ValueError:
            return str(path)


def fetch(reference: str) -> Fetched:
    """Fetch a recipe from outside into the cache.

    Raises:
        RecipeError: it does not exist, cannot be read, or names files outside its repository.
    """
    parsed = parse_reference(reference)
    home = cache_folder() / hashlib.sha256(parsed.place.encode()).hexdigest()[:16]
    known = _known(home, parsed, reference)
    if known is not None:
        return known
    source: AbstractContextManager[RemoteFiles] = (
        GitFiles(parsed) if isinstance(parsed, GitReference) else HubFiles(parsed)
    )
    with source as remote:
        folder = home / remote.commit
        path, files = _bring(remote, folder, parsed, reference)
        if isinstance(parsed, HubReference) and isinstance(remote, HubFiles) and remote.kind == "dataset":
            parsed = replace(parsed, kind="dataset")  # so that the pinned reference needs one request
    atomic_write(_list_file(folder), json.dumps({**_lists(folder), path: files}, indent=1))
    return _fetched(folder, path, files, parsed, reference, remote.commit)


def cache_folder() -> Path:
    """Return the folder in which recipes from outside are cached."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "distill" / "recipes"


def _bring(remote: RemoteFiles, folder: Path, parsed: Reference, reference: str) -> tuple[str, list[str]]:
    """Write the recipe, its parents and their files into `folder`.

    Returns:
        The recipe's path, and all paths, relative to `folder`.
    """
    path, content = _first(remote, parsed, reference)
    recipes, files = [(path, content)], [path]
    while recipes:
        at, content = recipes.pop()
        _write(folder, at, content)
        tree = read_tree(folder / at, {}, shown=lambda one: f"{reference}: {one.relative_to(folder)}")
        for name in file_sources(tree):
            wanted = checked_path(join(dirname(at), name), reference)
            if wanted not in files:
                _write(folder, wanted, _read(remote, wanted, MAX_FILE_BYTES, f"{reference} (named by {at})"))
                files.append(wanted)
        parent = tree.get("extends")
        if not isinstance(parent, str) or is_outside(parent):
            continue  # refused when the recipe is loaded
        wanted = checked_path(join(dirname(at), parent), reference)
        if wanted in files:
            continue
        found = remote.read(wanted, MAX_RECIPE_BYTES)
        if found is None and installed_path(parent):
            continue
        if found is None:
            raise RecipeError(f"{reference}: there is no {wanted}, which {at} extends.")
        if len(files) > MAX_PARENTS + 1:
            raise RecipeError(f"{reference}: more than {MAX_PARENTS} parents.")
        files.append(wanted)
        recipes.append((wanted, found))
    return path, files


def _first(remote: RemoteFiles, parsed: Reference, reference: str) -> tuple[str, bytes]:
    candidates = [parsed.path] if parsed.path else [DEFAULT_FILE, PUBLISHED_FILE]
    for path in candidates:
        content = remote.read(path, MAX_RECIPE_BYTES)
        if content is not None:
            return path, content
    raise RecipeError(
        f"{reference}: there is no {' and no '.join(candidates)} in commit {remote.commit[:12]}. Name the recipe's "
        f"path: {parsed.at('path/to/recipe.yaml', parsed.revision or 'main')}"
    )


def _read(remote: RemoteFiles, path: str, max_bytes: int, named_by: str) -> bytes:
    content = remote.read(path, max_bytes)
    if content is None:
        raise RecipeError(f"{named_by}: there is no {path} in commit {remote.commit[:12]}.")
    return content


def _write(folder: Path, path: str, content: bytes) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, content)


def _list_file(folder: Path) -> Path:
    """Return the file that lists each recipe's files. It is outside the folder, so the repository cannot provide it."""
    return folder.with_suffix(".json")


def _lists(folder: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(_list_file(folder).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _known(home: Path, parsed: Reference, reference: str) -> Fetched | None:
    """Return a recipe from the cache, or `None`. Only a reference to a full commit is cached: it never changes."""
    commit = parsed.revision or ""
    if len(commit) != 40 or parsed.path is None:
        return None
    files = _lists(home / commit).get(parsed.path)
    if not files or not all((home / commit / file).is_file() for file in files):
        return None
    return _fetched(home / commit, parsed.path, files, parsed, reference, commit)


def _fetched(folder: Path, path: str, files: list[str], parsed: Reference, reference: str, commit: str) -> Fetched:
    digest = hashlib.sha256()
    for file in sorted(files):
        with (folder / file).open("rb") as stream:
            digest.update(f"{file}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return Fetched(
        reference,
        parsed.at(path, commit),
        folder,
        folder / path,
        tuple(folder / file for file in files),
        digest.hexdigest(),
    )
