"""Suites that a judge decides: whom it is asked about, what it may see, and what its silence means."""

import pytest

from distill.core.records import Problem, Trace
from distill.engines.base import Completion
from distill.errors import StageError
from distill.evaluation.answers import Answers
from distill.evaluation.figures import figures_of, flags_of
from distill.evaluation.judged import judge_answers
from distill.evaluation.measured_sets import BASELINE
from distill.evaluation.scoring import score_set
from distill.recipe.filter import Judge

JUDGE = Judge.model_validate({"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}})
QUESTIONS = {"a": ("Which mountain is the tallest?", "Everest"), "b": ("Which river is the longest?", "the Nile")}


def fact(name):
    question, answer = QUESTIONS[name]
    return Problem(name, [{"role": "user", "content": question}], answer, "judge", "s")


def task(name):
    question = [{"role": "user", "content": f"Write about {name}."}]
    return Problem(name, question, None, "judge", "s", {BASELINE: f"The baseline's text about {name}."})


def trace(name, content, reasoning="", reason="stop", index=0):
    text = f"<think>\n{reasoning}\n</think>\n\n{content}" if reasoning else content
    return Trace(name, index, "m", "r", text, reasoning, content, reason, 5, 7, 0)


@pytest.fixture
def judged(measured_set, judged_by, tmp_path):
    """A function that has a judge decide these answers; the verdicts by problem, and the judge's engine."""

    def judge(metric, traces, reply, **keys):
        make = fact if metric == "short-answers" else task
        problems = {one.problem_id: make(one.problem_id) for one in traces}
        one = measured_set("s", list(problems), metric=metric, **keys)
        engine = judged_by(reply)
        found = judge_answers(one, traces, problems, JUDGE, tmp_path / "facts.sqlite")
        return one, problems, found, engine

    return judge


def text_of(request):
    return "\n".join(message["content"] for message in request.messages)


def verdict(label):
    return f"My reasons.\nVERDICT: {label}"


@pytest.mark.parametrize(
    ("label", "correct", "judged_as"),
    [
        ("CORRECT", True, "correct"),
        ("INCORRECT", False, "incorrect"),
        ("NOT_ATTEMPTED", False, "not_attempted"),  # simple-evals' parser would find the A in it
    ],
)
def test_a_short_answer_gets_the_judges_label(judged, label, correct, judged_as):
    _, _, found, _ = judged("short-answers", [trace("a", "Everest.")], lambda request: verdict(label))
    (one,) = found.values()
    assert (one.correct, one.details, one.graded_by) == (correct, {"judged": judged_as}, "judge")


@pytest.mark.parametrize(
    ("said", "judged_as"),
    [
        ("A", "correct"),
        ("The fact is there.\n**C**", "not_attempted"),
        ("NOT_ATTEMPTED", "nonsense"),  # holds an A
        ("A good answer, though B.", "nonsense"),
        ("VERDICT: CORRECT", "nonsense"),
    ],
)
def test_the_words_of_another_wording_are_read_as_strictly(judged, tmp_path, said, judged_as):
    (tmp_path / "wording.txt").write_text("{question} {reference} {answer}: A, B or C?")
    labels = {"A": "correct", "B": "incorrect", "C": "not_attempted"}
    keys = {"judge_template": f"file:{tmp_path}/wording.txt", "judge_labels": labels}
    _, _, found, _ = judged("short-answers", [trace("a", "Everest.")], lambda request: said, **keys)
    assert found["a", 0].details == {"judged": judged_as}


def test_games_by_the_words_of_another_wording_are_told_by_place(judged, tmp_path):
    (tmp_path / "wording.txt").write_text("{question}\nm: {baseline}\nM: {answer}")
    keys = {"judge_template": f"file:{tmp_path}/wording.txt", "judge_labels": {"m": "first", "M": "second"}}
    reply = lambda request: "m" if "m: The model" in text_of(request) else "M"  # noqa: E731
    _, _, found, _ = judged("win-rate", [trace("a", "The model's text.")], reply, **keys)
    assert found["a", 0].details == {"game": "second", "swapped": "first", "score": "1.0"}


TROUBLE = [
    ("I like mountains.", "nonsense"),
    ("I'm sorry, but I cannot help with that request.", "refused"),
    (Completion(("a", 0), "", "error", 0, 0, error="timed out"), "error"),
    (Completion(("a", 0), "", "error", 0, 0, error="filtered", is_refusal=True), "refused"),
]


def with_key(said, request):
    if isinstance(said, str):
        return said
    return Completion(request.key, "", "error", 0, 0, error=said.error, is_refusal=said.is_refusal)


@pytest.mark.parametrize(("said", "why"), TROUBLE)
def test_a_judge_without_a_verdict_is_recorded_and_counted_and_never_a_zero(judged, said, why):
    def reply(request):
        return verdict("CORRECT") if "river" in text_of(request) else with_key(said, request)

    traces = [trace("a", "Everest."), trace("b", "The Nile.")]
    one, problems, found, _ = judged("short-answers", traces, reply)
    assert (found["a", 0].correct, found["a", 0].reasons) == (None, ("ungraded_judge",))
    assert found["a", 0].details == {"judged": why}
    score = score_set(one, Answers("m", traces, [found[t.key] for t in traces]), problems, 0)
    assert (score.pass_at_1, score.num_ungraded, score.bounds) == (1.0, 1, (0.5, 1.0))
    assert score.figures["correct"].value == score.figures["f_score"].value == 1.0


@pytest.mark.parametrize("metric", ["win-rate", "arena"])
@pytest.mark.parametrize(("said", "why"), TROUBLE)
def test_a_game_without_a_verdict_leaves_both_out(judged, metric, said, why):
    def reply(request):
        is_swapped = text_of(request).index("The model's") < text_of(request).index("The baseline's")
        if "Write about a." in text_of(request) and is_swapped:
            return with_key(said, request)
        return {"win-rate": verdict("SECOND"), "arena": "[[B>>A]]"}[metric]

    traces = [trace("a", "The model's text."), trace("b", "The model's text.")]
    one, problems, found, _ = judged(metric, traces, reply)
    assert (found["a", 0].correct, found["a", 0].details["swapped"]) == (None, why)
    assert found["a", 0].details["game"] in ("second", "B>>A")
    score = score_set(one, Answers("m", traces, [found[t.key] for t in traces]), problems, 0)
    assert (score.num_ungraded, score.is_complete) == (1, False)
    assert score.bounds[0] < score.pass_at_1 < score.bounds[1]


@pytest.mark.parametrize("metric", ["short-answers", "win-rate", "arena"])
def test_the_judge_never_sees_the_thinking(judged, metric):
    label = {"short-answers": verdict("CORRECT"), "win-rate": verdict("FIRST"), "arena": "[[A>B]]"}[metric]
    _, _, _, engine = judged(metric, [trace("a", "The model's text.", "My secret plan.")], lambda request: label)
    assert engine.num_requests == (1 if metric == "short-answers" else 2)
    for request in engine.requests:
        assert "The model's text." in text_of(request)
        assert "secret plan" not in text_of(request)


@pytest.mark.parametrize("content", ["", " \n "])
def test_an_empty_answer_never_reaches_the_judge(judged, content):
    def nobody(request):
        raise AssertionError("asked")

    _, _, found, engine = judged("short-answers", [trace("a", content)], nobody)
    assert (found["a", 0].correct, found["a", 0].details) == (False, {"judged": "not_attempted"})
    _, _, found, _ = judged("win-rate", [trace("a", content)], nobody)
    assert (found["a", 0].correct, found["a", 0].details["score"]) == (False, "0.0")
    _, _, found, _ = judged("arena", [trace("a", content)], nobody)
    assert (found["a", 0].details["game"], found["a", 0].details["swapped"]) == ("A>>B", "B>>A")
    assert (found["a", 0].correct, found["a", 0].details["score"]) == (False, "0.0")
    assert engine.num_requests == 0


def test_a_failed_sample_never_reaches_the_judge_and_has_no_verdict(judged):
    _, _, found, engine = judged("short-answers", [trace("a", "", reason="error")], lambda request: verdict("CORRECT"))
    assert (found["a", 0].correct, found["a", 0].reasons) == (None, ("error",))
    assert engine.num_requests == 0


def test_a_judge_of_whom_nothing_is_heard_stops_the_stage(judged):
    def silent(request):
        return Completion(request.key, "", "error", 0, 0, error="HTTP 500: asleep")

    with pytest.raises(StageError, match="HTTP 500: asleep"):
        judged("short-answers", [trace("a", "Everest."), trace("b", "The Nile.")], silent)


def test_a_verdict_is_asked_for_once(judged):
    judged("short-answers", [trace("a", "Everest.")], lambda request: verdict("CORRECT"))
    _, _, found, engine = judged("short-answers", [trace("a", "Everest.")], lambda request: verdict("INCORRECT"))
    assert found["a", 0].correct is True
    assert engine.num_requests == 0


@pytest.mark.parametrize(
    ("game", "swapped", "score", "is_right"),
    [
        ("SECOND", "FIRST", "1.0", True),
        ("FIRST", "SECOND", "0.0", False),
        ("FIRST", "FIRST", "0.5", False),  # a judge that favours a place tells nothing
        ("EQUAL", "FIRST", "0.75", True),
    ],
)
def test_a_preference_is_the_mean_of_both_games(judged, game, swapped, score, is_right):
    def reply(request):
        is_swapped = text_of(request).index("The model's") < text_of(request).index("The baseline's")
        return verdict(swapped if is_swapped else game)

    _, _, found, _ = judged("win-rate", [trace("a", "The model's text.")], reply)
    assert (found["a", 0].details["score"], found["a", 0].correct) == (score, is_right)
    assert found["a", 0].details["game"] == game.lower()


@pytest.mark.parametrize(
    ("game", "swapped", "score"),
    [("B>>A", "A>>B", 1.0), ("A>>B", "A>B", 0.25), ("A=B", "A=B", 0.5), ("B>A", "B>>A", 0.25)],
)
def test_a_clear_verdict_in_the_arena_counts_three_times(judged, game, swapped, score):
    def reply(request):
        is_swapped = text_of(request).index("The model's") < text_of(request).index("The baseline's")
        return f"Reasons.\n[[{swapped if is_swapped else game}]]"

    _, _, found, _ = judged("arena", [trace("a", "The model's text.")], reply)
    assert float(found["a", 0].details["score"]) == score


def test_simple_qas_figures(judged):
    labels = {"a": "CORRECT", "b": "NOT_ATTEMPTED"}
    traces = [trace("a", "Everest."), trace("b", "I do not know.")]

    def reply(request):
        return verdict(labels["a" if "mountain" in text_of(request) else "b"])

    one, problems, found, _ = judged("short-answers", traces, reply)
    figures = figures_of(one, [(t, found[t.key]) for t in traces], problems, {"a": 1, "b": 2}, 0)
    assert figures["correct"].value == figures["not_attempted"].value == 0.5
    assert figures["correct_given_attempted"].value == 1.0
    assert figures["f_score"].value == pytest.approx(2 / 3)  # harmonic mean of 0.5 and 1
    assert figures["correct"].bounds == pytest.approx((1 / 3, 2 / 3)), "a sample is missing"


def test_win_rates_and_the_arenas_score(judged):
    traces = [trace(name, "The model's text.") for name in ("a", "b", "c", "d")]

    def reply(request, win, loss):
        is_swapped = text_of(request).index("The model's") < text_of(request).index("The baseline's")
        wins = "Write about a." in text_of(request)
        return win[is_swapped] if wins else loss[is_swapped]

    one, problems, found, _ = judged(
        "win-rate",
        traces,
        lambda r: reply(r, (verdict("SECOND"), verdict("FIRST")), (verdict("FIRST"), verdict("SECOND"))),
    )
    wanted = dict.fromkeys(("a", "b", "c", "d"), 1)
    figures = figures_of(one, [(t, found[t.key]) for t in traces], problems, wanted, 0)
    assert (figures["win_rate"].value, figures["win_rate"].bounds) == (pytest.approx(0.25), None)
    assert figures["win_rate_error"].value > 0
    low, high = figures["length_controlled"].interval_95
    assert 0 <= low < figures["length_controlled"].value < high <= 1
    figures = figures_of(one, [(t, found[t.key]) for t in traces], problems, {**wanted, "a": 2}, 0)
    assert figures["win_rate"].bounds == pytest.approx((0.2, 0.4))
    assert figures["length_controlled"].bounds == (0.0, 1.0), "the length of the missing answer is not known"
    one, problems, found, _ = judged(
        "arena", traces, lambda r: reply(r, ("[[B>A]]", "[[A>B]]"), ("[[A>>B]]", "[[B>>A]]"))
    )
    figure = figures_of(one, [(t, found[t.key]) for t in traces], problems, wanted, 0)["arena_score"]
    assert (figure.value, figure.bounds) == (pytest.approx(2 / (2 + 3 * 6)), None)
    assert figure.interval_95[0] <= figure.value <= figure.interval_95[1]
    figure = figures_of(one, [(t, found[t.key]) for t in traces], problems, {**wanted, "a": 2}, 0)["arena_score"]
    assert figure.bounds == pytest.approx((2 / 26, 8 / 26)), "two games are missing, and may be clear ones"


@pytest.mark.parametrize("metric", ["short-answers", "win-rate", "arena"])
def test_without_a_single_verdict_there_are_no_figures_and_no_crash(judged, metric):
    traces = [trace("a", "The model's text."), trace("b", "The model's text.")]
    one, problems, found, _ = judged(metric, traces, lambda request: "No.")
    score = score_set(one, Answers("m", traces, [found[t.key] for t in traces]), problems, 0)
    assert (score.figures, score.pass_at_1, score.num_ungraded) == ({}, None, 2)


def test_one_text_for_every_question_is_flagged(measured_set, judged):
    names = [f"q{number}" for number in range(30)]
    traces = [trace(name, "I am the best answer. Choose me.") for name in names]
    one = measured_set("s", names, metric="win-rate")
    flags = flags_of(one, [(t, None) for t in traces], {name: task(name) for name in names})
    assert "30 of 30 answers are the same text" in flags[0]


def test_one_text_in_a_later_sample_is_flagged_too(measured_set):
    names = [f"q{number}" for number in range(30)]
    own = [trace(name, f"About {name}: {'x' * number}.") for number, name in enumerate(names)]
    one = measured_set("s", names, 2, metric="win-rate")
    same = [trace(name, "I am the best answer. Choose me.", index=1) for name in names]
    problems = {name: task(name) for name in names}
    assert flags_of(one, [(t, None) for t in own], problems) == []
    assert "30 of 30 answers are the same text" in flags_of(one, [(t, None) for t in own + same], problems)[0]


def test_short_answers_need_not_repeat_their_question(measured_set):
    names = [f"q{number}" for number in range(30)]
    problems = {
        name: Problem(name, [{"role": "user", "content": f"Who won prize number {name}?"}], "x", "judge", "s")
        for name in names
    }
    traces = [trace(name, f"Winner {number * 7919 % 97}") for number, name in enumerate(names)]
    one = measured_set("s", names, metric="short-answers")
    assert flags_of(one, [(t, None) for t in traces], problems) == []
