"""Publishing over a real connection with the real client: one commit, nothing twice, and what faults leave behind."""

import json
import os
import subprocess
import sys
import time

import pytest

from distill.errors import StageError, UserError
from distill.stages import push
from distill.storage.layout import SEAL

MODEL, DATASET = ("model", "me/small"), ("dataset", "me/small-data")
STORAGE, COMMIT = "/storage/", "/commit/main"


def weights_of(run):
    return run.run_dir / "sft/student/model.safetensors"


def test_one_commit_brings_all_files_to_a_private_repository(hub, make_run, documented):
    run = make_run()
    metrics = push.run(run).metrics
    times = {"fingerprint": "", "seconds": 1.0, "peak_memory_gib": 1.0, "finished_at": ""}
    documented("PushMetrics", {**times, **metrics})
    files = hub.content(*MODEL)
    assert hub.num_commits(*MODEL) == 1
    assert hub.repos[MODEL].private
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= files.keys()
    assert {"distill/recipe.yaml", "distill/recipe.lock.yaml", "distill/manifests/sft.json"} <= files.keys()
    assert files["model.safetensors"] == weights_of(run).read_bytes()
    assert metrics["url"] == f"{hub.url}/me/small"
    assert metrics["pushed"][0]["commit"] == hub.repos[MODEL].branches["main"]
    assert not metrics["already_there"]


def test_pushing_twice_sends_and_commits_nothing(hub, make_run):
    run = make_run(push={"repo": "me/small", "dataset": "me/small-data", "dropped": True})
    push.run(run)
    before = {key: list(repo.commits) for key, repo in hub.repos.items()}
    puts, hub.requests = hub.num_puts.copy(), []
    metrics = push.run(run).metrics
    assert metrics["already_there"]
    assert metrics["num_files_changed"] == 0
    assert {key: repo.commits for key, repo in hub.repos.items()} == before
    assert hub.num_puts == puts
    assert not [path for method, path in hub.requests if "preupload" in path or "batch" in path or COMMIT in path]


def test_another_card_alone_is_a_commit_without_the_weights(hub, make_run):
    run = make_run()
    push.run(run)
    puts = hub.num_puts.copy()
    run.recipe.__dict__["description"] = "Now with other words."
    metrics = push.run(run).metrics
    assert metrics["pushed"][0]["num_changed"] == 4  # card, recipe, its lock, list of files
    assert hub.num_puts == puts
    assert b"Now with other words." in hub.content(*MODEL)["README.md"]


def test_files_that_are_no_longer_ours_go_and_those_of_others_stay(hub, make_run):
    lora = {"method": "lora", "max_length": 256, "batch_size": 2}
    run = make_run(sft=lora)
    hub.make(*MODEL, files={"notes.md": b"mine"})
    push.run(run)
    assert "adapter/adapter_model.safetensors" in hub.content(*MODEL)
    run.recipe.push.__dict__["adapter"] = False
    push.run(run)
    files = hub.content(*MODEL)
    assert not [path for path in files if path.startswith("adapter/")]
    assert files["notes.md"] == b"mine"


def test_the_dataset_goes_first_and_loads(hub, make_run, tmp_path):
    import datasets

    run = make_run(push={"repo": "me/small", "dataset": "me/small-data", "dropped": True})
    push.run(run)
    commits = [path for method, path in hub.requests if method == "POST" and path.endswith(COMMIT)]
    assert commits == ["/api/datasets/me/small-data/commit/main", "/api/models/me/small/commit/main"]
    clone = tmp_path / "clone"
    for path, content in hub.content(*DATASET).items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(content)
    kept = datasets.load_dataset(str(clone), split="train", cache_dir=str(tmp_path / "cache"))
    dropped = datasets.load_dataset(str(clone), "dropped", split="train", cache_dir=str(tmp_path / "cache"))
    counts = run.folder("filter").manifest["metrics"]
    assert (len(kept), len(kept) + len(dropped)) == (counts["num_kept"], counts["num_traces"])
    assert kept[0]["completion"][0]["content"].startswith("<think>")
    assert set(kept["teacher"]) == {"SmallBase"}  # not the folder that it lies in on this machine
    assert all(row["reasons"] for row in dropped)


def test_checkpoints_become_branches_that_hold_nothing_of_main(hub, make_run):
    run = make_run(push={"repo": "me/small", "checkpoints": True})
    student = run.run_dir / "sft/student"
    for step in (2, 10):
        folder = run.run_dir / f"sft/checkpoints/checkpoint-{step}"
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_bytes((student / name).read_bytes())
        (folder / "optimizer.pt").write_bytes(b"\x80\x04 a pickle")
        (folder / "training_args.bin").write_bytes(b"PK a pickle")
        (folder / "trainer_state.json").write_text("{}")
        (folder / SEAL).touch()
    seen = []

    def look(method, path):
        repo = hub.repos.get(MODEL)
        if repo and "step-10" in repo.branches:
            seen.append(frozenset(repo.files("step-10")))

    hub.on_request = look
    metrics = push.run(run).metrics
    whole = {".gitattributes", "README.md", "config.json", "tokenizer.json", "model.safetensors", "distill/files.json"}
    assert [one["branch"] for one in metrics["pushed"]] == ["main", "step-2", "step-10"]
    assert set(hub.content(*MODEL, "step-10")) == whole
    assert set(seen) == {frozenset({".gitattributes"}), frozenset(whole)}
    assert b"Step 10 of 6" in hub.content(*MODEL, "step-10")["README.md"]
    assert "optimizer" not in str(hub.content(*MODEL).keys())


# --- cards of others


def test_a_card_that_distill_did_not_write_is_never_overwritten(hub, make_run):
    run = make_run()
    hub.make(*MODEL, files={"README.md": b"# My own words\n"})
    with pytest.raises(UserError, match=r"has a README\.md that distill did not write") as caught:
        push.run(run)
    assert "--replace-readme" in str(caught.value)
    assert hub.num_commits(*MODEL) == 0
    run.recipe.push.__dict__["replace_readme"] = True
    push.run(run)
    assert b"model-index" in hub.content(*MODEL)["README.md"]


def test_a_card_that_was_edited_on_the_hub_is_kept(hub, make_run):
    run = make_run()
    push.run(run)
    repo = hub.repos[MODEL]
    edited = repo.files("main") | {"README.md": hub.content(*MODEL)["README.md"] + b"\nBy hand.\n"}
    repo.commit("Update README.md", edited, "main")
    with pytest.raises(UserError, match="edited since distill wrote it"):
        push.run(run)
    assert hub.content(*MODEL)["README.md"].endswith(b"By hand.\n")


# --- faults


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "PUT", "path": STORAGE, "status": 500},
        {"method": "PUT", "path": STORAGE, "after_bytes": 4_000},
        {"method": "POST", "path": "objects/batch", "status": 503},
        {"method": "POST", "path": "/preupload/", "status": 429, "headers": {"Retry-After": "7"}},
        {"method": "POST", "path": "/repos/create", "status": 502},
        {"method": "POST", "path": COMMIT, "status": 500},
        {"method": "POST", "path": COMMIT},
        {"method": "GET", "path": "/tree/", "status": 0},
        {"method": "POST", "path": COMMIT, "status": 429, "headers": {"Retry-After": "11"}},
    ],
    ids=[
        "500 on upload",
        "reset in mid-upload",
        "503 on batch",
        "rate limit",
        "502 on create",
        "500 on commit",
        "reset on commit",
        "reset on tree",
        "rate limit on commit",
    ],
)
def test_a_passing_fault_is_got_over(hub, make_run, Fault, waits, fault):
    run = make_run()
    hub.faults = [Fault(**fault)]
    push.run(run)
    assert hub.num_commits(*MODEL) == 1
    assert hub.content(*MODEL)["model.safetensors"] == weights_of(run).read_bytes()
    assert waits
    if "headers" in fault:
        assert max(waits) >= int(fault["headers"]["Retry-After"])


@pytest.mark.parametrize(("method", "path"), [("POST", COMMIT), ("PUT", STORAGE), ("GET", "/tree/")])
def test_a_hub_that_falls_silent_is_asked_again(hub, make_run, Fault, waits, monkeypatch, method, path):
    monkeypatch.setattr("distill.publish.access.SILENCE_S", 0.5)
    run = make_run()
    hub.faults = [Fault(method, path, hangs=True)]
    push.run(run)
    assert hub.num_commits(*MODEL) == 1
    assert hub.content(*MODEL)["model.safetensors"] == weights_of(run).read_bytes()
    assert waits


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, make_run, Fault, waits):
    run = make_run()
    hub.faults = [Fault("POST", COMMIT, after_work=True)]
    metrics = push.run(run).metrics
    assert hub.num_commits(*MODEL) == 1
    assert not metrics["already_there"]
    assert metrics["num_files_changed"] == metrics["num_files"]


def test_somebody_elses_commit_in_between_is_built_upon(hub, make_run, waits):
    run = make_run()
    repo = hub.make(*MODEL)

    def interfere(method, path):
        if path.endswith(COMMIT) and len(repo.commits) == 1:
            repo.commit("theirs", repo.files("main") | {"theirs.md": b"x"}, "main")

    hub.on_request = interfere
    push.run(run)
    assert {"theirs.md", "model.safetensors"} <= hub.content(*MODEL).keys()


def test_a_hub_that_keeps_failing_leaves_nothing_visible_and_the_next_push_sends_nothing_again(
    hub, make_run, Fault, waits, capfd
):
    run = make_run()
    hub.faults = [Fault("POST", COMMIT, status=500, times=1_000)]
    with pytest.raises(StageError, match=r"the Hub fails \(500\)") as caught:
        push.run(run)
    assert "the same command goes on from there" in str(caught.value)
    assert hub.content(*MODEL).keys() == {".gitattributes"}
    assert "signed-secret" not in capfd.readouterr().err
    puts, hub.faults = hub.num_puts.copy(), []
    push.run(run)
    assert hub.num_puts == puts
    assert max(puts.values()) == 1


def test_an_upload_that_keeps_failing_tells_why(hub, make_run, Fault, waits, capfd):
    hub.faults = [Fault("PUT", STORAGE, status=500, times=1_000)]
    with pytest.raises(StageError, match="the Hub fails") as caught:
        push.run(make_run())
    assert "signed-secret" not in str(caught.value) + capfd.readouterr().err


@pytest.mark.parametrize("path", ["objects/batch", COMMIT])
@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (401, "", "does not accept the token"),
        (403, "You don't have the rights to write here", "may not write there"),
        (403, "Private repository storage limit reached", "refuses it (403): Private repository storage limit reached"),
        (413, "", "refuses it"),
    ],
)
def test_a_refusal_in_the_middle_is_told_at_once(hub, make_run, Fault, waits, path, status, words, said):
    hub.faults = [Fault("POST", path, status=status, said=words)]
    with pytest.raises(UserError) as caught:
        push.run(make_run())
    assert said in str(caught.value)
    assert ("HF_TOKEN" in str(caught.value)) == ("storage" not in words and status != 413)
    assert not waits
    assert hub.num_commits(*MODEL) == 0


def test_what_a_gitignore_keeps_out_is_told(hub, make_run):
    hub.make(*MODEL, files={".gitignore": b"tokenizer.json"})
    with pytest.raises(StageError, match=r"tokenizer\.json did not arrive"):
        push.run(make_run())


# --- killed in the middle


@pytest.mark.slow
def test_a_push_that_was_killed_goes_on_and_nothing_half_is_ever_seen(hub, make_run, tmp_path):
    """In processes of their own: the first is killed as soon as the weights have arrived, before the commit."""
    run = make_run()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(run.recipe.model_dump(mode="json")))
    environ = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "distill", "push", str(recipe), "--run-dir", str(run.run_dir.parent), "--json"]
    arrived, go_on = [], []

    def hold(method, path):
        if path.endswith(COMMIT):
            arrived.append(path)
            while not go_on:
                time.sleep(0.01)

    hub.on_request = hold
    first = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not arrived and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert arrived, first.communicate()[1]
    assert hub.content(*MODEL).keys() == {".gitattributes"}
    first.kill()
    first.wait()
    hub.on_request = lambda method, path: None  # the first push's commit is held on, as if it had never arrived
    puts = hub.num_puts.copy()
    second = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert hub.num_puts == puts
    assert hub.content(*MODEL)["model.safetensors"] == weights_of(run).read_bytes()
    assert json.loads(second.stdout)["push"]["url"] == f"{hub.url}/me/small"
    third = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert "push: done already, skipped" in third.stderr
    assert hub.num_commits(*MODEL) == 1
    go_on.append(True)
