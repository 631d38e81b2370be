"""Who may push, found out before anything costs; the command line; and a canary that is seen nowhere."""

import json
import os
import subprocess
import sys

import pytest

from distill.errors import UserError
from distill.publish.access import check_access, connect
from distill.recipe.push import PushConfig
from distill.runs.runner import run_recipe

TOKEN = "hf_test_canary_0123456789abcdef"


def check(**config):
    check_access(connect(), PushConfig(**{"repo": "me/small", **config}))


def test_one_may_write_under_ones_own_name_and_an_organisation(hub):
    check()
    check(repo="my-org/small", dataset="me/data")


def test_no_token_says_how_to_log_in(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="hf auth login"):
        check()


def test_a_wrong_token_is_told_without_showing_it(hub):
    hub.tokens.clear()
    with pytest.raises(UserError, match="does not accept the token") as caught:
        check()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("repo", "why"),
    [("their-org/small", "your role there is 'read'"), ("strangers/small", "neither you nor an organisation")],
)
def test_a_name_one_may_not_write_to_tells_which_one_may(hub, repo, why):
    with pytest.raises(UserError, match=why) as caught:
        check(repo=repo)
    assert "You are me and may write under: me, my-org" in str(caught.value)


def test_a_token_that_may_only_read(hub):
    hub.me["auth"]["accessToken"]["role"] = "read"
    with pytest.raises(UserError, match="read-only token"):
        check()


def test_a_fine_grained_token_for_something_else(hub):
    scope = {"entity": {"type": "user", "name": "other"}, "permissions": ["repo.write"]}
    hub.me["auth"]["accessToken"] = {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}
    with pytest.raises(UserError, match="it may write to: other"):
        check()


def test_a_repository_one_may_only_read(hub):
    hub.make("model", "me/small")
    hub.readers.add("me/small")
    with pytest.raises(UserError, match="may not write there"):
        check()


def test_a_public_repository_is_not_taken_for_a_private_one(hub):
    hub.make("model", "me/small", private=False)
    with pytest.raises(UserError, match="exists and is public"):
        check()
    check(private=False)


def test_a_run_asks_before_anything_costs(hub, make_run, tmp_path):
    run = make_run(push={"repo": "strangers/small"})
    with pytest.raises(UserError, match=r"push\.repo: strangers/small"):
        run_recipe(run.recipe, run.run_dir.parent / "fresh")
    assert not (run.run_dir.parent / "fresh/small/generate").exists()


def test_a_forbidding_teacher_stops_before_anything_costs_unless_accepted(hub, make_run, tmp_path):
    served = {"base_urls": ["http://127.0.0.1:9/v1"]}
    teacher = {"teacher": "gpt-5", "sampling": {"max_tokens": 16}, "compute": served}
    run = make_run(generate=teacher)
    with pytest.raises(UserError, match="OpenAI's terms forbid"):
        run_recipe(run.recipe, tmp_path / "fresh")


def test_the_command_line_shows_and_pushes_and_the_canary_is_nowhere(hub, make_run, tmp_path):
    run = make_run()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(run.recipe.model_dump(mode="json")))
    environ = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    base = [sys.executable, "-m", "distill", "push", str(recipe), "--run-dir", str(run.run_dir.parent)]

    def call(*more):
        return subprocess.run([*base, *more], env=environ, capture_output=True, text=True)

    shown = call("--dry-run", "--repo", "me/other", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["publications"][0]["repo"] == "me/other"
    assert not hub.requests
    refused = call("--repo", "strangers/x")
    assert (refused.returncode, refused.stdout) == (2, "")
    pushed = call("--public")
    assert pushed.returncode == 0, pushed.stderr
    assert f"On the Hub: {hub.url}/me/small" in pushed.stdout
    assert not hub.repos["model", "me/small"].private
    said = "".join(done.stdout + done.stderr for done in (shown, refused, pushed))
    assert TOKEN not in said
    files = [path for path in run.run_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert not [name for name, content in hub.content("model", "me/small").items() if TOKEN.encode() in content]
    assert "Publish" in (run.run_dir / "report.html").read_text()
