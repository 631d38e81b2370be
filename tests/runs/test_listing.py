"""`distill runs`: what is told of a run, and that nothing goes which should stay."""

import io
import json
import os
import shlex
import shutil

import pytest

from distill.recipe.loading import load_recipe
from distill.storage.files import read_json, write_json
from distill.storage.run_folder import only_writer

pytestmark = pytest.mark.usefixtures("here")


class Terminal(io.StringIO):
    """Somebody at a keyboard."""

    def isatty(self):
        return True


@pytest.fixture
def small(distill, generated, tmp_path):
    """A run whose first stage is done, begun from the command line."""
    assert distill("generate", "--quiet", "--set", "description=two sums")[0] == 0
    return tmp_path / "runs" / "small"


def test_ls_of_nothing_says_how_to_begin(distill):
    assert distill("runs", "ls") == (
        0, "No runs in runs yet. Begin one with `distill run`; for runs elsewhere give --run-dir.\n", ""
    )  # fmt: skip
    assert json.loads(distill("runs", "ls", "--json")[1])["runs"] == []


def test_ls_tells_how_far_each_run_is(distill, small):
    code, out, err = distill("runs", "ls")
    assert (code, err) == (0, "")
    assert "small" in out
    assert "1 of 3" in out
    (run,) = json.loads(distill("runs", "ls", "--json")[1])["runs"]
    assert [(one["stage"], one["state"]) for one in run["stages"]] == [
        ("generate", "complete"),
        ("filter", "waiting"),
        ("sft", "waiting"),
    ]
    assert (run["state"], run["process"], run["score"]) == ("unfinished", None, None)
    assert run["num_bytes"] == sum(f.stat().st_size for f in small.rglob("*") if f.is_file())


def test_show_names_the_exact_command_that_comes_next(distill, small, tmp_path, monkeypatch):
    code, out, _ = distill("runs", "show", "small")
    assert code == 0
    assert "two sums" in out
    assert "4 samples of 2 problems" in out
    assert out.endswith("Continue with:\n  distill filter --set 'description=two sums'\n")
    assert json.loads(distill("runs", "show", small, "--json")[1])["name"] == "small"
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    told = json.loads(distill("runs", "show", "small", "--run-dir", tmp_path / "runs", "--json")[1])
    assert told["next_command"] == f"cd {tmp_path} && distill filter --set 'description=two sums'"


def test_a_command_that_was_refused_is_not_the_one_to_go_on_with(distill, small):
    told = json.loads(distill("runs", "show", "small", "--json")[1])["next_command"]
    code, _, err = distill("run", "--set", "seed=9", "--set", "description=refused")
    assert code == 2
    assert "made from something else" in err
    assert json.loads(distill("runs", "show", "small", "--json")[1])["next_command"] == told
    assert distill("filter", "--set", "description=begun")[0] == 0
    assert "description=begun" in json.loads(distill("runs", "show", "small", "--json")[1])["next_command"]


def test_the_command_to_go_on_with_has_a_commands_own_flags(distill, small, monkeypatch):
    def stopped(*given, accepted, **more):
        accepted()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("distill.runs.runner.run_recipe", stopped)
        code, _, _ = distill("push", "--repo", "me/math", "--public", "--accept-licence", "--set", "seed=3")
        assert code == 130
    words = shlex.split(json.loads(distill("runs", "show", "small", "--json")[1])["next_command"])
    assert words[:2] == ["distill", "filter"]
    recipe = load_recipe("recipe.yaml", [word for word in words[2:] if word != "--set"])
    assert recipe.seed == 3
    assert (recipe.push.repo, recipe.push.private, recipe.push.accept_licence) == ("me/math", False, True)


def test_show_tells_the_funnel_once_the_filter_is_done(distill, small):
    assert distill("filter", "--quiet", "--set", "description=two sums")[0] == 0
    told = json.loads(distill("runs", "show", "small", "--json")[1])
    assert [(one["step"], one["num_traces"]) for one in told["funnel"]] == [
        ("sampled", 4),
        ("wrong_answer", 2),
        ("duplicate", 1),
        ("kept", 1),
    ]
    assert told["places"]["kept_rows"] == "runs/small/filter/kept"
    assert told["next_command"].startswith("distill sft")


def test_a_stage_that_was_begun_and_stopped_is_unfinished(distill, small):
    (small / "generate" / "manifest.json").unlink()
    out = distill("runs", "ls")[1]
    assert "0 of 3, generate unfinished" in " ".join(out.split())
    assert "distill generate" in json.loads(distill("runs", "show", "small", "--json")[1])["next_command"]


def test_a_run_that_noted_why_it_ended_is_stopped_in_every_output(distill, small):
    (small / "generate" / "manifest.json").unlink()
    summary = json.loads((small / "summary.json").read_text())
    stopped = {"stage": "generate", "error": "stopped by Ctrl-C", "at": "2026-11-01T09:00:00+00:00"}
    (small / "summary.json").write_text(json.dumps({**summary, "stopped": stopped}))

    def states():
        (listed,) = json.loads(distill("runs", "ls", "--json")[1])["runs"]
        shown = json.loads(distill("runs", "show", "small", "--json")[1])
        (reported,) = json.loads(distill("report", "small", "--json")[1])["runs"]
        status = json.loads(distill("generate", "--status", "--json")[1])
        assert listed["state"] == shown["state"] == reported["state"] == status["state"] == listed["stages"][0]["state"]
        return listed["state"]

    assert states() == "stopped"
    assert "0 of 3, generate stopped" in " ".join(distill("runs", "ls")[1].split())
    (small / "summary.json").write_text(json.dumps(summary))
    assert states() == "unfinished"


def test_an_unknown_run_gets_a_suggestion(distill, small):
    for name in ("smal", "..", "runs/smal", "."):
        code, out, err = distill("runs", "show", name)
        assert (code, out) == (2, "")
        assert "no run is here" in err
    assert "Did you mean 'small'? There are: small." in distill("runs", "rm", "smal")[2]


def test_one_damaged_run_hides_no_other(distill, small):
    other = small.with_name("other")
    shutil.copytree(small, other)
    (other / "summary.json").write_text("{")
    (other / "generate" / "manifest.json").write_text("[")
    names = {run["name"] for run in json.loads(distill("runs", "ls", "--json")[1])["runs"]}
    assert names == {"small", "other"}
    assert distill("runs", "show", "other")[0] == 0


@pytest.mark.parametrize("columns", ["60", "120"])
def test_names_with_brackets_are_shown_as_they_are(distill, small, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    folder = small.rename(small.with_name("[b]old"))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "student": "me/a[/red]b"}))
    code, out, err = distill("runs", "ls")
    assert (code, err) == (0, "")
    assert "[b]old" in out
    assert ("me/a[/red]b" in out) is (columns == "120")


@pytest.mark.parametrize("summary", [{"eval": {"accuracy": 0.9}}, {"eval": 3, "recipe": 3, "student": ["a"]}])
def test_somebody_elses_summary_hides_no_run(distill, small, summary):
    other = small.with_name("other")
    other.mkdir()
    (other / "summary.json").write_text(json.dumps(summary))
    code, out, _ = distill("runs", "ls")
    assert code == 0
    assert "small" in out
    assert len(json.loads(distill("runs", "ls", "--json")[1])["runs"]) == 2


@pytest.mark.parametrize("text", ["[]", "[1]"])
@pytest.mark.parametrize("file", ["summary.json", "command.json", "generate/manifest.json", "generate/identity.json"])
def test_a_file_that_is_no_object_is_named_and_hides_no_run(distill, small, file, text):
    (small / file).write_text(text)
    (run,) = json.loads(distill("runs", "ls", "--json")[1])["runs"]
    assert run["name"] == "small"
    assert distill("runs", "show", "small")[0] == 0
    for command in ("plan", "report", "generate"):
        arguments = ["recipe.yaml"] if command != "report" else ["small"]
        code, _, err = distill(command, *arguments)
        assert "Traceback" not in err
        assert code == 0 or (code == 2 and f"{file}: not a JSON object" in err)


def test_a_run_at_work_is_shown_so_and_is_not_removed(distill, small):
    with only_writer(small):
        (run,) = json.loads(distill("runs", "ls", "--json")[1])["runs"]
        code, out, err = distill("runs", "rm", "small", "--yes")
    assert (run["state"], run["process"]) == ("running", os.getpid())
    assert (code, out) == (2, "")
    assert f"process {os.getpid()}" in err
    assert (small / "generate" / "manifest.json").exists()


def test_nothing_is_removed_without_a_yes(distill, small, monkeypatch):
    code, out, err = distill("runs", "rm", "small")
    assert code == 2
    assert "includes 4 traces" in out
    assert "--yes" in err
    assert distill("runs", "rm", "small", "--dry-run")[0] == 0
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert distill("runs", "rm", "small")[0] == 1
    assert small.exists()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    code, _, err = distill("runs", "rm", "small")
    assert code == 0
    assert err.endswith("Removed.\n")
    assert list(small.parent.iterdir()) == []


def test_links_are_never_followed(distill, small, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (small / "sft").mkdir()
    (small / "sft" / "student").symlink_to(precious)
    (small / "link").symlink_to(precious)
    alias = small.with_name("alias")
    alias.symlink_to(small)
    code, _, err = distill("runs", "rm", "alias", "--yes")
    assert code == 2
    assert "link" in err
    code, out, _ = distill("runs", "rm", "small", "--yes")
    assert code == 0
    assert "has not been published" in out
    assert not small.exists()
    assert (precious / "file").read_text() == "mine"


@pytest.mark.parametrize("sign", ["summary.json", ".lock"])
def test_a_folder_of_somebody_elses_is_never_removed(distill, tmp_path, sign):
    folder = tmp_path / "runs" / "thesis"
    (folder / "generate").mkdir(parents=True)
    (folder / "generate" / "chapter.txt").write_text("mine")
    (folder / sign).write_text('{"accuracy": 0.9}')
    (folder / "command.json").write_text("[1]")
    for name in ("thesis", folder):
        for more in ((), ("--keep-traces",)):
            code, _, err = distill("runs", "rm", name, "--yes", *more)
            assert code == 2
            assert "does not look like a run of distill" in err
    assert (folder / "generate" / "chapter.txt").read_text() == "mine"


@pytest.mark.parametrize("gone", [("command.json",), ("command.json", "summary.json"), ("generate", "summary.json")])
def test_any_sign_of_a_run_will_do_to_remove_it(distill, small, gone):
    for name in gone:
        shutil.rmtree(small / name) if (small / name).is_dir() else (small / name).unlink()
    assert distill("runs", "rm", "small", "--yes")[0] == 0
    assert not small.exists()


def test_a_run_that_was_refused_before_it_began_can_be_removed(distill, tmp_path):
    folder = tmp_path / "runs" / "refused"
    with only_writer(folder):
        pass
    assert distill("runs", "rm", "refused", "--yes")[0] == 0
    assert not folder.exists()


def test_traces_can_be_kept(distill, small):
    assert distill("filter", "--quiet", "--set", "description=two sums")[0] == 0
    told = json.loads(distill("runs", "rm", "small", "--keep-traces", "--yes", "--json")[1])
    assert told["removed"]
    assert "generate" not in [part["path"] for part in told["runs"][0]["parts"]]
    assert sorted(entry.name for entry in small.iterdir()) == [".lock", "command.json", "generate"]
    (run,) = json.loads(distill("runs", "ls", "--json")[1])["runs"]
    assert [one["state"] for one in run["stages"]] == ["complete", "waiting", "waiting"]
    story = distill("runs", "show", "small")[1]
    assert story.endswith("Continue with:\n  distill filter --set 'description=two sums'\n")
    assert "done already" in distill("generate")[2]
    assert distill("runs", "rm", "small", "--yes")[0] == 0
    assert not small.exists()


def test_a_removal_that_was_killed_is_finished_by_the_same_command(distill, small):
    small.rename(small.with_name(".small.removing-1"))
    assert json.loads(distill("runs", "ls", "--json")[1])["runs"] == []
    assert distill("runs", "rm", "small", "--yes")[0] == 0
    assert list(small.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["*", "**", "?mall", "[s]mall"])
def test_a_name_is_no_pattern(distill, small, name):
    left = small.with_name(".small.removing-1")
    shutil.copytree(small, left)
    code, _, err = distill("runs", "rm", name, "--yes")
    assert code == 2
    assert "no run is here" in err
    assert left.exists()
    assert small.exists()


def test_a_run_that_is_named_twice_is_removed_once(distill, small):
    shutil.copytree(small, small.with_name("other"))
    small.with_name("alias").symlink_to(small)
    names = ("small", small, "runs/other/../small", "other")
    code, _, err = distill("runs", "rm", *names, "alias", "--yes")
    assert code == 2
    assert "link" in err
    told = json.loads(distill("runs", "rm", *names, "--yes", "--json")[1])
    assert [run["name"] for run in told["runs"]] == ["small", "other"]
    assert [entry.name for entry in small.parent.iterdir()] == ["alias"]


def test_what_a_recipe_says_cannot_command_the_terminal(distill, generated):
    plain = generated.read_text()
    generated.write_text(plain + 'description: "a\\e[2Jb"\n')
    code, _, err = distill("generate", "--quiet")
    assert (code, "\x1b" in err) == (2, False)
    generated.write_text(plain + 'description: "MARK"\n')
    assert distill("generate", "--quiet")[0] == 0
    summary = generated.parent / "runs" / "small" / "summary.json"
    summary.write_text(summary.read_text().replace("MARK", "a\\u001b[2Jb"))
    out = distill("runs", "show", "small")[1]
    assert "\x1b" not in out
    assert "a\\x1b[2Jb" in out


def test_a_run_that_was_moved_goes_on_where_it_lies(distill, generated, tmp_path):
    assert distill("generate", "--quiet", "--set", "description=two sums")[0] == 0
    (tmp_path / "archive").mkdir()
    shutil.move(tmp_path / "runs" / "small", tmp_path / "archive" / "small")
    told = json.loads(distill("runs", "show", "archive/small", "--json")[1])["next_command"]
    assert told == f"distill filter --set 'description=two sums' --run-dir {tmp_path / 'archive'}"
    (tmp_path / "archive" / "small").rename(tmp_path / "archive" / "other")
    told = json.loads(distill("runs", "show", "archive/other", "--json")[1])["next_command"]
    assert told.endswith(f"--run-dir {tmp_path / 'archive'} --set name=other")
    assert distill(*shlex.split(told)[1:])[0] == 0
    assert (tmp_path / "archive" / "other" / "filter" / "manifest.json").exists()


def test_where_no_run_is_that_is_said_once(distill):
    code, _, err = distill("runs", "show", "nothing")
    assert code == 2
    assert err == (
        "Error: runs/nothing: no run is here. runs has no runs; `distill run` makes one. Runs elsewhere: --run-dir.\n"
    )


def test_what_a_removal_deletes_counts_sampled_and_imported_traces(distill, small):
    """A run whose recipe was changed from `generate:` to `traces:` has both."""
    one = json.loads(distill("runs", "rm", "small", "--dry-run", "--json")[1])["runs"][0]
    shutil.copytree(small / "generate", small / "import")
    manifest = read_json(small / "import" / "manifest.json")
    metrics = {key: manifest["metrics"][key] for key in ("num_samples", "num_problems", "num_problems_by_source")}
    manifest |= {"stage": "import", "identity": {}, "metrics": {**metrics, "num_skipped": 0, "finish_reasons": {}}}
    write_json(small / "import" / "manifest.json", manifest)
    both = json.loads(distill("runs", "rm", "small", "--dry-run", "--json")[1])["runs"][0]
    assert both["num_traces"] == 2 * one["num_traces"] > 0
