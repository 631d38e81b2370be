"""Letters and option texts, however they are written."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.grading import Grade, grade
from distill.grading.choice import extract_choice, grade_choice
from distill.grading.options import choice_of, options_of

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


@pytest.mark.parametrize(
    "text",
    [
        "The answer is B, as it lies on the Seine.",
        "The correct option is B because of the tower.",
        "The answer is **B** \N{WHITE HEAVY CHECK MARK}",
        "B \N{CHECK MARK}",
        "The answer is Paris, the city on the Seine.",
        "We look at the map.\n\nParis",
        "Answer: (B) Paris \N{EN DASH} the capital",
        "<answer>B</answer>",
        "<answer> (B) Paris </answer>",
        "<answer>The answer is (B)</answer>",
        r"\boxed{B. Paris}",
        r"\fbox{B}",
        r"\boxed B",
        "boxed{B}",
        "答案是B。",
        "故选：B",
        "正确答案为B，因为…",
        "正解はBです。",
        "정답은 B입니다.",
        "La respuesta correcta es la (B).",
        "Die richtige Antwort ist B.",
        "Ответ: B",
        "Option B is correct.",
        "Therefore, option B is the correct answer.",
        "(B) is the correct answer.",
        "I would choose B.",
        "Thus, (B).",
        "It is not listed, but the closest is (B).",
        "That is the city on the river, which is option (B).",
        "#### B",
        "A: B",
        "**Answer**\n(B) Paris",
        "The answer is (B).\n\n(A) is incorrect because it lies in England.",
        "The answer is B. A is wrong, C is wrong, D is wrong.",
        "The answer is B, not A.",
        "The answer is B rather than A",
        "The answer is (B), as (A) and (C) are no capitals.",
        "**Answer: B**\n\nNote that the answer is independent of the year.",
        "The correct option is B. This choice is supported by the map.",
        "The answer is (B). Freedom of choice is an old right there.",
        "Final Answer: The final answer is $\\boxed{B}$. I hope it is correct.",
        "The correct answer is:\n\nThe answer is (B).",
        "Answer: B) Paris\n\nExplanation: A) London is not on the Seine.",
        "\\boxed{\\Delta x = 3} is the distance.\n\n**Answer: B**",
        "The closest option is Rome, so the answer is (B).",
        "Paris is the correct answer.",
    ],
)
def test_whatever_stands_around_the_chosen_option(text):
    assert grade(problem("B"), text).correct is True
    assert grade(problem("C"), text).correct is False


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (B) or (D).",
        "So the answer is B and C.",
        r"\boxed{(B) \text{ or } (C)}",
        "The answer is A, B, C, D.",
        "The answer is (A, B)",
        "The answer is Paris or Rome.",
        "The answer is Paris, Rome.",
        "The answer is (B) Rome",
        "(B) is wrong because it lies in France.",
        "(b) The second pump then fills the tank, so that",
        "The closest choice is (B), but it is not correct.",
        "The answer is B? No, that is wrong.",
        "The answer is not B.",
        "The answer is neither B nor C.",
        "The answer is between B and C.",
        "If the answer is B, then we stay.",
        "A) London\nB) Paris",
        "Both A and B are correct.",
        "(A) and (B) are correct.",
        "Option B is not correct.",
        "We rule out (B).",
        "Let us consider option (B)",
        "not option (B).",
        "Is it B?",
        r"\boxed{A} \boxed{C} \boxed{D} \boxed{B}",
        "\\boxed{A}\n\n\\boxed{C}\n\n\\boxed{D}\n\n\\boxed{B}",
        "The answer is A. The answer is C. The answer is D. The answer is B.",
        r"All options: \boxed{A, B, C, D}",
    ],
)
def test_what_chooses_none_or_several_is_not_right(text):
    assert grade(problem("B"), text).correct is False


def test_a_stated_letter_comes_after_a_box_whose_value_is_another_options_text():
    numbers = problem("D", ["2", "3", "5", "7"])
    assert grade(numbers, "The ratio is $\\boxed{2}$.\n\nFinal answer: (D)").correct is True
    assert grade(numbers, "The answer is 7 because of the ratio.").correct is True
    assert grade(numbers, r"\boxed{5}").correct is False


def test_an_option_that_names_none_of_the_others():
    options = ["oak", "beech", "None of these", "fir"]
    assert grade(problem("C", options), "C. None of these").correct is True
    assert grade(problem("C", options), "The answer is C. None of these").correct is True
    assert grade(problem("C", options), "The answer is none of these.").correct is True


def test_articles_and_pronouns_are_no_letters():
    many = [f"option number {i}" for i in range(10)]
    assert grade(problem("A", many), "The answer is a matter of taste.").correct is False
    assert grade(problem("A", many), "The answer is A matter of taste.").correct is False
    assert grade(problem("I", many), "The answer is I think unclear.").correct is False
    assert grade(problem("I", many), "The answer is I because it fits.").correct is True
    assert grade(problem("A", many), "The answer is a.").correct is True


@pytest.mark.parametrize(
    "prompt",
    [
        "Which is prime? A) 4 B) 6 C) 7 D) 9",
        "Which is prime?\nA) 4  B) 6\nC) 7  D) 9",
        "Which is prime? (A) 4 (B) 6 (C) 7 (D) 9",
        "Which is prime? A. 4 B. 6 C. 7 D. 9",
        "Which is prime? A: 4, B: 6, C: 7, D: 9",
        r"Which is prime? $\textbf{(A) } 4 \qquad \textbf{(B) } 6 \qquad \textbf{(C) } 7 \qquad \textbf{(D) } 9$",
    ],
)
def test_options_on_one_line_of_the_prompt(prompt):
    asked = problem("C", None, prompt)
    assert options_of(asked) == ["4", "6", "7", "9"]
    assert grade(asked, "The answer is 7.").correct is True
    assert grade(asked, "The answer is 9.").correct is False
    assert grade(asked, "The answer is E.").correct is False


@pytest.mark.parametrize("prompt", ["A. Smith and B. Jones met.", "Is (A) or (B) right?", "Use A: it is good."])
def test_initials_and_mentions_are_no_options(prompt):
    assert options_of(problem("B", None, prompt)) in ([], ["or", "right?"])


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


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is not (A) but (B).", "B"),
        ("Therefore, (B) is correct.", "B"),
        ("Hence, in this case, (B) is correct.", "B"),
        ("I think it's B.", "B"),
        ("[B]", "B"),
        ("So the answer is B) Paris.", "B"),
        ("We compare all of them.\nB is correct.", "B"),
        ("Choose B.", "B"),
    ],
)
def test_an_option_that_is_said_in_other_words(text, letter):
    assert extract_choice(problem(letter), text) == letter


@pytest.mark.parametrize(
    "text", ["So the answer is B) London.", r"\boxed{B. London}", "(B) London", "A, (B) is correct."]
)
def test_a_letter_with_the_text_of_another_option_is_neither(text):
    assert grade(problem("A"), text).correct is False
    assert grade(problem("B"), text).correct is False


def test_an_option_may_begin_with_what_looks_like_a_letter():
    options = ["I. only", "II only", *"abcdefgh"]
    assert choice_of("I. only", options) == "A"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is 10.4, since a tenth was added.", "B"),
        ("The answer is 10.4 because a tenth was added.", "B"),
        ("The answer is 10. A tenth was added.", "A"),
        ("The answer is 8!, as each order counts.", "D"),
        ("The answer is 8, as each order counts.", "C"),
        ("The answer is 8! It surprised me.", "D"),
    ],
)
def test_a_point_within_a_number_and_a_factorial_end_no_sentence(text, letter):
    assert extract_choice(problem(letter, ["10", "10.4", "8", "8!"]), text) == letter


@pytest.mark.parametrize("text", ["The answer is 8!", "The answer is 8! It surprised me.", "The answer is **8**!"])
def test_a_number_may_be_exclaimed(text):
    assert extract_choice(problem("B", ["4", "8"]), text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "The answer is not among the choices.",
        "So the answer is not listed. However, we go on.",
        "The correct answer is (not listed).",
        "The answer is not in the list, so I stop here.",
        "Hence our answer must be incorrect.",
        "The closest option is Paris, but this is not an option.",
        "The closest option is Paris, but this is also not among the choices.",
        "However, option B is not the answer we are looking for.",
        "There are six ways to choose a pair from it.",
    ],
)
def test_a_text_that_says_that_no_option_fits_chooses_none(text):
    assert grade(problem("B"), text) == Grade(False, None, "no_answer")


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The answer is (A), (B), and (D).", "A, B, D"),
        ("The answer is (A, C, D).", "A, C, D"),
        ("The answer is A and B.", "A, B"),
        ("The answer is (B) or (B).", "B"),
        ("The answer is (A, B, Z).", None),
    ],
)
def test_every_chosen_option_is_named(text, letters):
    extracted = extract_choice(problem("B"), text)
    assert extracted == letters if letters else extracted not in [*"ABCD"]


@pytest.mark.parametrize(
    "text", ["The answer we are looking for is B.", "The answer that we're looking for is (B).", "I choose a: B\nB"]
)
def test_the_answer_that_is_looked_for(text):
    assert extract_choice(problem("B"), text) == "B"
