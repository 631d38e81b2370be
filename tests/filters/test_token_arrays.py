"""Tokens hashed as arrays are those that the plain way gives one by one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill.filters.token_arrays import END, LINE, hash_tokens, hash_words
from distill.sources.math_words import tokens

LETTERS = "aB12 $\\{}^_,.-!?&\n\t\0\x1fé²½—’Ж３٣中。\ud800\N{COMBINING ACUTE ACCENT}"
COMMANDS = [
    "\\frac",
    "\\dfrac",
    "\\left",
    "\\,",
    ",000",
    "{,}",
    ",\\!",
    "frac1",
    "1.2",
    "\\\\",
    "four-digit",
    "5!",
    "\\α",
]
PIECES = st.sampled_from([*LETTERS, *COMMANDS])
TEXTS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=40)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.lists(TEXTS, max_size=4))
@example(["1,234,567.8.9", "1.2.3.4", "1,2345", "a-b", "a-bc", "\\\\\\frac12", "x\\"])
@example(["١,٢٣٤", "\\Frac12 \\DFRAC34"])
def test_arrays_give_the_tokens_that_the_plain_way_gives(texts):
    found = hash_tokens(texts)
    found = found[found != LINE]
    plain = [np.append(hash_words(tokens(text)), END) for text in texts]
    assert found.tolist() == (np.concatenate(plain).tolist() if plain else [])


def test_lines_and_texts_end_with_their_marks():
    assert hash_tokens(["a\n\nb", ""]).tolist() == [*hash_words(["a"]), LINE, LINE, *hash_words(["b"]), END, END]
    assert hash_tokens([]).tolist() == []


@pytest.mark.parametrize("text", ["word " * 40_000, "w" * 100_000 + " x", "中文。" * 30_000, "1.5, " * 30_000])
def test_the_tokens_of_a_long_text_do_not_depend_on_the_texts_before_it(text):
    alone = hash_tokens([text])
    assert hash_tokens(["What is 3 + 4?", text])[-len(alone) :].tolist() == alone.tolist()


def test_different_words_have_different_hashes():
    words = [f"{a}{b}" for a in "abcdefghij0123456789" for b in range(500)]
    assert len(set(hash_words(words).tolist())) == len(words)
