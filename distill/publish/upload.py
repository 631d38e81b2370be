"""Bring a publication to the Hub: large files first, then all of it in one commit, so that no half of it is ever seen.

Enters: a `Publication`. Leaves: a `Pushed`, for example

    Pushed("model", "org/name", "https://huggingface.co/org/name", "main", "4f0c…", 12, 9, 269_301_114, False)

What is there already is not sent again: unchanged files are left out, and large files that an interrupted push had
brought are known to the Hub by their SHA-256 (LFS) or their chunks (Xet). Where nothing differs, nothing is committed.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from distill import __version__
from distill.core.progress import ProgressBar
from distill.errors import StageError
from distill.models.hub_errors import CONFLICT, NUM_TRIES, hub_errors, is_transient, patiently, status_of, wait_s
from distill.publish.access import Target, check_readme, check_repository, remote_hashes, remote_text
from distill.publish.files import CARD, FILE_LIST, PublishedFile
from distill.publish.model_card import MARKER
from distill.publish.plan import Publication

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NUM_TOGETHER = 8
"""Large files that are uploaded in one go; the client sends five of them at a time."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push has done to one branch of a repository."""

    kind: str
    repo: str
    url: str
    branch: str
    commit: str
    num_files: int
    num_changed: int
    num_bytes_changed: int
    already_there: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def publish(api: "HfApi", publication: Publication, replace_readme: bool, run_name: str) -> Pushed:
    """Make the repository look as planned.

    Args:
        api: the Hub's client.
        publication: what is to be there.
        replace_readme: replace a card that distill did not write.
        run_name: for the commit's message.

    Raises:
        UserError: the token may not, or a card of somebody else's is there.
        StageError: the Hub or the connection fails for longer than waiting helps.
    """
    where = publication.repo + ("" if publication.branch == "main" else f" ({publication.branch})")
    sent: list[PublishedFile] = []
    with quiet_client(), hub_errors(where):
        _prepare(api, publication, replace_readme)
        for number in range(1, NUM_TRIES + 1):
            try:
                return _publish_once(api, publication, replace_readme, run_name, sent)
            except Exception as error:
                # After a lost answer the next round sees what has arrived, so nothing is committed twice.
                moved = status_of(error) in CONFLICT
                if number == NUM_TRIES or not (moved or is_transient(error)):
                    raise
                time.sleep(wait_s(error, number))
    raise AssertionError("the last try returns or raises")


def _prepare(api: "HfApi", publication: Publication, replace_readme: bool) -> None:
    """Have the repository and the branch; neither shows anything of ours yet."""
    kind, repo = publication.kind, publication.repo
    key = "push.repo" if kind == "model" else "push.dataset"
    patiently(lambda: api.create_repo(repo, repo_type=kind, private=publication.private, exist_ok=True))
    if publication.branch == "main":
        check_repository(api, Target(kind, repo, publication.private, key), replace_readme)
        return
    refs = patiently(lambda: api.list_repo_refs(repo, repo_type=kind))
    if publication.branch not in {branch.name for branch in refs.branches}:
        # From the repository's first commit, which holds nothing of ours: until the one commit, the branch is empty.
        first = patiently(lambda: api.list_repo_commits(repo, repo_type=kind))[-1].commit_id
        patiently(
            lambda: api.create_branch(repo, repo_type=kind, branch=publication.branch, revision=first, exist_ok=True)
        )


def _publish_once(
    api: "HfApi", publication: Publication, replace_readme: bool, run_name: str, sent: list[PublishedFile]
) -> Pushed:
    """Find out what differs and bring it; `sent` is what the commit of an earlier try held, its answer lost."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    kind, repo, branch = publication.kind, publication.repo, publication.branch
    head = patiently(lambda: api.repo_info(repo, repo_type=kind, revision=branch)).sha
    there = remote_files(api, publication, head)
    files = _without_foreign_card(api, publication, head, replace_readme)
    changed = [file for file in files if not _same(file, there.get(file.path))]
    ours = {file.path for file in publication.files}
    gone = [path for path in remote_hashes(api, kind, repo, head) if path not in ours and path in there]
    if not changed and not gone:
        return _pushed(api, publication, head, sent, not sent)
    additions = [
        CommitOperationAdd(file.path, file.source if isinstance(file.source, bytes) else str(file.source))
        for file in changed
    ]
    for addition, file in zip(additions, changed, strict=True):
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # known since the folder was checked
    with _without_xet(not _speaks_xet(api, publication)):
        _upload(api, publication, additions)
    sent[:] = changed
    commit = api.create_commit(
        repo,
        [*additions, *(CommitOperationDelete(path) for path in sorted(gone))],
        commit_message=f"Publish {'the training data' if kind == 'dataset' else 'the student'} of {run_name}",
        commit_description=f"By distill {__version__}.",
        repo_type=kind,
        revision=branch,
        parent_commit=head,
    )
    _check(api, publication, commit.oid, files)
    return _pushed(api, publication, commit.oid, changed, False)


def remote_files(api: "HfApi", publication: Publication, revision: str) -> dict[str, tuple[str, bool]]:
    """Each file's (hash, whether that is the SHA-256 of a large file, else git's) by path."""
    from huggingface_hub import RepoFile

    def ask() -> list[Any]:
        return list(api.list_repo_tree(publication.repo, repo_type=publication.kind, revision=revision, recursive=True))

    found = [entry for entry in patiently(ask) if isinstance(entry, RepoFile)]
    return {file.path: (file.lfs.sha256, True) if file.lfs else (file.blob_id, False) for file in found}


def _same(file: PublishedFile, remote: tuple[str, bool] | None) -> bool:
    if remote is None:
        return False
    found, is_large = remote
    return found == (file.sha256 if is_large else file.git_oid)


def _without_foreign_card(
    api: "HfApi", publication: Publication, head: str, replace_readme: bool
) -> Sequence[PublishedFile]:
    """What is to be there: on `main` all of it, where a foreign card is refused; on a branch a foreign card stays."""
    if replace_readme:
        return publication.files
    if publication.branch == "main":
        check_readme(api, publication.kind, publication.repo, head)
        return publication.files
    card = remote_text(api, publication.kind, publication.repo, head, CARD)
    if card is None or MARKER in card:
        return publication.files
    return [file for file in publication.files if file.path not in (CARD, FILE_LIST)]


def _upload(api: "HfApi", publication: Publication, additions: Sequence[Any]) -> None:
    """Send large files ahead of the commit, some at a time so that progress shows."""
    with ProgressBar(f"push {publication.repo}", sum(a.upload_info.size for a in additions), "bytes") as progress:
        for start in range(0, len(additions), NUM_TOGETHER):
            some = list(additions[start : start + NUM_TOGETHER])
            api.preupload_lfs_files(
                publication.repo,
                some,
                repo_type=publication.kind,
                revision=publication.branch,
                free_memory=False,
            )
            progress.advance(sum(addition.upload_info.size for addition in some))


def _check(api: "HfApi", publication: Publication, commit: str, files: Sequence[PublishedFile]) -> None:
    """See that the revision holds what was to be there; a repository's .gitignore may keep files out without a word."""
    there = remote_files(api, publication, commit)
    missing = [file.path for file in files if not _same(file, there.get(file.path))]
    if missing:
        raise StageError(
            f"push: {publication.repo}: {', '.join(missing[:5])} did not arrive in commit {commit[:12]}. Look for a "
            ".gitignore or .gitattributes in the repository that keeps them out, then push again."
        )


def _pushed(
    api: "HfApi", publication: Publication, commit: str, changed: Sequence[PublishedFile], already_there: bool
) -> Pushed:
    prefix = "datasets/" if publication.kind == "dataset" else ""
    url = f"{api.endpoint}/{prefix}{publication.repo}"
    return Pushed(
        publication.kind,
        publication.repo,
        url if publication.branch == "main" else f"{url}/tree/{publication.branch}",
        publication.branch,
        commit,
        len(publication.files),
        len(changed),
        sum(file.size for file in changed),
        already_there,
    )


def still_there(api: "HfApi", pushed: Mapping[str, Any], timeout_s: float) -> bool | None:
    """Whether a branch's head is the commit that a push left there; `None` where the Hub does not answer."""
    try:
        about = api.repo_info(pushed["repo"], repo_type=pushed["kind"], revision=pushed["branch"], timeout=timeout_s)
    except Exception as error:
        return False if status_of(error) == 404 else None
    return bool(about.sha == pushed["commit"])


@contextmanager
def quiet_client() -> Iterator[None]:
    """The client's own lines and bars are off: they hold addresses with signatures, and would mix with ours."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    before, bars_before = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars_before:
            enable_progress_bars()


@contextmanager
def _without_xet(off: bool) -> Iterator[None]:
    """Upload by LFS: the client takes Xet wherever its package is installed, and gives up where the Hub has none."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or off
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _speaks_xet(api: "HfApi", publication: Publication) -> bool:
    """Whether the Hub hands out tokens for Xet; Hubs of one's own and mirrors may know LFS alone."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers

    if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
        return False
    url = f"{api.endpoint}/api/{publication.kind}s/{publication.repo}/xet-write-token/{publication.branch}"
    answer = patiently(lambda: get_session().get(url, headers=build_hf_headers(token=api.token)))
    return bool(answer.status_code not in (404, 405, 501))
