"""A text to read: cut in the middle without losing count, marks where they belong, nothing unprintable."""

from hypothesis import given
from hypothesis import strategies as st

from distill.report.passage import marks_of, passage


def plain(parts):
    return [part if isinstance(part, str | int) else part["text"] for part in parts]


def test_a_short_text_is_whole():
    assert passage("abc").within(10).to_json() == ["abc"]
    assert passage("").to_json() == []


def test_a_long_text_keeps_its_ends_and_says_how_much_is_left_out():
    assert passage("a" * 60 + "z" * 60).within(20).to_json() == ["a" * 10, 100, "z" * 10]


def test_what_is_marked_in_the_middle_is_not_cut_away():
    text = "a" * 500 + "这里" + "z" * 500
    parts = passage(text, [(500, 502, "foreign")]).within(90).to_json()
    assert {"text": "这里", "mark": "foreign"} in parts
    assert sum(part if isinstance(part, int) else len(part) for part in plain(parts)) == len(text)


def test_controls_surrogates_and_marks_of_direction_are_replaced_one_by_one():
    assert passage("a\u202eb\ud800c\x1bd\te\n").to_json() == ["a\ufffdb\ufffdc\ufffdd\te\n"]


def test_a_loop_is_looked_for_only_where_the_filter_saw_one():
    text = "We add. " + "No, wait. It is four. " * 30
    assert [kind for _, _, kind in marks_of(text, ["repetition"], "stop", None)] == ["loop"]
    assert marks_of(text, ["wrong_answer"], "stop", None) == []
    assert [kind for _, _, kind in marks_of(text, [], "loop", None)] == ["loop"]


@given(
    st.text(max_size=300),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=5),
    st.integers(1, 120),
    st.integers(1, 120),
)
def test_however_it_is_cut_every_character_is_shown_or_counted(text, spans, limit, smaller):
    marks = sorted((low, high, "foreign") for low, high in spans if low < high <= len(text))
    once = passage(text, marks).within(limit)
    for cut, most in ((once, limit), (once.within(smaller), min(limit, smaller))):
        parts = plain(cut.to_json())
        assert sum(part if isinstance(part, int) else len(part) for part in parts) == len(text)
        assert sum(len(part) for part in parts if isinstance(part, str)) <= max(most, 1)
