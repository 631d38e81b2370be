"""A stage builds only on what this recipe has made, byte by byte; what is damaged is made again."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from distill.core.records import Trace
from distill.errors import StageError, StoreError, UserError
from distill.recipe.lineage import changed_settings
from distill.recipe.model import Recipe
from distill.recipe.yaml_tree import read_tree
from distill.results.sft import SftMetrics
from distill.runs.listing import describe_run, note_command
from distill.runs.results import write_summary
from distill.runs.runner import run_recipe
from distill.runs.sft_check import check_sft
from distill.stages import RunContext, eval, filter, generate, import_traces, sft
from distill.storage.files import read_json, write_jsonl
from distill.storage.fingerprints import fingerprint, sha256_of
from distill.storage.ledger import Ledger
from distill.storage.run_folder import Manifest, describe_outputs
from distill.storage.trace_store import stored_traces

RIGHT = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is \\boxed{7}."
FAST = {"workers": 1}


def rows(num=5, **more):
    """Questions with a right and a wrong answer each."""
    return [
        {
            "problem": f"What is {i} + {i + 5}?",
            "answer": str(2 * i + 5),
            "response": f"<think>\nAdding {i} and {i + 5} by hand gives {2 * i + 5}.\n</think>\n\n\\boxed{{{answer}}}",
            **more,
        }
        for i in range(num)
        for answer in (2 * i + 5, 1_000)
    ]


def imported(tmp_path, file="made.jsonl", told=None, **sections):
    """A recipe that takes in traces made elsewhere."""
    if not (tmp_path / file).exists():
        write_jsonl(tmp_path / file, told if told is not None else rows())
    plain = {
        "name": "made",
        "student": "smollm2-135m",
        "traces": [{"source": f"file:{tmp_path / file}", "teacher": "org/big"}],
        "filter": {"max_tokens": 2_000, "compute": FAST},
        "sft": {"max_length": 2_048},
    }
    return Recipe.model_validate({**plain, **sections})


@pytest.fixture
def filtered(make_recipe, tmp_path, fake_engine, finish_generate):
    """A recipe whose rows are filtered, and its run folder."""
    recipe = make_recipe()
    finish_generate(recipe, tmp_path / "runs", fake_engine([RIGHT, "no idea"]))
    run_recipe(recipe, tmp_path / "runs", ["generate", "filter"])
    return recipe, tmp_path / "runs" / "small"


def changed(recipe, **sections):
    """The recipe with other values; a dict changes keys of its section."""
    tree = recipe.model_dump(mode="json")
    for key, value in sections.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) and isinstance(tree[key], dict) else value
    return Recipe.model_validate(tree)


def shards(folder):
    return sorted((folder / "filter" / "kept").glob("*.parquet"))


def finish(run, stage, outputs, metrics):
    """A stage that is complete without anything having been trained or asked."""
    folder = run.folder(stage)
    identity = {"sft": sft, "eval": eval}[stage].identity(run)
    folder.claim(identity)
    folder.complete(
        Manifest(
            stage=stage,
            fingerprint=fingerprint(identity),
            identity=identity,
            config={},
            outputs=describe_outputs(folder.path, outputs),
            metrics=metrics,
            versions={},
            hardware={},
            git_commit=None,
            seconds=1.0,
            peak_memory_gib=0.1,
            finished_at="2026-01-01T00:00:00+00:00",
            recipe=run.recipe.model_dump(mode="json"),
        )
    )


def trained(recipe, run_dir):
    """The run with a student of a few bytes."""
    run = RunContext(recipe, run_dir)
    student = run.folder("sft").path / "student"
    student.mkdir(parents=True)
    (student / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (student / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    (student.parent / "metrics.jsonl").write_text('{"step": 1, "loss": 1.5}\n')
    metrics = SftMetrics(
        student=recipe.student,
        student_revision="r",
        method="full",
        epochs=recipe.sft.epochs,
        batch_size=recipe.sft.batch_size,
        learning_rate=1e-4,
        num_rows=1,
        num_tokens=20,
        num_trained_tokens=10,
        num_steps=1,
        final_loss=1.5,
    ).to_json()
    finish(run, "sft", {"student": None, "metrics.jsonl": 1}, metrics)
    return run


# --- settings


@pytest.mark.parametrize(
    ("sections", "stage", "key"),
    [
        ({"filter": {"select": {"min_pass_rate": 0.25}}}, "filter", "filter.select.min_pass_rate: 0.0 -> 0.25"),
        ({"filter": {"readability": {"code_blocks": True}}}, "filter", "filter.readability.code_blocks: false -> true"),
        ({"filter": {"max_tokens": 90}}, "filter", "filter.max_tokens: not set -> 90"),
        ({"filter": {"duplicates": None}}, "filter", "filter.duplicates"),
        ({"generate": {"sampling": {"temperature": 0.4, "max_tokens": 16}}}, "generate", "generate.sampling.temper"),
        ({"generate": {"system": "Be brief."}}, "generate", 'generate.system: not set -> "Be brief."'),
        ({"seed": 4}, "generate", "seed: 3 -> 4"),
        ({"eval": {"held_out": 2, "sampling": {"max_tokens": 64}}}, "generate", "eval.held_out: 0 -> 2"),
    ],
)
def test_rows_of_another_recipe_are_not_trained_on(filtered, sections, stage, key):
    recipe, run_dir = filtered
    other = changed(recipe, **sections)
    before = [(run_dir / name).read_bytes() for name in ("summary.json", "recipe.lock.yaml")]
    for train in (lambda: run_recipe(other, run_dir.parent, ["sft"]), lambda: check_sft(other, run_dir.parent)):
        with pytest.raises(UserError, match=f"sft: the recipe has changed since {stage} was run") as caught:
            train()
        assert f"  {key}" in str(caught.value)
        assert f"`distill {stage} --force`" in str(caught.value)
    assert [(run_dir / name).read_bytes() for name in ("summary.json", "recipe.lock.yaml")] == before


def test_a_limit_of_problems_counts_though_nothing_is_loaded(filtered):
    recipe, run_dir = filtered
    limited = changed(recipe, problems=[{**recipe.problems[0].model_dump(mode="json"), "limit": 3}])
    with pytest.raises(UserError, match=r"problems\.0\.limit: not set -> 3"):
        run_recipe(limited, run_dir.parent, ["sft"])


def test_a_filter_does_not_take_traces_of_another_recipe(filtered):
    recipe, run_dir = filtered
    with pytest.raises(UserError, match="filter: the recipe has changed since generate was run"):
        run_recipe(changed(recipe, generate={"system": "Hm."}), run_dir.parent, ["filter"])


def test_what_decides_nothing_may_change(filtered):
    recipe, run_dir = filtered
    for sections in (
        {"description": "another word"},
        {"filter": {"compute": {"workers": 2}}},
        {"generate": {"price": {"input_per_million": 1.0, "output_per_million": 2.0}}},
        {"sft": {"epochs": 9.0}},
    ):
        other = changed(recipe, **sections)
        assert sft.identity(RunContext(other, run_dir))["rows"] == sha256_of(run_dir / "filter" / "kept")


def test_a_file_of_problems_counts_by_what_it_holds_and_not_by_its_place(filtered, tmp_path):
    recipe, run_dir = filtered
    here = tmp_path / "problems-6.jsonl"
    (tmp_path / "moved").mkdir()
    there = here.rename(tmp_path / "moved" / here.name)
    moved = changed(recipe, problems=[{"source": f"file:{there}"}])
    assert sft.identity(RunContext(moved, run_dir))
    with there.open("a") as stream:
        stream.write(json.dumps({"problem": "What is 9 + 9?", "answer": "18"}) + "\n")
    with pytest.raises(UserError, match="since generate was run"):
        sft.identity(RunContext(moved, run_dir))


def test_where_rows_alone_were_brought_their_manifest_tells_the_recipe(filtered):
    recipe, run_dir = filtered
    shutil.rmtree(run_dir / "generate")
    assert sft.identity(RunContext(recipe, run_dir))
    with pytest.raises(UserError, match="since generate was run"):
        sft.identity(RunContext(changed(recipe, generate={"system": "Hm."}), run_dir))


def test_a_manifest_of_an_older_distill_tells_the_settings_of_its_stage(filtered):
    recipe, run_dir = filtered
    path = run_dir / "filter" / "manifest.json"
    manifest = read_json(path)
    del manifest["recipe"], manifest["files"]
    path.write_text(json.dumps(manifest))
    assert sft.identity(RunContext(recipe, run_dir))
    with pytest.raises(UserError, match=r"filter\.max_tokens: not set -> 90"):
        sft.identity(RunContext(changed(recipe, filter={"max_tokens": 90}), run_dir))


def test_rows_of_other_traces_than_are_there_are_not_trained_on(filtered):
    recipe, run_dir = filtered
    path = run_dir / "filter" / "manifest.json"
    manifest = read_json(path)
    manifest["identity"]["traces"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"(?s)filter was made from another result of generate.*filter --force`"):
        run_recipe(recipe, run_dir.parent, ["sft"])


def test_a_student_of_another_training_is_not_measured(filtered):
    recipe, run_dir = filtered
    run = trained(recipe, run_dir)
    for sections, key in (
        ({"sft": {"epochs": 5.0}}, r"sft\.epochs: 2\.0 -> 5\.0"),
        ({"sft": {"method": "lora"}}, "lora"),
    ):
        other = changed(recipe, **sections)
        with pytest.raises(UserError, match=f"(?s)the recipe has changed since sft was run.*{key}"):
            RunContext(other, run.run_dir).made_before("push")


def test_a_summary_never_claims_values_that_made_nothing(filtered):
    """A call for an early stage, with other settings for a later one that is complete."""
    recipe, run_dir = filtered
    trained(recipe, run_dir)
    run_recipe(changed(recipe, sft={"epochs": 7.0}, filter={"max_tokens": 90}), run_dir.parent, ["generate"])
    summary, lock = read_json(run_dir / "summary.json"), read_tree(run_dir / "recipe.lock.yaml", {})
    for told in (summary["recipe"], lock["recipe"]):
        assert told["sft"]["epochs"] == 2.0
        assert told["filter"]["max_tokens"] is None
    (run_dir / "sft" / "manifest.json").unlink()
    assert write_summary(RunContext(changed(recipe, sft={"epochs": 7.0}), run_dir))["recipe"]["sft"]["epochs"] == 7.0


def test_a_default_that_is_written_out_is_no_change_and_leads_to_no_dead_end(filtered):
    recipe, run_dir = filtered
    run = trained(recipe, run_dir)
    same = changed(recipe, sft={"learning_rate": sft.learning_rate(run)})
    assert changed_settings(same, "sft", run.folder("sft").manifest)
    run_recipe(same, run_dir.parent, ["sft"])  # is done already, and notes how the recipe says it now
    assert not changed_settings(same, "sft", run.folder("sft").manifest)


def test_an_evaluation_may_be_added_to_a_run_that_is_trained(filtered, tmp_path):
    recipe, run_dir = filtered
    trained(recipe, run_dir)
    write_jsonl(tmp_path / "exam.jsonl", [{"problem": "What is 90 + 1?", "answer": "91"}])
    measured = changed(recipe, eval={"benchmarks": [{"source": f"file:{tmp_path / 'exam.jsonl'}"}]})
    measured = changed(measured, eval={"sampling": {"max_tokens": 64}})
    run = RunContext(measured, run_dir)
    assert eval.identity(run)["student"] == sha256_of(run_dir / "sft" / "student")
    score = dict.fromkeys(("pass_at_1", "truncated_share", "mean_completion_tokens"), 0.5)
    score |= {"model": "m", "num_problems": 1, "samples_per_problem": 4, "interval_95": [0.0, 1.0]}
    gain = {"pass_at_1": 0.0, "interval_95": [0.0, 0.0], "num_gained": 0, "num_lost": 0}
    scores = {"base": score, "student": score, "difference": gain}
    run.folder("eval").path.mkdir()
    finish(run, "eval", {}, {**scores, "benchmarks": [{"name": "exam", **scores}], "protocol": {}})
    assert list(run.made_before("push")) == ["generate", "filter", "sft", "eval"]
    other = changed(measured, eval={"samples_per_problem": 2})
    with pytest.raises(UserError, match=r"(?s)since eval was run.*eval\.samples_per_problem: 4 -> 2"):
        RunContext(other, run_dir).made_before("push")


# --- bytes


def cut_rows(file):
    pq.write_table(pq.read_table(file).slice(0, 1), file)


def rewrite(file):
    table = pq.read_table(file)
    place = table.schema.get_field_index("answer")
    pq.write_table(table.set_column(place, table.schema.field(place), [["8"] * table.num_rows]), file)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [cut_rows, rewrite, flip, lambda file: file.unlink(), lambda file: file.write_bytes(b""),
     lambda file: shutil.copy(file, file.with_name("train-00001-of-00002.parquet")),
     lambda file: shutil.rmtree(file.parent)],
    ids=["cut", "rewritten", "flipped", "gone", "empty", "one more", "folder gone"],
)  # fmt: skip
def test_damaged_rows_are_never_trained_on_and_the_filter_makes_them_again(filtered, damage):
    recipe, run_dir = filtered
    before = sha256_of(run_dir / "filter" / "kept")
    damage(shards(run_dir)[0])
    for train in (lambda: run_recipe(recipe, run_dir.parent, ["sft"]), lambda: check_sft(recipe, run_dir.parent)):
        with pytest.raises(StoreError, match=r"filter/kept is not what filter left there.*`distill filter`"):
            train()
    said = []
    run_recipe(recipe, run_dir.parent, ["filter"], say=said.append)
    assert "filter/kept: damaged" in said[0]
    assert sha256_of(run_dir / "filter" / "kept") == before
    sft.verify_inputs(RunContext(recipe, run_dir))


@pytest.mark.parametrize("name", ["dropped", "verdicts.jsonl", "decontamination.json"])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_every_output_of_the_filter_is_made_again(filtered, name, how):
    recipe, run_dir = filtered
    path = run_dir / "filter" / name
    before = sha256_of(path)
    file = path if path.is_file() else next(path.iterdir())
    if how == "gone":
        file.unlink()
    else:
        flip(file)
    said = []
    run_recipe(recipe, run_dir.parent, ["filter"], say=said.append)
    assert f"filter/{name}: damaged" in said[0]
    assert sha256_of(path) == before


def test_a_damaged_student_is_not_measured_and_force_trains_it_again(filtered, monkeypatch):
    recipe, run_dir = filtered
    run = trained(recipe, run_dir)
    weights = run.folder("sft").path / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"]")  # as long as before
    with pytest.raises(StoreError, match=r"(?s)model\.safetensors.*`distill sft --force`"):
        eval.verify_inputs(run)
    asked = []

    def train(run):
        asked.append(run)
        raise StageError("sft: stop here")

    monkeypatch.setattr("distill.stages.sft.run", train)
    run_recipe(recipe, run_dir.parent, ["sft"])  # nobody reads the weights, so they are not read here either
    with pytest.raises(StageError):
        run_recipe(recipe, run_dir.parent, ["sft"], force=True)
    assert asked
    assert (run_dir / "sft.replaced-1" / "student" / "model.safetensors").exists()


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
def test_a_student_that_is_gone_is_not_trained_again_unasked(filtered, damage):
    recipe, run_dir = filtered
    run = trained(recipe, run_dir)
    damage(run.folder("sft").path / "student" / "model.safetensors")
    with pytest.raises(StoreError, match="distill sft --force"):
        run_recipe(recipe, run_dir.parent, ["sft"])
    assert run.folder("sft").is_complete


def test_files_of_ones_own_beside_the_students_are_no_damage_where_nobody_reads_it(filtered):
    recipe, run_dir = filtered
    run = trained(recipe, run_dir)
    (run.folder("sft").path / "notes.txt").write_text("mine")
    run_recipe(recipe, run_dir.parent, ["sft"])


def test_lost_problems_are_written_again(filtered):
    recipe, run_dir = filtered
    before = (run_dir / "generate" / "problems.jsonl").read_bytes()
    (run_dir / "generate" / "problems.jsonl").write_bytes(before[:-20])
    with pytest.raises(StoreError, match="`distill generate`"):
        filter.verify_inputs(RunContext(recipe, run_dir))
    assert not RunContext(recipe, run_dir).folder("generate").is_complete


def test_a_lost_list_of_shards_loses_no_sample(filtered):
    recipe, run_dir = filtered
    before = list(stored_traces(run_dir / "generate"))
    (run_dir / "generate" / "shards.json").unlink()
    assert generate.check(RunContext(recipe, run_dir)) == []
    assert list(stored_traces(run_dir / "generate")) == before
    (run_dir / "generate" / "shards.json").unlink()
    flip(next((run_dir / "generate" / "traces").glob("*.parquet")))
    assert "damaged (checksum)" in generate.check(RunContext(recipe, run_dir))[0]


# --- an attempt that made nothing


def test_an_import_that_read_nothing_never_asks_for_force(tmp_path):
    wrong = imported(tmp_path, traces=[{"source": f"file:{tmp_path / 'nowhere.jsonl'}"}])
    with pytest.raises(UserError, match="no such file"):
        run_recipe(wrong, tmp_path / "runs", ["import"])
    assert run_recipe(imported(tmp_path), tmp_path / "runs", ["import"])["import"]["num_samples"] == 10
    with pytest.raises(StoreError, match="--force"):  # now there is something
        run_recipe(imported(tmp_path, "other.jsonl", rows(3)), tmp_path / "runs", ["import"])


def test_a_stopped_import_leaves_nothing_to_the_next(tmp_path):
    run = RunContext(imported(tmp_path), tmp_path / "runs" / "made")
    run.folder("import").claim(import_traces.identity(run))
    with Ledger(run.folder("import").path / "ledger.jsonl") as ledger:
        ledger.append([Trace("old", 0, "t", "", RIGHT, "3 + 4 = 7", "7", "stop", 0, 0, 0)])
    other = imported(tmp_path, "other.jsonl", rows(2))
    assert run_recipe(other, tmp_path / "runs", ["import"])["import"]["num_samples"] == 4


def test_samples_that_are_all_errors_are_nothing_to_protect(make_recipe, tmp_path, fake_engine, finish_generate):
    recipe = make_recipe()
    run = RunContext(recipe, tmp_path / "runs" / "small")
    run.folder("generate").claim(generate.identity(run))
    failed = [Trace(f"p{i}", 0, "t", "", "", "", "", "error", 0, 0, 0, error="404: no such model") for i in range(3)]
    with Ledger(run.folder("generate").path / "ledger.jsonl") as ledger:
        ledger.append(failed)
    other = RunContext(changed(recipe, generate={"system": "Be brief."}), run.run_dir)
    assert generate.discard_if_empty(other)
    assert not (run.folder("generate").path / "ledger.jsonl").exists()
    with Ledger(run.folder("generate").path / "ledger.jsonl") as ledger:
        ledger.append([*failed, Trace("p9", 0, "t", "", RIGHT, "3 + 4 = 7", "7", "stop", 9, 9, 0)])
    assert not generate.discard_if_empty(other)
    assert (run.folder("generate").path / "ledger.jsonl").exists()


def test_a_training_that_has_left_no_checkpoint_is_nothing_to_protect(filtered):
    recipe, run_dir = filtered
    run = RunContext(recipe, run_dir)
    run.folder("sft").claim(sft.identity(run))
    assert sft.discard_if_empty(run)
    (run.folder("sft").path / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    assert not sft.discard_if_empty(run)


# --- a filter that keeps nothing


def test_a_filter_that_keeps_nothing_stops_the_run_and_names_the_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bare = [{**row, "response": row["response"].partition("</think>")[2].strip()} for row in rows()]
    recipe, runs = imported(tmp_path, told=bare), tmp_path / "runs"
    for stages in (["import", "filter"], None, ["filter"]):
        with pytest.raises(UserError) as caught:
            run_recipe(recipe, runs, stages)
        assert "filter: the filter kept none of 10 traces" in str(caught.value)
        assert "no_think 10: no <think> … </think> block (filter.require_think: false keeps them)" in str(caught.value)
    with pytest.raises(UserError, match=r"sft: .*\n.*filter\.require_think: false"):
        run_recipe(recipe, runs, ["sft"])
    folder = runs / "made"
    assert read_json(folder / "summary.json")["stopped"]["stage"] == "filter"
    assert (folder / "filter" / "verdicts.jsonl").stat().st_size
    assert "filter.require_think: false" in (folder / "report.html").read_text()
    note_command(folder, recipe, None, ["r.yaml"])
    told = describe_run(folder)
    assert [one["state"] for one in told["stages"]][:2] == ["complete", "stopped"]
    assert told["next_command"] == "distill run r.yaml"
    note_command(folder, recipe, "import", ["r.yaml"])
    assert describe_run(folder)["next_command"] == "distill filter r.yaml"
    # Nothing was kept, so nothing is to be protected from the next filter.
    looser = changed(recipe, filter={"require_think": False})
    assert run_recipe(looser, runs, ["filter"])["filter"]["num_kept"] == 5
    assert "stopped" not in read_json(folder / "summary.json")


def test_where_the_teacher_only_failed_that_is_said(make_recipe, tmp_path, fake_engine, finish_generate):
    generate = {**make_recipe().generate.model_dump(exclude_unset=True), "compute": {"max_error_share": 1.0}}
    recipe = make_recipe(generate=generate)
    engine = fake_engine([])
    engine.submit = lambda request: engine.requests.append(request) or _failed(request)
    finish_generate(recipe, tmp_path / "runs", engine)
    with pytest.raises(UserError, match=r"the teacher answered none of the requests.*--retry-errors"):
        run_recipe(recipe, tmp_path / "runs", ["filter"])


def _failed(request):
    from distill.engines.base import Completion

    return Completion(request.key, "", "error", 0, 0, error="404: no such model")


# --- tokens


def test_tokens_that_nobody_told_are_unknown_and_the_filters_are_used(tmp_path):
    recipe, runs = imported(tmp_path), tmp_path / "runs"
    summary = run_recipe(recipe, runs, ["import", "filter"])
    assert summary["import"]["num_completion_tokens"] is None
    kept = pq.read_table(shards(runs / "made")[0])
    assert kept["num_completion_tokens"].to_pylist() == [None] * 5
    tokens = kept["num_student_tokens"].to_pylist()
    assert min(tokens) > 10
    assert summary["filter"]["num_kept_tokens"] == sum(tokens)
    assert summary["filter"]["tokens_counted_by"] == "student"
    estimate = summary["estimate"]["stages"]["import"].get("tokens")
    assert estimate is None or estimate["actual"] is None


def test_tokens_that_a_source_tells_are_added_up(tmp_path):
    recipe = imported(tmp_path, told=rows(num_completion_tokens=11))
    assert run_recipe(recipe, tmp_path / "runs", ["import"])["import"]["num_completion_tokens"] == 110
    some = imported(tmp_path, "some.jsonl", [*rows(2, num_completion_tokens=11), *rows(3)[4:]], name="some")
    assert run_recipe(some, tmp_path / "runs", ["import"])["import"]["num_completion_tokens"] is None


def test_where_no_length_is_limited_the_teachers_tokens_count(filtered):
    _, run_dir = filtered
    summary = read_json(run_dir / "summary.json")
    assert summary["filter"]["tokens_counted_by"] == "teacher"
    assert summary["filter"]["num_kept_tokens"] == pq.read_table(shards(run_dir)[0])["num_completion_tokens"][0].as_py()


def test_what_other_models_are_measured_does_not_concern_the_student(tmp_path):
    measured = {"benchmarks": [{"source": f"file:{tmp_path}/made.jsonl"}], "sampling": {"max_tokens": 64}}
    before = imported(tmp_path, eval=measured)
    after = imported(tmp_path, eval={**measured, "models": ["org/other"]})
    manifest = {"stage": "eval", "recipe": before.model_dump(mode="json")}
    assert changed_settings(after, "eval", manifest) == {}
    assert changed_settings(after, "measure", manifest | {"stage": "measure"}).keys() == {"eval.models"}
    longer = imported(tmp_path, eval={**measured, "sampling": {"max_tokens": 65}})
    assert "eval.sampling.max_tokens" in changed_settings(longer, "eval", manifest)
