"""`hf:` is the Hub's: no folder, no card and no copy in the cache makes it read another file of this machine."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import ProblemError
from distill.models.hub_names import LOADERS, dataset_fault, names_folder, split_evaluation_set

HUB_SERVER = Path(__file__).parents[1] / "hub_server.py"
TOKEN = "hf_test_canary_0123456789abcdef"
LOAD = """
import json, sys
from distill.errors import DistillError
from distill.models.hub import dataset_splits, load_hub_dataset, loaded_commit
for name, revision in json.loads(sys.argv[1]):
    try:
        rows = [row["question"] for row in load_hub_dataset(name, None, "train", revision)]
        print(json.dumps([rows, loaded_commit((name, None, "train", revision)), dataset_splits(name, None)]))
    except DistillError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture
def hub():
    spec = importlib.util.spec_from_file_location("hub_server", HUB_SERVER)
    sys.modules["hub_server"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Hub() as server:
        yield server


def rows(*questions):
    return "".join(json.dumps({"question": question}) + "\n" for question in questions).encode()


def loaded(hub_url, folder, *wanted, **environment):
    """What a process in `folder` gets of each (name, revision)."""
    env = {
        **os.environ,
        "HF_ENDPOINT": hub_url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(wanted)],
        cwd=folder, env={**env, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in '["']


def beside(folder, name, *questions):
    (folder / name).mkdir(parents=True)
    (folder / name / "train.jsonl").write_bytes(rows(*questions))


def test_a_folder_of_the_same_name_is_not_read_and_the_commit_is_known(tmp_path, hub):
    beside(tmp_path, "org/exam", "from this machine")
    beside(tmp_path, "org/absent", "from this machine")
    secret = tmp_path / "notes.jsonl"
    secret.write_bytes(rows("from this machine"))
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {secret}\n---\n".encode()
    repo = hub.make("dataset", "org/exam", files={"train.jsonl": rows("from the Hub")})
    hub.make("dataset", "org/greedy", files={"README.md": card, "train.jsonl": rows("from the Hub")})
    commit = repo.branches["main"]
    found = loaded(hub.url, tmp_path, ("org/exam", None), ("org/absent", None), ("org/greedy", None))
    offline = loaded("http://127.0.0.1:9", tmp_path, ("org/exam", None), ("org/exam", "0" * 40), HF_HUB_OFFLINE="1")
    assert found[0] == [["from the Hub"], commit, ["train"]]
    assert "org/absent" in found[1]
    assert "this machine" not in found[1]
    assert "don't belong to org/greedy" in found[2]
    assert offline[0][:2] == [["from the Hub"], commit]
    assert "as requested" in offline[1]


def test_a_folder_that_was_loaded_before_is_not_taken_from_the_cache(tmp_path):
    beside(tmp_path, "notes", "from this machine")
    load = "import datasets; datasets.load_dataset('./notes')"
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", load], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120)
    (found,) = loaded("http://127.0.0.1:9", tmp_path, ("notes", None), HF_HUB_OFFLINE="1")
    assert "was not loaded from the Hub" in found


@pytest.mark.parametrize("name", ["gsm8k", "openai/gsm8k", "a_b/c.d-e", "_a/b", "A/B"])
def test_names_of_the_hub_are_taken(name):
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    assert dataset_fault(name) is None


@pytest.mark.parametrize(
    "name",
    ["/etc", "../x/notes", ".", "..", "./x", "a/..", "../b", "~/x", "a/b/c", "a//b", "a/", "/a", "a\\b", "C:\\x", "hf://datasets/a/b",
     "https://host/a", "file:x", "hf:a/b", "a/b@main", "a b/c", "a/b\n", "a/b\x00", "", "a/b.git", "a--b/c", "é/b",
     "x" * 97, "zip://a::b", "buckets/a/b", "a/b?x", "a/%2e%2e", "json", "parquet", "text"],
)  # fmt: skip
def test_what_is_not_a_name_of_the_hub_is_refused(name):
    from distill.models.hub import load_hub_dataset

    assert f"hf:{name}" in dataset_fault(name)
    with pytest.raises(ProblemError):
        load_hub_dataset(name, None, "train", None)


def test_all_readers_of_local_files_are_known():
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    assert set(_PACKAGED_DATASETS_MODULES) - {"cache"} <= LOADERS


@pytest.mark.parametrize(
    "entry", ["hf:/etc", "hf:a/../b", "hf:a/b/..", "hf:a/b/c/d", "hf:a/b/", "hf:a", "hf:../a/b", "hf:a/b/c:d"]
)
def test_an_evaluation_set_is_a_dataset_and_perhaps_a_configuration(entry):
    assert split_evaluation_set("hf:a/b") == ("a/b", None)
    assert split_evaluation_set("hf:a/b/main 2") == ("a/b", "main 2")
    with pytest.raises(ValueError, match="is not a dataset"):
        split_evaluation_set(entry)


def test_a_models_spelling_tells_whether_it_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "private" / "model").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not names_folder("private/model")
    assert not names_folder("elsewhere")
    assert all(map(names_folder, ["./private/model", "mine", "/a/b", "~/x", "a/b/c", "../x", "a\\b"]))
