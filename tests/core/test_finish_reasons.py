"""Finish reasons in everybody's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.finish_reasons import Ending, ending_of


@pytest.mark.parametrize(
    "told",
    ["stop", "STOP", "eos", "eos_token", "EOS_TOKEN", "end_turn", "stop_sequence", "STOP_SEQUENCE", "COMPLETE", "Done",
     "FINISH_REASON_STOP", "FinishReason.STOP", "stop-sequence", " stop ", {"type": "stop", "matched": 2}],
)  # fmt: skip
def test_stopped_by_itself(told):
    assert ending_of(told, is_full=True) == Ending("stop")


@pytest.mark.parametrize(
    "told",
    ["length", "LENGTH", "max_tokens", "MAX_TOKENS", "max_new_tokens", "model_length", "FINISH_REASON_MAX_TOKENS",
     "model_context_window_exceeded", {"type": "length", "length": 64}],
)  # fmt: skip
def test_cut_off(told):
    assert ending_of(told) == Ending("length")


@pytest.mark.parametrize(
    "told",
    ["content_filter", "SAFETY", "RECITATION", "refusal", "tool_calls", "function_call", "tool_use", "BLOCKLIST",
     "guardrail_intervened", "MALFORMED_FUNCTION_CALL", "OTHER", "SPII"],
)  # fmt: skip
def test_no_answer(told):
    assert ending_of(told) == Ending("error")


@pytest.mark.parametrize("told", ["abort", "error", "ERROR", "cancelled", "insufficient_system_resource", "TIMEOUT"])
def test_broken_off(told):
    assert ending_of(told) == Ending("error", is_trouble=True)


@pytest.mark.parametrize("told", [None, "", "null", "FINISH_REASON_UNSPECIFIED", "unknown", [], {}, {"type": None}])
def test_where_nothing_is_told_the_number_of_tokens_decides(told):
    assert ending_of(told) == Ending("stop")
    assert ending_of(told, is_full=True) == Ending("length")


@pytest.mark.parametrize(
    ("told", "ending"),
    [
        ("output_truncated", Ending("length", is_known=False)),
        ("max_thinking_tokens", Ending("length", is_known=False)),
        ("unsafe_content", Ending("error", is_known=False)),
        ("backend_failure", Ending("error", is_trouble=True, is_known=False)),
        ("glorp", Ending("stop", is_known=False)),
        (7, Ending("stop", is_known=False)),
    ],
)
def test_a_word_that_nobody_knows_is_taken_for_the_likeliest(told, ending):
    assert ending_of(told) == ending
    if ending.reason == "stop":
        assert ending_of(told, is_full=True) == Ending("length", is_known=False)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.just("type"), inner),
    max_leaves=4,
)


@given(ANYTHING, st.booleans())
def test_anything_has_an_ending(told, is_full):
    assert ending_of(told, is_full).reason in ("stop", "length", "loop", "error")
