"""A Hub on loopback and git repositories, with the user's folders in the test's own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants  # noqa: F401 - its cache is where HOME is when it is imported
import pytest

from distill.core.progress import QUIET

TOKEN = "hf_test_canary_0123456789abcdef"
RECIPE = """\
name: theirs
student: smollm2-135m
problems: [{source: "gym:chain_sum", limit: 5}]
generate: {teacher: smollm2-135m, sampling: {max_tokens: 100}}
sft: {max_length: 512}
"""


def _load(name):
    spec = importlib.util.spec_from_file_location(f"recipes_{name}", Path(__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"recipes_{name}"] = module
    spec.loader.exec_module(module)
    return module


hub_server = _load("hub_server")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """No test reads or writes the user's cache, state or git configuration."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv(QUIET, "")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def theirs():
    """A small recipe of somebody else's."""
    return RECIPE


@pytest.fixture
def hub(monkeypatch):
    """A Hub on loopback that the client takes for the Hub, with a token in the environment."""
    from huggingface_hub import constants

    with hub_server.Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


class GitRepo:
    """A repository on this disk; `url` is how a stranger would name it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"git+file://{self.folder}"

    def git(self, *arguments: str) -> str:
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        """Write files, commit, and give the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def git_repo(tmp_path):
    return GitRepo(tmp_path / "repo")


@pytest.fixture
def distill(monkeypatch, capsys):
    """A function that is the command: its arguments in, exit code, standard output and standard error out."""
    from distill.cli import main

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["distill", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def Fault():  # noqa: N802 - it is the class
    return hub_server.Fault
