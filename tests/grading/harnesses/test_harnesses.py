"""Other harnesses' rules: what each takes for the answer, and what it calls right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.errors import UserError
from distill.grading import Grade
from distill.grading.harnesses import EXTRACTORS, HARNESSES, _grade, checked, grade_all_as
from distill.grading.harnesses.findings import last_answer_line, last_braced_box
from distill.grading.harnesses.lighteval import without_thoughts
from distill.grading.pool import GradingPool

CITIES = ["London", "Paris", "Rome", "Berlin"]


def choice(answer="B", options=CITIES, source="gpqa"):
    return Problem("p", [{"role": "user", "content": "Which?"}], answer, "choice", source, {"options": options})


def maths(answer, task="math"):
    return Problem("p", [{"role": "user", "content": "How many?"}], answer, task, "test")


def grade_as(harness, problem, text):
    """Grade one trusted text in this process."""
    return _grade((checked(harness, problem.task), problem, text))


def test_every_harness_names_its_sources_and_what_it_sees():
    assert {*HARNESSES} == {"lighteval", "simple-evals", "evalchemy", "nemo-skills"}
    for harness in HARNESSES.values():
        assert all("@" in source or "copies of" in source for source in harness.sources)
        assert harness.notes
        assert {*harness.rules} == {"math", "numeric", "choice"}
    assert [name for name, harness in HARNESSES.items() if not harness.sees_thought] == ["lighteval"]


LETTERS = [
    # text, lighteval, simple-evals, evalchemy, nemo-skills
    ("Answer: B", "B", "B", "B", "B"),
    ("Answer: A. No, wait.\nAnswer: B", "B", "A", "B", "B"),
    (r"We get \boxed{B}.", "B", None, "B", "B"),
    ("The final answer is (B) Paris", "B", None, "B", "B"),
    ("The final answer is Bern", "B", None, None, None),
    ("Answer: b", "A", "b", "B", "B"),  # the A of "Answer"
    ("**Answer: B**", "B", "B", "B", "B"),
    ("Answer: **B**", "B", None, "B", None),
    ("Answer: $B$", "B", "B", "B", None),
    (r"Answer: C, so \boxed{\text{B}}", "C", "C", "B", "B"),
    ("The answer is B, a city.", "B", None, "A", None),
    ("Nobody can tell", None, None, None, None),
    ("B is right.\nSo it is a pity.", "B", None, "A", None),
    ("Answer: E", "A", None, None, "E"),
    ("", None, None, None, None),
]


@pytest.mark.parametrize("row", LETTERS, ids=[row[0] for row in LETTERS])
def test_the_letter_that_each_harness_takes(row):
    text, *letters = row
    found = [grade_as(harness, choice(), text) for harness in HARNESSES]
    assert [grade.extracted_answer for grade in found] == letters
    assert [grade.correct for grade in found] == [letter == "B" for letter in letters]
    reasons = [None if letter == "B" else "no_answer" if letter is None else "wrong_answer" for letter in letters]
    assert [grade.reason for grade in found] == reasons


@pytest.mark.parametrize("harness", HARNESSES)
def test_as_many_letters_as_a_problem_has_options(harness):
    ten = choice("J", [f"city {number}" for number in range(10)], "mmlu-pro")
    assert grade_as(harness, ten, "Answer: J") == Grade(True, "J", None)
    assert grade_as(harness, choice("J", CITIES), "Answer: J") == Grade(None, None, "ungraded_gold")


def test_mmlu_of_simple_evals_deletes_marks_first():
    for text in ("Answer: **B**", r"Answer: $\boxed{B}$", r"**Answer:** \text{B}", "Answer: $B$"):
        assert grade_as("simple-evals", choice(source="mmlu"), text).extracted_answer == "B"
    assert grade_as("simple-evals", choice(source="mmlu"), "Answer:\nB").extracted_answer is None


def test_an_option_may_be_expected_by_its_text():
    assert grade_as("evalchemy", choice("Paris"), "B").correct is True


MATHS = [
    # text, expected answer, verdicts of lighteval, simple-evals, evalchemy and nemo-skills
    (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}", True, False, True, True),
    (r"So $\boxed{0.5}$.", r"\frac{1}{2}", True, False, True, True),
    (r"So $\boxed{0.25}$.", r"\frac{1}{4}", True, False, False, True),
    ("Answer: 7\nAnswer: 8", "8", True, False, False, False),
    ("Answer: 8\nAnswer: 7", "8", False, True, False, False),
    ("Answer: $x + 1$.", "1+x", True, True, False, False),
    (r"$\boxed{1}$ then $\boxed{2}$", "2", True, False, True, True),
    (r"\boxed{1} then \boxed{2}", "2", False, False, True, True),  # outside formulas, lighteval joins all boxes
    (r"\boxed{2} then \boxed{3", "2", True, False, False, False),
    (r"\boxed 7$ is it", "7", True, False, True, False),
    (r"$\boxed{25\%}$", "25", True, False, True, True),
    (r"$\boxed{\text{Friday}}$", r"\text{Friday}", True, False, True, True),
    ("It is 12 apples", "12", True, False, False, False),
]


@pytest.mark.parametrize("row", MATHS, ids=[row[0] for row in MATHS])
def test_what_each_harness_calls_right(row):
    text, gold, *verdicts = row
    found = [grade_as(harness, maths(gold), text).correct for harness in HARNESSES]
    assert dict(zip(HARNESSES, found, strict=True)) == dict(zip(HARNESSES, verdicts, strict=True))


def test_only_lighteval_removes_a_thought():
    text = "<think>Answer: A or \\boxed{7}</think> I am not sure."
    assert [grade_as(h, choice("A"), text).correct for h in HARNESSES] == [False, True, True, False]
    assert [grade_as(h, maths("7"), text).correct for h in HARNESSES] == [False, True, True, True]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("a</think>b", "a</think>b"),
        ("<think>a", "<think>a"),
        ("</think>a<think>b</think>c", "</think>ac"),
    ],
)
def test_thoughts_are_removed_in_pairs(text, kept):
    assert without_thoughts(text) == kept


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (r"\dfrac12", r"\frac{1}{2}", True),
        ("1/2", r"\frac{1}{2}", True),
        ("x/2", r"\frac{x}{2}", False),
        ("x/2", "x/2", True),
        ("k = 5", "5", True),
        ("total=5", "5", False),
        (r"5\text{ cm}", "5", True),
        (r"90^\circ", "90", True),
        (r"\sqrt3", r"\sqrt{3}", True),
        (".5", "0.5", True),
        ("(1, 2)", "(1,2)", True),
        ("1,000", "1000", False),
        ("", "5", False),
    ],
)
def test_strings_that_evalchemy_takes_for_the_same(one, other, is_same):
    assert grade_as("evalchemy", maths(other), rf"\boxed{{{one}}}").correct is is_same


@pytest.mark.parametrize(
    ("gold", "given_", "is_right"),
    [
        ("B", r"\text{B}", True),
        ("B", "C", False),
        ("016", "16", True),
        ("50", r"50\%", True),
        ("Friday", "friday evening", False),
        ("3", "3.", True),
        (r"\frac{6}{4}", "1.5", True),
    ],
)
def test_values_that_nemo_skills_takes_for_the_same(gold, given_, is_right):
    assert grade_as("nemo-skills", maths(gold), rf"\boxed{{{given_}}}").correct is is_right


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("last box", r"\boxed{1}, no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("first answer", "Answer: 1\nAnswer: 2", "1"),
        ("last answer", "Answer: 1\nAnswer: **2**", "2"),
        ("last answer", "no word of it", None),
        ("last box", r"\boxed{ }", None),
    ],
)
def test_places(name, text, answer):
    grade = grade_as(name, maths(answer or "1"), text)
    assert grade.extracted_answer == answer
    assert grade.correct is (answer is not None)


@pytest.mark.parametrize("text", ["Answer: (B) Paris", "Answer: Paris", "answer : B."])
def test_places_of_options(text):
    assert grade_as("first answer", choice(), text) == Grade(True, "B", None)
    assert grade_as("last box", choice(), rf"\boxed{{Paris}} {text}") == Grade(True, "B", None)


@pytest.mark.parametrize(("harness", "task"), [("lighteval", "judge"), ("evalchemy", "gym"), ("simple-evals", "exact")])
def test_a_task_without_a_rule_is_refused(harness, task):
    with pytest.raises(UserError, match="no rule for the task"):
        grade_as(harness, maths("1", task), "1")


def test_an_unknown_harness_is_refused():
    with pytest.raises(UserError, match="lighteval, simple-evals"):
        grade_as("harness", maths("1"), "1")
    with pytest.raises(UserError, match="No harness"), GradingPool(1) as pool:
        list(grade_all_as("harness", [(maths("1"), "1")], pool))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_an_expected_answer_that_cannot_be_compared_is_ungraded(name):
    text = "Answer: B\nAnswer: B \\boxed{B}"
    for problem in (choice("Lyon"), choice(None), maths(None), maths("\x0crac{1}{2}")):
        assert grade_as(name, problem, text) == Grade(None, None, "ungraded_gold")


def test_the_pool_gives_the_same_grades_in_order():
    problems = [maths(gold) for _, gold, *_ in MATHS] + [choice() for _ in LETTERS]
    answers = list(zip(problems, [row[0] for row in MATHS] + [row[0] for row in LETTERS], strict=True))
    with GradingPool(2) as pool:
        for name in EXTRACTORS:
            assert list(grade_all_as(name, answers, pool)) == [grade_as(name, *answer) for answer in answers]


def test_a_hostile_answer_costs_only_itself():
    tower = r"\boxed{" + "9^{" * 6 + "9" + "}" * 6 + "}"
    with GradingPool(1, timeout_s=1.0) as pool:
        slow, quick = grade_all_as("lighteval", [(maths(r"7^{7^{7^{7}}}"), tower), (maths("2"), r"\boxed{2}")], pool)
    assert slow.correct is not True
    assert quick == Grade(True, "2", None)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.sampled_from(["simple-evals", "evalchemy", "lighteval"]))
def test_any_text(text, harness):
    grade = grade_as(harness, choice(), text)
    assert grade.correct is (grade.extracted_answer == "B")
    if harness == "evalchemy":
        assert grade_as(harness, maths("5"), text).correct in (True, False)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["\\boxed", "{", "}", "Answer", ":", " ", "\n", "5", "$"]), max_size=40))
def test_places_hold_pieces_of_the_text(pieces):
    text = "".join(pieces)
    for find in (last_braced_box, last_answer_line):
        found = find(text)
        assert found is None or found in text


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 700_000,
        "Answer: " * 600_000,
        "answer" + " " * 4_000_000,
        "final answer " * 400_000,
        "{" * 5_000_000,
    ],
    ids=["boxes", "answers", "spaces", "final", "braces"],
)
def test_megabytes_take_linear_time(text):
    for harness in HARNESSES:
        assert grade_as(harness, choice(), text).correct is False  # quadratic time would be hours
