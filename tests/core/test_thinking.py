"""What the teacher is sent, and how its text is taken apart again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.thinking import join_reasoning, split_reasoning, teacher_messages

SYSTEM = {"role": "system", "content": "Answer in French."}
QUESTION = {"role": "user", "content": "What is 2 + 2?"}

sane_text = st.text(st.characters(exclude_categories=())).map(str.strip).filter(lambda t: "think>" not in t)
any_text = st.text(st.characters(exclude_categories=()))
tagged_text = st.lists(st.sampled_from(["<think>", "</think>", "a", "b", " ", "\n", "<think", "think>"])).map("".join)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        pytest.param("<think>\n2 + 2\n</think>\n\n4", ("2 + 2", "4", "closed"), id="closed"),
        pytest.param("<think>2 + 2</think>4", ("2 + 2", "4", "closed"), id="closed, no line breaks"),
        pytest.param(" \n<think>2 + 2</think>4", ("2 + 2", "4", "closed"), id="spaces before"),
        pytest.param("<think>\n2 +", ("2 +", "", "unclosed"), id="unclosed"),
        pytest.param("<think>", ("", "", "unclosed"), id="only opened"),
        pytest.param("It is 4.", ("", "It is 4.", "none"), id="none"),
        pytest.param("", ("", "", "none"), id="nothing at all"),
        pytest.param("2 + 2\n</think>\n\n4", ("2 + 2", "4", "closed"), id="opened by the prompt, unknown to us"),
        pytest.param("<think>\n\n</think>\n\n4", ("", "4", "closed"), id="empty thought"),
        pytest.param("<think></think>", ("", "", "closed"), id="empty thought, empty answer"),
        pytest.param("<think>2 + 2</think>", ("2 + 2", "", "closed"), id="empty answer"),
        pytest.param(
            "It is 4. <think>Why?</think> 4", ("", "It is 4. <think>Why?</think> 4", "none"), id="text before"
        ),
        pytest.param("It is 4. <think>Why?", ("", "It is 4. <think>Why?", "none"), id="text before, unclosed"),
        pytest.param("<think>a<think>b</think>4", ("a<think>b", "4", "closed"), id="opened twice"),
        pytest.param("<think>a</think>b</think>4", ("a", "b</think>4", "closed"), id="closed twice"),
        pytest.param("<think>a</think>4<think>b</think>5", ("a", "4<think>b</think>5", "closed"), id="two thoughts"),
        pytest.param("a</think>4<think>b</think>5", ("a", "4<think>b</think>5", "closed"), id="prompt's, then its own"),
        pytest.param("<B>a</B>4", ("", "<B>a</B>4", "none"), id="other tags are text"),
    ],
)
def test_split(text, split):
    assert split_reasoning(text) == split


@pytest.mark.parametrize(
    ("text", "split"),
    [
        pytest.param("2 + 2\n</think>\n\n4", ("2 + 2", "4", "closed"), id="closed"),
        pytest.param("2 +", ("2 +", "", "unclosed"), id="unclosed"),
        pytest.param("", ("", "", "unclosed"), id="nothing at all"),
        pytest.param("<think>\n2 + 2\n</think>\n\n4", ("2 + 2", "4", "closed"), id="the model opens it again"),
        pytest.param("a <think> b</think>4", ("a <think> b", "4", "closed"), id="a thought that speaks of thinking"),
        pytest.param("a <think> b", ("a <think> b", "", "unclosed"), id="the same, cut off"),
    ],
)
def test_split_where_the_prompt_opened_the_thought(text, split):
    assert split_reasoning(text, opened=True) == split


@settings(deadline=None)
@given(sane_text.filter(bool), sane_text)
def test_join_then_split_is_the_identity(reasoning, content):
    assert split_reasoning(join_reasoning(reasoning, content)) == (reasoning, content, "closed")


@settings(deadline=None)
@given(sane_text.filter(bool), sane_text)
def test_the_part_after_the_opening_tag_splits_alike(reasoning, content):
    rest = join_reasoning(reasoning, content).removeprefix("<think>\n")
    assert split_reasoning(rest, opened=True) == (reasoning, content, "closed")


@settings(deadline=None)
@given(sane_text)
def test_without_reasoning_the_answer_stands_alone(content):
    assert join_reasoning("", content) == content
    assert split_reasoning(content) == ("", content, "none")


@settings(deadline=None)
@given(any_text | tagged_text, st.booleans())
def test_any_text_can_be_split(text, opened):
    split = split_reasoning(text, opened)
    assert split.state in ("closed", "unclosed", "none")
    assert split.reasoning in text
    assert split.content in text
    if split.state == "unclosed":
        assert split.content == ""
    if split.state == "none":
        assert split.reasoning == ""


def test_teacher_gets_the_problem_as_it_is():
    assert teacher_messages([QUESTION], None, []) == [QUESTION]
    assert teacher_messages([], None, []) == []


def test_system_then_examples_then_problem():
    examples = [("What is 1 + 1?", "One and one.", "\\boxed{2}"), ("What is 3 + 1?", "", "\\boxed{4}")]
    assert teacher_messages([QUESTION], "Think first.", examples) == [
        {"role": "system", "content": "Think first."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\n\\boxed{2}"},
        {"role": "user", "content": "What is 3 + 1?"},
        {"role": "assistant", "content": "\\boxed{4}"},
        QUESTION,
    ]


def test_the_students_own_system_message_stays_in_front_of_the_examples():
    sent = teacher_messages([SYSTEM, QUESTION], None, [("Q", "R", "A")])
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
    assert sent[0] == SYSTEM
    assert sent[-1] == QUESTION


def test_the_students_system_message_gives_way_to_the_teachers():
    assert teacher_messages([SYSTEM, QUESTION], "Think first.", []) == [
        {"role": "system", "content": "Think first."},
        QUESTION,
    ]


def test_an_empty_system_prompt_is_one_too():
    assert teacher_messages([SYSTEM, QUESTION], "", [])[0] == {"role": "system", "content": ""}


def test_the_problem_is_left_as_it_was():
    prompt = [SYSTEM, QUESTION]
    teacher_messages(prompt, "Think first.", [("Q", "R", "A")])
    assert prompt == [SYSTEM, QUESTION]
