r"""The final answer in a text: every family of ways to give one, and of ways to give none."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.grading import Grade, extract, grade
from distill.grading.boxes import boxes_alone, find_boxes
from distill.grading.extraction import all_candidates, choose, extract_answer, read_as_math, read_as_plain
from distill.grading.phrases import find_announcements

any_text = st.text(st.characters(exclude_categories=()))
pieces = [
    *"0123456789-+.,/%$ \n{}()[]^_x*;!?", r"\frac", r"\boxed{", r"\text{", r"\boxed ", "boxed{", "the answer is ",
    "Answer: ", "<answer>", "</answer>", "#### ", "\nA: ", " is the answer", "(B)", " or ", " and ", "because ", "not ",
    "Wait, ", "$$", r"\[", r"\]", "Final Answer\n", "答案是", "option ", "choose ",
]  # fmt: skip
mathematical_text = st.lists(st.sampled_from(pieces)).map("".join)


def math(answer):
    return Problem("p", [], answer, "math", "test")


def problem(answer, task, options=()):
    return Problem("p", [], answer, task, "test", {"options": list(options)} if options else {})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{12}.", "12"),
        (r"\boxed {12}", "12"),
        (r"\fbox{12}", "12"),
        (r"\boxed{ 12 }", "12"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{\frac{1}{\sqrt{2}}}} is it", r"\sqrt{\frac{1}{\sqrt{2}}}"),
        (r"\boxed{3} or rather \boxed{4}", "4"),
        (r"\boxed{4} or \boxed{5", "4"),
        (r"\boxed{\text{\boxed{7}}}", "7"),
        (r"\boxed{1} } \boxed{2} {", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),  # an escaped brace needs no partner
        (r"The answer is 3. \boxed{4}", "4"),
        (r"\boxed{4} The answer is 3.", "4"),
    ],
)
def test_the_last_whole_box_is_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"$\boxed{1}$ or $\boxed{2}$.", "1, 2"),
        (r"\(\boxed{x=1}\), \(\boxed{y=2}\)", "x=1, y=2"),
        (r"\boxed{1}\text{ and }\boxed{2}", "1, 2"),
        (r"\boxed{7}, \boxed{7}", "7"),
        (r"\boxed{3} or rather \boxed{4}", "4"),
        (r"First \boxed{3}. Then \boxed{4}", "4"),
        ("\\boxed{3}\n\n\\boxed{4}", "4"),
        (r"\boxed{0} then \boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}," + " " * 100 + r"\boxed{2}", "2"),
    ],
)
def test_boxes_that_only_a_separator_joins_are_one_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 12.", "12"),
        ("The answer is 12. I am sure.", "12"),
        ("The answer is: 12", "12"),
        ("The final answer is 12", "12"),
        ("Answer: 3/4", "3/4"),
        ("ANSWER = 7", "7"),
        ("the answer is 1.5. Done", "1.5"),
        ("The answer is\n12\n", "12"),
        ("The answer is 3; the rest is easy", "3"),
        ("The answer is 3.\nNo: the answer is 4.", "4"),
        ("The answer is **12**.", "12"),
        ("**Answer:** 12", "12"),
        ("**Answer**: 12", "12"),
        ("**Final Answer**: 12", "12"),
        ("**The answer is 12.**", "12."),
        ("The answer is `12`.", "12"),
        (r"The answer is $\frac{3}{4}$.", r"$\frac{3}{4}$"),
        (r"The final answer is: \(12\)", r"\(12\)"),
        ("The correct answer is B.", "B"),
        (r"The answer is \boxed{5", r"\boxed{5"),
    ],
)
def test_else_what_is_announced(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It costs 1,234.50 dollars.", "1,234.50"),
        ("17 - 21 = -4", "-4"),
        ("x is -3.5.", "-3.5"),
        ("first 1, then 2, then 3.", "3"),
        ("a share of 3/4", "3/4"),
        ("-1,000,000", "-1,000,000"),
        ("It takes 10-12 days", "12"),  # a range, not minus twelve
        ("half of them", None),
        ("", None),
    ],
)
def test_else_the_last_number_where_asked_for(text, number):
    assert extract_answer(text, last_number=True) == number
    assert extract_answer(text) is None


@pytest.mark.parametrize("text", ["", "no idea", r"\boxed{5", r"\boxed{}", r"\boxed{ }", "Answer:", "The answer is "])
def test_no_answer(text):
    assert extract_answer(text) is None
    assert grade(math("5"), text) == Grade(False, None, "no_answer")


def test_an_announced_answer_comes_before_the_last_number():
    assert extract_answer("The answer is 12. It took 3 steps.", last_number=True) == "12"


@settings(deadline=None)
@given(any_text | mathematical_text, st.booleans())
def test_any_text_can_be_searched(text, last_number):
    answer = extract_answer(text, last_number)
    assert answer is None or answer == answer.strip() != ""
    assert answer is None or ", " in answer or answer in text  # boxes that belong together are joined


ANNOUNCED = [
    "The answer is {}.",
    "So the answer is {}",
    "Answer: {}",
    "Ans: {}",
    "**Answer: {}**",
    "**Answer:** {}",
    "### Answer\n{}",
    "**Final Answer**\n\n{}",
    "My answer: {}",
    "The answer is {}. I hope it is correct.",
    "Final Answer: The final answer is {}. I hope it is correct.",
    "Final Answer:\nThe final answer is {}. I hope it is correct.",
    "The answer is {} because nothing else is left over.",
    "The answer is {}, as we had to show.",
    "The answer is {}, which settles the matter.",
    "The answer is **{}** \N{WHITE HEAVY CHECK MARK}",
    "The answer is {} (see both steps above).",
    "The answer is {} \N{EM DASH} nothing else works.",
    "The answer is {}. I hope this answer is useful!",
    "The answer is {}.\n\nNote: the answer is rounded to two places.",
    "**Answer:** {}\n\nThe answer is obtained by subtracting the two.",
    "The answer is {}.\nThis answer is exact.",
    "The answer to the question is {}.",
    "The answer, therefore, is {}.",
    "The answer should be {}.",
    "The answer is exactly {}.",
    "<answer>{}</answer>",
    "<answer>\n{}\n</answer>",
    "<answer>{}",
    "<answer>The answer is {}</answer>",
    "A: {}",
    "**A:** {}",
]
ELSEWHERE = [
    "答案是{}。",
    "答案为：{}，因为计算如此。",
    "La respuesta es {}.",
    "La respuesta correcta es: {}",
    "Die Antwort lautet {}.",
    "La réponse est {}.",
    "Réponse : {}",
    "La risposta è {}.",
    "A resposta é {}.",
    "Ответ: {}.",
    "答えは{}です。",
    "정답은 {}입니다.",
    "Het antwoord is {}.",
    "Đáp án là {}.",
    "คำตอบคือ {}",
    "Jibu ni {}.",
]
VALUES = [
    ("58", "58", "5"),
    ("2,317", "2317", "2"),
    ("-9", "-9", "9"),
    ("6.25", "6.25", "6"),
    (r"$\frac{5}{8}$", r"\frac{5}{8}", "8"),
    ("$x^2-3$", "x^2-3", "3"),
    ("$(4, 7)$", "(4,7)", "(7,4)"),
    ("35%", r"35\%", "3"),
    ("8 kg", "8", "9"),
    ("$6$ pears", "6", "7"),
    (r"\$48", "48", "4"),
    ("7/9", "7/9", "9"),
    ("$4, 6, 9$", "4,6,9", "9"),
    (r"$\text{Friday}$", "Friday", "Monday"),
    (r"\(17\)", "17", "1"),
]


@pytest.mark.parametrize("form", ANNOUNCED + ELSEWHERE)
@pytest.mark.parametrize("last_number", [False, True])
def test_however_it_is_announced_the_value_is_found(form, last_number):
    for written, expected, other in VALUES:
        text = form.format(written)
        assert grade(math(expected), text, last_number).correct is True, text
        assert grade(math(other), text, last_number).correct is False, text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 58 crates altogether in May and June.", "58 crates"),
        ("The answer is 40 miles on average.", "40 miles"),
        ("The answer is $3 million in all.", "$3 million"),
        ("Answer: The baker sells 58 rolls on that day.", "58"),
        ("The answer is that the baker sells 58 rolls.", "58"),
        ("Answer: The sum of 4 and 5 is 9.", "9"),
        ("**Answer**: The farmer keeps **58** hens.", "58"),
        ("Therefore, x = 7 is the answer.", "x = 7"),
        (r"so $\mathbf{31}$ is our answer", r"$\mathbf{31}$"),
        ("Answer:\n\n$$58$$", "58"),
        ("The answer is:\n\\[ \\frac{2}{9} \\]\nas required", r"\frac{2}{9}"),
        ("some steps\n#### 58", "58"),
        ("#### $1,250", "$1,250"),
        ("The answer is 58 and not 85.", "58"),
        ("The answers are:\n- 4\n- 6", "4, 6"),
        ("The answer is Friday because it comes next.", "Friday"),
        ("The answer is 58; the rest follows", "58"),
        ("The answer is blue.", "blue"),
        ("The answer is 58. The other answer is possible, too.", "58"),
    ],
)
def test_what_stands_behind_a_value_is_left_out(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed 8", "8"),
        (r"\boxed8", "8"),
        (r"so \boxed38.", "38"),
        (r"\boxed\frac{1}{3}", r"\frac{1}{3}"),
        ("$boxed{38}$", "38"),
        (r"\\boxed{38}", "38"),
        ("\boxed{38}", "38"),  # a backspace, as YAML and JSON read \b
        (r"\framebox{38}", "38"),
        (r"\Boxed{38}", "38"),
        (r"\boxed{\boxed{38}}", "38"),
        (r"\boxed{38} Put it in \boxed{}.", "38"),
        (r"I put it in \boxed{your answer}. So \boxed{38}.", "38"),
        (r"so \boxed{38}, in the form \boxed{\text{answer}}", "38"),
        (r"$\boxed{38$.", "38"),
        (r"\boxed{[3, 8]}", "[3, 8]"),
        (r"$$\boxed{(3,8)} \quad \text{and} \quad \boxed{(8,3)}$$", "(3,8), (8,3)"),
        (r"\boxed{x = 3} \\ \boxed{y = 8}", "x = 3, y = 8"),
        (r"$x = \boxed{3}$, $y = \boxed{8}$", "3, 8"),
        (r"\boxed{3}和\boxed{8}", "3, 8"),
        (r"The answer is 3. \boxed{}", "3"),
        (r"\boxed{3} is the first part. The final answer is 8.", "8"),
        (r"\boxed{8}. The final answer is obtained by adding.", "8"),
        (r"<answer>\boxed{8}</answer>", "8"),
        (r"\boxed{3} <answer>8</answer>", "8"),
    ],
)
def test_whatever_a_model_made_of_its_box(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The answer is not 58.", "58"),
        ("If the answer is 58, then we are lost.", "58"),
        ("One might think the answer is 58.", "58"),
        ("The answer is 58, but that is not correct.", "58"),
        ("The answer is 58. Wait, that's wrong.", "58"),
        (r"\boxed{58}. No, this is incorrect.", "58"),
        ("The answer is 1, 2, 3, 4, 5.", "5"),
        ("The answer is 1, 2, 3, 4, 5.", "1"),
        ("The answer is 1 or 2 or 3.", "1"),
        ("The answer is 1; 2; 3.", "1"),
        ("The answer is\n1\n2\n3\n4", "1"),
        ("The answer is 1. Or 2. Or 3.", "1"),
        ("The answer is 1 (or 2, or 3)", "1"),
        ("The answer is 1 2 3 4 5", "1"),
        ("#### 1, 2, 3", "1"),
        ("<answer>1, 2, 3</answer>", "3"),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", "3"),
        ("The answer is either 6 or 8.", "6"),
        ("The answer is between 6 and 8", "6"),
        ("The answer is more than 6", "6"),
        ("Answer: It is no more than 6.", "6"),
        ("The answer is 6 or more", "6"),
        ("The answer is 2 and 1/2 hours", "2"),
        ("#### 3. Multiply both sides", "3"),
        ("#### Step 3", "3"),
        ("The answer is 4x + 1", "4"),
    ],
)
def test_hedges_retractions_and_lists_are_not_right(text, gold):
    assert grade(math(gold), text).correct is False


@pytest.mark.parametrize("text", ["1, 2, 3, 4", "It is 1 or 4", "either 1, 2, 3 or 4", "1,2,3,4"])
def test_the_last_of_several_numbers_is_no_answer(text):
    assert grade(math("4"), text, last_number=True).correct is False


def test_a_phrase_that_says_nothing_hides_nothing():
    assert extract_answer("It makes 58. The answer is rounded to whole numbers.", last_number=True) == "58"
    assert extract_answer("It makes 58. I hope this answer is helpful!", last_number=True) == "58"
    assert extract_answer("It makes 58. Answer:", last_number=True) == "58"


def test_a_last_line_that_is_a_formula_counts_where_the_last_number_does():
    text = "We add them up:\n$$\\frac{5}{12}$$"
    assert extract_answer(text) is None
    assert extract_answer(text, last_number=True) == r"\frac{5}{12}"


@pytest.mark.parametrize(
    ("task", "gold", "text"),
    [
        ("exact", "Oslo", "The answer is Oslo, because it lies farther north."),
        ("exact", "Oslo, Norway", "The answer is Oslo, Norway."),
        ("exact", "(B)", "So the answer is (B)."),
        ("exact", "to wait", "The answer is to wait."),
        ("exact", "ant as bee", "The answer is ant as bee"),
        ("exact", "Oslo", "The answer is Oslo. I hope this answer is helpful!"),
        ("regex", r"\d+ mm", "Answer: 58 mm"),
        ("numeric", "58", "Final answer: The answer is 58."),
        ("numeric", "58", "The answer is 58. The answer is unchanged by rounding."),
        ("numeric", "58", "The answer is 58 mm of rain."),
    ],
)
def test_other_tasks_read_the_same_places(task, gold, text):
    assert grade(problem(gold, task), text).correct is True


@pytest.mark.parametrize("task", ["math", "choice", "exact", "numeric", "regex"])
@pytest.mark.parametrize(
    "gold", ["\frac{1}{2}", "\text{Monday}", "3 \times 4", "\beta", "\vec{u}", "x \neq 0", "\right)", "\alpha"]
)
def test_a_gold_whose_escapes_were_eaten_is_ungraded(task, gold):
    assert grade(problem(gold, task), r"\boxed{12}" if task != "choice" else r"\boxed{B}").reason == "ungraded_gold"


def test_an_answer_whose_escapes_were_eaten_is_neither_right_nor_wrong():
    assert grade(math("1/2"), "The answer is $\frac{1}{2}$.") == Grade(None, "$\frac{1}{2}$", "damaged_answer")
    assert grade(math("1/2"), "\\boxed{\frac{1}{2}}").reason == "damaged_answer"
    assert grade(math("12"), "\\boxed{12}\tand\nno more").correct is True


def test_of_a_cut_off_text_only_whole_boxes_are_left():
    assert boxes_alone(r"so \boxed{1} and \boxed{2}, then 37, \boxed{3") == r"\boxed{1}, \boxed{2}"
    assert boxes_alone(r"first \boxed{1}. Then \boxed{2} and so on") == "\\boxed{1}\n\n\\boxed{2}"
    assert boxes_alone("The answer is 5") == ""


def test_every_candidate_has_its_place_and_says_why_it_is_none():
    text = "\\boxed{}\nThe answer is 58, in all. The answer is not 85."
    candidates = all_candidates(text, read_as_math)
    assert [(c.kind, text[c.start : c.end], c.reading.answer, c.reading.why) for c in candidates] == [
        ("box", r"\boxed{}", None, "is empty"),
        ("announcement", "answer is 58", "58", ""),
        ("announcement", "answer is", None, "says what the answer is not"),
    ]


@settings(deadline=None)
@given(
    any_text | mathematical_text, st.booleans(), st.sampled_from(["math", "choice", "exact", "numeric", "gym", "regex"])
)
def test_any_text_in_any_task(text, last_number, task):
    answer = extract(problem("B", task, ["1", "x", "(2)"]), text, last_number)
    assert answer is None or answer.strip() != ""


@settings(deadline=None)
@given(mathematical_text, st.booleans())
def test_what_counts_is_among_the_candidates_and_those_lie_in_the_text(text, last_number):
    for reader in (read_as_math, read_as_plain):
        candidates = all_candidates(text, reader, last_number)
        assert all(0 <= c.start <= c.end <= len(text) for c in candidates)
        chosen = choose(text, reader, last_number)
        assert chosen is None or chosen in candidates
        assert (chosen is None) == all(c.reading.answer is None for c in candidates)


@given(mathematical_text)
def test_marks_do_not_overlap_and_boxes_are_in_order(text):
    marks = find_announcements(text)
    assert all(one.end <= other.start for one, other in pairwise(marks))
    boxes = find_boxes(text)
    assert boxes == sorted(boxes)
    assert all(box.start <= box.inner_start <= box.inner_end <= box.end for box in boxes)


@pytest.mark.parametrize(
    "unit",
    [
        # what a model in a loop writes until it is cut off; in quadratic time these would take hours
        *(
            "\\boxed{",
            "\\boxed{1}, ",
            "\\boxed{1} ",
            "\\boxed ",
            "boxed{",
            "$",
            "(",
            "{",
            "}",
            "\\",
            "\\text{",
            "\n",
            " ",
        ),
        *(
            "answer ",
            "The answer is ",
            "The answer is $",
            "answer to the ",
            "answer(",
            "answer****",
            "if the answer is ",
        ),
        *(
            "x is the answer ",
            "The answer is \\begin{a} ",
            "The answer is $$ ",
            "The answer is 1\n",
            "The answer is 5. Or ",
        ),
        *("<answer>", "<answer>1</answer>", "#### 1\n", "####", "A: 1\n", "option ", "choose B ", "final answer "),
        *(
            "1, ",
            "1,",
            "111,",
            "1 or ",
            "9",
            "1\n",
            "答案是",
            "答案",
            "选",
            "respuesta final final ",
            "الجواب ",
            "उत्तर ",
        ),
    ],
)
def test_time_grows_with_the_length_of_the_text_and_not_with_its_square(unit):
    text = unit * (400_000 // len(unit))
    for task in ("math", "choice", "exact", "numeric"):
        extract(problem("B", task, ["one", "two", "three"]), text, last_number=True)
    assert len(boxes_alone(text)) <= len(text) + 2 * text.count("oxed")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("The answer is x" + " " * 2_000_000 + "y", id="spaces"),
        pytest.param("The answer is" + "\n" * 1_000_000, id="line breaks"),
        pytest.param("answer" + " " * 1_000_000 + "is 5", id="before the verb"),
    ],
)
def test_long_runs_of_spaces_take_no_longer_than_their_length(text):
    assert extract(math("5"), text, last_number=True) in (None, "x", "5")


@pytest.mark.parametrize(
    ("task", "gold", "text"),
    [
        ("math", "13", "The answer is not 12 but 13."),
        ("exact", "valid", "So the answer is not invalid, but rather valid."),
        ("math", "72", "उत्तर 72 है"),
        ("exact", "> ] )", "So the answer is > ] )."),
        ("exact", ">", "So the answer is: >"),
    ],
)
def test_what_comes_after_but_and_signs_that_an_answer_begins_with(task, gold, text):
    assert grade(problem(gold, task), text).correct is True


def test_what_is_only_denied_is_no_answer():
    assert extract_answer("The answer is not 12, which is too small, but it is close.") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer we are looking for is 42.", "42"),
        ("42 is the answer we are looking for.", "42"),
        ("The answer you were asked for is 42.", "42"),
        ("So 17 is not the answer we are looking for.", None),
    ],
)
def test_the_answer_that_is_looked_for(text, answer):
    assert extract_answer(text) == answer
