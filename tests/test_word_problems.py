"""Tests of data/word_problems.jsonl: it is what its script makes, and its rows are as data/README.md says."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
COLUMNS = {"id": str, "problem": str, "answer": str, "num_steps": int, "template": str}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_word_problems", DATA / "make_word_problems.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "word_problems.jsonl").read_text(encoding="utf-8").splitlines()]


def test_file_is_what_the_script_makes(script: ModuleType) -> None:
    assert (DATA / "word_problems.jsonl").read_bytes() == script.render().encode("utf-8")


def test_check_tells_same_changed_and_missing_files_apart(script: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "made.jsonl"
    check = ["--check", "--out", str(out)]
    assert script.main(check) == 1
    assert not out.exists()
    assert script.main(["--out", str(out)]) == 0
    assert script.main(check) == 0
    out.write_bytes(out.read_bytes().replace(b"word-001", b"word-999"))
    assert script.main(check) == 1


def test_columns(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert {name: type(value) for name, value in row.items()} == COLUMNS
        assert list(row) == list(COLUMNS)


def test_ids_and_texts_are_distinct(rows: list[dict[str, Any]]) -> None:
    assert [row["id"] for row in rows] == [f"word-{n:03d}" for n in range(1, 241)]
    assert len({row["problem"] for row in rows}) == len(rows)


def test_answers_are_whole_and_not_negative(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert re.fullmatch(r"0|[1-9]\d*", row["answer"]), row


def test_steps_and_templates(rows: list[dict[str, Any]]) -> None:
    assert {row["num_steps"] for row in rows} == {1, 2, 3, 4}
    per_template = Counter(row["template"] for row in rows)
    assert len(per_template) == 48
    assert set(per_template.values()) == {5}


def test_wording(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        text = row["problem"]
        assert text.endswith("?"), row
        assert not re.search(r"  |[{}]", text), row
        assert not re.search(r"(?<![-\d])1 (?!part)[a-z]+s\b", text), row  # "1 apples"
        assert not re.search(r"\ba [aeio]", text, re.IGNORECASE), row  # "a apple"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        # solved by hand from the text, not from the script
        ("39 booklets of 30 pages each. It prints 6 pages a minute", 195),
        ("24 students. Exactly a quarter of the students come on foot, and exactly a sixth", 14),
        ("scores 16, 19 and 16 points", 17),
    ],
)
def test_some_answers_solved_by_hand(rows: list[dict[str, Any]], words: str, answer: int) -> None:
    assert [row["answer"] for row in rows if words in row["problem"]] == [str(answer)]
