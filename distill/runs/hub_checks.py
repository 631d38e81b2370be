"""The doctor's checks that ask the Hub: the login, and whether models and datasets are available.

Each request times out after `HTTP_S` seconds, and none is made if HF_HUB_OFFLINE is set. The token is never shown.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from distill.errors import StageError, UserError
from distill.estimates.counts import is_cached_dataset, is_cached_file
from distill.estimates.models import GIB, local_model, model_facts
from distill.models.hub import MODEL_FILES, WEIGHTS
from distill.models.hub_errors import is_about_token
from distill.models.hub_names import names_folder
from distill.recipe.push import PushConfig
from distill.recipe.steps import PUBLISHING
from distill.runs.checks import MISSING, OK, WARNING, Check, line_of

HTTP_S = 5.0
LOGIN = "hf auth login"
READY = (200,)


class UnreachableError(Exception):
    """The Hub gave no answer."""


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids requests to the Hub."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def ask(path: str, method: str = "GET") -> tuple[int, Any]:
    """Send a request to the Hub.

    Args:
        path: path and query of the URL.
        method: `GET`, or `HEAD` for the status only.

    Returns:
        The status, and the answer's JSON, or `None` if it is not JSON.

    Raises:
        UnreachableError: there is no answer.
    """
    import httpx
    from huggingface_hub import constants, get_session, get_token
    from huggingface_hub.utils import build_hf_headers

    try:
        answer = get_session().request(
            method, constants.ENDPOINT + path, headers=build_hf_headers(token=get_token() or False), timeout=HTTP_S
        )
    except httpx.TimeoutException:
        raise UnreachableError(f"no answer within {HTTP_S:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UnreachableError(line_of(error) or type(error).__name__) from None
    try:
        return answer.status_code, answer.json() if method == "GET" else None
    except ValueError:
        return answer.status_code, None


def check_login() -> list[Check]:
    """Check the login to the Hub."""
    from huggingface_hub import get_token

    if is_offline():
        said = "HF_HUB_OFFLINE is set: only local models and datasets can be used"
        return [Check("Hub", OK, said)]
    if not get_token():
        return [Check("Hub", OK, f"not logged in: public models and datasets only (`{LOGIN}` for more)")]
    try:
        status, me = ask("/api/whoami-v2")
    except UnreachableError as error:
        return [Check("Hub", WARNING, f"cannot be reached: {error}")]
    if status == 401:
        return [Check("Hub", WARNING, "does not accept your token (401)", LOGIN)]
    if status not in READY or not isinstance(me, dict):
        return [Check("Hub", WARNING, f"does not say who you are ({status})")]
    token = (me.get("auth") or {}).get("accessToken") or {}
    role = f", a token to {line_of(token['role'])}" if token.get("role") in ("read", "write") else ""
    return [Check("Hub", OK, f"logged in as {line_of(me.get('name'))}{role}")]


def check_model(what: str, hub_id: str, revision: str | None) -> list[Check]:
    """Check that a model is on this machine or can be downloaded.

    Args:
        what: `teacher`, `student` or `model`.
        hub_id: a Hub id or a folder.
        revision: on the Hub.
    """
    if local_model(hub_id, revision) is not None:
        gib = model_facts(hub_id, revision).weights_gib
        size = f", {gib:.1f} GiB of weights" if gib else ""
        where = "a folder here" if names_folder(hub_id) else "in the cache"
        return [Check(what, OK, f"{hub_id}: {where}{size}")]
    if names_folder(hub_id):
        return [Check(what, MISSING, f"{hub_id}: no such folder here, or no *.safetensors weights in it")]
    fetch = f"hf download {hub_id}" + (f" --revision {revision}" if revision else "")
    if is_offline():
        said = f"{hub_id}: not in the cache, and HF_HUB_OFFLINE is set"
        return [Check(what, MISSING, said, f"HF_HUB_OFFLINE=0 {fetch}")]
    at = f"/revision/{revision}" if revision else ""
    try:
        status, about = ask(f"/api/models/{hub_id}{at}?blobs=true")
    except UnreachableError as error:
        return [Check(what, MISSING, f"{hub_id}: not in the cache, and the Hub cannot be reached ({error})", fetch)]
    refused = _refused(what, hub_id, "model", status, about)
    if refused:
        return refused
    files = [file for file in about.get("siblings") or [] if isinstance(file, dict)]
    wanted = [f for f in files if any(fnmatch.fnmatch(str(f.get("rfilename")), pattern) for pattern in MODEL_FILES)]
    if not any(fnmatch.fnmatch(str(file.get("rfilename")), WEIGHTS) for file in wanted):
        return [Check(what, MISSING, f"{hub_id}: has no *.safetensors weights on the Hub; choose another model")]
    gib = sum(file.get("size") or 0 for file in wanted) / GIB or (model_facts(hub_id).weights_gib or 0.0)
    if about.get("gated") and not _may_read(f"/{hub_id}/resolve/{revision or 'main'}/config.json"):
        said = f"{hub_id}: gated, and you have no access. Ask for it on https://huggingface.co/{hub_id}, then log in"
        return [Check(what, MISSING, said, LOGIN)]
    return [Check(what, OK, f"{hub_id}: on the Hub, {gib:.1f} GiB to download", download_gib=gib)]


def _refused(what: str, name: str, kind: str, status: int, about: Any) -> list[Check]:
    """Return a check for an answer that is not a description; empty if it is one."""
    if status in READY and isinstance(about, Mapping):
        return []
    words = about.get("error") if isinstance(about, Mapping) else None
    if status == 403 and isinstance(words, str) and not is_about_token(words):
        return [Check(what, MISSING, f"{name}: the Hub refuses it (403): {line_of(words)}")]
    if status in (401, 403, 404):
        said = f"{name}: no such {kind} on the Hub, or you may not see it ({status}). Check the spelling, or log in"
        return [Check(what, MISSING, said, LOGIN)]
    return [Check(what, WARNING, f"{name}: the Hub fails to answer ({status})")]


def _may_read(path: str) -> bool:
    try:
        status, _ = ask(path, "HEAD")
    except UnreachableError:
        return True  # not a refusal
    return status not in (401, 403)


def check_dataset(
    name: str, revision: str | None = None, config: str | None = None, files: Sequence[str] = ()
) -> list[Check]:
    """Check that a Hub dataset is in the cache or can be downloaded.

    Args:
        name: its Hub id.
        revision: git revision.
        config: configuration (subset), for the download command.
        files: paths of the only files that are needed.
    """
    what = f"hf:{name}" + ("/" + ", ".join(files) if files else "")
    if all(is_cached_file(name, file, revision) for file in files) if files else is_cached_dataset(name):
        return [Check("dataset", OK, f"{what}: in the cache")]
    # `hf download` is not enough: offline, `datasets` uses only what it has prepared itself.
    arguments = (
        f"'hf://datasets/{name}'"
        + (f", '{config}'" if config else "")
        + (f", revision='{revision}'" if revision else "")
    )
    fetch = f'python -c "import datasets; datasets.load_dataset({arguments})"'
    if files:
        fetch = f"hf download {name} {' '.join(files)} --repo-type dataset" + (
            f" --revision {revision}" if revision else ""
        )
    if is_offline():
        said = f"{what}: not in the cache, and HF_HUB_OFFLINE is set"
        return [Check("dataset", MISSING, said, f"HF_HUB_OFFLINE=0 {fetch}")]
    at = f"/revision/{revision}" if revision else ""
    try:
        status, about = ask(f"/api/datasets/{name}{at}")
    except UnreachableError as error:
        said = f"{what}: not in the cache, and the Hub cannot be reached ({error})"
        return [Check("dataset", MISSING, said, fetch)]
    refused = _refused("dataset", what, "dataset", status, about)
    if refused:
        return refused
    if about.get("gated") and not _may_read(f"/datasets/{name}/resolve/{revision or 'main'}/README.md"):
        said = f"{what}: gated. Ask for access on https://huggingface.co/datasets/{name}, then log in"
        return [Check("dataset", MISSING, said, LOGIN)]
    return [Check("dataset", OK, f"{what}: on the Hub")]


def check_push(config: PushConfig) -> list[Check]:
    """Check that the user may write to the repositories of `push:`."""
    from distill.publish.access import check_access, connect, targets

    try:
        check_access(connect(), config)
    except UserError as error:
        return [Check(PUBLISHING, MISSING, line_of(error).removeprefix("push: "), LOGIN)]
    except StageError as error:
        return [Check(PUBLISHING, WARNING, line_of(error).removeprefix("push: "))]
    return [Check(PUBLISHING, OK, f"you may write to {' and '.join(target.repo for target in targets(config))}")]
