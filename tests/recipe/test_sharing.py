"""Recipes pulled into a folder and pushed into a repository on the Hub."""

import json
from pathlib import Path

import pytest

from distill.recipe.loading import load_recipe, read_recipe

SERVED = "generate: {compute: {base_urls: ['http://10.0.0.7:8000/v1']}, "


@pytest.fixture
def mine(theirs):
    """A recipe with a parent and a file of problems."""
    Path("base.yaml").write_text(theirs.replace('"gym:chain_sum", limit: 5', '"file:sums.jsonl"'))
    Path("sums.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    Path("recipe.yaml").write_text("# What it is for.\nextends: base.yaml\nname: mine\nseed: 7\n")
    return "recipe.yaml"


def test_push_then_pull_gives_the_same_recipe(hub, mine, distill):
    code, out, err = distill("recipes", "push", mine, "--repo", "me/recipes", "--with-files")
    assert code == 0, err
    reference = out.strip()
    assert reference.startswith("hf:datasets/me/recipes/recipe.yaml@")
    assert hub.repos["dataset", "me/recipes"].private
    files = hub.content("dataset", "me/recipes")
    assert set(files) == {".gitattributes", "recipe.yaml", "recipe.schema.json", "files/sums.jsonl"}
    text = files["recipe.yaml"].decode()
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n# What it is for.\n")
    assert str(Path.cwd()) not in text
    code, out, err = distill("recipes", "pull", "hf:me/recipes", "got")
    assert code == 0, err
    assert "reads " in out  # the file of problems
    got, own = load_recipe("got/recipe.yaml"), load_recipe(mine)
    assert got.problems[0].source == f"file:{Path.cwd() / 'got/files/sums.jsonl'}"
    assert got.model_copy(update={"problems": own.problems}) == own
    assert f"# Fetched from {reference}" in Path("got/recipe.yaml").read_text()
    assert Path("got/recipe.schema.json").is_file()


def test_a_second_push_changes_nothing_and_another_only_what_differs(hub, theirs, distill, documented):
    Path("recipe.yaml").write_text(theirs)
    hub.make("model", "my-org/student", files={"model.safetensors": b"x", "recipe.yaml": b"old: true\n"})
    first = json.loads(distill("recipes", "push", "recipe.yaml", "--repo", "my-org/student", "--json")[1])
    documented("distill recipes push RECIPE --repo ORG/NAME --json", first)
    assert (first["kind"], first["changed"]) == ("model", ["recipe.yaml", "recipe.schema.json"])
    pulled = json.loads(distill("recipes", "pull", first["reference"], "pulled", "--json")[1])
    documented("distill recipes pull REFERENCE --json", pulled)
    again = json.loads(distill("recipes", "push", "recipe.yaml", "--repo", "my-org/student", "--json")[1])
    assert (again["changed"], again["reference"]) == ([], first["reference"])
    Path("recipe.yaml").write_text(theirs + "seed: 5\n")
    third = json.loads(distill("recipes", "push", "recipe.yaml", "--repo", "my-org/student", "--json")[1])
    assert third["changed"] == ["recipe.yaml"]
    assert hub.content("model", "my-org/student")["model.safetensors"] == b"x"
    assert read_recipe(first["reference"]).recipe.seed == 0
    assert read_recipe("hf:my-org/student").recipe.seed == 5


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda text: text + "description: hf_abcdefghijklmnopqrstuvwxyz\n", [], "holds a Hugging Face token"),
        (lambda text: text.replace('"gym:chain_sum", limit: 5', '"file:sums.jsonl"'), [], "--with-files"),
        (lambda text: text.replace("student: smollm2-135m", "student: ./mine/model"), [], "nobody else has"),
        (lambda text: text.replace("generate: {", SERVED), [], "--keep-addresses"),
        (lambda text: text, ["--path", "../x.yaml"], "outside its own repository"),
        (lambda text: text, ["--repo", "their-org/x"], "your role there is 'read'"),
        (lambda text: text, ["--repo", "me/public"], "exists and is public"),
    ],
)
def test_what_must_not_be_shared_is_refused_and_nothing_is_sent(hub, theirs, distill, change, options, says):
    Path("sums.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    Path("recipe.yaml").write_text(change(theirs))
    hub.make("dataset", "me/public", private=False)
    code, _, err = distill(
        "recipes", "push", "recipe.yaml", *(options if "--repo" in options else ["--repo", "me/x", *options])
    )
    assert code == 2
    assert says in err
    assert ("dataset", "me/x") not in hub.repos
    assert hub.num_commits("dataset", "me/public") == 0


def test_an_address_goes_along_where_asked(hub, theirs, distill):
    Path("recipe.yaml").write_text(theirs.replace("generate: {", SERVED))
    assert distill("recipes", "push", "recipe.yaml", "--repo", "me/x", "--keep-addresses", "--public")[0] == 0
    assert not hub.repos["dataset", "me/x"].private
    assert b"10.0.0.7" in hub.content("dataset", "me/x")["recipe.yaml"]


def test_without_a_token_the_way_to_one_is_told(hub, theirs, distill, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    Path("recipe.yaml").write_text(theirs)
    code, _, err = distill("recipes", "push", "recipe.yaml", "--repo", "me/x")
    assert (code, "hf auth login" in err) == (2, True)


def test_pull_overwrites_nothing_unasked_and_keeps_the_repositorys_shape(git_repo, theirs, distill):
    git_repo.commit({"a/recipe.yaml": "extends: ../base.yaml\nname: child\n", "base.yaml": theirs})
    reference = f"{git_repo.url}#a/recipe.yaml"
    code, out, _ = distill("recipes", "pull", reference)
    assert code == 0
    assert "A recipe from outside" in out
    assert load_recipe("child/a/recipe.yaml").name == "child"
    code, _, err = distill("recipes", "pull", reference)
    assert (code, "there already" in err) == (2, True)
    assert distill("recipes", "pull", reference, "child", "--force")[0] == 0
    code, _, err = distill("recipes", "pull", "quickstart")
    assert (code, "distill recipes cp quickstart" in err) == (2, True)


def test_a_file_of_theirs_cannot_leave_the_folder(git_repo, theirs, distill):
    git_repo.commit({"recipe.yaml": theirs.replace('"gym:chain_sum", limit: 5', '"file:../../outside.jsonl"')})
    assert distill("recipes", "pull", f"{git_repo.url}#recipe.yaml", "here")[0] == 2
    assert not Path("here").exists()
