"""Suites loaded from rows with the Hub's columns and types, and through a Hub on loopback."""

import csv
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import ProblemError
from distill.models.hub import loaded_commit
from distill.recipe.eval import EvalConfig
from distill.recipe.model import Recipe
from distill.recipe.suites import load_suite
from distill.sources.baselines import load_baseline
from distill.sources.problem_rows import content_hash_of
from distill.sources.problems import load_problem_sets, load_problems

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared problems are not here")
TOKEN = "hf_test_canary_0123456789abcdef"
JUDGE = {"model": "org/judge", "compute": {"base_urls": ["http://localhost:8000/v1"]}}
OPTIONS = ["red", "green", "blue", "white", "black", "grey", "pink", "brown", "cyan", "amber"]
NULLS = {"num_words": None, "relation": None, "keywords": None}
ROWS = {
    "aime24": [
        {"id": 60 + i, "problem": f"Find {i} + 200.", "solution": "Add.", "answer": str(200 + i), "url": "x",
         "year": "2024"}
        for i in range(3)
    ],
    "aime25": [
        {"id": i, "problem": f"Find {i} + 300.", "answer": str(300 + i), "solution": "Add.", "url": "x", "year": "2025"}
        for i in range(3)
    ],
    "math-500": [
        {"problem": "What is half of one?", "solution": "…", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 1,
         "unique_id": "test/algebra/7.json"},
    ],
    "gsm8k": [{"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}],
    "gpqa-diamond": [
        {"Record ID": "rec1", "Question": "Which is it?", "Correct Answer": "B", "Incorrect Answer 1": "A",
         "Incorrect Answer 2": "1e3 \n", "Incorrect Answer 3": "1000", "High-level domain": "Physics",
         "Subdomain": "x"},
        {"Record ID": "rec2", "Question": "And now?", "Correct Answer": "None", "Incorrect Answer 1": "one",
         "Incorrect Answer 2": "two", "Incorrect Answer 3": "three", "High-level domain": "Biology", "Subdomain": "y"},
    ],
    "mmlu": [
        {"question": "Which colour has the sky?", "subject": "colours", "choices": OPTIONS[:4], "answer": 2},
        {"question": "Which colour has grass?", "subject": "colours", "choices": OPTIONS[:4], "answer": 1},
    ],
    "mmlu-pro": [
        {"question_id": 70 + num, "question": f"Which of {num}?", "options": OPTIONS[:num], "cot_content": "",
         "src": "x", "answer": "ABCDEFGHIJ"[num - 1], "answer_index": num - 1, "category": "law"}
        for num in range(3, 11)
    ],
    "simpleqa": [
        {"metadata": "{'topic': 'Sums', 'urls': ['https://a', 'https://b']}", "problem": "Two and two, in a word?",
         "answer": "four"},
    ],
    "ifeval": [
        {"key": 1000, "prompt": "Say it in 3 words, no commas.", "instruction_id_list": ["punctuation:no_comma", "x:y"],
         "kwargs": [NULLS, {**NULLS, "num_words": 3, "relation": "at least"}]},
    ],
    "alpaca-eval-2": [
        {"instruction": "Say hello.", "output": "Hello!", "generator": "gpt4_1106_preview", "dataset": "koala"},
        {"instruction": "Say bye.", "output": "Bye!", "generator": "gpt4_1106_preview", "dataset": "vicuna"},
    ],
    "arena-hard-0.1": [
        {"uid": "a1", "category": "arena-hard-v0.1", "cluster": "Music", "prompt": "Write a tune."},
        {"uid": "b2", "category": "arena-hard-v0.1", "cluster": "Music", "prompt": "Write  two\ntunes."},
    ],
}  # fmt: skip
"""Made rows, with the columns and the types that each suite has on the Hub."""
HAS_LISTS = {"mmlu", "mmlu-pro", "ifeval"}
GOLDS = {
    "aime24": ["200", "201", "202"], "aime25": ["300", "301", "302"], "math-500": ["\\frac{1}{2}"], "gsm8k": ["4"],
    "mmlu": ["C", "B"], "mmlu-pro": list("CDEFGHIJ"), "simpleqa": ["four"], "ifeval": [None],
    "alpaca-eval-2": [None, None], "arena-hard-0.1": [None, None],
}  # fmt: skip


def save(rows, path):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def benchmark(suite, path, **keys):
    """A suite whose problems are in a file of this machine."""
    entry = {"suite": suite, "source": f"file:{path}", "sha256": None, **keys}
    (found,) = EvalConfig.model_validate({"benchmarks": [entry], "judge": JUDGE}).benchmarks
    return found


def load(suite, path, seed=0, **keys):
    measured = benchmark(suite, path, **keys)
    return load_problems(measured, seed, measured.metric in ("instructions", "win-rate", "arena"))


def evaluation(*entries, problems=()):
    """A recipe that evaluates on these entries, and trains on `problems` or else on traces made elsewhere."""
    made = {"problems": list(problems), "generate": {"teacher": "org/teacher"}}
    return Recipe.model_validate(
        {
            "name": "small",
            "student": "org/student",
            "eval": {"benchmarks": list(entries), "judge": JUDGE},
            **(made if problems else {"traces": [{"source": "hf:org/traces"}]}),
        }
    )


# --- every suite, from every kind of file


KINDS = (".jsonl", ".json", ".csv", ".parquet")


@pytest.mark.parametrize(
    ("suite", "kind"),
    [(suite, kind) for suite in GOLDS for kind in KINDS if kind != ".csv" or suite not in HAS_LISTS],
)
def test_rows_as_on_the_hub_become_problems(suite, kind, tmp_path):
    path = save(ROWS[suite], tmp_path / f"rows{kind}")
    problems = load(suite, path)
    assert [problem.answer for problem in problems] == GOLDS[suite]
    assert {problem.task for problem in problems} == {load_suite(suite).benchmark.task}
    assert content_hash_of(benchmark(suite, path)) == content_hash_of(
        benchmark(suite, save(ROWS[suite][::-1], tmp_path / "reversed.jsonl"))
    )


def test_the_papers_directive_stands_in_the_users_prompt(tmp_path):
    (problem,) = load("math-500", save(ROWS["math-500"], tmp_path / "rows.jsonl"))
    assert problem.prompt == [
        {
            "role": "user",
            "content": "What is half of one?\nPlease reason step by step, and put your final answer within \\boxed{}.",
        }
    ]
    assert (problem.id, problem.metadata) == ("test/algebra/7.json", {"group": "Algebra"})


def test_as_many_letters_are_named_as_an_item_has_options(tmp_path):
    problems = load("mmlu-pro", save(ROWS["mmlu-pro"], tmp_path / "rows.parquet"))
    three, *_, ten = problems
    assert "A) red\nB) green\nC) blue\n\nPlease" in three.question
    assert "(A, B or C) within" in three.question
    assert "J) amber\n\nPlease" in ten.question
    assert "(A, B, C, D, E, F, G, H, I or J) within" in ten.question
    assert [len(problem.metadata["options"]) for problem in problems] == list(range(3, 11))
    assert three.metadata["group"] == "law"


def test_keywords_of_instructions_have_no_null_from_the_tables_schema(tmp_path):
    for kind in (".jsonl", ".parquet"):
        (problem,) = load("ifeval", save(ROWS["ifeval"], tmp_path / f"rows{kind}"))
        assert problem.metadata["kwargs"] == [{}, {"num_words": 3, "relation": "at least"}]
        assert problem.metadata["instruction_ids"] == ["punctuation:no_comma", "x:y"]
        assert (problem.id, problem.answer) == ("1000", None)
    bare = [{**row, "kwargs": [{}, {"relation": "at least", "num_words": 3}]} for row in ROWS["ifeval"]]
    hashes = {
        content_hash_of(benchmark("ifeval", save(rows, tmp_path / f"{number}.jsonl")))
        for number, rows in enumerate([bare, ROWS["ifeval"]])
    }
    assert len(hashes) == 1


def test_a_baseline_in_the_rows_is_kept_with_each_problem(tmp_path):
    problems = load("alpaca-eval-2", save(ROWS["alpaca-eval-2"], tmp_path / "rows.json"))
    assert [problem.metadata for problem in problems] == [
        {"baseline": "Hello!", "group": "koala"},
        {"baseline": "Bye!", "group": "vicuna"},
    ]


def test_a_fact_without_its_answer_is_refused(tmp_path):
    path = save([*ROWS["simpleqa"], {"metadata": "", "problem": "And?", "answer": ""}], tmp_path / "rows.csv")
    with pytest.raises(ProblemError, match="1 rows have no answer"):
        load_problem_sets(evaluation({"suite": "simpleqa", "source": f"file:{path}", "sha256": None}))


def test_repeated_rows_are_items_of_their_own(tmp_path):
    path = save([*ROWS["mmlu"], ROWS["mmlu"][0]], tmp_path / "rows.jsonl")
    entry = {"suite": "mmlu", "source": f"file:{path}"}
    problems = load_problem_sets(evaluation(entry)).benchmarks["mmlu"]
    first, other, again = (problem.id for problem in problems)
    assert again == f"{first}-2" != other


# --- GPQA: the order of options


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_options_are_shuffled_by_seed_and_the_letter_follows_its_text(kind, tmp_path):
    path = save(ROWS["gpqa-diamond"], tmp_path / f"rows{kind}")
    orders = set()
    for seed in range(20):
        problems = load("gpqa-diamond", path, seed)
        assert problems == load("gpqa-diamond", path, seed)
        for problem, row in zip(problems, ROWS["gpqa-diamond"], strict=True):
            options, order = problem.metadata["options"], problem.metadata["option_order"]
            stored = [row[column].strip() for column in load_suite("gpqa-diamond").benchmark.columns.options]
            assert options == [stored[place] for place in order]
            assert options["ABCD".index(problem.answer)] == row["Correct Answer"]
            assert order["ABCD".index(problem.answer)] == 0
        orders.add(tuple(tuple(problem.metadata["option_order"]) for problem in problems))
    assert len(orders) > 10
    assert problems[0].metadata["group"] == "Physics"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=4, max_size=4))
def test_any_four_texts_have_a_letter_that_is_the_right_ones(tmp_path_factory, texts):
    columns = load_suite("gpqa-diamond").benchmark.columns
    row = {
        **dict(zip(columns.options, texts, strict=True)),
        "Record ID": "r",
        "Question": "Which?",
        "High-level domain": "x",
    }
    path = save([row], tmp_path_factory.mktemp("rows") / "rows.jsonl")
    (problem,) = load("gpqa-diamond", path)
    assert problem.metadata["options"]["ABCD".index(problem.answer)] == texts[0].strip()


# --- ids, content, dates


def test_ids_of_two_suites_never_collide(tmp_path):
    clash = [{**row, "id": 70 + number} for number, row in enumerate(ROWS["aime24"])]
    later = [{**row, "id": 70 + number} for number, row in enumerate(ROWS["aime25"])]
    rows = {"aime24": clash, "aime25": later, "mmlu-pro": ROWS["mmlu-pro"], "mmlu": ROWS["mmlu"]}
    entries = [
        {"suite": suite, "source": f"file:{save(own, tmp_path / f'{suite}.jsonl')}"} for suite, own in rows.items()
    ]
    sets = load_problem_sets(evaluation(*entries, {**entries[0], "samples_per_problem": 2}))
    assert list(sets.benchmarks) == [*rows, "aime24+"]
    ids = [problem.id for problems in sets.benchmarks.values() for problem in problems]
    assert len(set(ids)) == len(ids) == 3 + 3 + 8 + 2 + 3
    assert {"aime24/70", "aime25/70", "mmlu-pro/73", "aime24+/70"} <= set(ids)
    assert len(sets.measured_questions) == 3 + 3 + 8 + 2


def test_a_suites_question_is_kept_out_of_training_whatever_its_id(tmp_path):
    pool = save(
        [{"problem": "Find  0 + 200.", "answer": "200"}, {"problem": "Find 5.", "answer": "5"}], tmp_path / "p.jsonl"
    )
    measured = save(ROWS["aime24"], tmp_path / "aime.jsonl")
    recipe = evaluation({"suite": "aime24", "source": f"file:{measured}"}, problems=[{"source": f"file:{pool}"}])
    sets = load_problem_sets(recipe)
    assert [problem.question for problem in sets.train] == ["Find 5."]
    assert sets.num_excluded == 1


def test_other_content_than_stated_is_refused(tmp_path):
    path = save(ROWS["aime24"], tmp_path / "rows.jsonl")
    right = content_hash_of(benchmark("aime24", path))
    assert len(load("aime24", path, sha256=right)) == 3
    save([{**ROWS["aime24"][0], "answer": "201"}, *ROWS["aime24"][1:]], path)
    with pytest.raises(ProblemError, match=f"not {right} as stated"):
        load("aime24", path, sha256=right)
    with pytest.raises(ProblemError, match="as stated"):
        load_problem_sets(evaluation({"suite": "gsm8k", "source": f"file:{save(ROWS['gsm8k'], tmp_path / 'g.jsonl')}"}))


def test_the_command_line_ends_with_2_over_other_content(tmp_path):
    path = save(ROWS["gsm8k"], tmp_path / "rows.jsonl")
    pool = save([{"problem": "Find 5.", "answer": "5"}], tmp_path / "pool.jsonl")
    recipe = evaluation({"suite": "gsm8k", "source": f"file:{path}"}, problems=[{"source": f"file:{pool}"}])
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))
    command = [sys.executable, "-m", "distill", "generate", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "its content has the SHA-256" in done.stderr
    assert "sha256: null" in done.stderr


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "problem": st.text("ab \n\"',é", min_size=1).filter(str.strip),
                "answer": st.integers(0, 999) | st.floats(0.25, 9.0, width=32),
                "kind": st.none() | st.integers() | st.text("xy", min_size=1),
            }
        ),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_the_hash_is_that_of_the_content_and_not_of_the_file(tmp_path_factory, rows, random):
    folder = tmp_path_factory.mktemp("rows")
    texts = [{key: None if value is None else str(value) for key, value in row.items()} for row in rows]
    shuffled = random.sample(rows, len(rows))
    files = [save(rows, folder / "a.jsonl"), save(shuffled, folder / "b.json"), save(texts, folder / "c.parquet")]
    files += [save(rows, folder / "d.csv")] if not any("\n" in row["problem"] for row in rows) else []
    keys = {"columns": {"problem": "problem", "id": None, "metadata": {"group": "kind"}}}
    hashes = {content_hash_of(benchmark("aime24", path, **keys)) for path in files}
    assert len(hashes) == 1


def test_a_window_takes_the_problems_of_some_days(tmp_path):
    dates = ["2024-07-31", "2024-08-01T00:00:00", "2025-01-31T23:59:59Z", "2025-02-01"]
    rows = [{**ROWS["aime24"][0], "id": day, "problem": f"Of {day}?", "date": day} for day in dates]
    window = {"column": "date", "first": "2024-08-01", "last": "2025-01-31"}
    problems = load("aime24", save(rows, tmp_path / "rows.jsonl"), window=window)
    assert [problem.id for problem in problems] == dates[1:3]
    with pytest.raises(ProblemError, match=r"'url' \(window.column\) holds no date"):
        load("aime24", save(rows, tmp_path / "rows.jsonl"), window={"column": "url"})


# --- from the Hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on loopback that the client takes for the Hub."""
    from huggingface_hub import constants

    place = Path(__file__).parents[1] / "hub_server.py"
    spec = importlib.util.spec_from_file_location("suites_hub_server", place)
    sys.modules["suites_hub_server"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Hub() as server:
        server.Fault = module.Fault
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def publish(hub, name, files, revision):
    """A dataset whose main branch is at the commit that a suite asks for."""
    repo = hub.make("dataset", name)
    repo.commits.append((revision, "the one", dict(files)))
    repo.branches["main"] = revision
    return repo


def content(rows, tmp_path, name):
    return save(rows, tmp_path / name).read_bytes()


BASELINE = [
    {"uid": "b2", "ans_id": "x", "model": "gpt-4-0314", "tstamp": 1.0,
     "messages": [{"role": "user", "content": "2"}, {"role": "assistant", "content": {"answer": "Two."}}]},
    {"uid": "a1", "ans_id": "y", "model": "gpt-4-0314", "tstamp": 1.0,
     "messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": {"answer": "One."}}]},
]  # fmt: skip


def test_one_file_of_a_dataset_is_loaded_at_its_commit_with_its_baseline(hub, tmp_path):
    measured = load_suite("arena-hard-0.1").benchmark
    files = {
        measured.file: content(ROWS["arena-hard-0.1"], tmp_path, "q.jsonl"),
        measured.baseline.file: content(BASELINE, tmp_path, "a.jsonl"),
    }
    publish(hub, "lmarena-ai/arena-hard-auto", files, measured.revision)
    sets = load_problem_sets(evaluation({"suite": "arena-hard-0.1", "sha256": None}))
    problems = sets.benchmarks["arena-hard-0.1"]
    assert [problem.id for problem in problems] == ["arena-hard-0.1/a1", "arena-hard-0.1/b2"]
    assert load_baseline(measured.baseline, problems) == {"arena-hard-0.1/a1": "One.", "arena-hard-0.1/b2": "Two."}
    assert loaded_commit(("lmarena-ai/arena-hard-auto", None, "train", measured.revision)) == measured.revision


def test_a_lock_states_the_commit_of_a_file_whose_branch_was_asked_for(hub, tmp_path):
    from distill.publish.lock import _pinned_source

    measured = load_suite("arena-hard-0.1").benchmark
    asked = {"suite": "arena-hard-0.1", "revision": None, "sha256": None, "baseline": {"revision": None}}
    files = {
        measured.file: content(ROWS["arena-hard-0.1"], tmp_path, "q.jsonl"),
        measured.baseline.file: content(BASELINE, tmp_path, "a.jsonl"),
    }
    commit = hub.make("dataset", "lmarena-ai/arena-hard-auto", files=files).branches["main"]
    recipe = evaluation(asked)
    (entry,) = recipe.eval.benchmarks
    load_baseline(entry.baseline, load_problem_sets(recipe).benchmarks["arena-hard-0.1"])
    pinned = _pinned_source(entry, {})
    assert (pinned.revision, pinned.baseline.revision) == (commit, commit)


def test_a_gated_set_without_access_says_how_to_get_it(hub, tmp_path):
    measured = load_suite("gpqa-diamond").benchmark
    rows = content(ROWS["gpqa-diamond"], tmp_path, "rows.csv")
    publish(hub, "Idavidrein/gpqa", {"gpqa_diamond.csv": rows}, measured.revision)
    refused = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to dataset is restricted"}
    hub.faults.append(hub.Fault("HEAD", "gpqa_diamond.csv", status=403, headers=refused, times=9))
    with pytest.raises(ProblemError) as caught:
        load_problem_sets(evaluation("gpqa-diamond"))
    said = str(caught.value)
    assert "hf:Idavidrein/gpqa: gated" in said
    assert "https://huggingface.co/datasets/Idavidrein/gpqa" in said
    assert "hf auth login" in said
    hub.faults.clear()
    assert len(load_problem_sets(evaluation("gpqa-diamond")).benchmarks["gpqa-diamond"]) == 2


def test_a_bad_row_of_a_file_on_the_hub_is_named_by_its_place_there(hub, tmp_path):
    measured = load_suite("simpleqa").benchmark
    publish(hub, "basicv8vc/SimpleQA", {measured.file: b"metadata,problem,answer\nx,,y\n"}, measured.revision)
    with pytest.raises(
        ProblemError, match=r"hf:basicv8vc/SimpleQA/simple_qa_test_set\.csv:2: column 'problem' holds no"
    ):
        load_problem_sets(evaluation("simpleqa"))


def test_a_file_that_the_dataset_lacks_is_refused(hub):
    measured = load_suite("simpleqa").benchmark
    publish(hub, "basicv8vc/SimpleQA", {"other.csv": b""}, measured.revision)
    with pytest.raises(ProblemError, match="hf:basicv8vc/SimpleQA: cannot be loaded"):
        load_problem_sets(evaluation("simpleqa"))


SPLITS = """
import json
from distill.recipe.suites import load_suite
from distill.sources.evaluation_sets import load_pack
from distill.sources.problems import load_problems
for name in ("aime24", "ifeval", "gsm8k"):
    measured = load_suite(name).benchmark.model_copy(update={"sha256": None})
    problems = load_problems(measured, 0, True)
    pack = load_pack(name)
    print(json.dumps([[p.id, p.answer, p.metadata] for p in problems]))
    print(json.dumps([pack.name, pack.source, pack.revision, pack.items]))
"""


def test_splits_are_loaded_at_the_commit_of_the_suite(hub, tmp_path):
    files = {
        "aime24": {"data/train-00000-of-00001.parquet": content(ROWS["aime24"], tmp_path, "a.parquet")},
        "ifeval": {"ifeval_input_data.jsonl": content(ROWS["ifeval"], tmp_path, "i.jsonl")},
        "gsm8k": {
            "README.md": b"---\nconfigs: [{config_name: main, data_files: [{split: test, path: test.parquet}]}]\n---\n",
            "test.parquet": content(ROWS["gsm8k"], tmp_path, "g.parquet"),
        },
    }
    for suite, own in files.items():
        measured = load_suite(suite).benchmark
        publish(hub, measured.source.removeprefix("hf:"), own, measured.revision)
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run([sys.executable, "-c", SPLITS], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    aime, aime_pack, ifeval, ifeval_pack, gsm8k, gsm8k_pack = (json.loads(line) for line in done.stdout.splitlines())
    assert [row[:2] for row in aime] == [["60", "200"], ["61", "201"], ["62", "202"]]
    kwargs = [{}, {"num_words": 3, "relation": "at least"}]
    assert ifeval == [["1000", None, {"instruction_ids": ["punctuation:no_comma", "x:y"], "kwargs": kwargs}]]
    assert [row[1] for row in gsm8k] == ["4"]
    place = "hf:HuggingFaceH4/aime_2024[train]"
    assert aime_pack[:3] == ["aime24", place, load_suite("aime24").benchmark.revision]
    assert aime_pack[3][0] == ["60", "Find 0 + 200."]
    assert ifeval_pack[3] == [["1000", "Say it in 3 words, no commas."]]
    assert gsm8k_pack[3] == [["0", "Two and two?"]]


# --- real problems, where they are


def shared(suite, name, **keys):
    return load(suite, SHARED_DATA / name, **keys)


@needs_shared
def test_real_mathematics_has_its_stated_content():
    gsm8k = shared("gsm8k", "gsm8k_test.jsonl", sha256=load_suite("gsm8k").benchmark.sha256)
    math = shared("math-500", "math500.json", sha256=load_suite("math-500").benchmark.sha256)
    assert (len(gsm8k), len(math)) == (1_319, 500)
    assert all(problem.answer.replace(",", "").lstrip("-").isdigit() for problem in gsm8k)
    assert len({problem.metadata["group"] for problem in math}) == 7


@needs_shared
@pytest.mark.parametrize("suite", ["aime24", "aime25"])
def test_real_competitions_have_30_whole_numbers(suite):
    problems = shared(suite, f"{suite}.jsonl", columns={"answer": "expected_answer"})
    assert len(problems) == 30
    assert all(0 <= int(problem.answer) <= 999 for problem in problems)


@needs_shared
def test_real_choices_have_a_letter_each(tmp_path):
    with gzip.open(SHARED_DATA / "mmlu_test.jsonl.gz", "rt") as stream:
        (tmp_path / "mmlu.jsonl").write_text(stream.read())
    with gzip.open(SHARED_DATA / "mmlu_pro_graded_half.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    (tmp_path / "pro.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"options": [f"choice{i}" for i in range(4)]}
    problems = load_problem_sets(
        evaluation({"suite": "mmlu", "source": f"file:{tmp_path / 'mmlu.jsonl'}", "columns": columns})
    ).benchmarks["mmlu"]
    assert len(problems) == len({problem.id for problem in problems}) == 14_042
    assert set(Counter(problem.answer for problem in problems)) == set("ABCD")
    assert len({problem.metadata["group"] for problem in problems}) == 57
    pro = load("mmlu-pro", tmp_path / "pro.jsonl")
    assert [problem.answer for problem in pro] == [row["answer"] for row in rows]
    assert all("I or J)" in problem.question for problem in pro if len(problem.metadata["options"]) == 10)


@needs_shared
def test_real_instructions_and_judged_prompts_are_whole():
    ifeval = shared("ifeval", "ifeval.jsonl", sha256=load_suite("ifeval").benchmark.sha256)
    alpaca = shared("alpaca-eval-2", "alpaca_gpt4_baseline.json", sha256=load_suite("alpaca-eval-2").benchmark.sha256)
    arena = shared("arena-hard-0.1", "arena_hard_questions.jsonl", sha256=load_suite("arena-hard-0.1").benchmark.sha256)
    assert (len(ifeval), len(alpaca), len(arena)) == (541, 805, 500)
    assert len({id_ for problem in ifeval for id_ in problem.metadata["instruction_ids"]}) == 25
    assert all(problem.metadata["baseline"] for problem in alpaca)
    baseline = load_suite("arena-hard-0.1").benchmark.baseline
    here = {"source": f"file:{SHARED_DATA / 'arena_hard_baseline.jsonl'}", "file": None}
    answers = load_baseline(baseline.model_copy(update=here), arena)
    assert list(answers) == [problem.id for problem in arena]
    assert all(answer.strip() for answer in answers.values())
