"""IFEval's four accuracies, from stored answers."""

import json

import pytest

from distill.core.records import Problem, Trace, Verdict
from distill.evaluation.figures import figures_of, flags_of
from distill.grading.instructions import grade_instructions
from distill.storage.case_files import pack_tests

TWO = {"instruction_ids": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
ONE = {"instruction_ids": ["punctuation:no_comma"], "kwargs": [{}]}


def problem(name, metadata):
    return Problem(name, [{"role": "user", "content": "Write."}], None, "instructions", "s", metadata)


def answer(one, text):
    trace = Trace(one.id, 0, "m", "r", text, "", text, "stop", 1, 1, 0)
    return trace, Verdict(one.id, 0, grade_instructions(one, text), None)


def test_the_four_accuracies(measured_set):
    problems = {name: problem(name, metadata) for name, metadata in (("a", TWO), ("b", TWO), ("c", ONE))}
    graded = [
        answer(problems["a"], "all is well"),
        answer(problems["b"], "Sure: here it is.\nall is well"),  # loosely without its first line
        answer(problems["c"], "one, two"),
    ]
    one = measured_set("s", list(problems), metric="instructions")
    found = figures_of(one, graded, problems, dict.fromkeys(problems, 1), 0)
    assert {key: figure.value for key, figure in found.items()} == {
        "prompt_strict": pytest.approx(1 / 3),
        "prompt_loose": pytest.approx(2 / 3),
        "instruction_strict": pytest.approx(3 / 5),
        "instruction_loose": pytest.approx(4 / 5),
    }
    found = figures_of(one, graded[:2], problems, dict.fromkeys(problems, 1), 0)
    assert (found["instruction_loose"].value, found["instruction_loose"].bounds) == (1.0, (4 / 5, 1.0))


def test_an_instruction_that_nobody_can_check_is_no_zero(measured_set):
    unknown = problem("a", {"instruction_ids": ["made:up"], "kwargs": [{}]})
    known = problem("b", ONE)
    graded = [answer(unknown, "text"), answer(known, "no comma")]
    assert graded[0][1].correct is None
    one = measured_set("s", ["a", "b"], metric="instructions")
    found = figures_of(one, graded, {"a": unknown, "b": known}, {"a": 1, "b": 1}, 0)
    assert {(figure.value, figure.bounds) for figure in found.values()} == {(1.0, (0.5, 1.0))}
    assert figures_of(one, graded[:1], {"a": unknown}, {"a": 1}, 0) == {}


def test_other_metrics_have_no_further_figures(measured_set):
    one = problem("a", ONE)
    assert figures_of(measured_set("s", ["a"]), [answer(one, "x")], {"a": one}, {"a": 1}, 0) == {}
    assert figures_of(measured_set("s", ["a"], metric="instructions"), [], {"a": one}, {"a": 1}, 0) == {}


# --- a rating on Codeforces

RATINGS = list(range(800, 2_800, 20))


@pytest.fixture
def rounds(tmp_path):
    """Two rounds of 100 contestants, in which points rise with ratings."""
    path = tmp_path / "rounds.jsonl"
    rows = [{"points": 35 * place, "penalty": 0, "old_rating": rating} for place, rating in enumerate(RATINGS)]
    worth = {"A": 500, "B": 1_000, "C": 1_500}
    path.write_text("".join(json.dumps({"contest": c, "problems": worth, "rows": rows}) + "\n" for c in ("10", "11")))
    return f"file:{path}"


def contest_answers(**signs):
    """Problems such as `c10_A` with answers: `+` right, `-` wrong, `?` ungraded."""
    problems, graded = {}, []
    for name, own in signs.items():
        contest, _, letter = name.removeprefix("c").partition("_")
        metadata = {"contest": contest, "index": letter}
        problems[name] = Problem(name, [{"role": "user", "content": name}], None, "code", "s", metadata)
        for index, sign in enumerate(own):
            trace = Trace(name, index, "m", "r", "x", "", "x", "stop", 1, 1, 0)
            graded.append((trace, Verdict(name, index, {"+": True, "-": False, "?": None}[sign], None)))
    return graded, problems


def rating_of(measured_set, rounds, **signs):
    graded, problems = contest_answers(**signs)
    one = measured_set("cf", list(problems), k=2, contests=rounds)
    return figures_of(one, graded, problems, dict.fromkeys(problems, 2), 0)


def test_a_rating_by_both_definitions_with_what_it_rests_on(measured_set, rounds):
    found = rating_of(measured_set, rounds, c10_A="++", c10_B="+-", c11_A="++", c11_B="--", c99_A="++")
    assert found["rating_zero_delta"].value < found["rating_by_rank"].value
    low, high = found["rating_by_rank"].interval_95
    assert low <= found["rating_by_rank"].value <= high
    counts = ("rating_contests", "rating_contests_left_out", "rating_problems_not_asked")
    assert [found[key].value for key in counts] == [2, 0, 2]
    assert 0 < found["rating_ahead_of"].value < 1
    better = rating_of(measured_set, rounds, c10_A="++", c10_B="++", c11_A="++", c11_B="++")
    assert better["rating_by_rank"].value > found["rating_by_rank"].value


def test_a_round_with_an_ungraded_problem_is_left_out_and_never_counted_as_not_solved(measured_set, rounds):
    found = rating_of(measured_set, rounds, c10_A="++", c10_B="??", c11_A="++", c11_B="?+")
    assert (found["rating_contests"].value, found["rating_contests_left_out"].value) == (1, 1)
    assert found["rating_by_rank"].interval_95 is None, "one round says nothing of others"
    assert rating_of(measured_set, rounds, c10_A="??", c11_A="??") == {}


def test_without_rounds_or_problems_of_them_there_is_no_rating(measured_set, rounds):
    assert rating_of(measured_set, None, c10_A="++") == {}
    assert rating_of(measured_set, rounds, c77_A="++", c10_Z="++") == {}


def flags_without_rating(measured_set, rounds, **signs):
    graded, problems = contest_answers(**signs)
    return flags_of(measured_set("cf", list(problems), k=2, contests=rounds), graded, problems)


def test_why_there_is_no_rating_is_told(measured_set, rounds):
    assert flags_without_rating(measured_set, rounds, c10_A="++") == []
    assert flags_without_rating(measured_set, None, c77_A="++") == []
    (flag,) = flags_without_rating(measured_set, rounds, c77_A="++", c10_Z="++")
    assert "`contest` and `index` in their metadata ('77' and 'A' in the first one; '10' and 'A' among" in flag
    (flag,) = flags_without_rating(measured_set, rounds, c10_A="??", c11_A="??")
    assert "no answer could be graded" in flag


# --- programs


def program_of(name, index, passed, weaker=None):
    trace = Trace(name, index, "m", "r", "x", "", "x", "stop", 1, 1, 0)
    details = {"tests_passed": passed} | ({"weaker_tests": weaker} if weaker else {})
    return trace, Verdict(name, index, passed.split(" of ")[0] == passed.split(" of ")[1], "code", details=details)


def test_partial_credit_is_the_mean_over_samples_then_problems_and_weak_tests_are_counted(measured_set):
    graded = [program_of("a", 0, "4 of 4", "1"), program_of("a", 1, "0 of 4", "1"), program_of("b", 0, "3 of 4")]
    trace, _ = program_of("c", 0, "0 of 1")
    graded.append((trace, Verdict("c", 0, None, None, ("ungraded_sandbox",))))
    found = figures_of(measured_set("s", ["a", "b", "c"], k=2), graded, {}, dict.fromkeys("abc", 2), 0)
    values = {key: figure.value for key, figure in found.items()}
    assert values == {"tests_passed": pytest.approx((0.5 + 0.75) / 2), "problems_with_weak_tests": 1}


def test_answers_without_a_program_pass_no_test(measured_set):
    tests = pack_tests([{"kind": "stdin", "stdin": "1", "expected": "1"}])
    problems = {name: Problem(name, [], None, "code", "s", tests=tests) for name in "ab"}
    trace, _ = program_of("b", 0, "0 of 1")
    graded = [program_of("a", 0, "4 of 4"), (trace, Verdict("b", 0, False, None, ("no_answer",)))]
    found = figures_of(measured_set("s", ["a", "b"]), graded, problems, dict.fromkeys("ab", 1), 0)
    assert found["tests_passed"].value == 0.5


@pytest.mark.parametrize("said", ["", "all", "1 of", "1 of 0", "-1 of 2", "x of y"])
def test_a_damaged_count_of_tests_says_nothing(measured_set, said):
    trace, _ = program_of("a", 0, "1 of 1")
    graded = [(trace, Verdict("a", 0, True, "code", details={"tests_passed": said}))]
    assert figures_of(measured_set("s", ["a"]), graded, {}, {"a": 1}, 0) == {}
