"""Sharing of recipes: pull one into a local folder, push one to a repository on the Hub. The schema goes with it."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distill import __version__
from distill.errors import RecipeError, StoreError
from distill.models.hub_errors import CONFLICT, NUM_TRIES, hub_errors, patiently, status_of
from distill.models.hub_names import names_folder
from distill.publish.access import Target, check_target, connect, remote_text, repository
from distill.publish.upload import quiet_client
from distill.recipe.copying import copy_errors, with_schema_line, write_schema
from distill.recipe.loading import LoadedRecipe
from distill.recipe.model import Recipe
from distill.recipe.references import checked_path
from distill.recipe.remote import Fetched
from distill.recipe.schema import SCHEMA_FILE, schema_text
from distill.recipe.sources import FILE, file_sources, map_sources
from distill.recipe.text import head_comment, recipe_yaml
from distill.storage.files import atomic_write

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
FILES_FOLDER = "files"


@dataclass(frozen=True, slots=True)
class SharedRecipe:
    """The result of pushing a recipe."""

    repo: str
    kind: str
    reference: str
    """By which others load it, pinned to its commit."""
    private: bool
    changed: tuple[str, ...]
    """Paths of the files that were new or different; empty if all were there already."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pull(fetched: Fetched, target: Path, force: bool = False) -> Path:
    """Write a fetched recipe with its parents and files into a folder, and return the recipe's path.

    Args:
        fetched: the recipe.
        target: folder.
        force: replace existing files.

    Raises:
        StoreError: files exist already.
    """
    places = {path: target / path.relative_to(fetched.folder) for path in fetched.files}
    there = [str(place) for place in places.values() if place.exists()]
    if there and not force:
        raise StoreError(
            f"{', '.join(there[:3])}: there already. Name another folder, or replace the files with --force."
        )
    recipe = places[fetched.path]
    with copy_errors(target):
        for path, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            if path == fetched.path:
                text = with_schema_line(content.decode("utf-8-sig"))
                first, _, rest = text.partition("\n")
                content = f"{first}\n# Fetched from {fetched.pinned}\n{rest}".encode()
            atomic_write(place, content)
        write_schema(recipe.parent)
    return recipe


def shared_files(loaded: LoadedRecipe, path: str, with_files: bool, keep_addresses: bool) -> dict[str, bytes]:
    """Return a recipe's files for sharing, by path: its parents merged into it, local files beside it.

    Args:
        loaded: the recipe.
        path: in the repository.
        with_files: include the local files that it names.
        keep_addresses: allow addresses of servers in it.

    Raises:
        RecipeError: the recipe is a lock, or names what only this machine has.
    """
    if loaded.lock is not None:
        raise RecipeError(f"{loaded.reference}: is a lock, which goes to the Hub with its student (distill push).")
    _refuse_local(loaded, with_files, keep_addresses)
    text = loaded.path.read_text(encoding="utf-8-sig")
    names = _names(loaded.tree)
    if len(loaded.files) > 1 or names:
        text = head_comment(text) + recipe_yaml(_renamed(loaded.tree, names))
    folder = path.rpartition("/")[0]
    inside = f"{folder}/" if folder else ""
    files = {path: with_schema_line(text).encode(), f"{inside}{SCHEMA_FILE}": schema_text().encode()}
    return files | {f"{inside}{name}": Path(source).read_bytes() for source, name in names.items()}


def push(
    loaded: LoadedRecipe,
    repo: str,
    kind: str | None = None,
    path: str = "recipe.yaml",
    private: bool = True,
    with_files: bool = False,
    keep_addresses: bool = False,
) -> SharedRecipe:
    """Push a recipe to a repository on the Hub in one commit; other files there are not changed.

    Args:
        loaded: the recipe.
        repo: `org/name`; created if it does not exist.
        kind: `model` or `dataset`; left out: that of the existing repository, `dataset` for a new one.
        path: in the repository.
        private: create the repository as private, and refuse an existing public one.
        with_files: see `shared_files`.
        keep_addresses: see `shared_files`.

    Raises:
        UserError: no token, no right to write, or the recipe names what only this machine has.
        StageError: the Hub keeps failing after all retries.
    """
    files = shared_files(loaded, checked_path(path, "--path"), with_files, keep_addresses)
    api = connect()
    with quiet_client(), hub_errors(repo):
        kind = kind or ("model" if repository(api, "model", repo) is not None else "dataset")
        check_target(api, Target(kind, repo, private, "--repo"), replace_readme=True)
        patiently(lambda: api.create_repo(repo, repo_type=kind, private=private, exist_ok=True))
        for number in range(1, NUM_TRIES + 1):
            try:
                commit, changed = _commit(api, kind, repo, files, loaded.recipe.name)
                break
            except Exception as error:
                if number == NUM_TRIES or status_of(error) not in CONFLICT:
                    raise
        about = repository(api, kind, repo)
    place = f"hf:{'datasets/' if kind == 'dataset' else ''}{repo}"
    return SharedRecipe(repo, kind, f"{place}/{path}@{commit}", bool(about and about.private), changed)


def _commit(api: "HfApi", kind: str, repo: str, files: Mapping[str, bytes], name: str) -> tuple[str, tuple[str, ...]]:
    from huggingface_hub import CommitOperationAdd

    head = patiently(lambda: api.repo_info(repo, repo_type=kind)).sha
    changed = tuple(path for path, content in files.items() if _differs(api, kind, repo, head, path, content))
    if not changed:
        return head, ()
    commit = api.create_commit(
        repo,
        [CommitOperationAdd(path, files[path]) for path in changed],
        commit_message=f"Share the recipe {name}",
        commit_description=f"By distill {__version__}.",
        repo_type=kind,
        parent_commit=head,
    )
    return commit.oid, changed


def _differs(api: "HfApi", kind: str, repo: str, revision: str, path: str, content: bytes) -> bool:
    there = remote_text(api, kind, repo, revision, path)
    return there is None or hashlib.sha256(there.encode()).digest() != hashlib.sha256(content).digest()


def _refuse_local(loaded: LoadedRecipe, with_files: bool, keep_addresses: bool) -> None:
    for part in loaded.recipe.parts:
        _refuse_folders(loaded.reference, part)
    if (names := list(file_sources(dict(loaded.tree)))) and not with_files:
        raise RecipeError(
            f"{loaded.reference}: names files of this machine ({', '.join(Path(name).name for name in names[:3])}). "
            "Send them along with --with-files, or put them into a data set and name it with hf:."
        )
    sections = [one for part in loaded.recipe.parts for one in (part.generate, part.filter.judge, part.eval)]
    computes = [one.compute for one in sections if one is not None]
    hosts = [url for compute in computes for url in compute.base_urls if urlsplit(url).hostname not in LOCAL_HOSTS]
    if hosts and not keep_addresses:
        raise RecipeError(
            f"{loaded.reference}: names the server {hosts[0]}, which others would be sent to. Write "
            "http://localhost:8000/v1 there and give yours with --set, or share it with --keep-addresses."
        )


def _refuse_folders(reference: str, recipe: Recipe) -> None:
    """Raise if a round, or a recipe without rounds, names a model that is a local folder."""
    here = recipe.generate is not None and not recipe.generate.compute.base_urls
    models = {
        "student": recipe.student,
        "generate.teacher": recipe.generate.teacher if here and recipe.generate else "",
    }
    for key, name in models.items():
        if name and names_folder(name):
            raise RecipeError(
                f"{reference}: {key} is {name!r}, a folder that nobody else has. Name a model of the Hub."
            )


def _names(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return local path -> unique path in the repository, for each local file of a recipe."""
    found: dict[str, str] = {}
    for source in file_sources(dict(tree)):
        name = f"{FILES_FOLDER}/{Path(source).name}"
        while name in found.values():
            name = f"{FILES_FOLDER}/{Path(name).stem}+{Path(name).suffix}"
        found[source] = name
    return found


def _renamed(tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    import copy

    renamed = copy.deepcopy(dict(tree))
    map_sources(renamed, lambda value: f"{FILE}{names[value.removeprefix(FILE)]}")
    return renamed
