"""References to recipes elsewhere.

Examples: `hf:org/repo/recipe.yaml@main`, `git+https://host/org/repo.git@v1#path/recipe.yaml`.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from distill.core.secrets import KEYS
from distill.errors import RecipeError

DEFAULT_FILE = "recipe.yaml"
_HUB = re.compile(r"hf:(?:(models|datasets)/)?([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([^\s@]+))?")
_GIT = re.compile(r"git\+((?:https?|ssh|file)://[^\s#]+)(?:#([^\s]+))?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
_LIKE_GIT = re.compile(r"(?:https?://|ssh://|git://|git@|git\+|ext::|file://)")


@dataclass(frozen=True, slots=True)
class HubReference:
    """A file in a repository on the Hub."""

    repo: str
    kind: str | None
    """`model` or `dataset`; `None`: a model if there is one, else a dataset."""
    path: str | None
    """Path in the repository; `None`: recipe.yaml."""
    revision: str | None
    """`None`: the main branch."""

    @property
    def place(self) -> str:
        """Return the repository, as in a reference."""
        return f"hf:{f'{self.kind}s/' if self.kind else ''}{self.repo}"

    def at(self, path: str, commit: str) -> str:
        """Return a reference to a file at a commit."""
        return f"{self.place}/{path}@{commit}"


@dataclass(frozen=True, slots=True)
class GitReference:
    """A file in a git repository."""

    url: str
    path: str | None
    revision: str | None
    """Branch, tag or full commit; `None`: the default branch."""

    @property
    def place(self) -> str:
        return f"git+{self.url}"

    def at(self, path: str, commit: str) -> str:
        return f"{self.place}@{commit}#{path}"


Reference = HubReference | GitReference


def is_outside(text: str) -> bool:
    """Return whether a reference leads off this machine, or looks as if it should."""
    return text.startswith("hf:") or bool(_LIKE_GIT.match(text))


def parse_reference(text: str) -> Reference:
    """Parse a reference to a recipe elsewhere.

    Raises:
        RecipeError: it is not valid, or contains a login.
    """
    if KEYS.search(text):
        raise RecipeError(
            "the recipe's address holds a key. Take it out, and log in with `hf auth login` or git's own."
        )
    if text.startswith("hf:"):
        return _hub(text)
    return _git(text)


def checked_path(path: str, named_by: str) -> str:
    """Return a normalised path inside a repository.

    Raises:
        RecipeError: it leads outside.
    """
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == ".." and parts:
            parts.pop()
        elif part in ("..", "/") or "\0" in part or part == ".git":
            raise RecipeError(
                f"{named_by}: names {path!r}, which is outside its own repository. A recipe from outside may use "
                "only files that come with it."
            )
        else:
            parts.append(part)
    if not parts:
        raise RecipeError(f"{named_by}: {path!r} does not name a file.")
    return "/".join(parts)


def _hub(text: str) -> HubReference:
    found = _HUB.fullmatch(text)
    if found is None:
        raise RecipeError(
            f"{text}: expected hf:org/repo/recipe.yaml@revision (the path and the revision may be left out; "
            "hf:datasets/org/repo/… for a dataset's repository)."
        )
    kind, repo, path, revision = found.groups()
    _check_revision(text, revision)
    return HubReference(repo, kind and kind.removesuffix("s"), path and checked_path(path, text), revision)


def _git(text: str) -> GitReference:
    found = _GIT.fullmatch(text)
    if found is None:
        near = re.sub(r"^git@([\w.-]+):", r"ssh://git@\1/", text)
        hint = f" Do you mean git+{near.removeprefix('git+')}?" if re.match(r"(https?|ssh|file)://", near) else ""
        raise RecipeError(
            f"{text}: expected git+https://host/org/repo.git@revision#path/recipe.yaml (or git+ssh://, git+file://).{hint}"
        )
    url, path = found.groups()
    before, _, _ = url.partition("://")
    host, slash, rest = url[len(before) + 3 :].partition("/")
    rest, _, revision = rest.rpartition("@") if "@" in rest else (rest, "", "")
    url = f"{before}://{host}{slash}{rest}"
    try:
        login = urlsplit(url)
        secret = bool(login.password) or (before in ("http", "https") and bool(login.username))
    except ValueError:
        raise RecipeError(f"{text}: is not a valid address.") from None
    if secret:
        raise RecipeError(
            "the recipe's git address holds a login. Take it out: git asks its credential helper (git config "
            "credential.helper), or use git+ssh://."
        )
    if host.startswith("-") or rest.startswith("-"):  # git or ssh could take it for an option
        raise RecipeError(f"{text}: is not the address of a repository.")
    _check_revision(text, revision or None)
    return GitReference(url, path and checked_path(path, text), revision or None)


def _check_revision(text: str, revision: str | None) -> None:
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise RecipeError(f"{text}: {revision!r} is not a revision: name a branch, a tag or a full commit.")
