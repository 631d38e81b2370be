"""A run that is not complete leads with what to do next, and a reason with the key of the recipe that decides it."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from distill.core.records import REASON_KEYS, REASONS
from distill.report import gather_run, render_report
from distill.report.recipe_keys import reason_keys, recipe_lines
from distill.storage.run_folder import only_writer


def note(folder, stage, *arguments):
    found = {"stage": stage, "arguments": list(arguments), "folder": str(folder.parents[1]), "stages": []}
    (folder / "command.json").write_text(json.dumps(found))


def without(folder, *stages):
    for stage in stages:
        shutil.rmtree(folder / stage)
    return folder


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html[html.index("<main") :]).split())


def test_the_command_that_resumes_an_unfinished_run_stands_before_anything_else(make_sums_run):
    folder = without(make_sums_run().folder, "sft", "eval")
    note(folder, None, "my recipe.yaml", "--set", "seed=4")
    run = gather_run(folder)
    assert run.facts["state"] == "unfinished"
    assert run.facts["next_command"] == "distill run 'my recipe.yaml' --set seed=4"
    text = text_of(render_report(run))
    places = [
        text.index("The run is not complete: generate and filter are complete; still to do: sft, eval."),
        text.index("What to do next"),
        text.index("distill run &#39;my recipe.yaml&#39; --set seed=4"),
        text.index("Training rows"),
        text.index("generate complete"),
        text.index("sft waiting"),
    ]
    assert places == sorted(places)
    assert "has no score" not in text


def test_a_run_of_single_stages_goes_on_with_the_next_one(make_sums_run):
    folder = without(make_sums_run().folder, "sft", "eval")
    note(folder, "filter", "/tmp/mine/recipe.yaml")
    with only_writer(folder):  # as the command itself is, when it writes the page last
        run = gather_run(folder)
    assert run.facts["state"] == "unfinished"
    assert run.facts["next_command"] == "distill sft recipe.yaml"


def test_the_command_on_the_page_has_no_folders_keys_and_servers_of_this_machine(make_sums_run, monkeypatch):
    monkeypatch.setenv("THE_TOKEN", "open-sesame-42")
    folder = without(make_sums_run().folder, "eval")
    urls = 'generate.compute.base_urls=["http://10.0.0.5:8000/v1","https://me:open-sesame-42@gpu.intern"]'
    note(folder, None, "/home/me/recipe.yaml", "--set", urls, "--set", "push.repo=open-sesame-42")
    run = gather_run(folder)
    for secret in ("10.0.0.5", "gpu.intern", "open-sesame", "/home", "/work"):
        assert secret not in run.facts["next_command"]
        assert secret not in text_of(render_report(run))


def test_a_stopped_run_says_why_and_then_how_it_is_resumed(make_sums_run):
    folder = without(make_sums_run().folder, "sft", "eval")
    note(folder, None, "recipe.yaml")
    summary = json.loads((folder / "summary.json").read_text())
    summary["stopped"] = {"stage": "sft", "error": "sft: out of memory", "at": "2026-11-24T18:40:11+00:00"}
    (folder / "summary.json").write_text(json.dumps(summary))
    text = text_of(render_report(gather_run(folder)))
    assert "The run stopped in sft: generate and filter are complete; still to do: sft, eval." in text
    assert (
        text.index("sft: out of memory")
        < text.index("Once what the message says is put right")
        < text.index("$" if 0 else "distill run recipe.yaml")
    )
    assert "sft stopped" in text


def test_a_run_at_work_and_one_that_is_complete_ask_for_nothing(make_sums_run):
    folder = make_sums_run().folder
    note(folder, None, "recipe.yaml")
    assert gather_run(folder).facts["next_command"] is None
    assert "What to do next" not in render_report(gather_run(folder))
    without(folder, "eval")
    hold = "import sys, time; from pathlib import Path; from distill.storage.run_folder import only_writer\n"
    hold += "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            run = gather_run(folder)
        finally:
            process.kill()
    assert (run.facts["state"], run.facts["next_command"]) == ("running", None)
    text = text_of(render_report(run))
    assert "The run is at work: generate, filter and sft are complete; still to do: eval." in text
    assert "There is nothing to do." in text


def test_a_run_that_was_not_begun_from_the_command_line_still_says_what_resumes_it(make_sums_run):
    folder = without(make_sums_run().folder, "eval")
    run = gather_run(folder)
    assert run.facts["next_command"] is None
    assert "The command or the call that began it resumes the run" in text_of(render_report(run))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"arguments": 3}', '{"arguments": null, "stage": 7}'])
def test_a_damaged_note_of_the_command_is_no_command(make_sums_run, content):
    folder = without(make_sums_run().folder, "eval")
    (folder / "command.json").write_text(content)
    assert render_report(gather_run(folder))


def test_a_complete_run_without_an_evaluation_says_so(make_sums_run):
    folder = without(make_sums_run(eval=None).folder, "eval")
    text = text_of(render_report(gather_run(folder)))
    assert "The run is complete; its student has no score, as the recipe has no eval section." in text


def test_a_filter_that_kept_nothing_names_the_key_to_look_at(make_sums_run):
    strict = {"readability": {"max_paragraph_chars": 1}, "compute": {"workers": 1}, "duplicates": None}
    html = render_report(gather_run(make_sums_run(filter=strict).folder))
    text = text_of(html)
    assert "The filter kept none of 96 traces, so there is nothing to train on. Most were dropped for" in text
    assert "Decided by filter.readability.max_paragraph_chars: 1" in text
    assert text.index("What to do next") < text.index("What went in")


def test_each_reason_leads_to_its_key_in_the_recipe_on_the_page(make_sums_run):
    html = render_report(gather_run(make_sums_run().folder))
    links = set(re.findall(r'href="#key-([^"]+)"', html))
    ids = re.findall(r'id="key-([^"]+)"', html)
    assert "filter.readability.language" in links
    assert links <= set(ids)
    assert len(ids) == len(set(ids))
    assert "Decided by" in html
    payload = json.loads(html.split('id="payload">')[1].split("</script>")[0])
    rows = [row for keys in payload["keys"].values() for row in keys]
    assert {row["at"] for row in rows} <= set(ids)
    assert {"key": "filter.require_think", "value": "true", "at": "filter.require_think"} in rows


def test_keys_of_sections_that_a_recipe_lacks_lead_to_what_is_there():
    recipe = {"generate": None, "filter": {"judge": None, "select": {"per_problem": 2}, "decontaminate": ["a", "b"]}}
    found = reason_keys(recipe)
    assert "truncated" not in found
    assert found["judge_veto"] == [{"key": "filter.judge.role", "value": None, "at": "filter.judge"}]
    assert found["not_selected"] == [
        {"key": "filter.select.per_problem", "value": "2", "at": "filter.select.per_problem"}
    ]
    assert found["contaminated"] == [{"key": "filter.decontaminate", "value": None, "at": "filter.decontaminate"}]
    assert reason_keys(None).keys() == {reason for reason in REASONS if REASON_KEYS[reason]}


def test_each_line_of_the_recipe_has_the_key_that_it_holds():
    recipe = {"a": {"b": 1, "c": ["x", {"d": "two\nlines"}]}, "e\x85\u2028": "\x85 é \u2028"}
    lines = recipe_lines(recipe)
    assert [line["key"] for line in lines[:5]] == ["a", "a.b", "a.c", None, "a.c.1.d"]
    assert recipe_lines(None) == recipe_lines({}) == []
