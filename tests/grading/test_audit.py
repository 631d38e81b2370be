"""The audit lists the answers that are disputed, and bounds the score by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.grading import Grade
from distill.grading.audit import audit, audit_answer

KEY = ("p", 0)


def right(answer="42"):
    return Grade(True, answer, None)


def wrong(answer="41"):
    return Grade(False, answer, "wrong_answer")


NOTHING = Grade(False, None, "no_answer")
UNKNOWN = Grade(None, "42", "ungraded_timeout")


@pytest.mark.parametrize(
    ("ours", "others", "judge", "disputes"),
    [
        (right(), {"last box": right()}, None, ()),
        (right(), {"last box": right("42.0")}, True, ()),
        (right("B"), {"simple-evals": Grade(False, "b", "wrong_answer")}, None, ("comparison",)),
        (right(), {"first answer": wrong()}, None, ("extraction",)),
        (right(), {"first answer": NOTHING}, None, ()),
        (NOTHING, {"first answer": NOTHING}, None, ()),
        (NOTHING, {"first answer": right()}, None, ("extraction",)),
        (wrong("x+1"), {"evalchemy": right("x+1")}, None, ("comparison",)),
        (wrong(), {}, True, ("judge",)),
        (right(), {"last box": wrong()}, False, ("extraction", "judge")),
        (UNKNOWN, {"last box": right()}, True, ()),
        (right(r"\frac{1}{2}"), {"last box": right("0.5")}, None, ()),
    ],
)
def test_disputes(ours, others, judge, disputes):
    assert audit_answer(KEY, ours, others, judge).disputes == disputes


def test_a_score_is_bounded_by_its_disputes():
    answers = [
        audit_answer(("a", 0), right(), {"last box": right()}),
        audit_answer(("b", 0), right(), {"last box": wrong()}),
        audit_answer(("c", 0), wrong(), {"last box": right()}),
        audit_answer(("d", 0), wrong(), {"last box": wrong()}),
        audit_answer(("e", 0), wrong(), {"last box": NOTHING}, judge=True),
        audit_answer(("f", 0), Grade(None, None, "ungraded_crash"), {}),
        audit_answer(("g", 0), wrong("1"), {"last box": wrong("2")}),  # disputed, and wrong whoever is right
        audit_answer(("h", 0), NOTHING, {"last box": NOTHING}),
    ]
    found = audit(answers)
    assert (found.num_answers, found.num_right, found.num_ungraded) == (8, 2, 1)
    assert found.num_by_dispute == {"extraction": 3, "comparison": 0, "judge": 1}
    assert [answer.key[0] for answer in found.disputed] == ["b", "c", "e", "g"]
    assert (found.low, found.high) == (1 / 8, 5 / 8)


def test_no_answers_have_no_bounds():
    found = audit([])
    assert (found.num_answers, found.low, found.high, found.disputed) == (0, None, None, ())


grades = st.sampled_from([right(), right("B"), wrong(), wrong("B"), NOTHING, UNKNOWN])


@given(
    st.lists(st.tuples(grades, st.dictionaries(st.sampled_from("xyz"), grades), st.sampled_from([None, True, False])))
)
def test_the_score_is_within_its_bounds(said):
    found = audit(audit_answer((str(i), 0), *one) for i, one in enumerate(said))
    if said:
        least = sum(ours.correct is True for ours, _, _ in said) / len(said)
        assert found.low <= least <= found.high
