"""The lock of a run: what it pins, that it is a recipe, and how a repetition is compared with it."""

import copy
import json
import re
import shutil

import pytest
import yaml

from distill.errors import RecipeError
from distill.models import hub
from distill.publish.facts import RunFacts
from distill.publish.lock import read_lock, run_lock, write_lock
from distill.recipe.loading import read_recipe
from distill.recipe.model import Recipe
from distill.runs.repetition import compare, comparison_lines
from distill.runs.results import write_summary
from distill.stages import push
from distill.stages.table import STAGES
from distill.storage.layout import LOCK_FILE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def manifests_of(run):
    found = {name: run.folder(name).manifest for name in STAGES}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


@pytest.fixture
def locked(make_run):
    """A finished run and its lock."""
    run = make_run(eval={"held_out": 2, "sampling": {"max_tokens": 512}})
    write_summary(run)
    return run, run.run_dir / LOCK_FILE


def test_a_run_leaves_a_lock_that_is_a_recipe_of_another_name(locked):
    run, path = locked
    loaded = read_recipe(path)
    assert loaded.recipe == run.recipe.model_copy(update={"name": "small-repeat"})
    assert read_recipe(path, ["name=mine", "sft.epochs=1"]).recipe.sft.epochs == 1
    assert read_recipe(path, ["name=mine"]).recipe.name == "mine"
    assert loaded.lock["stages"]["eval"]["results"]["student"]["interval_95"] == [0.375, 0.515]


@pytest.mark.parametrize(
    ("name", "repeated"),
    [
        ("small-repeat", "small-repeat-2"),
        ("small-repeat-2", "small-repeat-3"),
        ("small-repeat-9", "small-repeat-10"),
        ("repeat-2", "repeat-2-repeat"),
        ("n" * 96, "n" * 89 + "-repeat"),
        ("n" * 89 + "-repeat", "n" * 87 + "-repeat-2"),
        ("n" * 87 + "-repeat-9", "n" * 86 + "-repeat-10"),
        ("n-repeat-" + "9" * 87, "n-repeat-" + "9" * 80 + "-repeat"),
    ],
)
def test_the_lock_of_a_repetition_is_repeated_in_a_folder_of_its_own(make_run, name, repeated):
    run = make_run()
    path = run.run_dir / "again.yaml"
    lock = run_lock(RunFacts(run.recipe.model_copy(update={"name": name}), run.run_dir, manifests_of(run)))
    path.write_text(yaml.safe_dump(lock))
    assert read_recipe(path).recipe.name == repeated


def test_it_pins_models_data_sets_files_template_and_seeds(make_run, monkeypatch):
    sets = [{"source": "hf:org/exam", "split": "test"}, {"source": "hf:org/other", "revision": "v1"}]
    run = make_run(eval={"benchmarks": sets, "sampling": {"max_tokens": 512}})
    monkeypatch.setattr(hub, "_loaded_commits", {("org/exam", None, "test", None): COMMIT})
    lock = run_lock(RunFacts(run.recipe, run.run_dir, manifests_of(run)))
    assert [one["revision"] for one in lock["recipe"]["eval"]["benchmarks"]] == [COMMIT, "v1"]
    assert lock["datasets"][0]["revision"] == COMMIT
    assert len(lock["chat_template_sha256"]) == 64
    assert lock["seeds"] == {"recipe": 3, "eval": 4}
    assert [len(sha256) for sha256 in lock["files"].values()] == [64, 64]
    assert lock["models"]["student"]["revision"] == run.student_model.revision
    assert lock["stages"]["sft"]["versions"]["torch"] == "2.13.0"
    monkeypatch.setattr(hub, "_loaded_commits", {})  # a later call that skips every stage loads nothing
    again = run_lock(RunFacts(run.recipe, run.run_dir, manifests_of(run)), lock)
    assert again["recipe"] == lock["recipe"]


def test_the_commit_of_a_branch_stays_where_nothing_is_loaded_again(make_run, monkeypatch):
    named = [None, "main", "v1", "refs/convert/parquet", "f" * 40]
    sets = [{"source": "hf:org/exam", "config": "easy", "revision": revision} for revision in named]
    run = make_run(eval={"benchmarks": sets, "sampling": {"max_tokens": 512}})
    path = run.run_dir / LOCK_FILE
    commits = {revision: str(digit) * 40 for digit, revision in enumerate(named)}
    loaded = {("org/exam", "easy", "train", revision): commit for revision, commit in commits.items()}
    loaded["org/exam", "easy", "train", "f" * 40] = "f" * 40

    def revisions():
        return [one["revision"] for one in read_lock(path)["recipe"]["eval"]["benchmarks"]]

    monkeypatch.setattr(hub, "_loaded_commits", loaded)
    write_lock(run.recipe, run.run_dir, manifests_of(run))
    once = path.read_bytes()
    assert revisions() == [*(str(digit) * 40 for digit in range(4)), "f" * 40]
    monkeypatch.setattr(hub, "_loaded_commits", {})
    for _ in range(2):
        write_lock(run.recipe, run.run_dir, manifests_of(run))
        assert path.read_bytes() == once
    moved = [*sets[:2], {**sets[2], "revision": "v2"}, *sets[3:]]
    changed = run.recipe.model_dump(mode="json")
    changed["eval"]["benchmarks"] = moved
    write_lock(Recipe.model_validate(changed), run.run_dir, manifests_of(run))
    assert revisions() == ["0" * 40, "1" * 40, "v2", "3" * 40, "f" * 40]


def test_the_revisions_of_models_on_the_hub_go_into_the_recipe(make_run, retell):
    run = make_run()
    retell(run, "generate", metrics={"teacher": "org/teacher", "teacher_revision": COMMIT})
    retell(run, "sft", metrics={"student": "org/base", "student_revision": COMMIT})
    lock = run_lock(RunFacts(run.recipe, run.run_dir, manifests_of(run)))
    assert (lock["recipe"]["student_revision"], lock["recipe"]["generate"]["revision"]) == (COMMIT, COMMIT)
    retell(run, "generate", metrics={"teacher": "org/teacher", "teacher_revision": "served"})
    lock = run_lock(RunFacts(run.recipe, run.run_dir, manifests_of(run)))
    assert lock["recipe"]["generate"]["revision"] is None


def test_a_run_that_is_not_finished_has_a_lock_of_what_there_is(locked):
    run, path = locked
    for stage in ("sft", "eval", "filter"):
        shutil.rmtree(run.run_dir / stage)
    write_summary(run)
    assert list(read_lock(path)["stages"]) == ["generate"]
    assert read_recipe(path).recipe.name == "small-repeat"
    shutil.rmtree(run.run_dir / "generate")
    path.unlink()
    write_summary(run)
    assert not path.exists()


def test_the_published_lock_is_the_same_without_this_machine(locked, tmp_path):
    run, path = locked
    published = {file.path: file.source for file in push.dry_run(run).publications[0].files}["distill/recipe.lock.yaml"]
    ours, theirs = read_lock(path), yaml.safe_load(published)
    assert theirs.keys() == ours.keys()
    assert theirs["stages"]["sft"]["outputs"] == ours["stages"]["sft"]["outputs"]
    assert str(tmp_path).encode() not in published
    assert list(theirs["files"]) == ["sums.jsonl", "exam.jsonl"]


@pytest.mark.parametrize(("version", "says"), [(2, "a lock of version 2"), ("x", "a lock of version 'x'")])
def test_a_lock_of_another_version_is_refused(tmp_path, version, says):
    path = tmp_path / "recipe.lock.yaml"
    path.write_text(json.dumps({"lock_version": version, "recipe": {"name": "x"}}))
    with pytest.raises(RecipeError, match=says):
        read_recipe(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe": 5}, "recipe: "),
        ({"stages": 5}, "stages: "),
        ({"stages": {"sft": {"fingerprint": "x", "outputs": {"student": "y"}}}}, "stages.sft.outputs.student"),
        (
            {"stages": {"eval": {"fingerprint": "x", "results": {"student": {"pass_at_1": 1, "interval_95": []}}}}},
            "interval",
        ),
        ({"files": ["/etc/passwd"]}, "files: "),
        ({"datasets": [{"source": 5}]}, "datasets.0.source: "),
    ],
)
def test_a_lock_of_another_shape_is_refused_before_anything_runs(locked, change, says):
    _, path = locked
    path.write_text(json.dumps({**read_lock(path), **change}))
    with pytest.raises(RecipeError, match="not as distill writes it") as caught:
        read_recipe(path)
    assert says in str(caught.value)
    assert read_lock(path) is None


def test_a_broken_lock_is_written_anew(locked):
    run, path = locked
    path.write_text("lock_version: 1\nrecipe: 5\n")
    write_summary(run)
    assert read_recipe(path).recipe.name == "small-repeat"


def test_a_mistake_in_a_lock_is_shown_with_its_line(locked):
    _, path = locked
    path.write_text(path.read_text().replace("max_length: 256", "max_length: -1"))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "max_length: -1" in text)
    with pytest.raises(RecipeError, match=f"{path}:{line}: sft.max_length"):
        read_recipe(path)


def test_a_repetition_that_comes_out_the_same_is_told_so(locked):
    run, path = locked
    now = copy.deepcopy(manifests_of(run))
    now["sft"]["outputs"]["metrics.jsonl"]["sha256"] = "0" * 64  # it holds tokens per second
    comparison = compare(read_lock(path), now)
    assert comparison["same"]
    assert "  sft: the same, to the last byte" in comparison_lines(comparison)
    assert not comparison["versions"]


def test_what_comes_out_otherwise_is_told_stage_by_stage(locked, base_model):
    run, path = locked
    now = copy.deepcopy(manifests_of(run))
    now["filter"]["outputs"]["kept"]["sha256"] = "f" * 64
    now["filter"]["metrics"]["num_kept"] += 1
    now["filter"]["fingerprint"] = "0" * 64
    now["sft"]["versions"]["torch"] = "2.14.0"
    now["eval"]["metrics"]["student"] |= {"pass_at_1": 0.2, "interval_95": [0.15, 0.25]}
    sums = base_model.parent / "sums.jsonl"
    text = sums.read_text()
    sums.write_text(text + text)
    try:
        comparison = compare(read_lock(path), now)
    finally:
        sums.write_text(text)
    told = "\n".join(comparison_lines(comparison))
    assert not comparison["same"]
    assert "generate: the same" in told
    assert "filter: differs in kept; its inputs or settings differ (fingerprint)" in told
    assert (
        f"num_kept: {now['filter']['metrics']['num_kept'] - 1} then, {now['filter']['metrics']['num_kept']} now" in told
    )
    assert (
        "student pass@1: 44.5% (37.5% to 51.5%) then, 20.0% (15.0% to 25.0%) now; the intervals do not overlap" in told
    )
    assert re.search(r"difference: \+[\d.]+ points \(\+[\d.]+ to \+[\d.]+\) then, [+-][\d.]+ points \([+-]", told)
    assert "versions: torch 2.13.0 -> 2.14.0" in told
    assert f"{sums} has changed since" in told


def test_a_repetition_of_a_part_says_what_is_missing(locked):
    run, path = locked
    comparison = compare(read_lock(path), {"generate": manifests_of(run)["generate"]})
    assert comparison["not_repeated"] == ["filter", "sft", "eval"]


def test_a_lock_validates_back_into_the_recipe_models(locked):
    _, path = locked
    assert Recipe.model_validate(read_lock(path)["recipe"]).name == "small"
