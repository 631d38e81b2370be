"""`distill report`: which run is meant, where the page goes, what a script gets."""

import json
import os
import sys

import pytest

from distill.cli import main
from distill.storage.run_folder import only_writer


@pytest.fixture
def report(monkeypatch, capsys, tmp_path):
    """A function that is `distill report` in `tmp_path`: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["distill", "report", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_page_is_written_again_and_its_path_printed(report, make_sums_run):
    page = make_sums_run().folder / "report.html"
    before = page.read_text()
    page.unlink()
    assert report("sums") == (0, "runs/sums/report.html\n", "")
    assert page.read_text() == before


def test_the_newest_run_is_meant_where_none_is_named(report, make_sums_run):
    for name, seconds in (("new", 2_000_000_000), ("old", 1_000_000_000)):
        folder = make_sums_run(name).folder
        for file in folder.rglob("*"):
            os.utime(file, (seconds, seconds))
    assert report()[1] == "runs/new/report.html\n"


@pytest.mark.parametrize("given", ["sums", "runs/sums", "recipe.yaml"])
def test_a_run_is_named_by_its_name_its_folder_or_its_recipe(report, make_sums_run, tmp_path, given):
    make_sums_run()
    (tmp_path / "sums.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    (tmp_path / "recipe.yaml").write_text(
        "name: sums\nstudent: smollm2-135m\nproblems: [{source: 'file:sums.jsonl'}]\n"
        "generate: {teacher: org/teacher, sampling: {max_tokens: 512}}\nsft: {max_length: 1024}\n"
    )
    assert report(given)[:2] == (0, "runs/sums/report.html\n")


@pytest.mark.parametrize("place", ["taken/x.html", "taken/deeper/x.html"])
def test_a_place_where_no_page_can_go_is_named(report, make_sums_run, tmp_path, place):
    make_sums_run()
    (tmp_path / "taken").write_text("a file")
    code, out, err = report("sums", "-o", place)
    assert (code, out) == (2, "")
    assert f"{place}: no folder can be made there" in err
    assert report("sums", "-o", "made/for/it.html") == (0, "made/for/it.html\n", "")


@pytest.mark.parametrize("name", ["recipe.yaml", "rows.jsonl", "page.html", "empty.html", "link.html"])
def test_nothing_but_a_report_is_replaced(report, make_sums_run, tmp_path, name):
    make_sums_run()
    (tmp_path / "recipe.yaml").write_text("name: mine\n")
    (tmp_path / "rows.jsonl").write_text("<!doctype html>\n")
    (tmp_path / "page.html").write_text("<!doctype html>\n<title>distill report</title>\n")
    (tmp_path / "empty.html").touch()
    (tmp_path / "link.html").symlink_to(tmp_path / "rows.jsonl")
    before = (tmp_path / name).read_bytes()
    code, out, err = report("sums", "-o", name)
    assert (code, out) == (2, "")
    assert f"{name}: is not a report of distill" in err
    assert (tmp_path / name).read_bytes() == before


def test_a_report_is_replaced_also_behind_a_link(report, make_sums_run, tmp_path):
    make_sums_run("a")
    make_sums_run("b")
    assert report("a", "-o", "page.html")[0] == 0
    (tmp_path / "latest.html").symlink_to("page.html")
    before = (tmp_path / "page.html").read_text()
    assert report("a", "b", "-o", "latest.html")[0] == 0
    assert (tmp_path / "latest.html").is_symlink()
    assert (tmp_path / "page.html").read_text() != before
    (tmp_path / "new.html").symlink_to("not-there.html")
    assert report("b", "-o", "new.html")[0] == 0
    assert (tmp_path / "not-there.html").exists()


def test_a_place_that_is_no_file_is_named(report, make_sums_run, tmp_path):
    make_sums_run()
    (tmp_path / "pages").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for place, kind in (
        ("pages", "a folder"),
        ("pipe", "a named pipe"),
        ("loop", "a link that leads to itself"),
        ("/dev/null", "a device"),
    ):
        code, _, err = report("sums", "-o", place)
        assert (code, f"{place}: is {kind}" in err) == (2, True)


def test_a_run_beside_itself_is_a_mistake(report, make_sums_run):
    make_sums_run()
    for other in ("sums", "runs/sums"):
        code, _, err = report("sums", other)
        assert (code, "sums was given twice" in err) == (2, True)


def test_two_runs_make_a_page_of_their_own(report, make_sums_run, tmp_path):
    make_sums_run("a")
    make_sums_run("b")
    assert report("a", "b")[:2] == (0, "runs/a-and-b.html\n")
    assert report("a", "b", "-o", "pages/both.html")[:2] == (0, "pages/both.html\n")
    assert (tmp_path / "pages" / "both.html").read_text() == (tmp_path / "runs" / "a-and-b.html").read_text()


def test_a_script_gets_the_same_facts(report, make_sums_run, documented):
    make_sums_run("a")
    make_sums_run("b", skill=4)
    code, out, err = report("a", "b", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    documented("distill report RUN --json", found)
    assert (found["schema_version"], found["report"]) == (1, "runs/a-and-b.html")
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    assert found["comparison"]["scores"]["num_shared"] == 20
    alone = json.loads(report("a", "--json")[1])
    assert (alone["comparison"], alone["runs"][0]["state"]) == (None, "complete")


def test_a_script_is_told_of_a_run_that_has_stopped(report, make_sums_run, documented):
    folder = make_sums_run().folder
    (folder / "filter" / "manifest.json").unlink()
    summary = json.loads((folder / "summary.json").read_text())
    stopped = {"stage": "filter", "error": "filter: the disk is full", "at": "2026-11-24T18:40:00+00:00"}
    (folder / "summary.json").write_text(json.dumps({**summary, "stopped": stopped}))
    found = json.loads(report("sums", "--json")[1])
    documented("distill report RUN --json", found)
    (run,) = found["runs"]
    assert (run["state"], run["stopped"], run["begun"]["stage"]) == ("stopped", stopped, "filter")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "runs/nope: no run is here. There are: sums. Runs elsewhere: --run-dir."),
        (["sum"], "runs/sum: no run is here. Did you mean 'sums'?"),
        (["a", "b", "c"], "3 runs were given. It shows one, or puts two side by side."),
        (["--run-dir", "elsewhere"], "elsewhere: no run here yet. `distill run` makes one"),
    ],
)
def test_a_mistake_says_what_there_is(report, make_sums_run, arguments, message):
    make_sums_run()
    code, out, err = report(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_run_of_which_nothing_is_there_yet_has_a_page_too(report, tmp_path):
    with only_writer(tmp_path / "runs" / "new"):
        pass
    assert report("new") == report() == report("runs/new") == (0, "runs/new/report.html\n", "")
    assert json.loads(report("new", "--json")[1])["runs"][0]["state"] == "unfinished"


def test_a_machine_without_a_browser_says_what_to_open(report, make_sums_run, monkeypatch):
    make_sums_run()
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    code, out, err = report("--open")
    assert (code, out) == (0, "runs/sums/report.html\n")
    assert "No browser could be started here. Open file:///" in err
