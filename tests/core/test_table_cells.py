"""What a table's cells hold, as a person would write it."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.table_cells import CellError, answer_text, plain_row
from distill.errors import ProblemError
from distill.recipe.problems import ProblemSource
from distill.sources.problems import load_problems
from distill.sources.tables import file_rows

DAY = datetime.date(2031, 5, 17)
MIDNIGHT = datetime.datetime.fromisoformat("2031-05-17")
MORNING = datetime.datetime.fromisoformat("2031-05-17T08:30:00")


def read(tmp_path, values, kind, on_bad=None):
    """The values after a way through a Parquet file."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": pa.array(values, kind)}), path)
    rows = file_rows(path) if on_bad is None else file_rows(path, on_bad)
    return [row["a"] for _, row in rows]


@pytest.mark.parametrize(
    ("kind", "values", "plain"),
    [
        (pa.float32(), [0.3, 1e-5, 16.0, None], [0.3, 1e-5, 16.0, None]),
        (pa.float16(), [0.3, 2.5], [0.3, 2.5]),
        (pa.float64(), [0.1 + 0.2], [0.1 + 0.2]),
        (pa.binary(), [b"0.3", "é".encode(), None], ["0.3", "é", None]),
        (pa.large_binary(), [b"0.3"], ["0.3"]),
        (pa.binary(3), [b"0.3"], ["0.3"]),
        (pa.binary_view(), [b"0.3"], ["0.3"]),
        (pa.list_(pa.float32()), [[0.3, None], None, []], [[0.3, None], None, []]),
        (pa.large_list(pa.binary()), [[b"x"]], [["x"]]),
        (pa.list_(pa.float32(), 2), [[0.3, 0.7]], [[0.3, 0.7]]),
        (pa.struct([("b", pa.float32()), ("c", pa.struct([("d", pa.binary())]))]),
         [{"b": 0.3, "c": {"d": b"x"}}, {"b": None, "c": None}, None],
         [{"b": 0.3, "c": {"d": "x"}}, {"b": None, "c": None}, None]),
        (pa.map_(pa.string(), pa.float32()), [[("x", 0.3)]], [[["x", 0.3]]]),
        (pa.dictionary(pa.int32(), pa.binary()), [b"x", b"x"], ["x", "x"]),
        (pa.string_view(), ["x"], ["x"]),
        (pa.large_string(), ["x" * 9], ["x" * 9]),
    ],
    ids=str,
)  # fmt: skip
def test_values_come_out_of_parquet_as_they_were_written_down(tmp_path, kind, values, plain):
    assert read(tmp_path, values, kind) == plain


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_has_its_own_shortest_form(value):
    convert = plain_row(pa.schema([("a", pa.float32())]))
    plain = convert({"a": value})["a"]
    assert np.float32(plain) == np.float32(value)
    assert num_digits(plain) <= num_digits(value)


def num_digits(value):
    """Significant digits of a number's shortest form."""
    return len(decimal.Decimal(repr(value)).normalize().as_tuple().digits)


def test_bytes_that_are_no_text_stay_bytes(tmp_path):
    assert read(tmp_path, [b"\xff\xfe", b"x"], pa.binary()) == [b"\xff\xfe", "x"]


def test_a_moment_that_python_does_not_know_costs_its_row_alone(tmp_path):
    bad = []
    kept = read(tmp_path, [0, 2**62, 1], pa.timestamp("us"), lambda place, why: bad.append((place, why)))
    assert len(kept) == 2
    ((place, why),) = bad
    assert place.endswith("row 2")
    assert "out of range" in why


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None), ("72", "72"), ("", ""), (72, "72"), (72.0, "72"), (-0.5, "-0.5"), (0.1, "0.1"), (1e-05, "1e-05"),
        (1e22, "1e+22"), (float("nan"), None), (float("inf"), "inf"), (True, "True"), ([], None), ({"a": 1}, None),
        (decimal.Decimal("72.00"), "72"), (decimal.Decimal("0.10"), "0.1"), (decimal.Decimal("-0.0"), "0"),
        (decimal.Decimal("1E+3"), "1000"), (decimal.Decimal("NaN"), None), (decimal.Decimal("1E+999"), "1E+999"),
        (DAY, "2031-05-17"), (MIDNIGHT, "2031-05-17"),
        (MORNING, "2031-05-17 08:30:00"), (datetime.time(8, 30), "08:30:00"),
        (np.float64(0.25), "0.25"),
    ],
)  # fmt: skip
def test_a_value_as_an_answer(value, text):
    assert answer_text(value) == text


def test_a_moment_of_nanoseconds_is_read(tmp_path):
    (value,) = read(tmp_path, [1_000_000_000], pa.timestamp("ns"))
    assert answer_text(value) == "1970-01-01 00:00:01"


def test_bytes_that_are_no_text_are_no_answer(tmp_path):
    with pytest.raises(CellError, match="not UTF-8 text"):
        answer_text(b"\xff")
    path = tmp_path / "rows.parquet"
    rows = {"problem": ["6 + 3?", "1 + 1?"], "answer": pa.array([b"9", b"\xff"])}
    pq.write_table(pa.table(rows), path)
    with pytest.raises(ProblemError, match=r"row 2: the answer in column 'answer' is bytes that are not UTF-8 text"):
        load_problems(ProblemSource(source=f"file:{path}"), 0)


@pytest.mark.parametrize(("kind", "answer"), [(pa.float32(), "0.3"), (pa.binary(), "0.3"), (pa.float16(), "0.3")])
def test_answers_of_problems_from_parquet(tmp_path, kind, answer):
    path = tmp_path / "rows.parquet"
    values = [b"0.3"] if kind == pa.binary() else [0.3]
    pq.write_table(pa.table({"problem": ["6 / 20?"], "answer": pa.array(values, kind)}), path)
    (problem,) = load_problems(ProblemSource(source=f"file:{path}"), 0)
    assert problem.answer == answer


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("value", "why"), [("9" * 5_000, "a number of more than 4,300 digits"), ("[" * 100_000, "nested too deeply")]
)
def test_json_that_python_cannot_read_is_told_in_plain_words(tmp_path, suffix, value, why):
    path = tmp_path / f"rows{suffix}"
    row = f'{{"a": {value}}}'
    path.write_text(f"[{row}]" if suffix == ".json" else row)
    with pytest.raises(ProblemError) as caught:
        list(file_rows(path))
    assert why in str(caught.value) or "not valid JSON" in str(caught.value)
    assert "set_int_max_str_digits" not in str(caught.value)
