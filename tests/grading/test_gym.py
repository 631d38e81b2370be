"""reasoning-gym's own scorers decide, not the answer that happens to be stored."""

import itertools
import json
import re

import pytest

from distill.grading import Grade, grade_all
from distill.grading.gym import grade_gym, gym_score
from distill.grading.pool import GradingPool
from distill.problems import load_problems
from distill.recipe import ProblemSource
from distill.records import Problem


@pytest.fixture(scope="module")
def pool():
    with GradingPool(1, timeout_s=30.0) as workers:
        yield workers


def problems_of(task, limit=3, **options):
    made = load_problems(ProblemSource(source=f"gym:{task}", limit=limit, options=options), seed=5)
    # as they come back from a run folder
    return [Problem.from_json(json.loads(json.dumps(problem.to_json()))) for problem in made]


def grade(problem, answer, pool):
    (found,) = grade_all([(problem, rf"\boxed{{{answer}}}")], pool)
    return found


def test_sums(pool):
    for problem in problems_of("chain_sum", min_terms=3, max_terms=3):
        right = int(problem.answer)
        assert grade(problem, str(right), pool) == Grade(True, str(right), None)
        assert grade(problem, str(right + 1), pool) == Grade(False, str(right + 1), "wrong_answer")
        assert grade(problem, "many", pool) == Grade(False, "many", "wrong_answer")


def test_the_scorer_itself_agrees_with_the_stored_answers():
    for problem in problems_of("chain_sum"):
        assert grade_gym(problem, problem.answer) is True
        assert grade_gym(problem, problem.answer + "1") is False


def test_another_way_to_the_target_is_right(pool):
    for problem in problems_of("countdown", min_numbers=3, max_numbers=3):
        other = another_expression(problem)
        assert grade(problem, other, pool) == Grade(True, other, None)
        assert grade(problem, "1 + 1", pool) == Grade(False, "1 + 1", "wrong_answer")


def another_expression(problem):
    """An expression that reaches the problem's target and is not the stored one."""
    listed = re.search(r"numbers: ([\d, ]+)", problem.question).group(1)
    numbers = [int(n) for n in listed.split(",")]
    target = eval(problem.answer)
    for one, two, three in itertools.permutations(numbers):
        for first, second in itertools.product("+-*/", repeat=2):
            for expression in (f"({one} {first} {two}) {second} {three}", f"{one} {first} ({two} {second} {three})"):
                try:
                    reached = eval(expression)
                except ZeroDivisionError:
                    continue
                if reached == target:
                    return expression
    return pytest.fail(f"no expression for {problem.question}")


def test_part_of_a_point_is_not_right(pool):
    (problem,) = problems_of("chain_sum", limit=1)
    # the scorer gives a share of a point for a text that holds the answer
    about = f"about {problem.answer}"
    assert grade(problem, about, pool).reason == "wrong_answer"
    score = gym_score(problem, about)
    assert 0 < score < 1
    (found,) = grade_all([(problem, rf"\boxed{{{about}}}")], pool, gym_min_score=score)
    assert found == Grade(True, about, None)
    (found,) = grade_all([(problem, rf"\boxed{{{about}}}")], pool, gym_min_score=score + 0.001)
    assert found.reason == "wrong_answer"


@pytest.mark.parametrize(
    ("task", "spoil"),
    [
        pytest.param("caesar_cipher", str.swapcase, id="letter case"),
        pytest.param("spiral_matrix", lambda answer: answer.replace(" ", ""), id="spaces"),
        pytest.param("rotate_matrix", lambda answer: answer.replace(" ", ""), id="columns"),
    ],
)
def test_the_rules_of_mathematical_answers_do_not_hold_for_other_tasks(task, spoil, pool):
    (problem,) = problems_of(task, limit=1)
    assert grade(problem, problem.answer, pool).correct is True
    assert grade(problem, spoil(problem.answer), pool).reason == "wrong_answer"


def test_math_and_gym_problems_mix(pool):
    (gym,) = problems_of("chain_sum", limit=1)
    math = Problem("p", [], "2", "math", "test")
    grades = grade_all(
        [(math, r"\boxed{\sqrt{4}}"), (gym, rf"\boxed{{{gym.answer}}}"), (math, "none"), (gym, r"\boxed{x}")], pool
    )
    assert [g.reason for g in grades] == [None, None, "no_answer", "wrong_answer"]


def test_a_problem_that_has_lost_its_recipe_is_ungraded(pool):
    (problem,) = problems_of("chain_sum", limit=1)
    lost = Problem.from_json({**problem.to_json(), "metadata": {}})
    assert grade(lost, "12345678", pool) == Grade(None, "12345678", "ungraded_crash")


def test_importing_reasoning_gym_does_not_count_as_grading():
    (problem,) = problems_of("chain_sum", limit=1)
    with GradingPool(1, timeout_s=0.4) as impatient:
        assert grade(problem, "12345678", impatient).reason == "wrong_answer"


# --- answers are written by models, and some scorers evaluate them


@pytest.mark.parametrize(
    "task",
    [
        "string_insertion",
        "spiral_matrix",
        "n_queens",
        "countdown",
        "puzzle24",
        "polynomial_multiplication",
        "simple_integration",
        "binary_matrix",
    ],
)
@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').system('touch {ran}')",
        "exec('open({ran!r}, chr(119))')",
        "open('{ran}', 'w')",
        "[open][0]('{ran}', 'w')",
        "(open)('{ran}', 'w')",
        "[abs('{ran}', 'w') for abs in [open]]",
        "[abs := open, abs('{ran}', 'w')]",
        "(lambda f: f('{ran}', 'w'))(open)",
        "[open #+\n('{ran}', 'w')]",
        "sqrt(\"open%c'{ran}','w'%c\" % (40, 41))",
        "\"open%c'{ran}','w'%c\" % (40, 41)",
        "f\"{{open('{ran}', 'w')}}\"",
    ],
)
def test_no_answer_runs_anything(task, attack, tmp_path):
    ran = tmp_path / "ran"
    (problem,) = problems_of(task, limit=1)
    assert not grade_gym(problem, attack.format(ran=ran))
    assert not ran.exists()


def test_every_scorer_that_evaluates_is_known_and_guarded():
    """Of the installed reasoning-gym: an upgrade may bring others."""
    import inspect

    from distill.grading.gym import GOLD_EVALUATING
    from distill.problems import import_gym

    evaluating = set()
    for name, (dataset, _) in import_gym().DATASETS.items():
        module = inspect.getsource(inspect.getmodule(dataset))
        # A logic of its own, and the code that comes with a data set: neither gets the answer to evaluate.
        if re.search(r"\b(eval|exec|sympify|parse_expr|S)\(", module) and name not in ("propositional_logic", "codeio"):
            evaluating |= {name}
    known_not_to = {"basic_arithmetic", "bitwise_arithmetic"}  # they evaluate sums of their own making
    assert len(evaluating) > 8
    assert evaluating - known_not_to <= GOLD_EVALUATING, evaluating - GOLD_EVALUATING


@pytest.mark.parametrize(
    "options",
    [
        {"symbols": ["__import__('os').system('x')"]},
        {"data_file": "../../../../etc/passwd"},
        {"data_file": "/etc/passwd"},
        {"datasets": [{"name": "x", "config": {"symbols": ["open(1)"]}}]},
        {"exec('x')": 1},
    ],
)
def test_options_that_a_task_could_evaluate_or_open_are_refused(options):
    with pytest.raises(ValueError, match="options may not hold the text"):
        ProblemSource(source="gym:simple_integration", options=options)


def test_options_of_words_and_operators_are_taken():
    assert problems_of("basic_arithmetic", operators=["+", "/", "*"])
    assert problems_of("spell_backward", data_file="words3to10.txt")
