"""Who pushes, and whether they may: asked before anything costs.

Enters: the repositories that a push would write to. Leaves: nothing, or a `UserError` that tells what is missing.
"""

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
"""A connection on which nothing moves for so long is given up; the request is tried again."""
MAY_WRITE = ("admin", "write", "contributor")
README_WAYS_OUT = (
    "Rename or delete it on the Hub, choose another name, or replace it with --replace-readme (its text stays in the "
    "repository's history)."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A repository that is written to."""

    kind: str
    repo: str
    private: bool
    key: str
    """The recipe's key that names it."""


def targets(config: PushConfig) -> list[Target]:
    """The repositories of a recipe, in the order of publishing."""
    found = [Target("model", config.repo, config.private, "push.repo")]
    if config.dataset is not None:
        found.insert(0, Target("dataset", config.dataset, config.private, "push.dataset"))
    return found


def connect() -> "HfApi":
    """The Hub's client.

    Raises:
        UserError: no token, or told to stay offline.
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
    """The Hub client's own, which would wait for a silent server for ever, with a limit to each wait."""
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _limit_waits]}
    return client


def _limit_waits(request: Any) -> None:
    # For each request: huggingface_hub 1.x passes `timeout=None` to many of them, which overrides a client's own.
    waits = request.extensions.get("timeout") or {}
    limited = {kind: SILENCE_S if waits.get(kind) is None else waits[kind] for kind in ("connect", "read", "write")}
    request.extensions["timeout"] = {**waits, **limited}


def check_access(api: "HfApi", config: PushConfig) -> None:
    """Find out that each repository can be written to, and holds no card of somebody else's.

    Raises:
        UserError: who you are, what is missing, and the ways out.
    """
    for target in targets(config):
        check_target(api, target, config.replace_readme)


def check_target(api: "HfApi", target: Target, replace_readme: bool) -> None:
    """Find out that one repository can be written to.

    Raises:
        UserError: who you are, what is missing, and the ways out.
    """
    with hub_errors("who you are"):
        me = patiently(api.whoami)
    _check_role(me, target)
    with hub_errors(target.repo):
        check_repository(api, target, replace_readme)


def check_repository(api: "HfApi", target: Target, replace_readme: bool) -> None:
    """Look at a repository where there is one."""
    about = repository(api, target.kind, target.repo)
    if about is None:
        return
    if target.private and about.private is False:
        raise UserError(
            f"{target.key}: {target.repo} exists and is public, and push.private is true: what is pushed would be "
            "there for everyone. If that is meant, set push.private: false (--public); else make it private on the Hub."
        )
    try:
        patiently(lambda: api.auth_check(target.repo, repo_type=target.kind, write=True))
    except Exception as error:
        if status_of(error) != 404:  # Hubs of one's own may not know this question; the commit will tell
            raise
    if not replace_readme:
        check_readme(api, target.kind, target.repo, "main")


def repository(api: "HfApi", kind: str, repo: str) -> Any:
    """What the Hub tells of a repository; `None` where there is none that the token can see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return patiently(lambda: api.repo_info(repo, repo_type=kind))
    except RepositoryNotFoundError:
        return None


def check_readme(api: "HfApi", kind: str, repo: str, revision: str) -> None:
    """Refuse to replace a card that distill did not write, or that was edited since.

    Raises:
        UserError: which one, and the ways out.
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
    """What distill has published in a repository, from its own list there; empty where there is none."""
    import json

    try:
        files = json.loads(remote_text(api, kind, repo, revision, FILE_LIST) or "{}").get("files", {})
    except (ValueError, AttributeError):
        return {}
    return {str(path): str(sha256) for path, sha256 in files.items()} if isinstance(files, dict) else {}


def remote_text(api: "HfApi", kind: str, repo: str, revision: str, path: str) -> str | None:
    """A small text of a repository; `None` where there is no such file."""
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
    """Whether the token's owner may write under a name at all, as far as the Hub says so beforehand."""
    name, owner = me.get("name"), target.repo.partition("/")[0]
    token = me.get("auth", {}).get("accessToken", {}) or {}
    orgs = {str(org.get("name")): org.get("roleInOrg") for org in me.get("orgs", [])}
    mine = [str(name), *(org for org, role in orgs.items() if role is None or role in MAY_WRITE)]
    if token.get("role") == "read":
        raise UserError(f"push: you are {name}, with a token that may only read. Take one that may write: {LOGIN}.")
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
