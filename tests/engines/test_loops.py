from hypothesis import given
from hypothesis import strategies as st

from distill.engines.loops import loop_period
from distill.recipe.sampling import LoopStop

SMALL = LoopStop(min_repeats=3, min_tokens=16, max_period=20)


def naive(tokens, loops):
    """The definition, word for word."""
    for period in range(1, loops.max_period + 1):
        stretch = max(loops.min_tokens, loops.min_repeats * period)
        tail = tokens[-stretch:]
        if len(tail) == stretch and tail[period:] == tail[:-period]:
            return period
    return None


@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.lists(st.integers(0, 3), min_size=1, max_size=25),
    st.integers(0, 12),
    st.integers(0, 24),
)
def test_it_is_the_definition(before, piece, repeats, cut):
    tokens = before + piece * repeats + piece[:cut]
    assert loop_period(tokens, SMALL) == naive(tokens, SMALL)


def test_a_loop_is_found_wherever_its_piece_is_cut():
    piece = list(range(100, 140))
    loops = LoopStop(min_repeats=4, min_tokens=64, max_period=50)
    for cut in range(40):
        assert loop_period([1, 2, 3, *piece * 4, *piece[:cut]], loops) == 40


def test_counting_and_changing_tables_are_no_loops():
    assert loop_period(list(range(5_000)), LoopStop()) is None
    rows = [token for i in range(300) for token in (7, 8, 9, i, 10)]
    assert loop_period(rows, LoopStop()) is None


def test_a_short_repetition_is_left_alone():
    assert loop_period([5] * 255, LoopStop()) is None
    assert loop_period([5] * 256, LoopStop()) == 1
