"""Marks of thoughts other than <think>, and marks where none may be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.thinking import join_reasoning, split_reasoning
from distill.core.thought_marks import ends_in_opening_mark, stray_mark, with_think

HARMONY = "<|channel|>analysis<|message|>6 and 3<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>It is 9."
PAIRS = [
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<Thought>", "</Thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<THINK>", "</THINK>"),
]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_thought_between_other_marks(opening, closing):
    assert split_reasoning(f"{opening}\n6 and 3\n{closing}\n\nIt is 9.") == ("6 and 3", "It is 9.", "closed")
    assert split_reasoning(f"\n {opening}6 and 3{closing}It is 9.") == ("6 and 3", "It is 9.", "closed")
    assert split_reasoning(f"{opening}6 and") == ("6 and", "", "unclosed")
    text = f"First 9. {opening}6 and 3{closing}9"
    assert split_reasoning(text) == ("", text, "none")


@pytest.mark.parametrize(("opening", "closing"), PAIRS[:5])
def test_a_thought_that_the_prompt_opened_with_a_token(opening, closing):
    assert ends_in_opening_mark(f"<user>6 + 3?<assistant>{opening}\n")
    assert split_reasoning(f"6 and 3{closing}It is 9.") == ("6 and 3", "It is 9.", "closed")
    assert split_reasoning(f"6 and 3{closing}It is 9.", opened=True) == ("6 and 3", "It is 9.", "closed")


@pytest.mark.parametrize(
    ("text", "split"),
    [
        (HARMONY + FINAL, ("6 and 3", "It is 9.", "closed")),
        (f"<|start|>assistant{HARMONY}{FINAL}<|return|>", ("6 and 3", "It is 9.", "closed")),
        (f"{HARMONY}<|start|>assistant{HARMONY}{FINAL}<|end|>", ("6 and 3\n\n6 and 3", "It is 9.", "closed")),
        (HARMONY, ("6 and 3", "", "closed")),
        (HARMONY.removesuffix("<|end|>"), ("6 and 3", "", "unclosed")),
        ("<|channel|>final<|message|>It is 9.<|return|>", ("", "It is 9.", "none")),
        ("analysis6 and 3assistantfinalIt is 9.", ("6 and 3", "It is 9.", "closed")),
        ("analysis of 6 and 3", ("", "analysis of 6 and 3", "none")),
    ],
)
def test_harmonys_channels(text, split):
    assert split_reasoning(text) == split


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        ("<|begin_of_solution|>\n\n9\n\n<|end_of_solution|>", "9"),
        ("<|begin_of_solution|>9", "9"),
        ("<|begin_of_solution|>9<|end_of_solution|> or 10", "<|begin_of_solution|>9<|end_of_solution|> or 10"),
        ("<answer>9</answer>", "<answer>9</answer>"),
    ],
)
def test_marks_around_the_whole_answer(answer, content):
    assert split_reasoning(f"<think>a</think>{answer}").content == content
    assert split_reasoning(f"<|begin_of_thought|>a<|end_of_thought|>{answer}").content == content


@pytest.mark.parametrize("name", ["answer", "Output", "solution", "final_answer"])
def test_tags_around_the_answer_go_with_tags_around_the_thought(name):
    assert split_reasoning(f"<reasoning>a</reasoning>\n<{name}>\n9\n</{name}>") == ("a", "9", "closed")


@pytest.mark.parametrize(
    "mark",
    ["<think>", "</think>", "</Think>", "< think >", "<think/>", "[/THINK]", "</thinking>", "<|end_of_thought|>",
     "<|channel|>", "◁/think▷", "<|begin_of_solution|>", "</reflection>"],
)  # fmt: skip
def test_a_mark_inside_thought_or_answer_is_found(mark):
    assert stray_mark(f"the tag {mark} ends it", "9") == mark
    assert stray_mark("a", f"`{mark}` 9") == mark


@pytest.mark.parametrize("text", ["", "a < b > c", "think>", "<b>9</b>", "[6]", "I think", "x<think_y>", "<answer>9"])
def test_what_is_no_mark(text):
    assert stray_mark(text, text) == ""


@pytest.mark.parametrize(
    ("text", "marks", "replaced"),
    [
        ("<a>6</a>9", ["<a>", "</a>"], "<think>6</think>9"),
        ("Thought: 6 Answer: 9", ["Thought:", "Answer:"], "<think> 6 </think> 9"),
        ("## T 6 ## 9", ["## T", "##"], "<think> 6 </think> 9"),
        ("{6}[9]", ["{", "}", "[", "]"], "<think>6</think>9"),
        ("(.6.)9", ["(.", ".)"], "<think>6</think>9"),
        ("9", ["<a>", "</a>"], "9"),
        ("<a>6", [], "<a>6"),
    ],
)
def test_marks_of_ones_own(text, marks, replaced):
    assert with_think(text, marks) == replaced


plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[◁"), min_size=1).filter(str.strip)


@settings(deadline=None)
@given(plain, plain, st.sampled_from(PAIRS))
def test_any_thought_between_marks_is_trained_between_think(reasoning, content, marks):
    split = split_reasoning(f"{marks[0]}{reasoning}{marks[1]}{content}")
    assert split == (reasoning.strip(), content.strip(), "closed")
    assert split_reasoning(join_reasoning(*split[:2])) == split
    assert stray_mark(split.reasoning, split.content) == ""
