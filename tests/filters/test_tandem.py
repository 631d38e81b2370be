"""Pieces that follow themselves are found wherever they stand, and tables and enumerations are not among them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.readability import measure, unreadable
from distill.filters.repetition import loop_spans
from distill.filters.tandem import MAX_PERIOD_CHARS, MIN_RUN_CHARS, find_runs
from distill.recipe.filter import Readability

THRESHOLDS = Readability()


def prose(num_words, seed=0):
    dice = random.Random(seed)
    words = [a + b + c for a in ("re", "in", "con", "de") for b in ("tra", "vis", "por", "mit") for c in "aeio"]
    return " ".join(dice.choices(words, k=num_words))


BEFORE, AFTER = ("\n\n".join(prose(80, seed) + "." for seed in range(first, first + 12)) for first in (100, 200))


def reasons(reasoning, content):
    return unreadable(measure(reasoning, content, None), THRESHOLDS)


@pytest.mark.parametrize(
    "piece",
    [
        "Wait, let me check again. ",
        "Hmm, no.\n",
        "So $x = \\frac{1}{2}$, which gives $x^2 = \\frac{1}{4}$. ",
        "让我再检查一遍这个计算。",
        "Is it 7? No. Is it 8? No.\n\n",
        prose(40, 5) + "\n\n",
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_loop_in_the_thought_is_a_reason_though_the_answer_is_proper(piece, place):
    loop = piece * (60 if len(piece) < 60 else 12)
    reasoning = {"first": loop + BEFORE, "middle": f"{BEFORE} {loop}{AFTER}", "last": f"{BEFORE}\n\n{loop}"}[place]
    assert reasons(reasoning, "The answer is \\boxed{7}.") == ["repetition"]
    assert reasons(BEFORE + AFTER, "The answer is \\boxed{7}.") == []


def test_a_loop_in_the_answer_is_a_reason_too():
    assert reasons(BEFORE, "So it is seven, is it? " * 30 + AFTER) == ["repetition"]


def test_a_few_repeats_of_a_long_paragraph_are_a_loop_by_their_length():
    paragraph = prose(60, 8) + ".\n\n"
    assert reasons(BEFORE + paragraph * 3 + AFTER, "7") == ["repetition"]
    assert reasons(BEFORE + paragraph * 2 + AFTER, "7") == []


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{n}. Divide by {n}: the rest is {1_001 % n}." for n in range(2, 90)),
        "\\begin{pmatrix}" + "0 & 0 & 0 & 0 \\\\\n" * 30 + "\\end{pmatrix}",
        "|---" * 200 + "|",
        "1/3 = 0." + "3" * 900,
        "- " * 400,
        "\n\n".join(
            f"Case {n}: then the rest is {n * n % 17}, and so it does not divide {n + 100}." for n in range(60)
        ),
        "Let me check. It is right. " * 3,
    ],
)
def test_tables_enumerations_and_numbers_are_no_loop(text):
    assert reasons(f"{BEFORE}\n\n{text}\n\n{AFTER}", "7") == []


@settings(deadline=None, max_examples=60)
@given(st.integers(20, MAX_PERIOD_CHARS), st.integers(0, 1_000), st.integers(3, 12), st.integers(0, 10**9))
def test_a_run_is_found_with_its_place_and_its_period(period, before, repeats, seed):
    # Not `st.randoms()`, which may draw one letter all the time: such a piece has another period, and is no loop.
    dice = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz "
    piece = "".join(dice.choices(letters, k=period))
    text = "".join(dice.choices("ABCDEFGHIJ", k=before)) + piece * repeats + "0123456789" * 2
    runs = find_runs(text)
    if period * repeats < MIN_RUN_CHARS:
        return
    (run,) = runs
    assert (run.start, run.end) == (before, before + period * repeats)
    assert run.num_repeats >= repeats
    assert period % run.period == 0


@pytest.mark.parametrize(("period", "repeats"), [(75, 4), (78, 4), (100, 3), (101, 3), (111, 3), (60, 5)])
def test_the_shortest_runs_are_found_wherever_they_begin(period, repeats):
    dice = random.Random(period)
    piece = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz ", k=period))
    for before in range(400):
        text = "".join(dice.choices("ABCDEFGHIJ", k=before)) + piece * repeats + "0123456789" * 2
        assert find_runs(text) == [(before, before + period * repeats, period)], before


@given(st.text(max_size=30), st.text(min_size=1, max_size=60), st.integers(1, 400), st.text(max_size=30))
def test_spans_lie_in_the_text_and_apart(before, piece, times, after):
    text = before + piece * times + after
    last = 0
    for start, end in loop_spans(text):
        assert last <= start < end <= len(text)
        last = end


@pytest.mark.parametrize("piece", ["a", "ab", "x" * 4_000 + "y", "abc 12 ", "q " * 2_000 + "r"])
def test_runs_of_millions_of_characters_end(piece):
    text = piece * (2_000_000 // len(piece))  # quadratic time would take hours
    assert all(run.end <= len(text) for run in find_runs(text))
