"""A mathematical text as tokens that are the same however it was typeset."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.sources.math_words import fold, places, tokens

PIECES = [*"ab1290 \n$\\{},.^_!-+²½—éЖ中\ud800\0\u0301", "\\frac", "\\left", ",000", "\\,", "{,}", "1{,}000"]
LATEX = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
WILD = st.one_of(st.text(max_size=60), LATEX)
PROPERTY = {"max_examples": 200, "deadline": None, "derandomize": True}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Let $x^2 \\leq 1{,}000$.", "let x² ≤ 1,000"),
        ("\\dfrac{1}{2}", "\\frac12"),
        ("\\frac1{2}", "½"),
        ("\\left( \\tfrac{3}{4} \\right)", "(\\frac{3}{4})"),
        ("$a$ - $b$", "\\(a\\) − \\(b\\)"),
        ("a $\\cdot$ b", "a × b"),
        ("60^\\circ", "60°"),
        ("the n-digit number", "The n digit  number"),
        ("Find\n$x+1$", "find x + 1"),
        ("\\text{cm}^3", "cm³"),
        ("x^{12}", "x¹²"),
        ("Café", "cafe\u0301"),
        ("12 000", "12 000"),
        ("\\(\\pi r^2\\)", "𝜋𝑟²"),
        ("1,234,567", "1234567"),
        ("Janet’s", "JANET'S"),
        ("√2", "\\sqrt2"),
    ],
)
def test_typesetting_makes_no_difference(one, other):
    assert tokens(one) == tokens(other) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 + 4", "3 - 4"),
        ("5!", "5"),
        ("1,2,3", "123"),
        ("3.5", "35"),
        ("x^2", "x2"),
        ("\\sin x", "\\cos x"),
        ("-5", "5"),
    ],
)
def test_mathematics_makes_a_difference(one, other):
    assert tokens(one) != tokens(other)


@settings(**PROPERTY)
@given(text=WILD)
def test_a_text_has_the_tokens_of_its_words_at_their_places(text):
    assert tokens(text) == [token for word in text.split() for token in tokens(word)]
    found = list(places(fold(text)))
    assert [token for token, _, _ in found] == tokens(text)
    ends = [0, *(end for _, _, end in found)]
    assert all(before <= start < end for before, (_, start, end) in zip(ends, found, strict=False))


@pytest.mark.parametrize(
    "unit",
    ["\\frac", "1,", "{,}", "²", "a\u0315\u0300", "-a", "½", "5!", "\\", "A", "\ud800", "\0", "\\left(", "1.", "ﷺ"],
)
def test_hostile_texts_of_megabytes_take_linear_time(unit):
    tokens(unit * (1_000_000 // len(unit)))
