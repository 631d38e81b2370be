"""Recipes with rounds: what runs, what is refused, and what is remembered."""

import json
from pathlib import Path

import pytest

from distill.errors import StoreError, UserError
from distill.filters.funnel import Funnel
from distill.publish.facts import RunFacts
from distill.recipe.expand import expand
from distill.recipe.model import Recipe
from distill.results.eval import Difference, EvalMetrics, EvalResult, Protocol
from distill.runs import gates
from distill.runs.listing import list_runs, remove_run
from distill.runs.runner import run_recipe
from distill.runs.steps import chosen_steps
from distill.stages import contexts_of
from distill.stages.push import dry_run
from distill.storage.files import read_json, write_json

ANSWER = "<think>\n{0} and {1} make {2}.\n</think>\n\nThe answer is \\boxed{{{2}}}."


def write_traces(path: Path, first: int, num: int) -> str:
    rows = [
        {"problem": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1), "text": ANSWER.format(i, i + 1, 2 * i + 1)}
        for i in range(first, first + num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


@pytest.fixture
def make(tmp_path, tiny_llama):
    """A function that makes a recipe of two rounds on imported traces; keyword arguments are the second round's."""
    sources = [{"source": write_traces(tmp_path / f"{name}.jsonl", first, 6)} for name, first in (("a", 0), ("b", 50))]

    def recipe(first=None, push=None, **second):
        return Recipe.model_validate(
            {
                "name": "two",
                "push": push,
                "student": str(tiny_llama),
                "filter": {"compute": {"workers": 1}},
                "sft": {"max_length": 256, "epochs": 1, "batch_size": 2, "compute": {"tracking": []}},
                "rounds": [
                    {"name": "cold", "traces": [sources[0]], "sft": {}, **(first or {})},
                    {"name": "more", "traces": [sources[1]], "sft": {"rows": ["this", "round:cold"]}, **second},
                ],
            }
        )

    return recipe


def identity(run_dir, step):
    return read_json(run_dir / step / "identity.json")


@pytest.mark.slow
def test_rounds_run_in_order_into_folders_of_their_own_and_are_skipped(make, tmp_path, documented):
    recipe, said = make(), []
    run_dir = tmp_path / "runs/two"
    summary = run_recipe(recipe, tmp_path / "runs", say=said.append)
    assert [step.id for step in expand(recipe)] == [
        *("cold/import", "cold/filter", "cold/sft"),
        *("more/import", "more/filter", "more/sft"),
    ]
    assert summary == read_json(run_dir / "summary.json")
    documented("RoundsSummary", summary)
    assert summary["rounds"]["cold"]["sft"]["num_rows"] == 6
    assert summary["rounds"]["more"]["sft"]["num_rows"] == 12
    assert identity(run_dir, "more/sft")["rows"].keys() == {"more", "cold"}
    assert identity(run_dir, "more/sft")["student"] == recipe.student  # the base again
    assert summary["rounds"]["more"]["made_from"] == {
        "student": recipe.student,
        "teacher": None,
        "rollouts": [],
        "rows": ["more", "cold"],
    }
    assert (run_dir / "report.html").exists()
    assert (run_dir / "more/report.html").exists()
    said.clear()
    before = (run_dir / "more/sft/manifest.json").read_bytes()
    run_recipe(recipe, tmp_path / "runs", say=said.append)
    assert [line.partition(", skipped")[0] for line in said] == [f"{step.id}: done already" for step in expand(recipe)]
    assert (run_dir / "more/sft/manifest.json").read_bytes() == before


@pytest.mark.slow
def test_a_student_of_an_earlier_round_is_trained_further_and_a_changed_round_refuses_what_was_built_on_it(
    make, tmp_path
):
    further = {"student": "round:cold", "sft": {}}
    run_dir = tmp_path / "runs/two"
    run_recipe(make(**further), tmp_path / "runs")
    weights = read_json(run_dir / "cold/sft/manifest.json")["outputs"]["student"]["sha256"]
    assert identity(run_dir, "more/sft")["student_revision"] == f"round:cold@{weights}"
    changed = make({"sft": {"epochs": 2.0}}, **further)
    with pytest.raises(StoreError, match=r"(?s)round cold: sft.*epochs: 1.0 -> 2.0"):
        run_recipe(changed, tmp_path / "runs")
    with pytest.raises(UserError, match=r"(?s)round more: .*sft of round cold.*sft.epochs: 1.0 -> 2.0"):
        run_recipe(changed, tmp_path / "runs", ["sft"], rounds=["more"])
    said = []
    run_recipe(changed, tmp_path / "runs", force=True, say=said.append)
    assert sorted(path.name for path in run_dir.glob("*/*.replaced-1")) == ["sft.replaced-1", "sft.replaced-1"]
    assert [line for line in said if "done already" in line and "/sft" in line] == []
    assert [line.partition(":")[0] for line in said if "done already" in line] == [
        *("cold/import", "cold/filter"),
        *("more/import", "more/filter"),
    ]


@pytest.fixture
def make_rows(make):
    """A function that makes the same recipe without training; keyword arguments are the first round's."""

    def recipe(**first):
        made = make().model_dump(mode="json")
        made["rounds"] = [{key: one[key] for key in ("name", "traces", "filter")} for one in made["rounds"]]
        made["rounds"][0] |= first
        return Recipe.model_validate(made)

    return recipe


def test_until_rounds_and_round_choose_steps(make, make_rows, tmp_path):
    recipe, runs = make_rows(), tmp_path / "runs"
    run_recipe(recipe, runs, until="cold/import")
    assert (runs / "two/cold/import/manifest.json").exists()
    assert not (runs / "two/cold/filter").exists()
    run_recipe(recipe, runs, rounds=["more"], until="more/filter")
    assert not (runs / "two/cold/filter").exists()
    with pytest.raises(UserError, match=r"no step 'cold/eval'.*cold/import"):
        run_recipe(recipe, runs, until="cold/eval")
    with pytest.raises(UserError, match=r"no round 'cald'\. There are: cold, more"):
        run_recipe(recipe, runs, rounds=["cald"])
    with pytest.raises(UserError, match="has no sft stage in round cold"):
        run_recipe(recipe, runs, ["sft"], rounds=["cold"])
    with pytest.raises(UserError, match=r"filter.* are not complete.*`distill filter --round cold`"):
        run_recipe(make(), runs, ["sft"], rounds=["more"])
    run_recipe(recipe, runs, ["filter"])
    assert (runs / "two/cold/filter/manifest.json").exists()


def test_a_summary_that_a_killed_call_left_unwritten_is_written_by_the_next_one(make_rows, tmp_path):
    whole = run_recipe(make_rows(), tmp_path / "runs")["rounds"]
    path = tmp_path / "runs/two/cold/summary.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "filter"})
    assert run_recipe(make_rows(), tmp_path / "runs")["rounds"] == whole
    assert "filter" in read_json(path)


def test_a_gate_that_fails_stops_the_run_until_it_is_passed_or_changed(make_rows, tmp_path):
    shut, runs = make_rows(gate={"num_kept": ">= 7", "kept_share": "> 0.9"}), tmp_path / "runs"
    with pytest.raises(UserError, match=r"(?s)FAILS  num_kept: 6, wanted >= 7.*holds  kept_share.*--past-gate cold"):
        run_recipe(shut, runs)
    summary = read_json(runs / "two/summary.json")
    assert summary["stopped"]["stage"] == "cold/filter"
    assert summary["rounds"]["cold"]["gate"]["passed"] is False
    assert "does not hold" in (runs / "two/report.html").read_text()
    assert not (runs / "two/more/import").exists()
    with pytest.raises(UserError, match="gate does not hold"):  # also of a round by itself
        run_recipe(shut, runs, rounds=["more"])
    with pytest.raises(UserError, match="no round 'more' with a gate"):
        run_recipe(shut, runs, past_gates=["more"])
    run_recipe(shut, runs, past_gates=["cold"], until="more/import")
    run_recipe(shut, runs)  # the waiver is remembered
    assert "stopped" not in read_json(runs / "two/summary.json")
    fingerprint = read_json(runs / "two/cold/filter/manifest.json")["fingerprint"]
    with pytest.raises(UserError, match="wanted >= 8"):  # another limit is another question
        run_recipe(make_rows(gate={"num_kept": ">= 8"}), runs)
    run_recipe(make_rows(), runs)  # no gate, no stop
    assert "stopped" not in read_json(runs / "two/summary.json")
    run_recipe(make_rows(gate={"num_kept": ">= 6", "format_share": ">= 1"}), runs)
    assert read_json(runs / "two/cold/filter/manifest.json")["fingerprint"] == fingerprint
    assert read_json(runs / "two/cold/gate.json")["waived"] is False


@pytest.mark.parametrize(
    ("metric", "interval", "passed"),
    [("gain_over", [-0.1, 0.3], True), ("clear_gain_over", [-0.1, 0.3], False), ("clear_gain_over", [0.01, 0.2], True)],
)
def test_a_clear_gain_has_its_whole_interval_above_zero(tmp_path, monkeypatch, metric, interval, passed):
    measured = {"pass_at_1": 0.1, "interval_95": interval}
    monkeypatch.setattr(gates, "difference_of", lambda *_: measured)
    monkeypatch.setattr(gates.StageFolder, "manifest", {"metrics": {}})
    monkeypatch.setattr(gates, "recorded", lambda *_: None)
    rounds = [{"name": "one", "generate": {"teacher": "org/t"}, "sft": {}, "gate": {metric: "base"}}]
    problems = [{"source": "gym:chain_sum", "limit": 20}]
    recipe = Recipe.model_validate(
        {"name": "r", "student": "smollm2-135m", "problems": problems, "eval": {"held_out": 5}, "rounds": rounds}
    )
    (tmp_path / "one").mkdir()
    if passed:
        assert gates.check_gate(recipe, tmp_path, "one")["passed"]
    else:
        with pytest.raises(UserError, match=r"wanted more than 0 in all of its 95% interval \(-0.1 to 0.3\)"):
            gates.check_gate(recipe, tmp_path, "one")


def test_rounds_with_problems_of_their_own_hold_out_the_same_ones(tmp_path):
    """The held-out problems are of the sources that all rounds have; the others are loaded where they are used."""

    def write(name, num):
        rows = [{"problem": f"{name} {i}?", "answer": str(i)} for i in range(num)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"file:{tmp_path / name}.jsonl"

    rl = {"max_tokens": 100, "prompts_per_step": 2, "probe": {"problems": 2}}
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "student": "smollm2-135m",
            "problems": [{"source": write("sums", 9)}, {"source": write("talk", 5), "rounds": ["second"]}],
            "eval": {"held_out": 4, "sampling": {"max_tokens": 100}},
            "rounds": [
                {"name": "first", "rl": rl},
                {"name": "second", "student": "round:first", "rl": rl},
                {"name": "third", "student": "round:second", "rl": rl},
            ],
        }
    )
    first, second, third = (run.problem_sets for run in contexts_of(recipe, tmp_path / "runs", needs_weights=False))
    assert first.benchmarks == second.benchmarks
    assert {one.question.split()[0] for one in first.benchmarks["held-out"]} == {"sums"}
    assert (len(first.train), len(second.train)) == (5, 10)
    assert third is first


def test_a_folder_of_a_run_without_rounds_is_not_mixed_with_rounds(make, tmp_path):
    (tmp_path / "runs/two/filter").mkdir(parents=True)
    (tmp_path / "runs/two/filter/identity.json").write_text("{}")
    with pytest.raises(StoreError, match="holds a run without rounds"):
        run_recipe(make(), tmp_path / "runs")


@pytest.mark.slow
def test_a_published_round_tells_the_rounds_that_it_came_from(make, tmp_path):
    recipe = make(push={"repo": "me/two", "dataset": "me/rows"})
    run_recipe(recipe, tmp_path / "runs", until="more/sft")
    run = contexts_of(recipe, tmp_path / "runs/two")[-1]
    plan = dry_run(run)
    dataset, model = plan.publications
    assert "## Rounds" in model.card
    row = next(line for line in model.card.splitlines() if line.startswith("| more |"))
    assert "more and cold" in row
    paths = {file.path for file in model.files}
    assert {"distill/manifests/cold/sft.json", "distill/manifests/sft.json", "distill/recipe.yaml"} <= paths
    assert [file.path.partition("-")[0] for file in dataset.files if file.path.endswith(".parquet")] == [
        "kept/cold",
        "kept/more",
    ]
    whole = next(file.source for file in model.files if file.path == "distill/recipe.yaml").decode()
    assert "rows:" in whole
    assert str(tmp_path) not in whole


def test_traces_of_every_round_are_kept_also_the_second_time(make_rows, tmp_path):
    run_recipe(make_rows(), tmp_path / "runs")
    folder = tmp_path / "runs/two"
    for _ in range(2):
        remove_run(folder, keep_traces=True)
        left = {path.relative_to(folder).parts[:2] for path in folder.rglob("*.parquet")}
        assert left == {("cold", "import"), ("more", "import")}


def test_until_a_round_publishes_nothing(make):
    recipe = make(push={"repo": "me/two", "round": "cold"})
    assert [step.id for step in chosen_steps(recipe, until="cold")] == ["cold/import", "cold/filter", "cold/sft"]
    assert chosen_steps(recipe)[-1].id == "cold/push"


def test_the_certificate_of_several_rounds_adds_counts_alone_and_names_the_sets_that_all_were_checked_against(
    make, tmp_path
):
    recipe, facts, filtered = make(), {}, {"metrics": Funnel().metrics().to_json()}
    for name, sets in (("cold", ["a", "b"]), ("more", ["b"])):
        certificate = {
            "schema_version": 1,
            "method": {"ngram_words": 8},
            "sets": [{"name": one} for one in sets],
            "num_problems_checked": 6,
            "hits": {name: []},
        }
        (tmp_path / name / "filter").mkdir(parents=True)
        (tmp_path / name / "filter/decontamination.json").write_text(json.dumps(certificate))
        facts[name] = RunFacts(recipe.part(name), tmp_path / name, {"filter": filtered}, dict(facts))
    assert facts["more"].certificate == {
        "schema_version": 1,
        "method": {"ngram_words": 8},
        "sets": [{"name": "b"}],
        "num_problems_checked": 12,
        "hits": {"more": [], "cold": []},
    }


def test_the_score_of_a_run_is_that_of_the_round_measured_last(tmp_path):
    """Also where another round is published, whose steps come after it."""
    folder = tmp_path / "runs/two"
    measured = {"eval": {"held_out": 1}}
    rounds = [{"name": "cold", **measured, "sft": {}}, {"name": "more", **measured, "sft": {}}]
    tree = {"name": "two", "rounds": rounds, "push": {"repo": "me/two", "round": "cold"}}
    write_json(folder / "summary.json", {"recipe": tree, "rounds": {"cold": {}, "more": {}}})
    for name, right in (("cold", 0.2), ("more", 0.9)):
        score = EvalResult(
            model="m",
            num_problems=1,
            samples_per_problem=1,
            pass_at_1=right,
            interval_95=(0.0, 1.0),
            truncated_share=0.0,
            mean_completion_tokens=1.0,
        )
        gain = Difference(pass_at_1=0.0, interval_95=(0.0, 0.0), num_gained=0, num_lost=0)
        metrics = EvalMetrics(base=score, student=score, difference=gain, benchmarks=[], protocol=Protocol())
        found = {"stage": "eval", "fingerprint": "", "identity": {}, "outputs": {}, "metrics": metrics.to_json()}
        found |= {"seconds": 1.0, "peak_memory_gib": 1.0, "finished_at": ""}
        write_json(folder / name / "eval/manifest.json", found)
    (run,) = list_runs(tmp_path / "runs")
    assert run["score"]["student"]["pass_at_1"] == 0.9
