"""Whatever somebody has done to the files of a run: a command works, or says what is wrong; it never falls over."""

import importlib.util
import json
import random
import shutil
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import StageError, StoreError
from distill.recipe.text import recipe_yaml
from distill.results.kinds import KINDS
from distill.storage.run_folder import StageFolder


def _load(path):
    spec = importlib.util.spec_from_file_location("publish_conftest", Path(__file__).parent / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["publish_conftest"] = module
    spec.loader.exec_module(module)
    return module


finished = _load("publish/conftest.py")
base_model, filtered_run, make_run = finished.base_model, finished.filtered_run, finished.make_run

COMMANDS = {
    "ls": ("runs", "ls"),
    "show": ("runs", "show", "small"),
    "rm": ("runs", "rm", "small", "--dry-run"),
    "plan": ("plan", "r.yaml"),
    "status": ("generate", "r.yaml", "--status"),
    "explain": ("filter", "r.yaml", "--explain", "ID"),
    "push": ("push", "r.yaml", "--dry-run"),
    "check": ("sft", "r.yaml", "--check"),
    "generate": ("generate", "r.yaml", "-q"),
    "filter": ("filter", "r.yaml", "-q"),
    "sft": ("sft", "r.yaml", "-q"),
    "eval": ("eval", "r.yaml", "-q"),
    "run": ("run", "r.yaml", "-q"),
}
"""Those that look come before those that work, which may make good what is damaged."""

VALUES = [None, True, -1, 3.5, 10**30, "", "x", "\ud800", [], [[]], [{}], {}, {"a": []}]


def gone(path, draw):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def empty(path, draw):
    gone(path, draw)
    path.write_bytes(b"")


def a_folder(path, draw):
    gone(path, draw)
    path.mkdir()


def a_link_to_itself(path, draw):
    gone(path, draw)
    path.symlink_to(path.name)


def garbage(path, draw):
    gone(path, draw)
    path.write_bytes(draw.randbytes(300))


def cut(path, draw):
    if path.is_file():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_json(path, draw):
    if path.is_file():
        path.write_text(json.dumps(draw.choice(VALUES)) + "\n")


def changed_json(path, draw):
    """One value somewhere in it is another, or gone."""
    if path.suffix not in (".json", ".jsonl"):
        return
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    if lines:
        place = draw.randrange(len(lines))
        lines[place] = json.dumps(_mutated(json.loads(lines[place]), draw))
        path.write_text("\n".join(lines) + "\n")


def _mutated(value, draw, depth=0):
    if isinstance(value, dict) and value and (depth == 0 or draw.random() < 0.8):
        key = draw.choice(sorted(value))
        if draw.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: _mutated(value[key], draw, depth + 1)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], _mutated(value[place], draw, depth + 1), *value[place + 1 :]]
    return draw.choice(VALUES)


DAMAGES = [gone, empty, a_folder, a_link_to_itself, garbage, cut, other_json, changed_json]


@pytest.fixture
def small(make_run, tmp_path, monkeypatch):
    """A finished run of which nothing is trained or sampled anew, and its recipe beside it."""
    run = make_run()
    (tmp_path / "r.yaml").write_text(recipe_yaml(run.recipe.model_dump(mode="json", exclude_none=True)))
    from distill.runs.listing import note_command
    from distill.runs.results import write_report, write_summary

    write_summary(run)
    write_report(run.run_dir, print)
    monkeypatch.chdir(tmp_path)
    note_command(run.run_dir, run.recipe, None, ["r.yaml"])

    def stopped(run, *more):
        raise StageError("stopped by the test")

    for stage in ("generate", "sft", "eval", "push"):
        monkeypatch.setattr(f"distill.stages.{stage}.run", stopped)
    monkeypatch.setattr("distill.stages.push.check_before", lambda run: None)
    return run.run_dir


def attack(distill, run_dir, path, damage, draw, commands):
    """Damage one file and give every command; what fell over."""
    name = json.loads((run_dir / "filter" / "verdicts.jsonl").read_text().splitlines()[0])["problem_id"]
    whole = run_dir.with_name("whole")
    if not whole.exists():
        shutil.copytree(run_dir, whole)
    target = run_dir / path
    damage(target, draw)
    fallen = []
    for command in commands:
        words = [name if word == "ID" else word for word in COMMANDS[command]]
        try:
            code, _, err = distill(*words)
            if code not in (0, 1, 2) or (code and not err.strip()):
                fallen.append((command, path, damage.__name__, code, err))
        except BaseException as error:
            fallen.append((command, path, damage.__name__, type(error).__name__, str(error)[:200], _place(error)))
    shutil.rmtree(run_dir)
    shutil.copytree(whole, run_dir, symlinks=True)
    return fallen


def _place(error):
    return [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)][-4:]


def every_path(run_dir):
    return sorted(p.relative_to(run_dir) for p in run_dir.rglob("*") if p.name not in (".lock",))


LOOKS = ("ls", "show", "rm", "plan", "status", "explain", "push", "check")
JSON_FILES = sorted(
    f"{stage}/{name}" for stage in ("generate", "filter", "sft", "eval") for name in ("identity.json", "manifest.json")
)
OTHER_FILES = (
    "summary.json",
    "command.json",
    "recipe.lock.yaml",
    "generate",
    "generate/problems.jsonl",
    "generate/shards.json",
    "generate/traces/train-00000-of-00001.parquet",
    "filter/verdicts.jsonl",
    "filter/decontamination.json",
    "filter/kept",
    "filter/kept/train-00000-of-00001.parquet",
    "filter/dropped",
    "sft",
    "sft/student",
    "sft/student/config.json",
    "eval",
)


@pytest.mark.parametrize("path", [*JSON_FILES, *OTHER_FILES])
def test_no_command_falls_over_a_damaged_file(distill, small, path):
    draw = random.Random(path)
    damages = [draw.choice(DAMAGES[:-1]), *([changed_json] if path.endswith((".json", ".jsonl")) else [])]
    fallen = [one for damage in damages for one in attack(distill, small, path, damage, draw, LOOKS)]
    assert fallen == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_command_falls_over_any_damage_to_any_file(distill, small, damage):
    draw = random.Random(damage.__name__)
    paths = every_path(small) * (4 if damage is changed_json else 1)
    assert [one for path in paths for one in attack(distill, small, path, damage, draw, LOOKS)] == []


def test_a_damaged_identity_is_named(distill, small):
    for content in ("[]", "null", "[" * 100_000, '{"a": NaN}', json.dumps({"a": "\ud800"})):
        (small / "filter" / "identity.json").write_text(content)
        code, _, err = distill(*COMMANDS["filter"])
        assert (code, "filter/identity.json" in err) == (2, True), err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
KEYS = st.sampled_from(
    ["stage", "outputs", "metrics", "identity", "seconds", "finished_at", "recipe", "files", "versions"]
)


@given(st.sampled_from([*KINDS]), st.dictionaries(KEYS, JSON), st.dictionaries(st.text(), JSON), JSON)
def test_a_manifest_is_read_whole_or_refused_with_what_is_wrong(tmp_path_factory, stage, values, metrics, whole):
    folder = StageFolder(tmp_path_factory.mktemp("run") / stage)
    for content in (whole, values, {**values, "stage": stage, "metrics": metrics}):
        folder.path.mkdir(exist_ok=True)
        (folder.path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(StoreError, match=r"manifest\.json: "):
            _ = folder.manifest


@pytest.mark.parametrize("path", ["filter/manifest.json", "generate/manifest.json"])
@pytest.mark.parametrize("content", ["[]", '{"metrics": []}', "null", "[" * 100_000])
def test_a_manifest_of_another_shape_is_named_by_every_stage(distill, small, path, content):
    (small / path).write_text(content)
    for command in ("filter", "check", "run"):
        code, _, err = distill(*COMMANDS[command])
        assert (code, path in err) == (2, True), (command, err)


@pytest.mark.parametrize("damage", [garbage, a_link_to_itself])
def test_a_stages_folder_that_is_none_is_named(distill, small, damage):
    """The folder is a file, or a link to itself."""
    damage(small / "filter", random.Random(1))
    for command in ("filter", "check", "run"):
        code, _, err = distill(*COMMANDS[command])
        assert code == 2
        assert "small/filter" in err


def test_what_is_damaged_is_made_again_by_the_command_that_is_named(distill, small):
    """From the message to a run that works, with nothing but the commands in the messages."""
    for path in ("kept/train-00000-of-00001.parquet", "dropped/train-00000-of-00001.parquet", "verdicts.jsonl"):
        (small / "filter" / path).write_bytes(b"")
    code, _, err = distill("filter", "r.yaml")
    assert code == 0
    assert err.count("made again") == 3
    assert distill("filter", "r.yaml", "-q")[0] == 0
    assert distill("push", "r.yaml", "--dry-run")[0] == 0


def test_the_report_is_named_only_where_one_was_written(distill, small):
    (small / "report.html").unlink()
    (small / "report.html").mkdir()
    code, out, err = distill("filter", "r.yaml")
    assert code == 0
    assert "report.html: could not be written" in err
    assert "Report:" not in out
    (small / "report.html").rmdir()
    assert "Report:  runs/small/report.html" in distill("filter", "r.yaml")[1]


@pytest.mark.parametrize("path", ["filter/manifest.json", "generate/identity.json"])
def test_a_damaged_stage_keeps_no_plan_from_being_shown(distill, small, path):
    (small / path).write_text('{"stage": 3')
    code, out, _ = distill("plan", "r.yaml", "--json")
    assert code == 0
    assert json.loads(out)["stages"][path.partition("/")[0]]["state"] == "depends"
