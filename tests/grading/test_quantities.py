"""Numbers with and without units: read exactly, compared strictly."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.grading.quantities import clean, read_quantity, same_quantity

any_text = st.text(st.characters(exclude_categories=()))
pieces = st.lists(
    st.sampled_from([*"0123456789-+.,/%$ {}()^_\\x", r"\frac", r"\text{ cm}", r"\$", " million", r"\overline", " cm"])
).map("".join)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", 5, ""),
        ("-5.50", Fraction(-11, 2), ""),
        ("1,234,567", 1_234_567, ""),
        ("1 234 567", 1_234_567, ""),
        (r"1\,234", 1234, ""),
        (r"1{,}234", 1234, ""),
        ("3/4", Fraction(3, 4), ""),
        (r"-\dfrac{3}{4}", Fraction(-3, 4), ""),
        (r"\frac{-3}{4}", Fraction(-3, 4), ""),
        (r"\frac 34", Fraction(3, 4), ""),
        (r"1\frac{3}{4}", Fraction(7, 4), ""),
        (r"-1\frac34", Fraction(-7, 4), ""),
        ("1 3/4", Fraction(7, 4), ""),
        (r"0.1\overline{6}", Fraction(1, 6), ""),
        (r".\overline{142857}", Fraction(1, 7), ""),
        (r"2.5 \times 10^{-3}", Fraction(1, 400), ""),
        (r"50\%", 50, "percent"),
        ("50 percent", 50, "percent"),
        (r"\$1,200", 1200, "dollar"),
        (r"-\$5", -5, "dollar"),
        ("5 dollars", 5, "dollar"),
        ("€5", 5, "euro"),
        ("2.5 million", 2_500_000, ""),
        (r"\$2.5 \text{ million}", 2_500_000, "dollar"),
        ("5 cm", 5, "cm"),
        (r"5\text{cm}", 5, "cm"),
        (r"5\,\mathrm{cm}", 5, "cm"),
        ("5 centimetres", 5, "cm"),
        ("5 cm^2", 5, "cm^2"),
        (r"5 \text{ cm}^{2}", 5, "cm^2"),
        (r"5 \text{ cm}^2", 5, "cm^2"),
        ("5 square centimeters", 5, "cm^2"),
        (r"5 \text{ sq. cm}", 5, "cm^2"),
        (r"5 \text{ m/s}", 5, "m/s"),
        (r"5 \text{ meters per second}", 5, "m/s"),
        (r"90^\circ", 90, "degree"),
        ("90°", 90, "degree"),
        ("12 units", 12, ""),
        (r"12 \text{ apples}", 12, "apple"),
    ],
)
def test_what_is_read(text, value, unit):
    found = read_quantity(text)
    assert found is not None
    assert (found.value, found.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "5x", "5m", "5 m", "5xyz", "5 or 6", "5 and 6", "5, 6", "1/0", r"\frac{1}{0}", r"\sqrt{4}", r"2\pi"),
        *("5 squared", "5 pi", "(5)", "5!", "2^3", "3:30", r"3\frac{5}{4}", "5 hours 20 minutes", "half", "--5", "e5"),
        *(r"5\mathrm{i}", r"5\mathrm{e}", "5" * 200, r"€5 \$ 6"),
    ],
)
def test_what_is_no_quantity(text):
    assert read_quantity(text) is None


@settings(deadline=None)
@given(any_text | pieces)
def test_any_text_is_read_or_not(text):
    found = read_quantity(text)
    clean(text)
    assert found is None or same_quantity(found, found)


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_an_expansion_stands_for_its_fraction_only_where_it_is_long_enough(top, bottom):
    exact = Fraction(top, bottom)
    written, gold = read_quantity(f"{float(exact):.3f}"), read_quantity(f"{top}/{bottom}")
    assert written is not None
    assert gold is not None
    if same_quantity(written, gold) and written.value != exact:
        assert abs(written.value - exact) <= abs(exact) / 10**5


@settings(deadline=None)
@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.sampled_from(["cm", "m", "kg", "cm^2", "euros", "hours"]))
def test_units_agree_with_themselves_and_with_none(left, right, unit):
    first, second = read_quantity(rf"{left} \text{{ {unit}}}"), read_quantity(str(right))
    other = read_quantity(rf"{left} \text{{ mm}}")
    assert first is not None
    assert second is not None
    assert other is not None
    assert same_quantity(first, second) == (left == right)
    assert not same_quantity(first, other)


@pytest.mark.parametrize(
    "piece", ["1", "1,", "{", "\\", " ", r"\text{", "1 cm ", r"\frac{1}", "-", ".", "^2", "$", "*"]
)
def test_long_texts_are_cleaned_in_linear_time(piece):
    clean(piece * 200_000)  # quadratic time would be hours
