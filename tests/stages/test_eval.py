"""Scores, by hand; and what counts as right when a model's answer is graded."""

from collections import Counter

import pytest

from distill.core.records import Problem, Trace, Verdict
from distill.core.thinking import split_reasoning
from distill.errors import UserError
from distill.evaluation import answers as sampling_of_answers
from distill.evaluation.answers import Answers
from distill.evaluation.scoring import score_answers, scores_of
from distill.filters.funnel import Funnel
from distill.recipe.lineage import traces_fingerprint
from distill.recipe.model import Recipe
from distill.results.eval import EvalResult
from distill.sources.problems import problems_fingerprint
from distill.stages import RunContext, eval
from distill.storage.files import read_jsonl, write_json, write_jsonl
from distill.storage.layout import BENCHMARKS, KEPT
from distill.storage.ledger import Ledger

THOUGHT = "<think>\nTwo and two.\n</think>\n\n"


def problems(*names):
    return [Problem(name, [{"role": "user", "content": name}], "4", "math", "s") for name in names]


@pytest.fixture
def compare(measured_set):
    """A function that compares two models' answers on sets of problems, of which all have the same number."""

    def compared(base, student, sets, seed):
        k = len(base.traces) // len({trace.problem_id for trace in base.traces})
        measured = [measured_set(name, [one.id for one in several], k) for name, several in sets.items()]
        by_id = {one.id: one for several in sets.values() for one in several}
        engines = {"base": None, "student": None}
        return eval.compare(base, student, measured, by_id, seed, engines, {}).to_json()

    return compared


def graded(name="org/model", truncated=(), num_tokens=10, **signs):
    """One model's graded answers: problem id -> `+` right, `-` wrong, `?` ungraded, one sign a sample."""
    correct = {"+": True, "-": False, "?": None}
    keys = [(problem_id, index) for problem_id, own in signs.items() for index in range(len(own))]
    traces = [
        Trace(p, i, name, "r", "4", "", "4", "length" if (p, i) in truncated else "stop", 5, num_tokens + i, i)
        for p, i in keys
    ]
    return Answers(name, traces, [Verdict(p, i, correct[signs[p][i]], "4") for p, i in keys])


def score(answered, *names):
    """The score on these problems; left out: on all of them."""
    drawn = Counter(trace.problem_id for trace in answered.traces)
    names = names or tuple(drawn)
    return score_answers(answered.of(names), {name: drawn[name] for name in names})


def test_pass_at_1_is_the_mean_over_samples_then_over_problems():
    found = score(graded(a="++++", b="+---", c="----"))
    assert found.pass_at_1 == pytest.approx((1 + 0.25 + 0) / 3)
    assert (found.num_problems, found.samples_per_problem) == (3, 4)
    assert found.interval_95[0] <= found.pass_at_1 <= found.interval_95[1]
    assert (found.model, found.num_ungraded, found.truncated_share) == ("org/model", 0, 0.0)
    assert found.is_complete
    assert found.bounds is None


def test_an_answer_that_could_not_be_graded_is_left_out_and_the_score_says_what_it_could_be():
    found = score(graded(a="+?", b="-?", c="??"))
    assert found.pass_at_1 == pytest.approx((1 + 0) / 2)  # nothing is known of c
    assert (found.num_ungraded, found.num_missing, found.is_complete) == (4, 0, False)
    assert found.bounds == pytest.approx(((0.5 + 0 + 0) / 3, (1 + 0.5 + 1) / 3))


def test_tokens_and_truncation_are_means_over_all_samples():
    found = score(graded(a="++", b="+-", truncated={("b", 1)}))
    assert found.truncated_share == 1 / 4
    assert found.mean_completion_tokens == (10 + 11 + 10 + 11) / 4


def test_scores_are_those_of_the_wanted_problems_alone():
    answered = graded(a="+-", b="--", other="++", truncated={("other", 0)})
    assert scores_of(answered.of(["a", "b"]).verdicts) == {"a": [1.0, 0.0], "b": [0.0, 0.0]}
    found = score(answered, "a", "b")
    assert (found.num_problems, found.pass_at_1, found.truncated_share) == (2, 0.25, 0.0)


def test_gained_and_lost(compare):
    base = graded("base", a="--", b="+-", c="++", d="+-", e="--")
    student = graded("student", a="++", b="++", c="+-", d="-+", e="--")
    metrics = compare(base, student, {"sums": problems("a", "b", "c", "d", "e")}, seed=0)
    assert metrics["base"]["pass_at_1"] == pytest.approx(2 / 5)
    assert metrics["student"]["pass_at_1"] == pytest.approx(3 / 5)
    difference = metrics["difference"]
    assert difference["pass_at_1"] == pytest.approx(1 / 5)
    assert (difference["num_gained"], difference["num_lost"]) == (2, 1)
    low, high = difference["interval_95"]
    assert low < 1 / 5 < high


def test_the_difference_is_paired(compare):
    """Each problem gains the same: the gain is known better than either score, whatever the problems' own scores."""
    names = [f"p{number}" for number in range(40)]
    base = graded("base", **{name: ("----", "+---", "++--", "+++-")[i % 4] for i, name in enumerate(names)})
    student = graded("student", **{name: ("+---", "++--", "+++-", "++++")[i % 4] for i, name in enumerate(names)})
    metrics = compare(base, student, {"sums": problems(*names)}, seed=0)
    low, high = metrics["difference"]["interval_95"]
    assert low < metrics["difference"]["pass_at_1"] == 0.25 < high
    widths = [metrics[role]["interval_95"][1] - metrics[role]["interval_95"][0] for role in ("base", "student")]
    assert high - low < min(widths)


def test_benchmarks_by_themselves_and_pooled(compare):
    sets = {"held-out": problems("a", "b", "c"), "aime": problems("d")}
    base = graded("base", a="-", b="-", c="+", d="+")
    student = graded("student", a="+", b="-", c="+", d="-")
    metrics = compare(base, student, sets, seed=0)
    assert [m["name"] for m in metrics["benchmarks"]] == ["held-out", "aime"]
    assert [m["base"]["pass_at_1"] for m in metrics["benchmarks"]] == pytest.approx([1 / 3, 1])
    assert [m["student"]["pass_at_1"] for m in metrics["benchmarks"]] == pytest.approx([2 / 3, 0])
    assert [m["difference"]["num_lost"] for m in metrics["benchmarks"]] == [0, 1]
    # over all problems: each counts once, a small benchmark no more than its problems
    assert metrics["base"]["num_problems"] == 4
    assert metrics["base"]["pass_at_1"] == pytest.approx(2 / 4)
    assert metrics["student"]["pass_at_1"] == pytest.approx(2 / 4)
    assert metrics["difference"]["pass_at_1"] == pytest.approx(0)
    assert (metrics["difference"]["num_gained"], metrics["difference"]["num_lost"]) == (1, 1)


def test_a_problem_in_two_benchmarks_counts_once_in_the_whole(compare):
    sets = {"one": problems("a", "b"), "two": problems("b", "c")}
    metrics = compare(graded(a="+", b="-", c="-"), graded(a="+", b="+", c="-"), sets, seed=0)
    assert metrics["student"]["num_problems"] == 3
    assert metrics["difference"]["pass_at_1"] == pytest.approx(1 / 3)


def test_the_same_seed_gives_the_same_intervals(compare):
    base, student = graded(a="+-", b="--", c="++"), graded(a="++", b="+-", c="-+")
    sets = {"sums": problems("a", "b", "c")}
    assert compare(base, student, sets, seed=7) == compare(base, student, sets, seed=7)


def test_metrics_are_plain_json(tmp_path, compare):
    metrics = compare(graded(a="+", b="-"), graded(a="+", b="+"), {"sums": problems("a", "b")}, seed=0)
    write_json(tmp_path / "metrics.json", metrics)
    always = {name for name, field in EvalResult.model_fields.items() if field.is_required()}
    assert always | {"at_k", "budget", "variance"} <= set(metrics["benchmarks"][0]["student"])
    assert set(metrics["benchmarks"][0]["student"]) <= set(EvalResult.model_fields)


BASE_ANSWERS = {
    "a": [("\\boxed{4}", "stop"), ("It is 4", "stop")],  # the last number counts where nothing is announced
    "b": [("It is 4, then", "length"), ("\\boxed{4} and th", "length")],  # cut off: only what is boxed counts
    "c": [("Is \\boxed{3}? No, 4, that is \\boxed{4", "length"), ("No, 4, that is \\boxed{4", "length")],
    "d": [("", "error"), ("I do not know.", "stop")],
}
STUDENT_ANSWERS = {
    "a": [(THOUGHT + "\\boxed{4}", "stop"), (THOUGHT + "The answer is 5.", "stop")],
    "b": [("<think>\nIt is \\boxed{4}. Wait", "length"), (THOUGHT + "\\boxed{\\sqrt{16}}", "stop")],
    "c": [(THOUGHT + "The answer is 4. Or", "length"), (THOUGHT + "\\boxed{4.0}", "stop")],
    "d": [(THOUGHT + "\\boxed{4}", "stop"), (THOUGHT + "\\boxed{4}", "stop")],
}


WHOLE = {
    "fingerprint": "f1",
    "config": {},
    "seconds": 1.0,
    "peak_memory_gib": 1.0,
    "finished_at": "2026-01-01T00:00:00+00:00",
}
"""What a manifest has beside what these tests are about."""
SAMPLED = {
    "num_samples": 8,
    "num_problems": 2,
    "num_problems_by_source": {},
    "finish_reasons": {},
    "teacher": "org/big",
    "teacher_revision": "r1",
    "samples_per_problem": 4,
    "num_prompt_tokens": 80,
    "num_completion_tokens": 80,
}

FILTERED = {**Funnel().metrics().to_json(), "num_traces": 8, "num_kept": 4}
TRAINED = {
    "student": "org/small",
    "student_revision": "r2",
    "method": "full",
    "epochs": 1,
    "batch_size": 4,
    "learning_rate": 1e-4,
    "num_rows": 4,
    "num_tokens": 80,
    "num_trained_tokens": 40,
    "num_steps": 1,
    "final_loss": 1.0,
}


def train_on(run, checksum):
    """Finished generate, filter and sft stages of which only what eval asks for is written down."""
    generated = {"stage": "generate", **WHOLE, "metrics": SAMPLED}
    generated["identity"] = {"problems": problems_fingerprint(run.problem_sets.train)}
    generated["outputs"] = {"traces/train-00000-of-00001.parquet": {"sha256": "7race"}}
    write_json(run.folder("generate").path / "manifest.json", generated)
    filtered = {"stage": "filter", **WHOLE, "metrics": FILTERED}
    filtered |= {"identity": {"traces": traces_fingerprint(generated)}, "outputs": {KEPT: {"sha256": "c0de"}}}
    write_json(run.folder("filter").path / "manifest.json", filtered)
    trained = {"stage": "sft", **WHOLE, "metrics": TRAINED}
    trained |= {"identity": {"rows": "c0de"}, "outputs": {"student": {"sha256": checksum}}}
    write_json(run.folder("sft").path / "manifest.json", trained)


@pytest.fixture
def run(tmp_path):
    """A run in which sft is finished and every sample of both models is in its ledger already."""
    model = tmp_path / "model"
    write_json(model / "config.json", {"architectures": ["LlamaForCausalLM"]})
    (model / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    for name, questions in (("train", "xy"), ("easy", "ab"), ("hard", "cd")):
        rows = [{"problem": f"Question {q}", "answer": "$$" if q == "d" else "4", "id": q} for q in questions]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)

    def source(name):
        return {"source": f"file:{tmp_path / name}.jsonl", "columns": {"id": "id"}}

    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "student": str(model),
            "problems": [source("train")],
            "generate": {"teacher": str(model), "sampling": {"max_tokens": 64}},
            "sft": {"max_length": 128},
            "eval": {"benchmarks": [source("easy"), source("hard")], "samples_per_problem": 2, "grade_timeout_s": 30.0},
        }
    )
    run = RunContext(recipe, tmp_path / "run")
    trained = run.folder("sft").path
    train_on(run, "5eed")
    write_json(trained / "student" / "config.json", {"architectures": ["LlamaForCausalLM"]})
    (trained / "student" / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    for role, answers in (("base", BASE_ANSWERS), ("student", STUDENT_ANSWERS)):
        with Ledger(run.folder("eval").path / role / eval.LEDGER) as ledger:
            ledger.append(
                Trace(name, index, role, "r", text, *split_reasoning(text)[:2], finish_reason, 5, 7, index)
                for name, samples in answers.items()
                for index, (text, finish_reason) in enumerate(samples)
            )
    return run


def test_run_grades_both_models_on_all_benchmarks(run):
    summary = eval.run(run)
    folder = run.folder("eval").path
    found = {
        role: {(v["problem_id"], v["sample_index"]): v for v in read_jsonl(folder / role / eval.VERDICTS)}
        for role in ("base", "student")
    }
    rights = {role: [key for key in sorted(found[role]) if found[role][key]["correct"]] for role in found}
    assert rights["base"] == [("a", 0), ("a", 1), ("b", 1)]
    assert rights["student"] == [("a", 0), ("b", 1), ("c", 1)]

    metrics = summary.metrics
    assert metrics["base"]["pass_at_1"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    # d's expected answer means nothing: its answers have no grade, and what it would add is not known
    assert metrics["student"]["pass_at_1"] == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    assert metrics["student"]["bounds"] == pytest.approx([(0.5 + 0.5 + 0.5 + 0) / 4, (0.5 + 0.5 + 0.5 + 1) / 4])
    assert metrics["base"]["num_missing"] == 1
    assert (metrics["difference"]["num_gained"], metrics["difference"]["num_lost"]) == (1, 1)
    assert [(m["name"], m["base"]["num_problems"]) for m in metrics["benchmarks"]] == [("easy", 2), ("hard", 2)]
    assert metrics["base"]["truncated_share"] == 4 / 7, "one failed"
    assert metrics["student"]["num_ungraded"] == 2  # its answers to d, whose expected answer means nothing
    assert metrics["protocol"]["samples_per_problem"] == 2
    assert metrics["protocol"]["temperature"] == 0.6
    assert summary.outputs == {eval.PROBLEMS: 4, BENCHMARKS: 2, "base/verdicts.jsonl": 8, "student/verdicts.jsonl": 8}


def test_a_sample_that_was_asked_for_again_counts_once(run):
    with Ledger(run.folder("eval").path / "base" / eval.LEDGER) as ledger:
        ledger.append([Trace("d", 0, "base", "r", "\\boxed{4}", "", "\\boxed{4}", "stop", 5, 7, 0)])
    summary = eval.run(run)
    verdicts = read_jsonl(run.folder("eval").path / "base" / eval.VERDICTS)
    assert summary.outputs["base/verdicts.jsonl"] == len(verdicts) == 8
    assert [v["reasons"] for v in verdicts if (v["problem_id"], v["sample_index"]) == ("d", 0)] != [["error"]]


def test_the_reasons_of_what_is_not_right(run):
    eval.run(run)
    rows = read_jsonl(run.folder("eval").path / "base" / eval.VERDICTS)
    reasons = {(v["problem_id"], v["sample_index"]): v["reasons"] for v in rows}
    assert reasons == {
        ("a", 0): [],
        ("a", 1): [],
        ("b", 0): ["no_answer"],
        ("b", 1): [],
        ("c", 0): ["wrong_answer"],
        ("c", 1): ["no_answer"],
        ("d", 0): ["error"],
        ("d", 1): ["no_answer"],
    }


def test_identity_changes_with_the_student_and_the_protocol_alone(run):
    before = eval.identity(run)
    assert before["student"] == "5eed"
    assert set(before["asked"]) == set(before["scored"]) == set(before["k"]) == {"easy", "hard"}

    def identity(**section):
        changed = {**run.recipe.model_dump(), "eval": {**run.recipe.eval.model_dump(), **section}}
        return eval.identity(RunContext(Recipe.model_validate(changed), run.run_dir))

    assert identity(compute={"engine": "transformers", "max_num_seqs": 3}) == before
    assert identity(samples_per_problem=3) != before
    assert identity(benchmarks=run.recipe.eval.model_dump()["benchmarks"][:1]) != before
    train_on(run, "07he")
    assert eval.identity(run) != before


def test_a_student_trained_under_another_split_is_not_measured(run):
    """Problem x was trained on; a recipe that holds it out later must not score the student on it."""
    changed = {**run.recipe.model_dump(), "eval": {**run.recipe.eval.model_dump(), "held_out": 1}}
    with pytest.raises(UserError, match="trained under another split"):
        eval.identity(RunContext(Recipe.model_validate(changed), run.run_dir))


def test_samples_in_flight_have_as_long_as_the_recipe_says(make_recipe, tmp_path, monkeypatch):
    recipe = make_recipe(eval={"held_out": 2, "compute": {"drain_s": 77.0}})
    run, given = RunContext(recipe, tmp_path / "runs" / recipe.name), []

    def note(kind, job, folder, drain_s=0.0):
        given.append(drain_s)
        raise UserError("far enough")

    monkeypatch.setattr(sampling_of_answers, "run_job", note)
    monkeypatch.setattr(eval, "resolve_model", lambda _: run.student_model)
    run.folder("eval").path.mkdir(parents=True)
    with pytest.raises(UserError, match="far enough"):
        eval.run(run)
    assert given == [77.0]
