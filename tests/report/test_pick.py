"""Which traces are shown: every kind of them, and the same ones whatever the order they come in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from distill.report.pick import Picker


def picked(offers, num):
    picker = Picker(num)
    for stratum, key in offers:
        picker.offer(stratum, key, key)
    return picker.chosen()


def offers_of(sizes):
    return [(name, (f"{name}{i // 2}", i % 2)) for name, size in sizes.items() for i in range(size)]


def test_rare_kinds_are_shown_whole_and_common_ones_share_the_rest():
    offers = offers_of({"kept": 5_000, "wrong": 3_000, "veto": 2, "loop": 11})
    chosen = picked(offers, 100)
    counts = {name: sum(key[0].startswith(name) for key in chosen) for name in ("kept", "wrong", "veto", "loop")}
    assert counts == {"kept": 44, "wrong": 43, "veto": 2, "loop": 11}


def test_the_first_ones_show_every_kind():
    chosen = picked(offers_of({"kept": 50, "wrong": 30, "veto": 1}), 60)
    assert {key[0].rstrip("0123456789") for key in chosen[:3]} == {"kept", "wrong", "veto"}


def test_neither_the_order_nor_how_many_there_are_changes_what_comes_first():
    offers = offers_of({"kept": 400, "wrong": 300})
    shuffled = offers.copy()
    random.Random(1).shuffle(shuffled)
    assert picked(offers, 50) == picked(shuffled, 50)
    assert picked(offers, 200)[:50] == picked(offers, 50)


def test_traces_of_the_same_problems_come_up_in_each_kind():
    offers = [(kind, (f"p{i}", sample)) for i in range(500) for sample, kind in enumerate(("kept", "wrong"))]
    chosen = picked(offers, 40)
    assert {name for name, sample in chosen if sample == 0} == {name for name, sample in chosen if sample == 1}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30)), st.integers(1, 40))
def test_as_many_as_are_wanted_and_there_and_none_twice(sizes, num):
    offers = offers_of(sizes)
    chosen = picked(offers, num)
    assert len(chosen) == len(set(chosen)) == min(num, len(offers))
