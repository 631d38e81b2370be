"""What would be published: files, cards and texts; refusals of what has no place on the Hub."""

import json

import pytest
import yaml

from distill.core.redaction import local_name, scrub
from distill.errors import StoreError, UserError
from distill.publish.files import hashes_of, model_files
from distill.publish.licences import flags as licence_flags
from distill.publish.licences import licence_of, named_licence, student_licence
from distill.publish.markdown import code, escape, front_matter, paragraph
from distill.publish.preview import plan_json, plan_text
from distill.stages import push
from distill.storage.fingerprints import sha256_of

BOTH = {"repo": "me/small", "dataset": "me/small-data", "dropped": True}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A dry run needs none."""
    import socket

    def refuse(*args):
        raise AssertionError("a dry run asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def metadata_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_dry_run_shows_cards_and_exact_files(make_run, documented):
    run = make_run(push=BOTH)
    plan = push.dry_run(run)
    documented("distill push --dry-run --json", plan_json(plan))
    text = plan_text(plan)
    weights = run.run_dir / "sft/student/model.safetensors"
    assert "model me/small (private if new)" in text
    assert "# small-data" in text
    files = {f["path"]: f for f in plan_json(plan)["publications"][1]["files"]}
    assert files["model.safetensors"] == {
        "path": "model.safetensors",
        "num_bytes": weights.stat().st_size,
        "sha256": sha256_of(weights),
    }
    assert not (run.run_dir / "push").exists() or not (run.run_dir / "push/manifest.json").exists()


def test_the_model_card_tells_the_results_with_protocol_and_interval(make_run):
    card = push.dry_run(make_run()).publications[0].card
    metadata = metadata_of(card)
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 44.5
    assert result["metrics"][0]["args"]["interval_95_percent"] == [37.5, 51.5]
    assert result["metrics"][0]["args"]["temperature"] == 0.6
    assert metadata["license"] == "apache-2.0"
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "text-generation")
    assert "base_model" not in metadata  # a folder of this machine is no Hub id
    assert "**44.5** (37.5 to 51.5) | +38.5 (+31.0 to +46.0)" in card
    assert "| `wrong_answer` | -4 |" in card
    assert "| exam | file:exam.jsonl |" in card
    assert "2.125 at the first step, 0.4321 at the last" in card


def test_the_model_card_tells_ratings_and_counts_as_they_are(make_run, retell):
    run = make_run()
    [benchmark] = run.folder("eval").manifest["metrics"]["benchmarks"]
    benchmark["student"]["figures"] = {
        "tests_passed": {"value": 0.625, "interval_95": [0.5, 0.75]},
        "problems_with_weak_tests": {"value": 3},
        "rating_by_rank": {"value": 1612.4, "interval_95": [1488.2, 1733.0]},
        "rating_contests": {"value": 10},
        "rating_ahead_of": {"value": 0.7123},
    }
    retell(run, "eval", metrics={"benchmarks": [benchmark]})
    card = push.dry_run(run).publications[0].card
    for told in (
        "tests passed 62.5 (50.0 to 75.0)\n",
        "problems with weak tests 3\n",
        "rating by rank 1612 (1488 to 1733)\n",
        "rating contests 10\n",
        "rating ahead of 71.2\n",
    ):
        assert f"held-out, this model: {told}" in card


def test_the_cards_code_is_python(make_run):
    import ast

    for publication in push.dry_run(make_run(push=BOTH)).publications:
        for block in publication.card.split("```python\n")[1:]:
            ast.parse(block.split("```")[0])


@pytest.mark.slow
def test_the_transformers_snippet_runs(make_run, tiny_llama):
    card = push.dry_run(make_run(eval={"held_out": 2, "sampling": {"max_tokens": 8}})).publications[0].card
    snippet = card.split("```python\n")[1].split("```")[0]
    exec(snippet.replace('"me/small"', repr(str(tiny_llama))), {})


def test_nothing_of_this_machine_is_in_what_is_published(make_run, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "canary-0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_test_canary_0123456789abcdef")
    lora = {"method": "lora", "max_length": 256, "batch_size": 2, "trl": {"optim": "canary-0123456789"}}
    run = make_run(push=BOTH, sft=lora, description="Key canary-0123456789 of hf_test_canary_0123456789abcdef.")
    for publication in push.dry_run(run).publications:
        for file in publication.files:
            content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
            assert b"canary" not in content, file.path
            assert b"/tmp/" not in content, file.path
            assert str(tmp_path).encode() not in content, file.path


def test_the_recipe_and_its_lock_go_along(make_run):
    files = {f.path: f for f in push.dry_run(make_run()).publications[0].files}
    recipe = yaml.safe_load(files["distill/recipe.yaml"].source)
    lock = yaml.safe_load(files["distill/recipe.lock.yaml"].source)
    assert recipe["problems"][0]["source"] == "file:sums.jsonl"
    assert recipe["sft"]["epochs"] == 3.0  # a default, written out
    assert lock["seeds"] == {"recipe": 3, "eval": 4}
    assert lock["stages"]["sft"]["versions"]["torch"] == "2.13.0"
    certificate = json.loads(files["distill/decontamination.json"].source)
    assert certificate["num_problems_removed"] == 1
    assert "matched" not in str(certificate)  # an evaluation item's words must not be published


def test_a_whole_benchmark_of_the_hub_is_told_to_its_leaderboard_and_a_part_is_not(make_run):
    run = make_run(
        benchmarks=("gsm8k", "MATH-500"),
        eval={
            "benchmarks": [
                {"source": "hf:openai/gsm8k", "config": "main", "split": "test"},
                {"source": "hf:HuggingFaceH4/MATH-500", "split": "test", "limit": 50},
            ],
            "sampling": {"max_tokens": 512},
        },
    )
    files = {f.path: f.source for f in push.dry_run(run).publications[0].files if f.path.startswith(".eval_results")}
    assert list(files) == [".eval_results/openai--gsm8k-main-test.yaml"]
    (entry,) = yaml.safe_load(files[".eval_results/openai--gsm8k-main-test.yaml"])
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k"}
    assert entry["value"] == 44.5
    assert "95% interval 37.5 to 51.5" in entry["notes"]


def test_several_benchmarks_have_a_file_each_under_the_task_that_the_hub_knows(make_run):
    run = make_run(
        benchmarks=("gpqa", "MMLU-Pro"),
        eval={
            "benchmarks": [
                {"source": "hf:Idavidrein/gpqa", "config": "gpqa_diamond", "split": "train"},
                {"source": "hf:TIGER-Lab/MMLU-Pro", "split": "test"},
            ],
            "sampling": {"max_tokens": 512},
        },
    )
    files = [f for f in push.dry_run(run).publications[0].files if f.path.startswith(".eval_results")]
    tasks = [yaml.safe_load(file.source)[0]["dataset"] for file in files]
    assert [(one["id"], one["task_id"]) for one in tasks] == [
        ("Idavidrein/gpqa", "diamond"),
        ("TIGER-Lab/MMLU-Pro", "mmlu_pro"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"student": {"num_ungraded": 2, "bounds": [0.4, 0.6]}},
        {"student": {"num_missing": 2, "bounds": [0.4, 0.6]}},
        {"protocol": {"judge": "org/judge"}},
    ],
)
def test_an_incomplete_score_and_a_judges_are_told_to_no_leaderboard(make_run, retell, change):
    gsm8k = {"source": "hf:openai/gsm8k", "config": "main", "split": "test"}
    run = make_run(benchmarks=("gsm8k",), eval={"benchmarks": [gsm8k], "sampling": {"max_tokens": 512}})
    metrics = run.folder("eval").manifest["metrics"]
    (row,) = metrics["benchmarks"]
    retell(
        run, "eval", metrics={"benchmarks": [{**row, **{key: {**row.get(key, {}), **change[key]} for key in change}}]}
    )
    files = [f.path for f in push.dry_run(run).publications[0].files]
    assert not [path for path in files if path.startswith(".eval_results")]


def test_an_empty_table_is_left_out_and_told(make_run, retell):
    run = make_run(push=BOTH)
    retell(run, "filter", metrics={"num_kept": run.folder("filter").manifest["metrics"]["num_traces"]})
    plan = push.dry_run(run)
    assert "cannot load a table without rows" in plan.left_out[0]
    assert [config["config_name"] for config in metadata_of(plan.publications[0].card)["configs"]] == ["default"]


def test_every_column_is_documented(make_run):
    import pyarrow.parquet as pq

    from distill.publish.dataset_card import DROPPED_COLUMNS, KEPT_COLUMNS

    run = make_run()
    for folder, columns in (("kept", KEPT_COLUMNS), ("dropped", DROPPED_COLUMNS)):
        (file,) = (run.run_dir / "filter" / folder).glob("*.parquet")
        assert set(pq.read_schema(file).names) == columns.keys()


# --- what is refused


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "model.pkl", "rng_state.pth", "evil.py", "x.safetensors"]
)
def test_a_pickle_or_a_stranger_in_the_folder_stops_everything(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(StoreError, match="nothing is published"):
        model_files(tmp_path, hashes_of(tmp_path), "base")


def test_a_pickle_that_is_called_safetensors_is_found(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(100))
    with pytest.raises(StoreError, match="is not a safetensors file"):
        model_files(tmp_path, hashes_of(tmp_path), "base")


def test_a_link_is_refused(tmp_path):
    (tmp_path / "secret").write_text("{}")
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="a link"):
        model_files(folder, hashes_of(folder), "base")


def test_a_damaged_student_is_refused(make_run):
    run = make_run()
    (run.run_dir / "sft/student/config.json").write_text("{}")
    with pytest.raises(StoreError, match="content has changed since its stage wrote it"):
        push.dry_run(run)


def test_a_student_trained_from_other_rows_is_refused(make_run, retell):
    run = make_run()
    retell(run, "sft", identity={"rows": "0" * 64})
    with pytest.raises(StoreError, match="sft was made from another result of filter"):
        push.dry_run(run)


def test_a_recipe_that_has_changed_since_is_refused(make_run, retell):
    run = make_run()
    retell(run, "sft", config={"epochs": 1.0})
    with pytest.raises(UserError, match=r"sft\.epochs: 1\.0 -> 3\.0"):
        push.dry_run(run)


def test_an_unfinished_stage_is_named(make_run):
    run = make_run()
    (run.run_dir / "eval/manifest.json").unlink()
    with pytest.raises(UserError, match="Run `distill eval` first"):
        push.dry_run(run)


def test_checkpoints_that_were_not_kept_are_told(make_run):
    with pytest.raises(UserError, match="training has kept no checkpoint"):
        push.dry_run(make_run(push={"repo": "me/small", "checkpoints": True}))


@pytest.mark.parametrize("name", ["me/small--model", "me/small.git", "me/a..b"])
def test_a_name_that_the_hub_does_not_take(make_run, name):
    with pytest.raises(UserError, match=r"push\.repo: .* is not a valid repository name"):
        push.dry_run(make_run(push={"repo": name}))


# --- licences


@pytest.mark.parametrize(
    ("teacher", "level"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", None),
        ("openai/gpt-oss-20b", None),
        ("gpt-5-mini", "refusal"),
        ("anthropic/claude-sonnet-4", "refusal"),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "refusal"),
        ("meta-llama/Llama-3.3-70B-Instruct", "warning"),
        ("google/gemma-3-27b-it", "warning"),
        ("some-served-name", "warning"),
    ],
)
def test_what_a_teachers_licence_means(teacher, level):
    licence = licence_of(teacher)
    found = licence_flags(
        "me/Llama-small", named_licence("apache-2.0"), ("org/base", named_licence("apache-2.0")), [(teacher, licence)]
    )
    assert [flag.level for flag in found] == ([level] if level else [])


def test_a_forbidding_licence_lets_its_own_family_learn():
    licence = licence_of("meta-llama/Meta-Llama-3-70B-Instruct")
    base = ("meta-llama/Llama-3.1-8B", named_licence("llama3.1"))
    found = licence_flags("me/Llama-small", named_licence("llama3.1"), base, [("llama", licence)])
    assert {flag.level for flag in found} == {"warning"}


def test_llamas_terms_reach_the_name_the_card_and_a_notice():
    base = licence_of("meta-llama/Llama-3.1-8B")
    found = licence_flags("me/small", base, ("meta-llama/Llama-3.1-8B", base), [])
    assert 'begin with "Llama"' in found[0].text
    assert base.built_with == "Built with Llama"
    assert "Llama 3.1 is licensed under" in base.notice


def test_gemmas_terms_pass_on_to_the_student():
    gemma = licence_of("google/gemma-3-27b-it")
    assert student_licence(None, named_licence("apache-2.0"), [gemma]).id == "gemma"
    assert student_licence("mit", named_licence("apache-2.0"), [gemma]).id == "mit"


def test_a_folders_own_card_states_its_licence(base_model, tmp_path):
    assert licence_of(str(base_model), base_model).id == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: my-terms\n---\n")
    assert licence_of(str(tmp_path), tmp_path).name == "my-terms"


# --- texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&#60;script&#62;alert(1)&#60;/script&#62;"),
        ("a | b\n# head", "a &#124; b # head"),
        ("[x](http://evil)", "&#91;x&#93;(http:&#47;&#47;evil)"),
        ("$$x$$ \\( y", "&#36;&#36;x&#36;&#36; &#92;( y"),
        ("snake_case is _kept_", "snake_case is &#95;kept&#95;"),
        ("-0.5 of 3.2", "-0.5 of 3.2"),
        ("turn\u202eed", "turn ed"),
    ],
)
def test_values_cannot_become_markdown(text, shown):
    assert escape(text) == shown


def test_a_paragraph_cannot_become_a_heading_and_code_cannot_end():
    assert paragraph("# big") == "&#35; big"
    assert code("a`b") == "a&#96;b"
    assert yaml.safe_load(front_matter({"a": "x\n---\ny: 1", "b": None}).strip("-\n")) == {"a": "x --- y: 1"}


def test_local_paths_and_hosts_are_scrubbed():
    cached = "/root/.cache/huggingface/hub/models--org--name/snapshots/0123/config.json"
    assert local_name(cached) == "org/name/config.json"
    value = {"path": "see /tmp/secret/place/file.jsonl now", "base_urls": ["http://10.0.0.7:8000/v1"], "n": 1}
    assert scrub(value) == {"path": "see file.jsonl now", "base_urls": ["http://server-1.invalid/v1"], "n": 1}
    assert scrub("https://example.org/tmp/x and 1/2/3") == "https://example.org/tmp/x and 1/2/3"
    assert scrub("hf_" + "a1" * 16) == "[redacted]"


# --- rows with secrets


def with_secret(run, name, secret):
    """Put a secret into the first row of a table, as a filter without this check would have left it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (file,) = (run.run_dir / "filter" / name).glob("*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    if name == "kept":
        rows[0]["completion"][-1]["content"] += secret
    else:
        rows[0]["text"] += secret
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    return f"{name} {rows[0]['problem_id']}/{rows[0]['sample_index']}: "


@pytest.mark.parametrize("dataset", [None, "me/small-data"])
def test_a_kept_row_with_a_secret_stops_the_push_with_its_id(make_run, monkeypatch, dataset):
    monkeypatch.setenv("DB_PASSWORD", "opensesame-4711")
    run = make_run(push={"repo": "me/small", "dataset": dataset})
    name = with_secret(run, "kept", " it is opensesame-4711")
    with pytest.raises(UserError) as caught:
        push.dry_run(run)
    assert name in str(caught.value)
    assert "opensesame" not in str(caught.value)


def test_a_dropped_row_with_a_key_stops_the_push_where_dropped_rows_go_along(make_run):
    key = "hf_" + "QwzTnVbKpLmRsXcYdFgHjEuAoiWvBzNtMq"
    run = make_run(push=BOTH)
    name = with_secret(run, "dropped", key)
    with pytest.raises(UserError) as caught:
        push.dry_run(run)
    assert f"{name}a Hugging Face token" in str(caught.value)
    assert key not in str(caught.value)
