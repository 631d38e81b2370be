"""Letters and option texts, however they are written."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.grading import Grade, grade
from distill.grading.choice import choice_of, extract_choice, grade_choice, options_of
from distill.records import Problem

CITIES = ["London", "Paris", "Rome", "Berlin"]
any_text = st.text(st.characters(exclude_categories=()))


def problem(answer, options=CITIES, prompt="Which?"):
    metadata = {} if options is None else {"options": options}
    return Problem("p", [{"role": "user", "content": prompt}], answer, "choice", "test", metadata)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{B}",
        r"\boxed{(B)}",
        r"\boxed{\text{B}}",
        r"\boxed{\text{(B)}}",
        r"\boxed{\textbf{(B)}}",
        r"\boxed{\text{(B) Paris}}",
        r"\boxed{Paris}",
        r"\boxed{\text{paris.}}",
        r"\boxed{b}",
        "The answer is B.",
        "The answer is (B).",
        "The answer is **B**.",
        "**Answer: B**",
        "Answer: **(B)**",
        "The answer is: $B$",
        "The correct answer is B. Paris is the capital.",
        "the answer is b",
        "The correct option is B",
        "The answer is **(B) Paris**.",
        "The answer is Paris.",
        'The answer is "Paris".',
        "We compare them.\nB",
        "We compare them.\n(B)",
        "We compare them.\n**B**",
        "We compare them.\nOption B",
        "We compare them.\n**B) Paris**",
        "First I thought the answer is A. But the answer is B.",
        "Correct choice: B",
    ],
)
def test_the_chosen_option_is_found(text):
    found = grade(problem("B"), text)
    assert (found.correct, found.reason) == (True, None)
    assert grade(problem("C"), text).reason == "wrong_answer"


@pytest.mark.parametrize("gold", ["B", "b", "(B)", "B.", r"\text{(B)}", "Paris", " paris ", "(B) Paris", "B) Paris"])
def test_the_expected_option_may_be_a_letter_or_a_text(gold):
    assert grade_choice(problem(gold), "B") is True
    assert grade_choice(problem(gold), "Paris") is True
    assert grade_choice(problem(gold), "C") is False
    assert grade_choice(problem(gold), "Rome") is False


@pytest.mark.parametrize(
    "given_",
    ["A", "Lyon", "A or B", "A, B", "AB", "E", "(B) Rome", "not B", "", "BB", "Paris or Rome", "P", "1", "B" * 5_000],
)
def test_what_names_no_option_or_two_is_wrong(given_):
    assert grade_choice(problem("B"), given_) is False


@pytest.mark.parametrize("gold", [None, "", "Lyon", "E", "AB", "5"])
def test_an_expected_answer_that_is_no_option_is_ungraded(gold):
    assert grade(problem(gold), r"\boxed{B}") == Grade(None, "B", "ungraded_gold")


@pytest.mark.parametrize("text", ["", "I cannot tell.", "A man walks into a bar", r"\boxed{}", "It depends on I"])
def test_no_choice(text):
    assert grade(problem("B"), text) == Grade(False, None, "no_answer")


def test_two_boxes_are_two_choices():
    assert grade(problem("B"), r"\boxed{A} or \boxed{B}").reason == "wrong_answer"


@pytest.mark.parametrize(
    "prompt",
    [
        "Which?\nA) London\nB) Paris\nC) Rome",
        "Which?\n(A) London\n(B) Paris\n(C) Rome\nAnswer with a letter.",
        "Which?\n\nA. London\nB. Paris\nC. Rome",
        "Which?\n- A: London\n- B: Paris\n- C: Rome",
        "Example:\nA) one\nB) two\nAnswer: A\n\nWhich?\nA) London\nB) Paris\nC) Rome",
    ],
)
def test_options_are_read_off_the_prompt(prompt):
    asked = problem("B", None, prompt)
    assert options_of(asked) == ["London", "Paris", "Rome"]
    assert grade_choice(asked, "Paris") is True
    assert grade_choice(asked, "Rome") is False
    assert grade_choice(asked, "D") is False


@pytest.mark.parametrize("prompt", ["Which?", "A) only one", "B) Paris\nC) Rome", "I. A. Smith wrote it"])
def test_a_prompt_without_options(prompt):
    asked = problem("B", None, prompt)
    assert options_of(asked) == []
    assert grade_choice(asked, "(B)") is True
    assert grade_choice(asked, "A") is False
    assert grade_choice(asked, "Paris") is False


def test_listed_options_come_before_those_of_the_prompt():
    assert options_of(problem("A", ["x", "y"], "A) a\nB) b")) == ["x", "y"]
    assert options_of(problem("A", "not a list", "A) a\nB) b")) == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "letter"), [("5", "B"), ("5.0", "B"), ("$5$", "B"), ("-5", "A"), (r"\frac{10}{2}", "B"), ("6", None)]
)
def test_options_that_are_numbers(answer, letter):
    assert choice_of(answer, ["-5", "5", r"\sqrt{5}"]) == letter


def test_a_letter_is_a_letter_even_where_options_are_letters():
    assert choice_of("B", ["B", "A"]) == "B"


def test_two_options_with_the_same_text_name_none():
    assert choice_of("x", ["x", "x"]) is None


@settings(deadline=None)
@given(any_text, any_text, st.lists(any_text, max_size=4))
def test_any_text(text, gold, options):
    grade(problem(gold, options, text), text)


@pytest.mark.parametrize(
    "text",
    ["answer " * 300_000, "The answer is " * 200_000, "(A) " * 500_000, "answer" + "*" * 2_000_000, "A)\n" * 700_000],
    ids=["word", "phrase", "labels", "stars", "lines"],
)
def test_megabytes_take_linear_time(text):
    started = time.monotonic()
    extract_choice(problem("B"), text)
    grade_choice(problem("B", None, text), text)
    assert time.monotonic() - started < 20  # quadratic time would be hours
