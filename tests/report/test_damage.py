"""Runs with files that are missing or damaged: the page tells which, and shows the rest."""

import json
import re
import shutil

import pytest

from distill.report import gather_run, render_report
from distill.report.compare import compare_runs, render_comparison


def payload_of(html):
    return json.loads(html.split('id="payload">')[1].split("</script>")[0])


def overwrite(file, keep=0.5):
    """Keep the beginning of a file, and fill the rest with what is none."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)] + b"\xff" * (len(data) - int(len(data) * keep)))


def flip(file):
    """Turn bits in the middle of a file; its length, its beginning and its end stay."""
    data = bytearray(file.read_bytes())
    for place in range(len(data) // 4, len(data) // 4 + 200):
        data[place] ^= 0xFF
    file.write_bytes(bytes(data))


def shard(folder, table):
    (file,) = (folder / "filter" / table).glob("*.parquet")
    return file


def rows_taken_away(file):
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(file).slice(0, 5), file)


def another_kind_of_table(file):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1, 2]}), file)


def lock_away(file):
    file.unlink()
    file.mkdir()


FAULTS = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "empty": lambda file: file.write_bytes(b""),
    "overwritten": overwrite,
    "flipped": flip,
    "gone": lambda file: file.unlink(),
    "another folder gone": lambda file: shutil.rmtree(file.parent),
    "a folder": lock_away,
    "rows gone": rows_taken_away,
    "another table": another_kind_of_table,
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
}


@pytest.mark.parametrize("table", ["kept", "dropped"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_table_of_the_filter_is_named_and_the_rest_is_shown(make_sums_run, table, fault):
    folder = make_sums_run().folder
    FAULTS[fault](shard(folder, table))
    run = gather_run(folder)
    assert {entry["file"].split("/")[1] for entry in run.facts["damaged"]} == {table}
    html = render_report(run)
    assert "Missing or damaged files" in html
    assert f"<code>filter/{table}" in html
    assert "Of 96 traces, 24 became training rows." in html
    whole = payload_of(html)["traces"]
    other = "dropped" if table == "kept" else "kept"
    assert sum(trace["outcome"] in (other, "ungraded") for trace in whole) == {"kept": 24, "dropped": 72}[other]


@pytest.mark.parametrize("fault", ["cut", "gone", "flipped", "rows gone"])
def test_a_damaged_table_does_not_keep_two_runs_from_being_compared(make_sums_run, fault):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    FAULTS[fault](shard(one.folder, "kept"))
    first, second = gather_run(one.folder), gather_run(other.folder)
    comparison = compare_runs(first, second)
    html = render_comparison(first, second, comparison)
    assert comparison["scores"]["num_shared"] == 20
    assert "Missing or damaged files of a" in html
    assert "Missing or damaged files of b" not in html


FILES = {
    "filter/verdicts.jsonl": "filter/verdicts.jsonl",
    "filter/manifest.json": "filter/manifest.json",
    "eval/problems.jsonl": "eval",
    "eval/student/verdicts.jsonl": "eval",
    "generate/shards.json": "generate",
    "generate/manifest.json": "generate/manifest.json",
    "summary.json": "summary.json",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ['{"half', '{"metrics": []}', "\udcff\udcfe"])
def test_any_other_damaged_file_is_told_of_and_stops_nothing(make_sums_run, name, content):
    folder = make_sums_run().folder
    (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    run = gather_run(folder)
    html = render_report(run)
    compare_runs(run, run)
    assert html.startswith("<!doctype html>")
    is_object = name == "summary.json" and content == '{"metrics": []}'
    assert is_object or any(entry["file"].startswith(FILES[name]) for entry in run.facts["damaged"])


def test_a_stage_whose_folder_is_a_file_is_told_of(make_sums_run):
    folder = make_sums_run().folder
    (folder / "import").write_text("not a folder")
    shutil.rmtree(folder / "sft")
    (folder / "sft").symlink_to(folder / "sft")
    files = {entry["file"] for entry in gather_run(folder).facts["damaged"]}
    assert {"import/manifest.json", "sft/manifest.json"} <= files


def test_a_damaged_file_is_named_without_the_folders_of_this_machine(make_sums_run):
    folder = make_sums_run().folder
    FAULTS["cut"](shard(folder, "kept"))
    (entry,) = (one for one in gather_run(folder).facts["damaged"] if one["file"].endswith(".parquet"))
    assert re.fullmatch(r"filter/kept/train-00000-of-00001\.parquet", entry["file"])
    assert str(folder.parent) not in entry["problem"]
    assert "\n" not in entry["problem"]


def test_a_whole_run_has_no_damage(make_sums_run):
    run = gather_run(make_sums_run().folder)
    assert run.facts["damaged"] == []
    assert "Missing or damaged" not in render_report(run)


def test_a_stage_with_a_damaged_manifest_is_not_complete_and_says_what_of_it_is_there(make_sums_run):
    folder = make_sums_run().folder
    (folder / "generate" / "manifest.json").write_text("{")
    (generated,) = (folder / "generate" / "traces").glob("*.parquet")
    FAULTS["cut"](generated)
    for stage in ("filter", "sft", "eval"):
        shutil.rmtree(folder / stage)
    run = gather_run(folder)
    assert (run.facts["state"], run.facts["begun"]["stage"]) == ("unfinished", "generate")
    assert "generate/manifest.json" in {entry["file"] for entry in run.facts["damaged"]}
    assert "generate unfinished" in re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_report(run)))
