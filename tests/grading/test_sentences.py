"""Sentences and capitalised words of English texts, as IFEval counts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.grading.sentences import capital_words, sentences

any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from(".?!\"') \nA."))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \n ", []),
        ("No end", ["No end"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("What?! No...", ["What?!", "No..."]),
        ("A title\n\nA sentence.", ["A title A sentence."]),
        ("Mr. Lee and Dr. Wu met St. John at 5 p.m. on Jan. 3.", None),
        ("He lives in the U.S. The house is old.", ["He lives in the U.S.", "The house is old."]),
        ("It costs 3.50 at example.com today.", None),
        ("John F. Kennedy and J.K. Rowling and Philip K. Dick.", None),
        ("Go to point B. Then stop.", ["Go to point B.", "Then stop."]),
        ("1. Mix\n2. Bake", ["1.", "Mix 2.", "Bake"]),
        ("It was room 5. and then", None),
        ("Bring food, e.g. bread.", ["Bring food, e.g.", "bread."]),
        ('She said "Go." He went.', ['She said "Go."', "He went."]),
        ("(It rained.) We left.", ["(It rained.)", "We left."]),
        ("**Rain.** It fell.", ["**Rain.", "** It fell."]),
        ("Well... the end. So... The end.", ["Well... the end.", "So...", "The end."]),
        ("P.S. Bring bread.", ["P.S.", "Bring bread."]),
    ],
)
def test_sentences(text, found):
    assert list(sentences(text)) == ([text] if found is None else found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I SAW A UFO.", ["I", "SAW", "A", "UFO."]),
        ("iPhone Ufo ufo 123 !", []),
        ("WELL-KNOWN--TOO", ["WELL-KNOWN", "TOO"]),
        ("(NASA),ESA/JAXA", ["NASA", "ESA/JAXA"]),
        ("I'M, I'll, NASA's, DON'T", ["I", "'M", "I", "NASA", "DO", "N'T"]),
        ("WAIT...WHAT", ["WAIT", "WHAT"]),
        ("A1 B,2 3,C", ["A1", "B,2", "C"]),
        ("ÉTÉ ДА 东", ["ÉTÉ", "ДА"]),
    ],
)
def test_capital_words(text, found):
    assert list(capital_words(text)) == found


@given(any_text)
def test_no_word_is_lost(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
