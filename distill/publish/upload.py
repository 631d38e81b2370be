"""Upload of a publication: large files first, then everything in one commit, so that no partial state is visible.

Nothing is sent twice: unchanged files are skipped, and the Hub recognises large files of an interrupted push by their
SHA-256 (LFS) or their chunks (Xet). If nothing differs, nothing is committed.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from distill.results.push import Pushed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NUM_TOGETHER = 8
"""Large files that are uploaded between two progress updates; the client sends five at a time."""


def publish(api: "HfApi", publication: Publication, replace_readme: bool, run_name: str) -> Pushed:
    """Bring a branch of a repository to the planned content.

    Args:
        api: the Hub's client.
        publication: the planned content.
        replace_readme: replace a card that distill did not write.
        run_name: for the commit message.

    Raises:
        UserError: the token has no right to write, or the repository has a card that distill did not write.
        StageError: the Hub or the connection keeps failing after all retries.
    """
    where = publication.repo + ("" if publication.branch == "main" else f" ({publication.branch})")
    sent: list[PublishedFile] = []
    with quiet_client(), hub_errors(where):
        _prepare(api, publication, replace_readme)
        for number in range(1, NUM_TRIES + 1):
            try:
                return _publish_once(api, publication, replace_readme, run_name, sent)
            except Exception as error:
                # If only the answer was lost, the retry finds the commit and changes nothing.
                moved = status_of(error) in CONFLICT
                if number == NUM_TRIES or not (moved or is_transient(error)):
                    raise
                time.sleep(wait_s(error, number))
    raise AssertionError("the last try returns or raises")


def _prepare(api: "HfApi", publication: Publication, replace_readme: bool) -> None:
    """Create the repository and the branch if needed."""
    kind, repo = publication.kind, publication.repo
    key = "push.repo" if kind == "model" else "push.dataset"
    patiently(lambda: api.create_repo(repo, repo_type=kind, private=publication.private, exist_ok=True))
    if publication.branch == "main":
        check_repository(api, Target(kind, repo, publication.private, key), replace_readme)
        return
    refs = patiently(lambda: api.list_repo_refs(repo, repo_type=kind))
    if publication.branch not in {branch.name for branch in refs.branches}:
        # Branched from the repository's first commit, which holds none of our files: no partial content is visible.
        first = patiently(lambda: api.list_repo_commits(repo, repo_type=kind))[-1].commit_id
        patiently(
            lambda: api.create_branch(repo, repo_type=kind, branch=publication.branch, revision=first, exist_ok=True)
        )


def _publish_once(
    api: "HfApi", publication: Publication, replace_readme: bool, run_name: str, sent: list[PublishedFile]
) -> Pushed:
    """Upload and commit what differs. `sent` holds the files of an earlier attempt's commit whose answer was lost."""
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
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # computed already, when the folder was checked
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
    """Return path -> (hash, is_large): SHA-256 for large files (LFS), git's blob id for others."""
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
    """Return the files to publish. A foreign card is refused on `main`, and kept on another branch."""
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
    """Send large files before the commit, in batches to show progress."""
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
    """Check that a commit holds all files; a .gitignore in the repository silently excludes files."""
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
        kind=publication.kind,
        repo=publication.repo,
        url=url if publication.branch == "main" else f"{url}/tree/{publication.branch}",
        branch=publication.branch,
        commit=commit,
        num_files=len(publication.files),
        num_changed=len(changed),
        num_bytes_changed=sum(file.size for file in changed),
        already_there=already_there,
    )


def still_there(api: "HfApi", pushed: Pushed, timeout_s: float) -> bool | None:
    """Return whether a branch's head is still the pushed commit; `None` if the Hub does not answer."""
    try:
        about = api.repo_info(pushed.repo, repo_type=pushed.kind, revision=pushed.branch, timeout=timeout_s)
    except Exception as error:
        return False if status_of(error) == 404 else None
    return bool(about.sha == pushed.commit)


@contextmanager
def quiet_client() -> Iterator[None]:
    """Silence huggingface_hub's own messages and bars, which contain signed URLs and would mix with distill's."""
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
    """Upload by LFS while `off`: the client uses Xet if its package is installed, and fails on a Hub without Xet."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or off
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _speaks_xet(api: "HfApi", publication: Publication) -> bool:
    """Return whether the Hub issues Xet tokens; self-hosted Hubs and mirrors may support LFS only."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers

    if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
        return False
    url = f"{api.endpoint}/api/{publication.kind}s/{publication.repo}/xet-write-token/{publication.branch}"
    answer = patiently(lambda: get_session().get(url, headers=build_hf_headers(token=api.token)))
    return bool(answer.status_code not in (404, 405, 501))
