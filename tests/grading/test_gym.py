"""reasoning-gym's own scorers decide, not the answer that happens to be stored."""

import ast
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import grading
from distill.core.records import Problem
from distill.errors import ProblemError
from distill.grading import Grade, grade_all
from distill.grading.gym import grade_gym, gym_score
from distill.grading.gym_answers import TooLargeError, as_expression, as_list, without_latex
from distill.grading.gym_tasks import MAX_GYM_SIZE, gym_dataset
from distill.grading.pool import GradingPool
from distill.isolation.walls import has_wall
from distill.recipe.problems import ProblemSource
from distill.sources.problems import load_problems


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


def fuzz(tmp_path, *options):
    """What of the hostile answers ran, when all tasks were handed all of them outside of any wall."""
    marker = tmp_path / "ran"
    script = Path(__file__).with_name("fuzz_gym_tasks.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, marker, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1].lstrip(".")), marker.exists()


@pytest.mark.slow
def test_no_answer_runs_anything(tmp_path):
    found, has_run = fuzz(tmp_path)
    assert found["tasks"] > 90
    assert found["answers"] > 70
    assert found["ran"] == []
    assert not has_run


def test_what_runs_would_be_seen(tmp_path):
    found, has_run = fuzz(tmp_path, "--unread")
    assert {"gym:simple_integration, quoted call: os.system", "gym:n_queens, call: called"} <= set(found["ran"])
    assert has_run


@pytest.mark.parametrize("task", ["simple_integration", "intermediate_integration"])
@pytest.mark.parametrize("wrapped", ["{}", "[{}]", "{{{}: 1}}", "b{}", "f{}", "[[{}]]", "({},)"])
def test_a_quoted_call_does_nothing_and_is_wrong(task, wrapped, pool, tmp_path):
    (problem,) = problems_of(task, limit=1)
    call = json.dumps(f"__import__('os').system('touch {tmp_path / 'ran'}')")
    assert grade(problem, wrapped.format(call), pool).reason == "wrong_answer"
    assert not list(tmp_path.iterdir())


@given(st.text(alphabet="x12.()+-*/^ ,'\"[]{}fb_:=\\eio", max_size=40))
def test_what_is_read_is_arithmetic_and_nothing_else(answer):
    for read in (as_expression, as_list):
        with contextlib.suppress(TooLargeError):
            written = read(answer)
            if written is not None:
                nodes = {type(node) for node in ast.walk(ast.parse(written, mode="eval"))}
                assert not nodes & {ast.Attribute, ast.JoinedStr, ast.Lambda, ast.Subscript, ast.NamedExpr, ast.Dict}
                texts = [n.value for n in ast.walk(ast.parse(written)) if isinstance(n, ast.Constant)]
                assert not [
                    text for text in texts if isinstance(text, bytes) or (isinstance(text, str) and "(" in text)
                ]


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("(50 + 7)*(3 - 1)", "(50 + 7) * (3 - 1)"),
        ("x**2*sin(x)/2 + exp(-x) + C", "x ** 2 * sin(x) / 2 + exp(-x) + C"),
        (r"\frac{7}{2}x^{2}\sin(x) + C", "7 / 2 * x ** 2 * sin(x) + C"),
        ("$2x^2 - 3x$", "2 * x ** 2 - 3 * x"),
        (r"5 \times 4 \div 2", None),
        (r"5 \times 4 \cdot 2", "5 * 4 * 2"),
        ("arctan(x)", "atan(x)"),
        ("2 apples", None),
        ("open(1)", None),
        ("x.real", None),
        ("True", None),
        ("2j", "2 * j"),
    ],
)
def test_arithmetic_is_read_in_pythons_way_or_in_latexs(answer, read):
    assert as_expression(answer) == read


@pytest.mark.parametrize("answer", ["9**9**9", "x**1001", "2^{9^9}", "((1+1)**999)**999", "(" * 200 + "1" + ")" * 200])
def test_what_counts_too_far_is_not_read(answer):
    with pytest.raises(TooLargeError):
        as_expression(answer)


@pytest.mark.parametrize("task", ["simple_integration", "chain_sum", "spiral_matrix", "jugs", "complex_arithmetic"])
def test_brackets_without_end_around_the_right_answer_leave_it_ungraded(task, pool):
    (problem,) = problems_of(task, limit=1)
    deep = "(" * 20_000 + problem.answer + ")" * 20_000
    assert grade(problem, deep, pool).reason == "ungraded_crash"


@pytest.mark.skipif(not has_wall("seccomp"), reason="needs filters of system calls")
def test_tasks_that_evaluate_are_not_scored_behind_a_weak_wall():
    (evaluating,), (other,) = problems_of("simple_integration", limit=1), problems_of("chain_sum", limit=1)
    with GradingPool(1, timeout_s=30.0, wall="seccomp") as weak:
        assert grade(evaluating, "x", weak) == Grade(None, "x", "ungraded_isolation")
        assert grade(other, other.answer + ".0", weak).correct is not None


def test_every_scorer_that_evaluates_is_known_and_guarded():
    """Of the installed reasoning-gym: an upgrade may bring others."""
    import inspect

    from distill.grading.gym import GOLD_EVALUATING
    from distill.grading.gym_tasks import import_gym

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


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"symbols": ["__import__('os').system('true')"]}},
        {"options": {"nested": [{"deep": "open('x')"}]}},
        {"options": {"data_file": "/etc/passwd"}},
        {"options": {"a(b)": 1}},
        {"options": {1: 2}},
        {"options": ["symbols"]},
        {"size": MAX_GYM_SIZE + 1},
        {"size": 10**30},
        {"size": 0},
        {"size": True},
        {"size": "3"},
        {"seed": "1"},
        {"seed": 1 << 70},
        {"task": "os.path"},
        {"task": ["simple_integration"]},
        {"task": None},
    ],
)
def test_options_are_checked_where_they_are_used(change, pool):
    (problem,) = problems_of("simple_integration", limit=1)
    recipe = {**problem.metadata["gym"], **change}
    with pytest.raises(ProblemError):
        gym_dataset(recipe)
    hostile = replace(problem, metadata={"gym": recipe})
    assert grade(hostile, "x", pool).correct is None


# --- the entry that was asked


def made_under(hash_seed, task):
    """Problems of a task as another process makes them."""
    code = (
        "import json; from distill.sources.problems import load_problems\n"
        "from distill.recipe.model import ProblemSource\n"
        f"made = load_problems(ProblemSource(source='gym:{task}', limit=3), seed=5)\n"
        "print(json.dumps([problem.to_json() for problem in made]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return [Problem.from_json(row) for row in json.loads(done.stdout)]


HASHED = ["polynomial_multiplication", "isomorphic_strings", "ransom_note", "word_ladder"]
"""Tasks whose entries depend on the order of a set."""


@pytest.mark.parametrize("task", HASHED)
def test_the_hash_seed_of_a_process_does_not_matter(task, pool):
    first, second = made_under(1, task), made_under(2, task)
    assert first == second == problems_of(task)
    for problem in first:
        scored = Problem.from_json(problem.to_json())
        assert gym_score(scored, scored.answer) == 1.0
        assert grade(scored, f" {scored.answer} ", pool).correct is True


def other_entry(problem, **change):
    """The problem as a run folder has it whose entries were made under another hash seed."""
    question = "Asked otherwise: " + problem.question.replace("a", "b").replace("1", "2")
    return replace(problem, prompt=[{"role": "user", "content": question}], **change)


def test_an_entry_that_is_not_made_again_is_scored_by_its_own_answer_where_that_is_all_it_takes(pool):
    (problem,) = problems_of("polynomial_multiplication", limit=1)
    asked = other_entry(problem, answer="3*x**2 + 2*x")
    assert grade(asked, "2*x + 3*x**2", pool).correct is True
    assert grade(asked, problem.answer, pool).reason == "wrong_answer"
    for gold in ("open(1)", "'x'", "9**9**9"):
        assert grade(replace(asked, answer=gold), "1", pool).reason == "ungraded_entry"


def test_an_entry_that_is_not_made_again_is_ungraded_where_its_scorer_needs_more(pool):
    (problem,) = problems_of("word_ladder", limit=1)
    words = problem.answer.split(",")
    asked = other_entry(problem, answer=",".join(["OTHER", *words]))
    assert grade(asked, problem.answer, pool).reason == "ungraded_entry"
    beyond = replace(problem, answer="AB,CD", metadata={"gym": {**problem.metadata["gym"], "index": 7}})
    assert grade(beyond, problem.answer, pool).reason == "ungraded_entry"


def test_grading_in_this_process_scores_the_asked_entry_too():
    (problem,) = problems_of("ransom_note", limit=1)
    assert grading.grade(problem, rf"\boxed{{\text{{{problem.answer}}}}}").correct is True


# --- right answers in forms that people write


FORMS = {
    "box": r"\boxed{%s}",
    "text": r"\boxed{\text{%s}}",
    "mathrm": r"So $\boxed{\mathrm{%s}}$",
    "bold": r"\boxed{\textbf{%s}}",
    "dollars": r"\boxed{$%s$}",
    "brackets": r"\boxed{\(%s\)}",
    "period": r"\boxed{%s.}",
    "stars": r"\boxed{**%s**}",
    "code": r"\boxed{`%s`}",
}
FORMED = [
    *("ransom_note", "course_schedule", "caesar_cipher", "jugs", "number_sorting", "group_anagrams", "spiral_matrix"),
    *(
        "rotate_matrix",
        "countdown",
        "simple_integration",
        "prime_factorization",
        "fraction_simplification",
        "game_of_life",
    ),
    *(
        "time_intervals",
        "complex_arithmetic",
        "word_sorting",
        "game_of_life_halting",
        "bitwise_arithmetic",
        "chain_sum",
    ),
]


@pytest.mark.parametrize("task", FORMED)
def test_right_answers_are_right_in_any_dress(task, pool):
    problems = problems_of(task)
    texts = [(problem, form % problem.answer) for problem in problems for form in FORMS.values()]
    found = list(grade_all(texts, pool))
    assert [(text, one.reason) for (_, text), one in zip(texts, found, strict=True) if one.correct is not True] == []


@pytest.mark.parametrize(
    ("task", "written"),
    [
        pytest.param("jugs", lambda gold: gold.replace(", ", ","), id="a list without spaces"),
        pytest.param("group_anagrams", lambda gold: gold.replace(", ", " , "), id="a list with spaces"),
        pytest.param("word_sequence_reversal", lambda gold: gold.replace(", ", ","), id="words without spaces"),
        pytest.param("ransom_note", str.lower, id="small letters"),
        pytest.param("rotate_matrix", lambda gold: as_matrix(gold), id="a matrix of LaTeX"),
        pytest.param("prime_factorization", lambda gold: gold.replace("×", r"\times"), id="a sign of LaTeX"),
        pytest.param("simple_integration", lambda gold: as_latex(gold), id="an expression of LaTeX"),
        pytest.param("polynomial_multiplication", lambda gold: as_latex(gold), id="a polynomial of LaTeX"),
        pytest.param("sentence_reordering", lambda gold: gold.removesuffix("."), id="no period"),
    ],
)
def test_right_answers_are_right_as_people_write_them(task, written, pool):
    problems = problems_of(task)
    found = [(problem.answer, grade(problem, written(problem.answer), pool)) for problem in problems]
    assert [one for _, one in found if one.correct is not True] == []


def as_matrix(gold):
    rows = [" & ".join(row.split()) for row in gold.splitlines()]
    return r"\begin{bmatrix}" + r" \\ ".join(rows) + r"\end{bmatrix}"


def as_latex(gold):
    return "$" + re.sub(r"\*\*(\d+)", r"^{\1}", gold).replace("*", "") + "$"


@pytest.mark.parametrize("task", [task for task in FORMED if task != "countdown"])
def test_wrong_answers_are_wrong_in_any_dress(task, pool):
    for problem in problems_of(task):
        digit = next((char for char in problem.answer if char.isdigit()), None)
        if digit is None:
            other = {"True": "False", "False": "True"}.get(problem.answer, problem.answer[::-1] + "x")
        else:
            other = problem.answer.replace(digit, str((int(digit) + 4) % 10), 1)
        for form in ("box", "text", "dollars", "period"):
            ((found),) = grade_all([(problem, FORMS[form] % other)], pool)
            assert found.correct is not True, (problem.answer, other)


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (r"\text{True}", "True"),
        (r"$\boxed{\text{a}}$", "a"),
        (r'\text{{"a": 1}}', '{"a": 1}'),
        (r"a\_b", "a_b"),
        (r"$1$ and $2$", "$1$ and $2$"),
        ("**b**", "b"),
        (r"\left(1, 2\right)", "(1, 2)"),
        ("", ""),
    ],
)
def test_latex_is_taken_off(answer, plain):
    assert without_latex(answer) == plain
