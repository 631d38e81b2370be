"""Checks that the user may write to the Hub, made before any expensive work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import UserError
from distill.models.hub_errors import LOGIN, hub_errors, patiently, status_of
from distill.publish.files import CARD, FILE_LIST
from distill.publish.model_card import MARKER
from distill.recipe.push import PushConfig

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SILENCE_S = 60.0
"""Timeout of a silent connection; the request is then retried."""
MAY_WRITE = ("admin", "write", "contributor")
README_WAYS_OUT = (
    "Rename or delete it on the Hub, choose another name, or replace it with --replace-readme (its text stays in the "
    "repository's history)."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A repository to write to."""

    kind: str
    repo: str
    private: bool
    key: str
    """The recipe key or option that names it, for messages."""


def targets(config: PushConfig) -> list[Target]:
    """Return the repositories of a recipe in the order of publishing."""
    found = [Target("model", config.repo, config.private, "push.repo")]
    if config.dataset is not None:
        found.insert(0, Target("dataset", config.dataset, config.private, "push.dataset"))
    return found


def connect() -> "HfApi":
    """Return a client of the Hub.

    Raises:
        UserError: there is no token, or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import HfApi, constants, get_token, set_client_factory

    if constants.is_offline_mode():
        raise UserError("push: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or look with --dry-run.")
    token = get_token()
    if not token:
        raise UserError(f"push: no token for the Hub. Log in with {LOGIN}. `distill push --dry-run` needs none.")
    set_client_factory(_client_that_gives_up)
    return HfApi(token=token, library_name="distill")


def _client_that_gives_up() -> Any:
    """Return huggingface_hub's default client with a timeout on every wait; without one it waits forever."""
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _limit_waits]}
    return client


def _limit_waits(request: Any) -> None:
    # Set on each request: huggingface_hub 1.x often passes `timeout=None`, which overrides the client's own timeout.
    waits = request.extensions.get("timeout") or {}
    limited = {kind: SILENCE_S if waits.get(kind) is None else waits[kind] for kind in ("connect", "read", "write")}
    request.extensions["timeout"] = {**waits, **limited}


def check_access(api: "HfApi", config: PushConfig) -> None:
    """Check that each repository can be written to and that its card may be replaced.

    Raises:
        UserError: access is missing; the message names the user, what is missing and the ways out.
    """
    for target in targets(config):
        check_target(api, target, config.replace_readme)


def check_target(api: "HfApi", target: Target, replace_readme: bool) -> None:
    """Check one repository, as `check_access` does.

    Raises:
        UserError: see `check_access`.
    """
    with hub_errors("who you are"):
        me = patiently(api.whoami)
    _check_role(me, target)
    with hub_errors(target.repo):
        check_repository(api, target, replace_readme)


def check_repository(api: "HfApi", target: Target, replace_readme: bool) -> None:
    """Check visibility, write access and card of a repository that exists; a missing one passes.

    Raises:
        UserError: see `check_access`.
    """
    about = repository(api, target.kind, target.repo)
    if about is None:
        return
    if target.private and about.private is False:
        raise UserError(
            f"{target.key}: {target.repo} exists and is public, and push.private is true: what is pushed would be "
            "public. If that is intended, set push.private: false (--public); else make it private on the Hub."
        )
    try:
        patiently(lambda: api.auth_check(target.repo, repo_type=target.kind, write=True))
    except Exception as error:
        if status_of(error) != 404:  # a self-hosted Hub may lack this endpoint; the commit fails without the right
            raise
    if not replace_readme:
        check_readme(api, target.kind, target.repo, "main")


def repository(api: "HfApi", kind: str, repo: str) -> Any:
    """Return the Hub's description of a repository, or `None` if the token can see none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return patiently(lambda: api.repo_info(repo, repo_type=kind))
    except RepositoryNotFoundError:
        return None


def check_readme(api: "HfApi", kind: str, repo: str, revision: str) -> None:
    """Refuse to replace a card that distill did not write or that was edited since.

    Raises:
        UserError: there is such a card; the message names the ways out.
    """
    card = remote_text(api, kind, repo, revision, CARD)
    if card is None:
        return
    if MARKER not in card:
        raise UserError(f"{repo}: has a README.md that distill did not write; it is not overwritten. {README_WAYS_OUT}")
    written = remote_hashes(api, kind, repo, revision).get(CARD)
    if written is not None and written != _sha256(card):
        raise UserError(f"{repo}: its README.md was edited since distill wrote it. {README_WAYS_OUT}")


def remote_hashes(api: "HfApi", kind: str, repo: str, revision: str) -> dict[str, str]:
    """Return path -> SHA-256 of the files that distill has published in a repository, from its own list there.

    Empty if the list is missing or unreadable.
    """
    import json

    try:
        files = json.loads(remote_text(api, kind, repo, revision, FILE_LIST) or "{}").get("files", {})
    except (ValueError, AttributeError):  # AttributeError: JSON, but not an object
        return {}
    return {str(path): str(sha256) for path, sha256 in files.items()} if isinstance(files, dict) else {}


def remote_text(api: "HfApi", kind: str, repo: str, revision: str, path: str) -> str | None:
    """Return the content of a small text file in a repository, or `None` if it does not exist."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(repo, path, repo_type=kind, revision=revision, endpoint=api.endpoint)

    def fetch() -> str:
        response = get_session().get(url, headers=build_hf_headers(token=api.token))
        hf_raise_for_status(response)
        return str(response.content.decode(errors="replace"))

    try:
        return patiently(fetch)
    except (EntryNotFoundError, RevisionNotFoundError):
        return None


def _check_role(me: Mapping[str, Any], target: Target) -> None:
    """Refuse a token that cannot write to the target, as far as the Hub tells in advance.

    Raises:
        UserError: see `check_access`.
    """
    name, owner = me.get("name"), target.repo.partition("/")[0]
    token = me.get("auth", {}).get("accessToken", {}) or {}
    orgs = {str(org.get("name")): org.get("roleInOrg") for org in me.get("orgs", [])}
    mine = [str(name), *(org for org, role in orgs.items() if role is None or role in MAY_WRITE)]
    if token.get("role") == "read":
        raise UserError(f"push: you are {name}, with a read-only token. Use one with write access: {LOGIN}.")
    if owner not in mine:
        why = (
            f"your role there is {orgs[owner]!r}"
            if owner in orgs
            else "which is neither you nor an organisation of yours"
        )
        raise UserError(
            f"{target.key}: {target.repo} is under {owner}: {why}. You are {name} and may write under: "
            f"{', '.join(mine)}."
        )
    scoped = (token.get("fineGrained") or {}).get("scoped")
    if token.get("role") == "fineGrained" and isinstance(scoped, Sequence):
        allowed = {
            str(scope.get("entity", {}).get("name"))
            for scope in scoped
            if any("repo.write" in str(permission) for permission in scope.get("permissions", []))
        }
        if not allowed & {owner, target.repo}:
            raise UserError(
                f"{target.key}: your token may not write to {target.repo}; it may write to: "
                f"{', '.join(sorted(allowed)) or 'nothing'}. Give it that right on https://huggingface.co/settings/tokens."
            )


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()
