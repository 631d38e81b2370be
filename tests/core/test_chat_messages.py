"""Messages of all shapes as one text."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.chat_messages import ChatError, chat_of, text_of, with_thought
from distill.core.thinking import split_reasoning

TEXT = "<think>\n6 and 3\n</think>\n\nIt is 9."
SAID = {"type": "text", "text": "It is 9."}


@pytest.mark.parametrize(
    "message",
    [
        {"content": TEXT},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "6 and 3"}]}, SAID]},
        {"content": [{"type": "thinking", "thinking": "6 and 3", "signature": "x"}, SAID]},
        {"content": [{"type": "reasoning", "text": "6 and 3"}, SAID]},
        {"content": [{"type": "reasoning", "reasoning": "6 and 3"}, SAID]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "6 and 3"}]}, SAID]},
        {"content": [{"type": "output_text", "text": "It is "}, {"type": "output_text", "text": "9."}],
         "reasoning": "6 and 3"},
        {"parts": [{"text": "6 and 3", "thought": True}, {"text": "It is 9."}]},
        {"content": {"parts": [{"text": "6 and 3", "thought": True}, {"text": "It is 9.", "thought": False}]}},
        {"content": [{"reasoningContent": {"reasoningText": {"text": "6 and 3"}}}, {"text": "It is 9."}]},
        {"content": "It is 9.", "reasoning_content": "6 and 3"},
        {"content": "It is 9.", "thinking": "\n6 and 3\n"},
        {"content": "It is 9.", "reasoning": None, "reasoning_content": "6 and 3"},
        {"content": "It is 9.", "reasoning_details": [{"type": "reasoning.text", "text": "6 and 3"}]},
        {"content": "It is 9.", "thinking_blocks": [{"type": "thinking", "thinking": "6 and 3"}]},
        {"content": TEXT, "reasoning_content": "6 and 3"},
        {"content": "<think></think>\n\nIt is 9.", "reasoning": "6 and 3"},
        {"content": [{"type": "redacted_thinking", "data": "xx"}, SAID], "thinking": "6 and 3"},
        {"value": "It is 9.", "thinking": "6 and 3"},
        {"content": ["It is 9."], "thought": "6 and 3"},
    ],
    ids=lambda message: json.dumps(message)[:60],
)  # fmt: skip
def test_the_thought_is_found_wherever_it_stands(message):
    assert text_of(message) == TEXT


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": []}, ""),
        ({"content": ""}, ""),
        ({"content": [{"type": "text", "text": ""}]}, ""),
        ({"content": "  as it is\n"}, "  as it is\n"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": None, "reasoning": "6 and 3"}, "<think>\n6 and 3\n</think>\n\n"),
        ({"content": [{"type": "thinking", "thinking": ""}, SAID]}, "It is 9."),
    ],
)
def test_empty_and_null_contents(message, text):
    assert text_of(message) == text


@pytest.mark.parametrize(
    "message",
    [{"content": None, "reasoning": "6 and"}, {"content": [{"type": "thinking", "thinking": "6 and"}]}],
)
def test_a_thought_that_was_cut_off_stays_open(message):
    assert split_reasoning(text_of(message, is_cut=True)) == ("6 and", "", "unclosed")


def test_two_thoughts_stay_two():
    parts = [{"type": "thinking", "thinking": "6"}, SAID, {"type": "thinking", "thinking": "3"}, SAID]
    assert text_of({"content": parts}).count("<think>") == 2
    assert text_of({"content": TEXT, "reasoning": "another"}).count("<think>") == 2
    assert with_thought("another", "<think>x") == "<think>\nanother\n</think>\n\n<think>x"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "'image_url', which is not text"),
        ([{"type": "tool_use", "input": {}}], "'tool_use'"),
        ([{"inlineData": {}}], "a part without text (inlineData)"),
        ([7], "a int where text"),
        (True, "a bool"),
    ],
)
def test_what_is_no_text_is_named(content, why):
    with pytest.raises(ChatError, match="holds") as caught:
        text_of({"content": content})
    assert why in str(caught.value)


@pytest.mark.parametrize("role", ["role", "from"])
def test_chats_of_all_usual_forms(role):
    rows = [("System", "Be brief."), ("human", "6 + 3?"), ("model", "9"), ("user", "And 1?"), ("gpt", "10")]
    chat = [{role: name, "content" if role == "role" else "value": text} for name, text in rows]
    assert [message["role"] for message in chat_of(chat)] == ["system", "user", "assistant", "user", "assistant"]
    assert [message["content"] for message in chat_of(chat)] == [text for _, text in rows]


@pytest.mark.parametrize("value", [None, "x", [], ["x"], [{"a": 1}], [{"type": "text", "text": "x"}], {"role": "user"}])
def test_what_is_no_chat(value):
    assert chat_of(value) is None


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "user", "content": None}, "message 2 (user) has content: null"),
        ({"role": "assistant", "content": None}, "message 2 (assistant) has content: null and no thought"),
        ({"role": "user"}, "message 2 (user) has no content"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "message 2 (assistant) calls a tool"),
        ({"role": "user", "content": [{"type": "audio"}]}, "message 2 (user) holds a part of type 'audio'"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(message, why):
    with pytest.raises(ChatError) as caught:
        chat_of([{"role": "system", "content": "x"}, message])
    assert why in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["text", "thinking", TEXT]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "thinking", "content", "parts", "role", "thought"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["content", "reasoning", "thinking", "parts", "refusal"]), JSON), st.booleans())
def test_any_message_is_read_or_refused(message, is_cut):
    with contextlib.suppress(ChatError):
        text_of(message, is_cut).encode()
    with contextlib.suppress(ChatError):
        json.dumps(chat_of([{"role": "user", **message}]), ensure_ascii=False).encode()
