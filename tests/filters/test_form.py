r"""Paragraphs, code, boxes, refusals, leaked instructions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.form import boxed_answers, longest_paragraph, num_code_blocks, prompt_leak, refuses

SYSTEM = (
    "You are a careful mathematician. Think step by step inside the tags, look for mistakes before you go on, and give "
    "the final result in a box at the very end."
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("one two", 7),
        ("one\n\nthree four\n\ntwo", 10),
        ("- one\n- two\n- three", 7),
        (f"one\n$${'x' * 100}$$", 3),
        (f"one \\[{'x' * 100}\\] two", 8),
        (f"one\n\\begin{{align}}{'x' * 100}\\end{{align}}", 3),
        (f"one\n```\n{'x' * 100}\n```\ntwo", 3),
        (f"one\n```\n{'x' * 100}", 3),
        (f"one\n| {'x' * 100} | 2 |", 3),
        ("an inline $x$ counts", 20),
        ("a" * 10_000, 10_000),
    ],
)
def test_longest_paragraph(text, length):
    assert longest_paragraph(text) == length


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("none", 0),
        ("```python\nprint(1)\n```", 1),
        ("a\n  ```\nb\n  ```\nc\n```\nd\n```", 2),
        ("cut off\n```python\nprint(", 1),
        ("in ```a line``` it is no block", 0),
        ("`x`", 0),
    ],
)
def test_code_blocks(text, num):
    assert num_code_blocks(text) == num


@pytest.mark.parametrize(
    ("content", "answers"),
    [
        pytest.param(r"So \boxed{3}.", ("3",), id="one"),
        pytest.param(r"So \boxed{3}. Hence the answer is $\boxed{ 3 }$.", ("3",), id="the same again"),
        pytest.param(r"So \boxed{0.5}. Hence \boxed{\frac{1}{2}}.", ("0.5",), id="the same number"),
        pytest.param(r"It is \boxed{5\text{ cm}}. Answer: \boxed{5}", ("5cm",), id="with and without unit"),
        pytest.param(r"It is \boxed{5\text{ cm}^2}. Answer: \boxed{5}", ("5cm^2", "5"), id="with a power of a unit"),
        pytest.param(r"\boxed{x=3}, so the answer is \boxed{3}.", ("x=3", "3"), id="with and without name"),
        pytest.param(r"\boxed{1} and \boxed{2}", ("1", "2"), id="two parts"),
        pytest.param(r"$\boxed{1}$, $\boxed{2}$, or $\boxed{3}$", ("1", "2", "3"), id="three parts"),
        pytest.param("$\\boxed{1}$ and $\\boxed{2}$.\n\nSo \\boxed{2}.", ("1", "2"), id="one of the parts again"),
        pytest.param("$x = \\boxed{1}$\n\nand then $y = \\boxed{2}$", ("1", "2"), id="two unknowns"),
        pytest.param("(a) It is \\boxed{1}.\n\n(b) It is \\boxed{2}.", ("1", "2"), id="two questions"),
        pytest.param(r"\boxed{\boxed{7}}", ("7",), id="box in a box"),
        pytest.param(r"$4 + \boxed{\phantom{2}} = 9$, so \boxed{5}", ("5",), id="a blank to fill in"),
        pytest.param(r"$4 + \boxed{?} = 9$, so \fbox{5}", ("5",), id="a question mark"),
    ],
)
def test_boxes_that_agree(content, answers):
    assert boxed_answers(content) == (answers, 1)


@pytest.mark.parametrize(
    "content",
    [
        "So \\boxed{3}.\n\nWait, the answer is \\boxed{4}.",
        "So $x = \\boxed{3}$. No, $x = \\boxed{4}$.",
        "\\boxed{144}\n\n\\boxed{1582}",
        "(a) \\boxed{1}.\n(a) \\boxed{2}.",
        "\\boxed{A}\n\nThe correct choice is \\boxed{B}.",
        "\\boxed{3} \\boxed{4}",
        "\\boxed{3}. $\\boxed{4}$",
        "$\\boxed{1}$ and $\\boxed{2}$.\n\nSo \\boxed{3}.",
    ],
)
def test_boxes_that_disagree(content):
    assert boxed_answers(content).num_disagreeing == 2


@pytest.mark.parametrize("content", ["", "The answer is 4.", r"\boxed{}", r"\boxed{4", r"{\boxed}"])
def test_without_a_box(content):
    assert boxed_answers(content) == ((), 0)


@pytest.mark.parametrize(
    "content",
    [
        "The answer is 4.",
        "I cannot help but notice that 2 + 2 = 4.",
        "We can't divide by zero, so x is not 0.",
        "I'm sorry for the confusion. I can't answer in one word, but the answer is 4.",
        "Unfortunately, I cannot solve it in closed form. Numerically, \\boxed{1.25}.",
        "",
    ],
)
def test_what_is_no_refusal(content):
    assert not refuses(content)


@pytest.mark.parametrize(
    "content",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with this.",
        "As an AI, I have no opinion on this.",
        "Es tut mir leid, dabei kann ich nicht helfen.",
        "抱歉,我不能回答。",
    ],
)
def test_refusals(content):
    assert refuses(content)


def test_an_instruction_told_again_leaks():
    assert prompt_leak(f"Okay. {SYSTEM} So let me think.", [SYSTEM]) == 1.0
    assert prompt_leak(f"Okay. {SYSTEM.upper()} So let me think.", [SYSTEM]) == 1.0
    half = " ".join(SYSTEM.split()[: len(SYSTEM.split()) // 2])
    assert 0.2 < prompt_leak(f"They say: {half}. So let me think.", [SYSTEM]) < 0.6
    assert prompt_leak("Let me think step by step. I give the result in a box.", [SYSTEM]) == 0.0


def test_the_worst_of_several_instructions_counts():
    example = "A farmer has seventeen sheep and all but nine of them run away, so nine are left over."
    assert prompt_leak(f"So {example}", [SYSTEM, example]) == 1.0
    assert prompt_leak(f"So {example}", [SYSTEM]) == 0.0


def test_the_problem_may_be_repeated():
    problem = "A farmer has seventeen sheep and all but nine of them run away. How many are left?"
    assert prompt_leak(f"So {problem}", [problem]) == 1.0
    assert prompt_leak(f"So {problem}", [problem], problem) == 0.0


def test_instructions_without_spaces_leak():
    system = "请一步一步地思考这个问题然后给出最后的答案"
    assert prompt_leak(f"好的。{system}。我们开始。", [system]) == 1.0
    assert prompt_leak("我们开始计算这个数列的和然后检查一下", [system]) == 0.0


def test_short_instructions_have_no_pieces():
    assert prompt_leak("Be brief and right. Four.", ["Be brief and right."]) == 0.0
    assert prompt_leak("anything", []) == 0.0


hostile = st.lists(
    st.sampled_from(
        ["\\boxed{", "}", "{", "\\", "$", "$$", "```", "\n", "and", ",", "x=", "(a) ", "7", "sorry I can't "]
    )
    | st.text(st.characters(exclude_categories=()), max_size=5),
    max_size=60,
).map("".join)


@settings(deadline=None)
@given(hostile, st.integers(1, 20))
def test_any_text_can_be_measured(text, times):
    assert 0 <= longest_paragraph(text * times) <= len(text * times)
    assert num_code_blocks(text * times) >= 0
    boxed = boxed_answers(text * times)
    assert 0 <= boxed.num_disagreeing <= max(1, len(boxed.answers)) or not boxed.answers
    assert refuses(text * times) in (True, False)
    assert 0.0 <= prompt_leak(text * times, [SYSTEM, text], SYSTEM) <= 1.0


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=10))
def test_as_many_disagree_as_there_are_results(numbers):
    content = "\n\n".join(f"The answer is \\boxed{{{number}}}." for number in numbers)
    assert boxed_answers(content).num_disagreeing == len(set(numbers))
