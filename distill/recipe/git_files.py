"""Files of a git repository, read from its objects: without a checkout, its hooks, filters and links do nothing."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from distill.errors import RecipeError
from distill.recipe.references import GitReference

TIMEOUT_S = 120.0
MAX_REPOSITORY_BYTES = 500_000_000
"""Limit on what is fetched. If the server supports it, files above 1 MB are fetched only when they are read."""
_POLL_S = 0.1
# Against code that git could be made to run (hooks, fsmonitor, ext::), links, submodules, background jobs and prompts.
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.symlinks": "false",
    "protocol.ext.allow": "never",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "credential.interactive": "false",
    "advice.detachedHead": "false",
}
_ALLOWED = "https:http:ssh:file"


class GitFiles:
    """One commit of a repository, in a temporary folder."""

    def __init__(self, reference: GitReference) -> None:
        self._reference = reference
        self._name = f"{reference.place}{f'@{reference.revision}' if reference.revision else ''}"
        self._folder = tempfile.TemporaryDirectory(prefix="distill-git-")
        self.commit = ""

    def __enter__(self) -> Self:
        try:
            self._fetch()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Return a file's content, or `None` if there is no such file.

        Raises:
            RecipeError: it is a link, a folder or a submodule, or too large.
        """
        listed = self._git("--literal-pathspecs", "ls-tree", "-z", self.commit, "--", path).split(b"\0")[0]
        if not listed:
            return None
        mode, kind, oid = listed.partition(b"\t")[0].split()
        if kind != b"blob" or mode == b"120000":
            what = "a link" if mode == b"120000" else "a folder" if kind == b"tree" else "another repository"
            raise RecipeError(f"{self._name}: {path} is {what}; only plain files are read.")
        size = int(self._git("cat-file", "-s", oid.decode()))
        if size > max_bytes:
            raise RecipeError(f"{self._name}: {path} has {size:,} bytes; at most {max_bytes:,} are read.")
        return self._git("cat-file", "blob", oid.decode())

    def _fetch(self) -> None:
        self._git("init", "--quiet", "--bare", ".")
        wanted = self._reference.revision or "HEAD"
        self._git(
            "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules",
            "--filter=blob:limit=1m", "--", self._reference.url, f"+{wanted}:refs/distill/wanted",
        )  # fmt: skip
        self.commit = self._git("rev-parse", "--verify", "refs/distill/wanted^{commit}").decode().strip()

    def _git(self, *arguments: str) -> bytes:
        """Run git in the folder and return its standard output.

        Raises:
            RecipeError: git is missing, fails, takes too long or fetches too much.
        """
        settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        command = ["git", *settings, *arguments]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=self._folder.name,
                    env=_environment(self._folder.name),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,  # so that killpg reaches git's own child processes too
                )
            except FileNotFoundError:
                raise RecipeError(f"{self._name}: git is needed to fetch it. Install git (apt install git).") from None
            try:
                self._wait(process)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            out.seek(0)
            err.seek(0)
            if process.returncode:
                raise RecipeError(self._explained(err.read().decode("utf-8", "replace")))
            return out.read()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        started = time.monotonic()
        pause = 0.005
        while process.poll() is None:
            if time.monotonic() - started > TIMEOUT_S:
                raise RecipeError(
                    f"{self._name}: git got no answer within {TIMEOUT_S:.0f} s. Check the address and the network, "
                    "and try again."
                )
            if _size(Path(self._folder.name)) > MAX_REPOSITORY_BYTES:
                raise RecipeError(
                    f"{self._name}: the repository is larger than {MAX_REPOSITORY_BYTES:,} bytes, so the fetch was "
                    "stopped. Clone it yourself, and give the recipe's path."
                )
            time.sleep(pause)
            pause = min(_POLL_S, pause * 2)

    def _explained(self, said: str) -> str:
        """Return a message for git's error output, with what to do."""
        lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("warning:")]
        line = next(
            (one for one in lines if one.startswith(("fatal:", "error:", "remote:", "ERROR"))), (lines or [""])[0]
        )
        last = line.removeprefix("fatal:").strip()[:300]
        revision = self._reference.revision
        if revision and any(word in said for word in ("find remote ref", "not our ref", "unadvertised object")):
            return (
                f"{self._name}: the repository has no revision {revision!r}. Name a branch, a tag, or a commit by "
                f"all of its 40 digits (git ls-remote {self._reference.url})."
            )
        if "could not read Username" in said or "Authentication failed" in said or "Permission denied" in said:
            return (
                f"{self._name}: the repository does not exist, or needs a login. Set up git's credential helper or "
                "an SSH key; distill does not ask for a login."
            )
        return (
            f"{self._name}: git cannot read the repository ({last or 'no reason given'}). Check the address, and "
            "whether you may read it."
        )


def _environment(folder: str) -> dict[str, str]:
    """Return git's environment: no prompts, and no GIT_ variables that point at another repository."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    ssh = os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=15")
    asked = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GCM_INTERACTIVE": "never"}
    return {
        **kept,
        **asked,
        "GIT_SSH_COMMAND": ssh,
        "GIT_DIR": folder,
        "GIT_ALLOW_PROTOCOL": _ALLOWED,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",  # `_explained` looks for English words
    }


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # removed since it was listed
            continue
    return total
