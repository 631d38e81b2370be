"""The stage that measures models without training one: each benchmark in its own way, resumed, extended, refused."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distill.engines.base import Completion
from distill.errors import ModelError, RecipeError, StoreError
from distill.evaluation.measured_sets import read_sets
from distill.grading.code import testing
from distill.grading.sandbox import sandbox_fails
from distill.recipe.loading import load_recipe, recipe_of_dict
from distill.recipe.sampling import Sampling
from distill.results.measure import MeasureMetrics
from distill.runs.runner import run_recipe
from distill.stages import RunContext, measure
from distill.storage.files import read_jsonl, write_jsonl
from distill.storage.layout import BENCHMARKS
from distill.storage.ledger import read_ledger

needs_sandbox = pytest.mark.skipif(sandbox_fails() is not None, reason="needs bubblewrap and user namespaces")
JUDGE = {"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}}


@pytest.fixture
def measured(tmp_path, sampled_by, answering_engine, adds):
    """A function that runs a recipe with models that answer so; its metrics, and the engines that were used."""

    def run(recipe, answer=adds, die_after=None, **settings):
        engines = sampled_by(lambda job: answering_engine(answer, die_after))
        summary = run_recipe(recipe, tmp_path / "runs", **settings)
        return MeasureMetrics.from_json(summary["measure"]), engines

    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "measured" / "measure"


@pytest.fixture
def other_model(tmp_path, model):
    """Another folder that passes for a model."""
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    return other


def keys(engines):
    return [request.key for engine in engines for request in engine.requests]


def test_every_benchmark_is_sampled_and_scored_in_its_own_way(measuring, sums, measured, folder):
    long = sums("long", 3, samples_per_problem=4, sampling={"max_tokens": 90, "temperature": 1.0})
    short = sums("short", 2)
    metrics, (engine,) = measured(measuring(short, long, samples_per_problem=2))
    plain = {"temperature": 0.6, "top_p": 0.95, "top_k": 0}
    assert {len(key[0]) for key in keys([engine])}
    by_set = {one.name: one for one in read_sets(folder / BENCHMARKS)}
    drawn = {name: {r.sampling for r in engine.requests if r.key[0] in one.problems} for name, one in by_set.items()}
    assert drawn["short"] == {Sampling(**plain | {"max_tokens": 64})}
    assert drawn["long"] == {Sampling(**plain | {"max_tokens": 90, "temperature": 1.0})}
    assert engine.num_requests == 2 * 2 + 3 * 4
    assert [(one.name, one.models["model"].samples_per_problem) for one in metrics.benchmarks] == [
        ("short", 2),
        ("long", 4),
    ]
    assert all(one.models["model"].pass_at_1 == 1.0 for one in metrics.benchmarks)
    assert len({one.protocol.hash for one in metrics.benchmarks}) == 2
    assert measure.headline(metrics) == "short: model 100.0%; long: model 100.0%"


def test_models_answer_in_turn_into_folders_of_their_own(measuring, sums, measured, folder, model, other_model):
    def answer(request):
        return "\\boxed{1}"

    metrics, engines = measured(measuring(sums(), models=[str(model), str(other_model)]), answer)
    assert len(engines) == 2
    (one,) = metrics.benchmarks
    assert list(one.models) == ["model", "other"]
    assert {score.model for score in one.models.values()} == {str(model), str(other_model)}
    assert all(score.pass_at_1 == 0.25 for score in one.models.values())
    assert {path.parent.name for path in folder.glob("*/verdicts.jsonl")} == {"model", "other"}


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["org/model", "org2/model"], ["org-model", "org2-model"]),
        (["org/model", "org-model"], ["org-model-c87c0c64", "org-model-cc03b9c8"]),
        (["/somewhere/../.."], ["model"]),
        (["qwen-1.5b"], ["Qwen-Qwen2.5-Math-1.5B"]),
        (["org/" + "x" * 120], ["x" * 80]),
    ],
)
def test_a_models_folder_is_a_plain_name(measuring, sums, names, roles):
    recipe = measuring(sums(), models=names)
    assert list(measure._roles(recipe)) == roles
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", role) for role in roles)


def test_a_second_run_does_nothing(measuring, sums, measured):
    recipe = measuring(sums())
    first, _ = measured(recipe)
    said = []
    again, engines = measured(recipe, say=said.append)
    assert (again, engines) == (first, [])
    assert "measure: done already, skipped" in said[-1]


def test_a_run_that_was_killed_goes_on_with_what_is_missing(measuring, sums, measured, folder):
    recipe = measuring(sums(num=6), samples_per_problem=4)
    with pytest.raises(KeyboardInterrupt):
        measured(recipe, die_after=12)
    done = {trace.key for trace in read_ledger(folder / "model" / "ledger.jsonl")}
    assert 0 < len(done) < 24
    assert measure.progress(folder) == {"num_done": len(done), "num_wanted": 24, "unit": "answers"}
    metrics, engines = measured(recipe)
    assert set(keys(engines)).isdisjoint(done)
    assert len(keys(engines)) == 24 - len(done)
    (one,) = metrics.benchmarks
    assert one.models["model"].is_complete


def test_an_added_benchmark_a_raised_k_and_an_added_model_draw_only_what_is_missing(
    measuring, sums, measured, model, other_model
):
    measured(measuring(sums("a")))
    metrics, engines = measured(measuring(sums("a"), sums("b", 7, 5)))
    assert len(keys(engines)) == 2 * 4
    assert [one.name for one in metrics.benchmarks] == ["a", "b"]
    both = sums("a", samples_per_problem=6), sums("b", 7, 5, samples_per_problem=6)
    _, engines = measured(measuring(*both))
    assert {index for _, index in keys(engines)} == {4, 5}
    metrics, engines = measured(measuring(*both, models=[str(model), str(other_model)]))
    assert [engine.num_requests for engine in engines] == [0, 6 * 6]
    assert list(metrics.benchmarks[0].models) == ["model", "other"]


def test_another_grader_needs_no_new_answers(measuring, sums, measured):
    measured(measuring(sums()))
    metrics, (engine,) = measured(measuring(sums(task="exact")))
    assert engine.num_requests == 0
    assert metrics.benchmarks[0].models["model"].pass_at_1 == 1.0


@pytest.mark.parametrize("keys", [{"template": "Quickly: {problem}"}, {"sampling": {"temperature": 1.0}}])
def test_other_questions_are_refused_and_with_force_put_aside(measuring, sums, measured, folder, keys):
    measured(measuring(sums()))
    with pytest.raises(StoreError, match=r"was made from something else(.|\n)*asked\.sums"):
        measured(measuring(sums(**keys)))
    _, (engine,) = measured(measuring(sums(**keys)), force=True)
    assert engine.num_requests == 4 * 4
    assert folder.with_name("measure.replaced-1").is_dir()


def test_a_failed_sample_and_one_that_is_not_graded_are_no_zeros(measuring, sums, measured):
    def answer(request):
        if request.key[1] == 1:
            return Completion(request.key, "", "error", 5, 0, error="out of order")
        return "\\boxed{1}" if "0 + 1" in request.messages[-1]["content"] else "\\boxed{-1}"

    metrics, _ = measured(measuring(sums(), samples_per_problem=2), answer)
    score = metrics.benchmarks[0].models["model"]
    assert (score.pass_at_1, score.num_missing, score.bounds) == (0.25, 4, (0.125, 0.625))
    assert measure.headline(metrics) == "sums: model 25.0% (incomplete)"


def test_what_failed_is_asked_for_again_on_request(measuring, sums, measured, folder, adds):
    def failing(request):
        return Completion(request.key, "", "error", 5, 0, error="out of order") if request.key[1] else adds(request)

    recipe = measuring(sums(), samples_per_problem=2)
    assert not measured(recipe, failing)[0].benchmarks[0].models["model"].is_complete
    assert measured(recipe)[1] == []
    said = []
    metrics, (engine,) = measured(recipe, retry_errors=True, say=said.append)
    assert "measure: asking again for 4 samples and verdicts that failed" in said
    assert {key[1] for key in keys([engine])} == {1}
    assert metrics.benchmarks[0].models["model"].is_complete
    assert measured(recipe, retry_errors=True)[1] == []


@needs_sandbox
def test_programs_that_no_sandbox_could_run_are_graded_again_on_request(measuring, measured, tmp_path, monkeypatch):
    rows = [{"problem": f"Print {i}.", "tests": [{"kind": "stdin", "stdin": "", "expected": str(i)}]} for i in "01"]
    write_jsonl(tmp_path / "programs.jsonl", rows)
    recipe = measuring({"source": f"file:{tmp_path}/programs.jsonl", "task": "code"}, samples_per_problem=1)
    with monkeypatch.context() as patched:
        patched.setattr(testing, "sandbox_fails", lambda backend: "it has gone")
        metrics, _ = measured(recipe, lambda request: "```python\nprint(0)\n```")
    assert metrics.benchmarks[0].models["model"].num_ungraded == 2
    said = []
    metrics, engines = measured(recipe, retry_errors=True, say=said.append)
    assert "measure: 2 programs that no sandbox could run: graded again" in said
    assert (keys(engines), metrics.benchmarks[0].models["model"].pass_at_1) == ([], 0.5)


@pytest.mark.parametrize("said", [None, "A nice day, is it not?", "I'm sorry, but I can't help with that."])
def test_a_verdict_that_failed_is_asked_for_again_on_request(measuring, measured, judged_by, tmp_path, said):
    write_jsonl(tmp_path / "facts.jsonl", [{"problem": f"Who won prize {i}?", "answer": f"Winner {i}"} for i in "01"])
    facts = {"source": f"file:{tmp_path}/facts.jsonl", "task": "judge", "metric": "short-answers"}
    recipe = measuring(facts, judge=JUDGE, samples_per_problem=1)

    def judge(request):
        if "prize 1" in said_to(request):
            return said or Completion(request.key, "", "error", 0, 0, error="timed out")
        return "VERDICT: CORRECT"

    judged_by(judge)
    assert measured(recipe, lambda request: "It was me.")[0].benchmarks[0].models["model"].num_ungraded == 1
    engine = judged_by(lambda request: "VERDICT: CORRECT")
    metrics, _ = measured(recipe, lambda request: "It was me.", retry_errors=True)
    assert engine.num_requests == 1
    assert metrics.benchmarks[0].models["model"].is_complete


def test_adaptive_sampling_stops_early_and_reports_the_samples_of_each_item(measuring, sums, measured, folder):
    sure = sums(num=40, samples_per_problem=64, adaptive={"width": 0.3, "min_samples": 2})
    metrics, (engine,) = measured(measuring(sure))
    score = metrics.benchmarks[0].models["model"]
    assert engine.num_requests < 40 * 64
    assert score.samples_range == (score.samples_per_problem,) * 2
    assert score.samples_range[0] * 40 == engine.num_requests
    assert measure.progress(folder)["num_done"] == measure.progress(folder)["num_wanted"] == engine.num_requests
    assert (score.is_complete, score.pass_at_1) == (True, 1.0)


def test_a_narrower_width_draws_more(measuring, sums, measured):
    wide = sums(num=40, samples_per_problem=64, adaptive={"width": 0.3, "min_samples": 2})
    _, (first,) = measured(measuring(wide))
    _, (more,) = measured(measuring({**wide, "adaptive": {"width": 0.05, "min_samples": 2}}))
    assert more.num_requests > 0
    assert set(keys([more])).isdisjoint(keys([first]))


def test_groups_are_read_from_the_data(measuring, measured, tmp_path):
    rows = [
        {"problem": f"What is {i} + {i}?", "answer": str(2 * i), "kind": "small" if i < 2 else "big"} for i in range(4)
    ]
    write_jsonl(tmp_path / "kinds.jsonl", rows)
    grouped = {"source": f"file:{tmp_path}/kinds.jsonl", "columns": {"metadata": {"group": "kind"}}}

    def answer(request):
        return "\\boxed{0}" if "0 + 0" in request.messages[-1]["content"] else "\\boxed{-1}"

    metrics, _ = measured(measuring(grouped), answer)
    assert metrics.benchmarks[0].models["model"].groups == {"big": 0.0, "small": 0.5}


# --- judged suites, from the question to the score


def said_to(request):
    return "\n".join(message["content"] for message in request.messages)


def test_simple_qa_end_to_end(measuring, measured, judged_by, tmp_path, folder):
    rows = [{"problem": f"Who won prize {i}?", "answer": f"Winner {i}"} for i in range(4)]
    write_jsonl(tmp_path / "facts.jsonl", rows)
    facts = {
        "source": f"file:{tmp_path}/facts.jsonl",
        "task": "judge",
        "metric": "short-answers",
        "samples_per_problem": 1,
    }

    def answer(request):
        number = re.search("[0-9]", request.messages[-1]["content"])[0]
        known = {"0": "It was Winner 0.", "1": "It was Nobody.", "2": ""}.get(number, "I cannot say.")
        return f"<think>\nMaybe Winner {number}, the secret.\n</think>\n\n{known}"

    def judge(request):
        assert "secret" not in said_to(request)
        if "It was Winner 0." in said_to(request):
            return "VERDICT: CORRECT"
        return "VERDICT: INCORRECT" if "Nobody" in said_to(request) else "no idea"

    engine = judged_by(judge)
    metrics, _ = measured(measuring(facts, judge=JUDGE), answer)
    assert engine.num_requests == 3  # the empty answer is not asked about
    (one,) = metrics.benchmarks
    score = one.models["model"]
    assert (score.pass_at_1, score.num_ungraded, score.bounds) == (pytest.approx(1 / 3), 1, (0.25, 0.5))
    assert score.figures["not_attempted"].value == score.figures["incorrect"].value == pytest.approx(1 / 3)
    assert score.figures["f_score"].value == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert one.protocol.judge.startswith("judge; temperature 0.0")
    verdicts = {row["details"]["judged"] for row in read_jsonl(folder / "model" / "verdicts.jsonl")}
    assert verdicts == {"correct", "incorrect", "not_attempted", "nonsense"}


@pytest.mark.parametrize(
    ("metric", "replies", "figure"),
    [("win-rate", ("VERDICT: SECOND", "VERDICT: FIRST"), "win_rate"), ("arena", ("[[B>A]]", "[[A>B]]"), "arena_score")],
)
def test_games_end_to_end(measuring, measured, judged_by, tmp_path, metric, replies, figure):
    write_jsonl(tmp_path / "tasks.jsonl", [{"instruction": f"Write poem {i}."} for i in range(4)])
    write_jsonl(tmp_path / "theirs.jsonl", [{"instruction": f"Write poem {i}.", "output": "Theirs."} for i in range(4)])
    games = {
        "source": f"file:{tmp_path}/tasks.jsonl",
        "task": "judge",
        "metric": metric,
        "samples_per_problem": 1,
        "baseline": {"source": f"file:{tmp_path}/theirs.jsonl", "name": "other"},
    }

    def judge(request):
        is_swapped = said_to(request).index("Ours.") < said_to(request).index("Theirs.")
        return replies[is_swapped] if "poem 0" not in said_to(request) else "I will not say."

    engine = judged_by(judge)
    metrics, _ = measured(measuring(games, judge=JUDGE), lambda request: "Ours.")
    assert engine.num_requests == 8  # both games of each
    score = metrics.benchmarks[0].models["model"]
    assert (score.pass_at_1, score.num_ungraded, score.bounds) == (1.0, 1, (0.75, 1.0))
    assert score.figures[figure].value == pytest.approx(1.0)


class JudgeHandler(BaseHTTPRequestHandler):
    """An OpenAI-compatible judge that finds right what names Everest; of K2 it writes nonsense, of K3 nothing."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._say({"data": [{"id": "judge"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        said = "\n".join(message["content"] for message in body["messages"])
        text = "I like mountains." if "K2" in said else f"VERDICT: {'CORRECT' if 'Everest!' in said else 'INCORRECT'}"
        ending = "content_filter" if "K3" in said else "stop"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": ending}
        self._say({"choices": [choice], "usage": {}})

    def _say(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def judge_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), JudgeHandler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_judge_behind_a_real_server(measuring, measured, judge_server, tmp_path, folder):
    answers = ["Everest!", "Everest!", "Mont Blanc", "K2", "K3", ""]
    rows = [{"problem": f"Which mountain is the tallest of list {i}?", "answer": "Everest"} for i in range(6)]
    write_jsonl(tmp_path / "facts.jsonl", rows)
    facts = {"source": f"file:{tmp_path}/facts.jsonl", "task": "judge", "metric": "short-answers"}
    url = f"http://127.0.0.1:{judge_server.server_port}/v1"
    judge = {"model": "judge", "compute": {"base_urls": [url], "max_in_flight": 2, "max_attempts": 1}}

    def answer(request):
        number = int(re.search("list ([0-9])", request.messages[-1]["content"])[1])
        return f"<think>\nA secret about {number}.\n</think>\n\n{answers[number]}"

    metrics, _ = measured(measuring(facts, judge=judge, samples_per_problem=1), answer)
    score = metrics.benchmarks[0].models["model"]
    assert (score.pass_at_1, score.num_ungraded, score.bounds) == (0.5, 2, (pytest.approx(2 / 6), pytest.approx(4 / 6)))
    rows = read_jsonl(folder / "model" / "verdicts.jsonl")
    assert sorted(row["details"]["judged"] for row in rows) == [
        "correct",
        "correct",
        "incorrect",
        "nonsense",
        "not_attempted",
        "refused",
    ]
    assert len(judge_server.asked) == 5
    assert "secret" not in json.dumps(judge_server.asked)
    assert {(body["model"], body["temperature"]) for body in judge_server.asked} == {("judge", 0.0)}


# --- what is refused


def refusal(tree):
    with pytest.raises(RecipeError) as refused:
        recipe_of_dict({"name": "x", **tree})
    return str(refused.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"eval": {"held_out": 3}}, "without training nothing is held out"),
        ({"problems": [{"source": "gym:chain_sum"}]}, "use eval.benchmarks in place of problems:"),
        ({"push": {"repo": "me/x"}}, "this recipe trains none"),
        (
            {
                "student": "org/s",
                "problems": [{"source": "gym:chain_sum"}],
                "rounds": [{"name": "a", "sft": {"max_length": 999}, "generate": {"teacher": "org/t"}}],
            },
            "eval.models is for recipes without rounds:",
        ),
        ({"eval": {"benchmarks": []}}, "nothing to measure on"),
        ({"eval": {"sampling": {"temperature": 0}}}, "temperature 0 gives the same answer every time"),
        ({"eval": {"benchmarks": [{"suite": "simpleqa"}]}}, "a judge decides the score: set judge"),
        ({"eval": {"models": [""]}}, "eval.models.0"),
    ],
)
def test_what_a_recipe_that_only_measures_cannot_have(more, says):
    section = {"models": ["org/m"], "benchmarks": [{"suite": "gym:chain_sum"}], "samples_per_problem": 2}
    tree = {**more, "eval": {**section, **more.get("eval", {})}}
    assert says in refusal(tree)


def test_temperature_zero_with_one_sample_is_fine():
    tree = {"models": ["org/m"], "benchmarks": ["gym:chain_sum"], "samples_per_problem": 1}
    recipe_of_dict({"name": "x", "eval": {**tree, "sampling": {"temperature": 0}}})


def test_an_unknown_suite_is_named_with_its_line_and_the_nearest(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\neval:\n  models: [org/m]\n  benchmarks:\n    - gsm8k\n    - mmlu-por\n")
    with pytest.raises(RecipeError) as refused:
        load_recipe(path)
    assert f"{path}:" in str(refused.value)
    assert re.search(r"recipe\.yaml:[2-6]: ", str(refused.value))
    assert "unknown suite 'mmlu-por'. Did you mean 'mmlu-pro'?" in str(refused.value)


def test_the_papers_protocol_on_a_model_with_a_short_context(measuring, sums, measured, model, tmp_path):
    said = refusal({"eval": {"models": ["smollm2-135m"], "benchmarks": ["gym:chain_sum"], "protocol": "r1-paper"}})
    assert "as protocol r1-paper asks for, leaves no room for a prompt in the context of smollm2-135m (8192" in said
    (model / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4_096})
    )
    with pytest.raises(ModelError, match=r"32,768 tokens .*protocol: r1-paper.* context of 4,096"):
        measured(measuring(sums(), protocol="r1-paper"))
    assert not (tmp_path / "runs" / "measured" / "measure").exists()


def test_answers_are_as_long_as_the_smallest_context_of_the_models_allows():
    def longest(*models, **more):
        section = {"models": list(models), "benchmarks": ["gym:chain_sum"]}
        return recipe_of_dict({"name": "x", "eval": section, **more}).eval.sampling.max_tokens

    assert longest("org/unknown") == 32_768
    assert longest("smollm2-135m") == 7_168
    assert longest("org/unknown", "smollm2-135m") == 7_168
    assert longest("qwen-1.5b") == 3_072  # trained it would reach further
    trained = {"student": "qwen-1.5b", "problems": [{"source": "gym:chain_sum"}], "generate": {"teacher": "org/t"}}
    assert longest("org/unknown", **trained) == 31_744
    assert longest("smollm2-135m", **trained) == 7_168


def test_a_model_that_is_not_there_is_named_before_anything_is_sampled(measuring, sums, measured, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        measured(measuring(sums(), models=[str(tmp_path / "model"), str(tmp_path / "nowhere")]))


def test_the_identity_is_that_of_models_benchmarks_and_settings(measuring, sums, tmp_path, model):
    def identity(**changes):
        return measure.identity(RunContext(measuring(sums(), **changes), tmp_path / "run"))

    before = identity()
    assert set(before) >= {"version", "models", "seed", "asked", "scored", "k", "samples_per_problem"}
    assert before["models"]["model"].startswith(f"{model}@")
    assert identity(compute={"engine": "transformers"}) == before
    assert identity(samples_per_problem=5) != before
    assumed = measure.assumed_identity(RunContext(measuring(sums()), tmp_path / "run"), before)
    assert assumed == before
    more = measuring(sums(), models=[str(model), "org/other"])
    assumed = measure.assumed_identity(RunContext(more, tmp_path / "run"), before)
    assert assumed["models"] == {**before["models"], "org-other": "org/other@"}


def test_an_attempt_without_answers_is_forgotten(measuring, sums, measured, tmp_path, folder):
    def failing(request):
        return Completion(request.key, "", "error", 5, 0, error="out of order")

    recipe = measuring(sums())
    with pytest.raises(Exception, match="out of order"):
        measured(recipe, failing)
    assert measure.discard_if_empty(RunContext(recipe, tmp_path / "runs" / "measured"))
    assert not list(folder.glob("*/ledger.jsonl"))
    measured(recipe)
    assert not measure.discard_if_empty(RunContext(recipe, tmp_path / "runs" / "measured"))
