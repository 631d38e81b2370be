"""What is no file is refused by its kind, wherever a recipe or the command line names a file: nothing waits for it."""

import os
import socket

import pytest

from distill.core.file_kinds import FILE, LOOP, MISSING, kind_of
from distill.errors import ModelError, ProblemError, RecipeError, StoreError
from distill.models.tokenizers import template_text
from distill.recipe.loading import read_recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.traces import TraceSource
from distill.sampling.job import num_lines, num_lines_by_size
from distill.sources.evaluation_sets import load_pack
from distill.sources.imported_traces import foreign_traces
from distill.sources.problems import load_problems
from distill.storage.files import read_json, read_jsonl
from distill.storage.run_folder import is_run
from distill.storage.shards import readable

RECIPE = """\
name: small
student: smollm2-135m
problems: [{source: "file:sums.jsonl"}]
generate: {teacher: org/teacher, sampling: {max_tokens: 100}}
sft: {max_length: 512}
"""
KINDS = {"folder": "a folder", "pipe": "a named pipe", "socket": "a socket", "device": "a device"}


@pytest.fixture(params=KINDS)
def no_file(request, tmp_path):
    """A path that is called like a file of rows, and is none; and what it is."""
    path = tmp_path / "x.jsonl"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    return path, KINDS[request.param]


def test_kinds(tmp_path, no_file):
    assert kind_of(no_file[0]) == no_file[1]
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert kind_of(tmp_path / "file") == FILE
    assert kind_of(tmp_path / "loop") == LOOP
    assert kind_of(tmp_path / "none") == kind_of(tmp_path / "file" / "x") == kind_of(tmp_path / ("x" * 300)) == MISSING


@pytest.mark.parametrize(
    "read",
    [
        lambda source: load_problems(ProblemSource(source=source), 0),
        lambda source: list(foreign_traces(TraceSource(source=source))),
        lambda source: list(foreign_traces(TraceSource(source="file:t.jsonl", problems=source))),
        load_pack,
    ],
    ids=["problems", "traces", "problems of traces", "evaluation set"],
)
def test_a_source_that_is_no_file_is_refused_by_its_kind(no_file, read):
    path, kind = no_file
    with pytest.raises(ProblemError, match=f"x.jsonl: is {kind}"):
        read(f"file:{path}")


def test_a_template_that_is_no_file_is_refused_by_its_kind(no_file):
    path, kind = no_file
    with pytest.raises(ModelError, match=f"is {kind}"):
        template_text(f"file:{path}")


def test_a_parent_that_is_no_file_is_refused_by_its_kind(no_file, tmp_path):
    path, kind = no_file
    (tmp_path / "recipe.yaml").write_text(f"extends: {path.name}\nname: other\n")
    with pytest.raises(RecipeError, match="is a directory" if kind == "a folder" else f"is {kind}"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="is a directory" if kind == "a folder" else f"is {kind}"):
        read_recipe(path)


@pytest.mark.parametrize(
    "line", ["problems: [{source: 'file:loop'}]", "extends: loop", "sft: {chat_template: 'file:loop'}"]
)
def test_links_in_a_circle_are_refused_in_every_place(tmp_path, line):
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    key = line.partition(":")[0]
    others = "\n".join(one for one in RECIPE.splitlines() if not one.startswith(f"{key}:"))
    (tmp_path / "recipe.yaml").write_text(f"{others}\n{line}\n")
    with pytest.raises(RecipeError, match=r"leads to itself|symbolic links"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"leads to itself|symbolic links"):
        read_recipe(tmp_path / "loop")


def _open_shard(path):
    with readable(path):
        path.read_bytes()


@pytest.mark.parametrize("read", [read_json, read_jsonl, _open_shard])
def test_what_lies_in_the_place_of_a_runs_file_is_not_waited_for(no_file, read):
    path, kind = no_file
    with pytest.raises(StoreError, match="cannot be read" if kind == "a folder" else f"is {kind}"):
        read(path)


@pytest.mark.parametrize(
    "words",
    [
        "plan {}", "recipes show {}", "recipes diff {} {}", "recipes diff recipe.yaml {}", "recipes cp {} y",
        "report {}", "runs show {}", "grade --file {} --gold 1",
    ],
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_a_mistake_and_no_traceback(distill, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    code, _, said = distill(*words.format(*["x" * 300] * 2).split())
    assert code == 2
    assert "xxx" in said


def test_a_source_that_no_file_can_have_is_named(distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        f"name: small\nstudent: smollm2-135m\ntraces: [{{source: 'file:{'x' * 300}.jsonl'}}]\n"
        "sft: {max_length: 512}\n"
    )
    code, _, said = distill("import", "recipe.yaml")
    assert code == 2
    assert "no such file" in said.replace("\n", " ")


def test_a_runs_name_that_is_no_name_is_no_run(tmp_path):
    assert not is_run(tmp_path / ("x" * 300))
    assert not is_run(tmp_path / "a\0b")


def test_lines_are_counted_without_holding_one(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    for content, num in ((b"", 0), (b"a", 1), (b"a\nb", 2), (b"a\n\nb\n", 3), (b"x" * 3_000_000 + b"\ny\n", 2)):
        path.write_bytes(content)
        assert num_lines(path) == num
    path.write_bytes(b"0123456789\n" * 1_000)
    monkeypatch.setattr("distill.sampling.job.SAMPLE_BYTES", 1_100)
    assert num_lines_by_size(path) == 1_000
    path.write_bytes(b"x" * 100_000)
    assert num_lines_by_size(path) == 1


def test_a_plan_waits_for_no_pipe(tmp_path, no_file):
    from distill.estimates.counts import workload

    path, _ = no_file
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("file:sums.jsonl", f"file:{path.name}"))
    assert workload(read_recipe(tmp_path / "recipe.yaml").recipe).train.high > 0
