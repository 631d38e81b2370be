"""Expected answers as data sets store them: indices, labels, letters, texts."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.grading.golds import ChoiceGold, UnreadableGoldError, read_choice_golds

GASES = ("oxygen", "argon", "iron", "chlorine")
NUMBERS = ("2", "3", "4", "5")


def read(*rows, first_index=None, **keys):
    """The letters or texts of (value, options) rows."""
    return read_choice_golds([ChoiceGold(f"row {i}", v, o, **keys) for i, (v, o) in enumerate(rows)], first_index)


def refused(*rows, first_index=None, **keys):
    with pytest.raises(UnreadableGoldError) as caught:
        read(*rows, first_index=first_index, **keys)
    return caught.value


def test_numbers_beside_texts_are_indices_from_0():
    assert read((2, NUMBERS), (1, GASES), (3, NUMBERS)) == ["C", "B", "D"]
    assert read((2, NUMBERS)) == ["C"]
    assert read((2.0, GASES)) == ["C"]


def test_an_answer_as_large_as_the_number_of_options_shows_that_they_count_from_1():
    assert read((4, GASES), (1, GASES)) == ["D", "A"]
    assert read(("4", GASES), ("1", GASES)) == ["D", "A"]


def test_digits_are_read_as_what_is_possible_in_every_row():
    assert read(("0", GASES), ("3", GASES)) == ["A", "D"]
    assert read(("5", NUMBERS), ("2", NUMBERS)) == ["D", "A"]
    assert read(("2", NUMBERS), ("0", GASES)) == ["C", "A"]


@pytest.mark.parametrize("row", [("2", NUMBERS), ("2", GASES)])
def test_digits_with_two_meanings_are_refused_with_the_row(row):
    assert refused(row).places == ["row 0"]
    assert "no other row" in refused(row).why
    assert read(row, first_index=0) == ["C"]
    assert read(row, first_index=1) == ["B"]


def test_a_number_beside_numbers_may_be_one_of_them():
    assert refused((2, NUMBERS), has_number_options=True).places == ["row 0"]
    assert read((5, NUMBERS), (2, NUMBERS), has_number_options=True) == ["D", "A"]


def test_numbers_among_letters_and_texts_are_texts():
    assert read((5, NUMBERS), ("B", GASES), ("argon", GASES)) == ["D", "B", "argon"]


@pytest.mark.parametrize(("value", "options"), [("E", GASES), ("neon", GASES), ("BC", GASES), ("neon", ())])
def test_what_names_no_option_is_refused(value, options):
    found = refused(("A", GASES), (value, options), ("Z", GASES))
    assert found.places == ["row 1", "row 2"]
    assert repr(value) in found.why


def test_an_index_out_of_range_is_refused_with_its_row():
    found = refused((0, GASES), (7, GASES), (3, GASES))
    assert found.places == ["row 1"]
    assert "7" in found.why


def test_labels_of_the_row_come_first():
    assert read(("3", GASES), labels=("1", "2", "3", "4")) == ["C"]
    assert read(("iron", GASES), labels=("1", "2", "3", "4")) == ["iron"]


def test_true_and_false_are_texts():
    assert read((True, ("True", "False"))) == ["True"]


@given(st.lists(st.tuples(st.integers(0, 3) | st.sampled_from(["0", "2", "A", "iron"]), st.just(GASES)), max_size=6))
def test_whatever_is_read_names_an_option(rows):
    with contextlib.suppress(UnreadableGoldError):
        found = read(*rows)
        assert len(found) == len(rows)
        assert set(found) <= {"A", "B", "C", "D", "iron"}
