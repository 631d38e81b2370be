"""Loops and verbatim repeats, and what only looks so: tables, enumerations, worked divisions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.repetition import loop_at_end, measure_repetition, repeated_spans, tail_repeats

ENGLISH = (
    "We need to find the number of apples that remain after the first day. The farmer starts with twelve apples, "
    "sells five of them in the morning and then picks another nine from the old tree behind the barn. So we add and "
    "subtract with care, and check the result twice before we write it down."
)


@pytest.mark.parametrize(
    ("piece", "times"),
    [
        ("Wait, let me check that again. ", 30),
        ("So the answer is four. ", 11),
        ("no " * 4, 15),
        (ENGLISH + " ", 11),
    ],
)
def test_a_loop_at_the_end_is_found(piece, times):
    text = f"{ENGLISH} First of all. " + piece * times
    assert tail_repeats(text) >= times


def test_a_loop_that_was_cut_off_in_the_middle_of_a_piece_is_found():
    assert tail_repeats("Then we go on. " + "Wait, let me check that again. " * 20 + "Wait, let me") >= 19


def test_a_few_repeats_are_no_loop():
    assert tail_repeats("Let me think. " + "So it is four then. " * 3) == 3
    assert tail_repeats(ENGLISH) == 1
    assert tail_repeats("") == 1
    assert tail_repeats("one two three") == 1


def test_a_loop_in_the_middle_shows_in_the_compression():
    text = "Wait, let me check that again. " * 200 + ENGLISH
    assert tail_repeats(text) == 1
    measures = measure_repetition(text)
    assert measures.compression_ratio > 10
    assert measures.repeated_share > 0.8


def test_a_loop_without_spaces_shows_in_the_compression():
    measures = measure_repetition("所以答案是四" * 200)
    assert measures.compression_ratio > 10
    assert measures.repeated_share > 0.9


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "\n".join(f"{n}. Divide by {n}: the rest is {1_001 % n}." for n in range(2, 60)), id="numbered list"
        ),
        pytest.param("\n".join(f"{n} x 7 = {7 * n}, which is {7 * n % 11} mod 11" for n in range(80)), id="table"),
        pytest.param(
            "\n\n".join(
                f"{a} x {b}:\n" + "\n".join(f"{a} x {digit} = {a * int(digit)}, shifted" for digit in str(b))
                for a, b in [(123_456, 789), (987_654, 321), (555_444, 111), (10_203, 40_506), (77, 88), (31_415, 927)]
            ),
            id="long multiplication",
        ),
        pytest.param("x = 1. " + "Let me check. It is right. " * 2 + ENGLISH, id="checks twice"),
        pytest.param("| a | b |\n|---|---|\n" + "\n".join(f"| {n} | {n**2} |" for n in range(60)), id="markdown table"),
    ],
)
def test_ordinary_repetition_is_fine(text):
    assert tail_repeats(text) <= 2
    assert measure_repetition(text).repeated_share < 0.5


def test_compression_ratio():
    assert measure_repetition("a" * 999) == (1.0, 0.0)  # too short to tell
    assert measure_repetition("a" * 100_000).compression_ratio > 90
    words = " ".join(f"{n * n % 9973}" for n in range(1_000))
    assert measure_repetition(words) == (1.0, 0.0)
    assert measure_repetition("\ud800" * 2_000).compression_ratio > 10  # a lone surrogate is a text too


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "\n".join(
                f"For n = {n}, we compute the remainder of n squared on division by seven and find that it equals "
                f"{n * n % 7}, so it does not work."
                for n in range(2, 200)
            ),
            id="enumeration",
        ),
        pytest.param(
            "\n\n".join(
                f"Case {n}: Suppose the smallest is {n}. Then the other two add up to {100 - n}, and the number of "
                f"ways to choose them in increasing order is {(100 - n) // 2 - n}. We add this to the total and go on."
                for n in range(1, 50)
            ),
            id="cases",
        ),
    ],
)
def test_an_enumeration_compresses_like_a_loop_and_repeats_nothing_long(text):
    measures = measure_repetition(text)
    assert measures.compression_ratio > 8
    assert measures.repeated_share < 0.5
    assert tail_repeats(text) == 1


def test_a_loop_within_a_long_text_shows_in_its_window():
    words = " ".join(f"{n * n % 9973}" for n in range(20_000))
    text = words + "Wait, let me check that again. " * 600 + words
    assert measure_repetition(text).compression_ratio > 20
    assert measure_repetition(words) == (1.0, 0.0)


def test_texts_of_ten_million_characters_are_measured():
    assert measure_repetition("Let me check. " * 800_000).compression_ratio > 50


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=200), st.integers(1, 60))
def test_any_text_can_be_measured(text, times):
    measures = measure_repetition(text * times)
    assert measures.compression_ratio > 0
    assert 0.0 <= measures.repeated_share < 1.0
    assert tail_repeats(text * times) >= 1


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=4, max_size=50, unique=True), st.integers(1, 40))
def test_a_piece_that_follows_itself_is_counted(words, times):
    assert tail_repeats(" ".join(words * times)) == times


SAID_ONCE = "We add the units first, carry one, add the tens and write the hundreds down as they are. "


@pytest.mark.parametrize("piece", ["So it is 7, no, 8. ", "1 1 1 2 ", "é", "計算する"])
def test_a_loop_at_the_end_is_found_where_it_starts(piece):
    start, end = loop_at_end(SAID_ONCE + piece * 80)
    assert end == len(SAID_ONCE + piece * 80)
    assert len(SAID_ONCE) - len(piece) <= start <= len(SAID_ONCE) + 4 * len(piece)


def test_a_text_that_ends_well_has_no_loop():
    assert loop_at_end("So it is 7. " * 40 + SAID_ONCE) is None
    assert loop_at_end("") is None


def test_what_is_said_again_is_found_and_what_is_said_once_is_not():
    unlike = [" ".join(str(i * i * step) for i in range(300)) for step in (7, 11)]
    text = f"{unlike[0]} {SAID_ONCE * 20}{unlike[1]}"
    spans = repeated_spans(text)
    assert spans
    assert all(text[start:end] in SAID_ONCE * 20 for start, end in spans)
    assert sum(end - start for start, end in spans) > 17 * len(SAID_ONCE)


@given(st.text(), st.text(max_size=40), st.integers(1, 300))
def test_spans_lie_in_the_text(text, piece, num):
    whole = text + piece * num
    loop = loop_at_end(whole)
    for start, end in [*repeated_spans(whole), *([loop] if loop else [])]:
        assert 0 <= start < end <= len(whole)
