"""Parquet is decoded in a confined process: the same rows as pyarrow gives, and no bomb goes off here."""

import datetime
import decimal
import itertools
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import ProblemError
from distill.isolation import CrashError
from distill.sources import parquet_tables as module
from distill.sources.parquet_tables import parquet_rows
from distill.sources.tables import file_rows

ROWS = [
    {
        "text": "é\x00\ud7ff\u2028",
        "number": 2**62,
        "share": 0.1,
        "flag": True,
        "none": None,
        "binary": b"\xff\x00",
        "many": [["a", None], []],
        "struct": {"role": "user", "content": "q", "\0class": "x"},
        "decimal": decimal.Decimal("1.50"),
        "day": datetime.date(2026, 1, 31),
        "moment": datetime.datetime(2026, 1, 31, 12, 30, tzinfo=datetime.UTC),
        "time": datetime.time(23, 59),
    },
    dict.fromkeys(
        ("text", "number", "share", "flag", "none", "binary", "many", "struct", "decimal", "day", "moment", "time")
    ),
]


@pytest.fixture(params=[module.SENT_BYTES, 0], ids=["sent", "read there"])
def any_way(request, monkeypatch):
    """Small files are sent, larger ones are read by the confined process: as if all were either."""
    monkeypatch.setattr(module, "SENT_BYTES", request.param)


def test_rows_are_those_of_pyarrow(tmp_path, any_way):
    table = pa.Table.from_pylist(ROWS * 200)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=90)
    assert list(parquet_rows(tmp_path / "rows.parquet")) == table.to_pylist()


def test_numbers_that_json_has_no_words_for_come_through(tmp_path):
    pq.write_table(pa.table({"x": [math.nan, math.inf, -0.0]}), tmp_path / "rows.parquet")
    assert repr([row["x"] for row in parquet_rows(tmp_path / "rows.parquet")]) == "[nan, inf, -0.0]"


def test_a_row_that_is_no_text_is_told_and_the_others_are_read(tmp_path, any_way):
    column = pa.array([b"a", b"\xff", b"c"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "rows.parquet")
    assert list(parquet_rows(tmp_path / "rows.parquet")) == [
        {"text": "a"},
        "its text is not UTF-8.",
        {"text": "c"},
    ]


def test_a_reader_may_stop_at_any_row(tmp_path, any_way):
    pq.write_table(pa.table({"x": list(range(1_000))}), tmp_path / "rows.parquet")
    rows = parquet_rows(tmp_path / "rows.parquet")
    assert next(rows) == {"x": 0}
    rows.close()


def test_two_files_may_be_read_side_by_side(tmp_path, any_way):
    for name in "ab":
        pq.write_table(pa.table({"x": [f"{name}{i}" for i in range(300)]}), tmp_path / f"{name}.parquet")
    pairs = list(zip(parquet_rows(tmp_path / "a.parquet"), parquet_rows(tmp_path / "b.parquet"), strict=True))
    assert pairs[-1] == ({"x": "a299"}, {"x": "b299"})


# --- bombs


def repeated(path, text, num):
    """A file that says one text so many times by its dictionary."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * num, pa.int32()), pa.array([text]))
    pq.write_table(pa.table({"problem": column}), path, compression="zstd")


def test_a_text_repeated_by_a_dictionary_comes_a_row_at_a_time(tmp_path):
    repeated(tmp_path / "bomb.parquet", "x" * 20_000_000, 3_000)
    assert (tmp_path / "bomb.parquet").stat().st_size < 5_000
    rows = list(itertools.islice(parquet_rows(tmp_path / "bomb.parquet"), 2))
    assert [len(row["problem"]) for row in rows] == [20_000_000] * 2


def test_a_file_that_takes_a_thousand_times_its_size_is_left(tmp_path):
    repeated(tmp_path / "bomb.parquet", "x" * 100_000, 3_000)
    with pytest.raises(ValueError, match="more than a thousand times its size"):
        list(module._answers(pq.ParquetFile(tmp_path / "bomb.parquet"), bytes_left=10_000_000))


@pytest.mark.parametrize(
    "table",
    [
        lambda: pa.table({"problem": pa.array([["y" * 1_000] * 200_000])}),
        lambda: pa.table({"problem": pa.array([[[1] * 10_000_000]])}),
        lambda: pa.table({"problem": pa.array(["z" * 100_000_000])}),
    ],
    ids=["list of texts", "list of lists", "one text"],
)
def test_a_row_as_large_as_a_library_is_refused(tmp_path, table):
    pq.write_table(table(), tmp_path / "bomb.parquet", compression="zstd")
    with pytest.raises(ProblemError, match=r"bomb\.parquet: .*\(a row takes [\d,]+ bytes, of at most"):
        list(parquet_rows(tmp_path / "bomb.parquet"))


def test_a_page_that_swells_beyond_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_GIB", 0.2)
    texts = pa.array(["w" * 300_000_000])
    pq.write_table(pa.table({"problem": texts}), tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 1_000_000
    with pytest.raises(ProblemError, match=r"takes more than 0\.2 GiB of memory"):
        list(parquet_rows(tmp_path / "bomb.parquet"))


def test_rows_without_end_are_refused(tmp_path):
    pq.write_table(pa.table({"problem": pa.nulls(5_000_000)}), tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size * module.MAX_ROWS_PER_BYTE < 5_000_000
    with pytest.raises(ProblemError, match="it claims 5,000,000 rows in"):
        list(parquet_rows(tmp_path / "bomb.parquet"))


@pytest.mark.parametrize(
    "answer", [None, 3, "", "{", "[1]", "[[]]", "[" * 100_000, '[{"a": {"\\u0000class": "date", "text": "x"}}]']
)
def test_what_is_no_list_of_rows_is_refused(answer):
    with pytest.raises(CrashError):
        module._decoded(answer)


# --- lines and places


def test_a_line_without_end_is_left_out_and_the_next_one_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    long = json.dumps({"x": "y" * 500})
    path.write_text(f'{{"x": 1}}\n{long}\n{{"x": 2}}\n{long}')
    bad = []
    rows = [row for _, row in file_rows(path, lambda place, why: bad.append((place, why)), 100)]
    assert rows == [{"x": 1}, {"x": 2}]
    assert [place for place, _ in bad] == [f"file:{path}:2", f"file:{path}:4"]
    with pytest.raises(ProblemError, match=r"rows\.jsonl:2: the line is longer than"):
        list(file_rows(path, max_line_bytes=100))


def test_a_long_line_is_read_if_most_of_it_is_one_text(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.sources.tables.MAX_LINE_BYTES", 100)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"x": "y" * 500}) + "\n" + json.dumps({"x": [[]] * 100}) + "\n" + '{"x": 1}\n')
    bad = []
    rows = [row for _, row in file_rows(path, lambda place, why: bad.append(place), max_line_bytes=1_000)]
    assert rows == [{"x": "y" * 500}, {"x": 1}]
    assert bad == [f"file:{path}:2"]


def test_a_json_file_too_large_to_be_read_whole_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.sources.tables.MAX_JSON_BYTES", 100)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"x": "y" * 200}]))
    with pytest.raises(ProblemError, match="Save it as JSONL"):
        list(file_rows(path))
