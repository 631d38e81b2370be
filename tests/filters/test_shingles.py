"""Words, the pieces they make, and how alike two texts are by them."""

import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill.filters.shingles import SEGMENT_BYTES, SHINGLE_WORDS, flat_shingles, jaccard, shingles

texts = st.text() | st.text(alphabet="ab 12+=\\{},.$\n", max_size=60) | st.text(st.characters(), max_size=40)
WORD = re.compile(r"[a-z0-9\x80-\U0010ffff]+|[-+*/^=<>|%]")


def words(text):
    """The plain way to a text's words, for texts without LaTeX commands and non-ASCII letters in ASCII words."""
    folded = []
    for char in text.casefold() if text.isascii() else "".join(c.casefold() if c > "\x7f" else c for c in text):
        category = unicodedata.category(char)
        if char <= "\x7f":
            folded.append(char.lower())
        elif char == "\N{MINUS SIGN}":
            folded.append("-")
        elif category == "Sm" or re.match(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]", char):
            folded.append(f" {char} " if category[0] in "LMN" or category == "Sm" else " ")
        else:
            folded.append(char if category[0] in "LMN" else " ")
    return WORD.findall("".join(folded))


def pieces(text):
    """The plain way to a text's pieces."""
    found = words(text)
    lengths = [SHINGLE_WORDS] if len(found) >= SHINGLE_WORDS else range(1, len(found) + 1)
    return {tuple(found[i : i + n]) for n in lengths for i in range(len(found) - n + 1)} or {text}


def same(left, right):
    return shingles(left) == shingles(right)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param("find the value of $x^2 + 1$ for x = 3", id="no capitals, no full stop"),
        pytest.param("Find  the value\nof\t$x^2+1$ for x=3.", id="other spaces"),
        pytest.param(r"Find the value of \(x^2 + 1\) for \[x = 3.\]", id="other brackets"),
        pytest.param(r"Find the value of $\displaystyle x^{2} \,+\; 1$ for $x\quad = \!3$.", id="LaTeX spacing"),
        pytest.param(r"Find the value of $\left(x^2 + 1\right)$ for \text{x = 3}.", id="LaTeX sizes and fonts"),
        pytest.param("Find the value of — “x^2 + 1” — for x = 3…", id="typographic marks"),
    ],
)
def test_what_does_not_change_a_problem_does_not_change_its_pieces(variant):
    assert same(variant, "Find the value of $x^2 + 1$ for x = 3.")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("Find the value of $x^2 - 1$ for x = 3.", id="operator"),
        pytest.param("Find the value of $x^2 + 1$ for x < 3.", id="relation"),
        pytest.param("Find the value of $x^2 + 1$ for x = 4.", id="number"),
        pytest.param("Find the value of $y^2 + 1$ for x = 3.", id="letter"),
        pytest.param("Find the value of $x_2 + 1$ for x = 3.", id="index for exponent"),
        pytest.param("Find the value of $x² + 1$ for x = 3.", id="superscript"),
    ],
)
def test_what_changes_a_problem_changes_its_pieces(other):
    assert not same(other, "Find the value of $x^2 + 1$ for x = 3.")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(r"\dfrac{1}{2}", r"\frac{1}{2}", id="fractions"),
        pytest.param(r"a \leq b", r"a \le b", id="relations"),
        pytest.param("ÉMILE Straße", "émile STRASSE", id="case"),
        pytest.param("a \N{MINUS SIGN} b", "a - b", id="minus sign"),
    ],
)
def test_two_ways_to_write_the_same(left, right):
    assert same(left, right)


def test_words_of_english_are_not_taken_for_latex():
    assert not same("turn left and then right again", "turn and then again")


def test_chinese_is_compared_letter_by_letter():
    text, edited = "求函数在区间上的最大值和最小值并说明理由", "求函数在区间上的最大值和最小值并给出理由"
    assert 0.5 < jaccard(shingles(text), shingles(edited)) < 1


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("abcXYZ 019.,;+-*/^=<>|%'\n\t_()[]{}$#é漢√−’\x00\ud800"), max_size=120))
@example("")
@example("a b c d")
@example("a b c d e")
def test_there_is_one_hash_for_each_distinct_piece(text):
    assert len(shingles(text)) == len(pieces(text))


@settings(deadline=None)
@given(st.lists(texts, max_size=6))
def test_a_text_has_the_same_pieces_alone_and_among_others(many):
    if not many:
        return
    flat, offsets = flat_shingles(many)
    for row, text in enumerate(many):
        assert set(flat[offsets[row] : offsets[row + 1]].tolist()) == shingles(text)


@pytest.mark.parametrize("filler", ["é", "ab ", "x", "漢", "1,"])
def test_a_long_text_has_the_same_pieces_alone_and_among_others(filler):
    text = filler * (SEGMENT_BYTES // len(filler.encode()) + 1_000)
    flat, offsets = flat_shingles(["one two", text, "three"])
    assert set(flat[offsets[1] : offsets[2]].tolist()) == shingles(text)
    assert set(flat[offsets[2] :].tolist()) == shingles("three")


@settings(deadline=None)
@given(texts, texts)
def test_jaccard_is_the_share_of_common_pieces(left, right):
    left, right = shingles(left), shingles(right)
    assert jaccard(left, right) == jaccard(right, left) == len(left & right) / len(left | right)


def test_short_texts_compare_by_all_their_pieces():
    assert jaccard(shingles("What is 2 + 3"), shingles("What is 2 + 3 ?")) == 1
    assert 0 < jaccard(shingles("sum of 2"), shingles("sum of 3")) < 1


def test_texts_without_words_are_alike_only_if_they_are_equal():
    assert same("???", " ??? ")
    assert not same("???", "!!!")
    assert same("", "  \n")
    assert not same("", "???")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 5_000_000, id="one word"),
        pytest.param("aé" * 2_500_000, id="letters in turns"),
        pytest.param("é" * 5_000_000, id="one foreign word"),
        pytest.param("\\left" * 1_000_000, id="commands"),
        pytest.param("+" * 2_000_000, id="operators"),
        pytest.param("\ud800\x00" * 1_000_000, id="surrogates and NULs"),
        pytest.param("漢字" * 1_000_000, id="Chinese"),
        pytest.param("{" * 3_000_000, id="brackets"),
    ],
)
def test_hostile_texts_of_megabytes_have_pieces_too(text):
    assert len(shingles(text)) >= 1
